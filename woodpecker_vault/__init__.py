"""Woodpecker CI's secrets out of HashiCorp Vault or OpenBao."""

__version__ = "0.1.0"
