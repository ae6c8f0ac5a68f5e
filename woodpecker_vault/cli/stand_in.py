"""A stand-in for the Woodpecker server, for trying things out: its key pair, and its way to sign.

Written after Woodpecker's signer (``server/services/utils/http.go`` and httpsign), not after our verifier.
"""

import base64
import hashlib
from urllib.parse import unquote_to_bytes, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public key as ``/api/signature/public-key`` serves it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key, to be kept in a file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(pem: bytes) -> Ed25519PrivateKey:
    """A private key out of such a file.

    Raises:
        ValueError: there is no ed25519 private key in it.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ValueError("the key is encrypted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 private key")
    return key


def signed_headers(key: Ed25519PrivateKey, url: str, body: bytes | None, created: int) -> dict[str, str]:
    """The headers that Woodpecker's client would send with a request.

    Args:
        key: signs.
        url: the whole URL, percent-encoded.
        body: ``None`` for a request without one, which then has no digest either.
        created: seconds since the epoch.
    """
    parts = urlsplit(url)
    target = unquote_to_bytes(parts.path or "/") + (b"?" + parts.query.encode() if parts.query else b"")
    headers = {}
    components, lines = '"@request-target"', b'"@request-target": ' + target + b"\n"
    if body is not None:
        digest = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        headers = {"Content-Type": "application/json", "Content-Digest": digest}
        components += ' "content-digest"'
        lines += f'"content-digest": {digest}\n'.encode()
    parameters = f'({components});created={created};alg="ed25519"'
    signature = key.sign(lines + f'"@signature-params": {parameters}'.encode())
    return headers | {
        "Signature-Input": f"woodpecker-ci-extensions={parameters}",
        "Signature": f"woodpecker-ci-extensions=:{base64.b64encode(signature).decode()}:",
    }
