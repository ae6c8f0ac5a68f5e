"""TLS: whom to trust, what to show, and what an error of it means in words."""

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


def authority_files(ca_cert: str, ca_path: str) -> list[Path]:
    """The files with the certificate authorities to trust: the one file, and those in the folder.

    Raises:
        OSError: the folder cannot be read.
    """
    files = [Path(ca_cert)] if ca_cert else []
    if ca_path:
        # Where Kubernetes mounts it, the folder holds others, hidden, with the files themselves.
        files += sorted(file for file in Path(ca_path).iterdir() if not file.is_dir())
    return files


def trusting(authorities: Sequence[Path]) -> ssl.SSLContext:
    """What a client needs to trust these authorities, or the system's if there are none.

    Raises:
        OSError: a file cannot be read, or holds no certificate (``ssl.SSLError`` is one, too).
    """
    context = ssl.create_default_context(cafile=authorities[0] if authorities else None)
    for file in authorities[1:]:
        context.load_verify_locations(file)
    # From 3.13 Python asks certificates to keep to every detail of RFC 5280. Those of many private authorities do not
    # (no key identifiers, basicConstraints not critical), and Vault's own tools, written in Go, accept them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Python 3.13 and Go also take an intermediate authority that is given as one to trust.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Show this certificate; its key may be in the same file.

    Raises:
        OSError, ValueError: they cannot be read, do not belong together, or the key is encrypted.
    """
    context.load_cert_chain(certificate, key or None, password=_ask_nobody)


def serving(certificate: str, key: str) -> ssl.SSLContext:
    """What a server needs to show this certificate.

    Raises:
        OSError, ValueError: it cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_pair(context, certificate, key)
    return context


def _ask_nobody() -> str:
    raise ValueError("the private key is encrypted")  # OpenSSL would ask for its password at the terminal


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom we speak to, and the settings that matter for it.

    Attributes:
        name: ``"Vault"``.
        address: the setting with its address.
        authority: the setting with the certificate authority to trust.
        name_to_expect: the setting with the name in its certificate, or empty if there is none.
        certificate: the setting with our own certificate, or empty if there is none.
    """

    name: str
    address: str
    authority: str
    name_to_expect: str = ""
    certificate: str = ""


_VALIDITY = frozenset({9, 10})
"""OpenSSL's ``X509_V_ERR_CERT_NOT_YET_VALID`` and ``X509_V_ERR_CERT_HAS_EXPIRED``."""

_NAMES = frozenset({62, 63, 64})
"""``X509_V_ERR_HOSTNAME_MISMATCH``, ``…_EMAIL_MISMATCH`` and ``…_IP_ADDRESS_MISMATCH``."""

_UNKNOWN_AUTHORITY = frozenset({2, 7, 18, 19, 20, 21, 27, 30})
"""``X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT`` and the like: the chain leads to nobody who is trusted, or only to an
authority of the same name (7 and 30), as after it was made anew."""

_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")
_OUR_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR")
_NO_COMMON_GROUND = ("PROTOCOL_VERSION", "HANDSHAKE_FAILURE", "INSUFFICIENT_SECURITY", "UNSUPPORTED_PROTOCOL")


def trouble(error: BaseException, peer: Peer) -> str:
    """What is wrong with TLS and what to do about it; empty if the error has nothing to do with TLS."""
    # The innermost: libraries wrap it in errors that are of the same class, and know nothing.
    found = next((one for one in reversed(list(_chain(error))) if isinstance(one, ssl.SSLError)), None)
    if found is None:
        return ""
    if isinstance(found, ssl.SSLCertVerificationError):
        return _refused_by_us(found, peer)
    return _failed(found.reason or "", peer)


def _failed(reason: str, peer: Peer) -> str:
    """In words, what OpenSSL calls by this name. An alert is what the other side said before it hung up."""
    if any(word in reason for word in _NOT_TLS):
        return f"{peer.name} does not speak TLS there: check the port, or write http:// in {peer.address}."
    if "UNRECOGNIZED_NAME" in reason:
        return f"{peer.name} has no certificate for this name: check {_where_names_are(peer)}."
    if "ALERT" in reason and peer.certificate and any(word in reason for word in _OUR_CERTIFICATE):
        return f"{peer.name} refuses the client certificate, or wants one: check {peer.certificate}."
    if any(word in reason for word in _NO_COMMON_GROUND):
        more = f", or it wants a client certificate: check {peer.certificate}" if peer.certificate else ""
        return f"{peer.name} and this service have no TLS version or cipher in common{more}."
    return f"The TLS connection to {peer.name} failed ({reason.replace('_', ' ').lower() or 'no reason given'})."


def _refused_by_us(error: ssl.SSLCertVerificationError, peer: Peer) -> str:
    code = error.verify_code
    if code in _NAMES:
        return f"{peer.name}'s certificate is for another name: check {_where_names_are(peer)}."
    if code in _VALIDITY:
        return f"{peer.name}'s certificate has expired or is not valid yet: renew it, or set the clock."
    if code in _UNKNOWN_AUTHORITY:
        return f"{peer.name}'s certificate is not trusted: set {peer.authority} to the authority that signed it."
    return f"{peer.name}'s certificate is refused ({error.verify_message}): check it and {peer.authority}."


def _where_names_are(peer: Peer) -> str:
    return f"{peer.address}, or set {peer.name_to_expect}" if peer.name_to_expect else peer.address


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
