"""Is this request from Woodpecker, unchanged and fresh?

RFC 9421 (HTTP Message Signatures) with ed25519, RFC 9530 (``Content-Digest``), and the one profile of both that
Woodpecker's signer produces. Pure: the keys, the time and every byte come in as arguments.

Neither the method nor the host is covered by Woodpecker's signature; :mod:`woodpecker_vault.replay` guards the first,
a secret ``server.base_path`` the second.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from http_sfv.dictionary import Dictionary
from http_sfv.item import InnerList

from woodpecker_vault.errors import SignatureRefused, UnknownKey

LABEL = "woodpecker-ci-extensions"
"""The name under which Woodpecker puts its signature into both signature fields."""

_DIGESTS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
"""The active algorithms of RFC 9530 section 5 that are fit for this."""

_MAX_FIELD = 512
"""Characters of a structured field: parsing takes quadratic time, and strangers may send one."""

_P = 2**255 - 19
_ORDER_8_Y = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})
"""The y of every ed25519 point of order 1, 2, 4 or 8, under which a signature can be made without a private key."""

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far a signature's ``created`` may be from now, in seconds."""

    max_age: float
    max_clock_skew: float


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A request whose head is verified; its body is not, until :func:`verify_body` has seen it."""

    signature: bytes
    key: Ed25519PublicKey
    content_digest: str | None = field(default=None)


def load_public_key(pem: str) -> Ed25519PublicKey:
    """Read an ed25519 public key from PEM (SubjectPublicKeyInfo), as Woodpecker serves it.

    Raises:
        ValueError: the text is no PEM public key, or the key is of another kind.
    """
    try:
        key = load_pem_public_key(pem.strip().encode())
    except Exception as error:
        raise ValueError("not a PEM public key (-----BEGIN PUBLIC KEY-----)") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a public key, but not an ed25519 one")
    y = int.from_bytes(key.public_bytes_raw(), "little") % 2**255  # the highest bit is the sign of x (RFC 8032, 5.1.2)
    if y % _P in _SMALL_ORDER_Y:
        raise ValueError("a weak ed25519 key (a point of small order): anybody could sign for it")
    return key


def verify(
    *,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    keys: Iterable[Ed25519PublicKey],
    now: float,
    freshness: Freshness,
) -> SignedHead:
    """Verify a whole request at once: :func:`verify_head`, then :func:`verify_body`.

    Raises:
        SignatureRefused: the request must not be believed.
    """
    head = verify_head(method=method, target=target, headers=headers, keys=keys, now=now, freshness=freshness)
    verify_body(head, body)
    return head


def verify_head(
    *,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    keys: Iterable[Ed25519PublicKey],
    now: float,
    freshness: Freshness,
) -> SignedHead:
    """Verify all of a request but its body, so that nothing need be read from a stranger.

    Args:
        method: the request's method.
        target: the request target exactly as received, path and query.
        headers: every header field line, in the order received.
        keys: any one of these may verify.
        now: seconds since the epoch.
        freshness: the window for ``created``.

    Raises:
        UnknownKey: all is in order but the key.
        SignatureRefused: anything else that is wrong.
    """
    fields = _combined(headers)
    keys = tuple(keys)
    covered, parameters = _inner_list(fields)
    signature = _signature_bytes(fields)
    _check_parameters(covered.params, now, freshness)
    components = _component_names(covered)
    if "@request-target" not in components:
        raise SignatureRefused("The signature does not cover @request-target.")
    digest = fields.get("content-digest") if "content-digest" in components else None
    for base in _signature_bases(components, parameters, method, target, fields):
        for key in keys:
            try:
                key.verify(signature, base)
            except InvalidSignature:
                continue
            return SignedHead(signature, key, digest)
    raise UnknownKey(
        "No known key verifies this signature: check that woodpecker.public_keys, public_key_files or server_url"
        " name the server that sends this, and that no proxy rewrites the path (server.base_path)."
    )


def verify_body(head: SignedHead, body: bytes) -> None:
    """Check the bytes received against the digest that the signature covers (RFC 9530 section 2).

    Every known algorithm in the field must agree, and at least one must be known. Only an empty body may go
    without a covered digest.

    Raises:
        SignatureRefused: the body is not the one that was signed.
    """
    if head.content_digest is None:
        if body:
            raise SignatureRefused("The request has a body, but its signature does not cover content-digest.")
        return
    members = _dictionary("Content-Digest", head.content_digest)
    known = _DIGESTS.keys() & members.keys()
    if not known:
        raise SignatureRefused("Content-Digest names no algorithm that can be checked here: use sha-256.")
    for algorithm in known:
        claimed = getattr(members[algorithm], "value", None)
        actual = _DIGESTS[algorithm](body).digest()
        if not isinstance(claimed, bytes) or not hmac.compare_digest(claimed, actual):
            raise SignatureRefused("Content-Digest is not the digest of the body that arrived.")


def _combined(headers: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Field values by lower-case name; several lines of one name joined as RFC 9421 section 2.1 says."""
    lines: dict[str, list[str]] = {}
    for name, value in headers:
        lines.setdefault(name.lower(), []).append(value.strip(" \t"))
    return {name: ", ".join(values) for name, values in lines.items()}


def _dictionary(field_name: str, value: str) -> Dictionary:
    if len(value) > _MAX_FIELD:
        raise SignatureRefused(f"{field_name} is longer than any signer writes it.")
    parsed = Dictionary()
    try:
        parsed.parse(value.encode("ascii"))
    except (ValueError, RecursionError) as error:
        raise SignatureRefused(f"{field_name} is not a structured field dictionary (RFC 8941).") from error
    return parsed


def _inner_list(fields: Mapping[str, str]) -> tuple[InnerList, str]:
    """The covered components with the signature's parameters, parsed and as the text that was signed."""
    text = fields.get("signature-input")
    if text is None:
        raise SignatureRefused("The request is not signed: it has no Signature-Input.")
    dictionary = _dictionary("Signature-Input", text)
    member = dictionary.get(LABEL)
    if not isinstance(member, InnerList):
        raise SignatureRefused(f"Signature-Input has no list of components labelled {LABEL}.")
    # Signers serialise strictly (RFC 9421 section 2.3), each member once. A field in any other form was changed on its
    # way; so what is verified below, the strict form, is also exactly what was received.
    if str(dictionary) != text:
        raise SignatureRefused("Signature-Input is not in the strict form that it was signed in.")
    return member, str(member)


def _signature_bytes(fields: Mapping[str, str]) -> bytes:
    text = fields.get("signature")
    if text is None:
        raise SignatureRefused("The request is not signed: it has no Signature.")
    value = getattr(_dictionary("Signature", text).get(LABEL), "value", None)
    if not isinstance(value, bytes):
        raise SignatureRefused(f"Signature has no bytes labelled {LABEL}.")
    return value


def _check_parameters(parameters: Mapping[str, object], now: float, freshness: Freshness) -> None:
    """RFC 9421 section 2.3, as far as Woodpecker's signer uses it; section 3.2.1 asks for a bound on age."""
    alg = parameters.get("alg")
    if type(alg) is not str or alg != "ed25519":
        raise SignatureRefused('The signature\'s alg must be "ed25519".')
    created = _seconds(parameters, "created")
    if created is None:
        raise SignatureRefused("The signature has no created time.")
    if created - now > freshness.max_clock_skew:
        raise SignatureRefused(
            f"The signature is from {created - now:.0f} s in the future (at most {freshness.max_clock_skew:g} s):"
            " set the clocks, or raise woodpecker.max_clock_skew."
        )
    if now - created > freshness.max_age:
        raise SignatureRefused(
            f"The signature is {now - created:.0f} s old (at most {freshness.max_age:g} s):"
            " set the clocks, or raise woodpecker.max_age."
        )
    expires = _seconds(parameters, "expires")
    if expires is not None and now > expires:
        raise SignatureRefused("The signature has expired.")


def _seconds(parameters: Mapping[str, object], name: str) -> int | None:
    value = parameters.get(name)
    if value is not None and type(value) is not int:
        raise SignatureRefused(f"The signature's {name} is not a whole number of seconds.")
    return value


def _component_names(covered: InnerList) -> Sequence[str]:
    names = []
    for item in covered:
        if type(item.value) is not str or item.params:
            raise SignatureRefused("The signature covers a component in a form that cannot be checked here.")
        names.append(item.value)
    if len(set(names)) != len(names):
        raise SignatureRefused("The signature covers a component twice.")
    return names


def _signature_bases(
    components: Sequence[str], parameters: str, method: str, target: str, fields: Mapping[str, str]
) -> Iterator[bytes]:
    """The signature base (RFC 9421 section 2.5), once for each form that ``@request-target`` may have."""
    for form in _request_targets(target):
        lines = []
        for name in components:
            if name == "@request-target":
                value = form
            elif name == "@method":
                value = method.encode()
            elif name in fields and not name.startswith("@"):
                value = fields[name].encode("utf-8", "surrogateescape")
            else:
                raise SignatureRefused("The signature covers something that the request does not have.")
            lines.append(b'"%b": %b\n' % (name.encode("ascii"), value))
        lines.append(b'"@signature-params": ' + parameters.encode("ascii"))
        yield b"".join(lines)


def _request_targets(target: str) -> Iterator[bytes]:
    """The target as received (RFC 9421 section 2.2.5), then as Woodpecker's signing library writes it.

    That library takes Go's decoded ``url.Path``, and drops a ``?`` with nothing behind it. A control character in
    the decoded form could forge a line of the signature base, so there that form is not offered.
    """
    received = target.encode("utf-8", "surrogateescape")
    if _CONTROL.search(received):
        raise SignatureRefused("The request target holds a control character.")
    if b"#" in received:
        raise SignatureRefused("The request target holds a #, which has no place there (RFC 9112, section 3.2).")
    yield received
    path, _, query = received.partition(b"?")
    decoded = unquote_to_bytes(path) + (b"?" + query if query else b"")
    if decoded != received and not _CONTROL.search(decoded):
        yield decoded
