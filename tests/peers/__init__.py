"""Peers that are not ours: Woodpecker's own signer on the other end of the wire."""
