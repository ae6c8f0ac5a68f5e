"""Requests that Woodpecker's own signer signed, recorded on the wire, against our verifier.

Runs everywhere; ``python -m tests.peers.record`` records them anew, and needs Go.
"""

import base64
import json
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.peers.record import KEY, KINDS, VECTORS
from woodpecker_vault.cli.stand_in import public_pem, signed_headers
from woodpecker_vault.errors import SignatureRefused, UnknownKey
from woodpecker_vault.signature import Freshness, SignedHead, load_public_key, verify

FRESHNESS = Freshness(max_age=30, max_clock_skew=5)
RECORDING: dict[str, Any] = json.loads(VECTORS.read_text())
WOODPECKER = load_public_key(RECORDING["public_key"])


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    kind: str
    method: str
    target: str
    created: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def recorded(cls, vector: dict[str, Any]) -> "Request":
        body = vector["body"].encode() if "body" in vector else base64.b64decode(vector["body_base64"])
        headers = tuple((name, value) for name, value in vector["headers"])
        return cls(vector["kind"], vector["method"], vector["target"], vector["created"], headers, body)

    @property
    def has_digest(self) -> bool:
        return "Content-Digest" in dict(self.headers)

    def with_header(self, name: str, value: str) -> "Request":
        assert name in dict(self.headers)
        changed = tuple((known, value if known == name else old) for known, old in self.headers)
        assert changed != self.headers
        return replace(self, headers=changed)

    def without_header(self, name: str) -> "Request":
        return replace(self, headers=tuple(field for field in self.headers if field[0] != name))

    def verified(self, *, key: Ed25519PublicKey = WOODPECKER, later: float = 0) -> SignedHead:
        """Verify it so many seconds after it was signed."""
        return verify(
            method=self.method,
            target=self.target,
            headers=self.headers,
            body=self.body,
            keys=[key],
            now=self.created + later,
            freshness=FRESHNESS,
        )


REQUESTS = [Request.recorded(vector) for vector in RECORDING["requests"]]
WITH_DIGEST = [request for request in REQUESTS if request.has_digest]
WITHOUT_DIGEST = [request for request in REQUESTS if not request.has_digest]


def each(requests: list[Request]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("request_", requests, ids=lambda request: request.kind)


class TestARecordedRequest:
    @each(REQUESTS)
    @pytest.mark.parametrize("later", [0, 30, -5])
    def test_is_verified_while_it_is_fresh(self, request_: Request, later: float) -> None:
        head = request_.verified(later=later)
        assert head.key == WOODPECKER
        assert (head.content_digest is not None) == request_.has_digest

    @each(REQUESTS)
    def test_is_refused_31_seconds_later(self, request_: Request) -> None:
        with pytest.raises(SignatureRefused, match="31 s old"):
            request_.verified(later=31)

    @each(REQUESTS)
    def test_is_refused_6_seconds_earlier(self, request_: Request) -> None:
        with pytest.raises(SignatureRefused, match="6 s in the future"):
            request_.verified(later=-6)

    @each(REQUESTS)
    def test_is_refused_under_another_key(self, request_: Request) -> None:
        with pytest.raises(UnknownKey):
            request_.verified(key=Ed25519PrivateKey.generate().public_key())

    @each(REQUESTS)
    def test_is_refused_with_a_later_time(self, request_: Request) -> None:
        signed = dict(request_.headers)["Signature-Input"]
        moved = signed.replace(f"created={request_.created}", f"created={request_.created + 1}")
        with pytest.raises(UnknownKey):
            request_.with_header("Signature-Input", moved).verified()

    @each(REQUESTS)
    def test_is_refused_with_a_byte_more(self, request_: Request) -> None:
        with pytest.raises(SignatureRefused):
            replace(request_, body=request_.body + b" ").verified()

    @each([request for request in REQUESTS if request.body])
    @pytest.mark.parametrize("at", [0, -1], ids=["first", "last"])
    def test_is_refused_with_a_byte_changed(self, request_: Request, at: int) -> None:
        changed = bytearray(request_.body)
        changed[at] ^= 1
        with pytest.raises(SignatureRefused, match="not the digest"):
            replace(request_, body=bytes(changed)).verified()

    @each(REQUESTS)
    def test_is_refused_for_another_target(self, request_: Request) -> None:
        path, question_mark, query = request_.target.partition("?")
        for other in (
            f"{path}x{question_mark}{query}",
            f"/x{request_.target}",
            f"{request_.target}{'&' if query else '?'}x=1",
            request_.target.replace("secrets", "Secrets").replace("registries", "Registries"),
            f"{path}%20{question_mark}{query}",
        ):
            assert other != request_.target
            with pytest.raises(UnknownKey):
                replace(request_, target=other).verified()

    @each(REQUESTS)
    def test_is_verified_with_another_method(self, request_: Request) -> None:
        """Woodpecker does not sign the method: this is what ``woodpecker_vault.replay`` is for."""
        other = "DELETE" if request_.method == "GET" else "GET"
        assert replace(request_, method=other).verified() == request_.verified()

    @each([request for request in REQUESTS if "?" in unquote(request.target)])
    def test_is_verified_with_its_question_mark_encoded_or_not(self, request_: Request) -> None:
        """Woodpecker signs the decoded path, where the two look alike; nothing but the signer could tell them apart."""
        path, question_mark, query = request_.target.partition("?")
        other = f"{path}%3F{query}" if question_mark else path.replace("%3F", "?")
        if "%" in query:  # the query is signed as it is sent, the path is not
            with pytest.raises(UnknownKey):
                replace(request_, target=other).verified()
        else:
            assert replace(request_, target=other).verified() == request_.verified()

    @each(REQUESTS)
    def test_is_verified_with_other_headers_beside_the_signed_ones(self, request_: Request) -> None:
        """Neither the host nor the kind of content is signed."""
        changed = request_.with_header("Host", "elsewhere.example").with_header("User-Agent", "curl")
        assert changed.verified() == request_.verified()


class TestTheDigest:
    @each(WITH_DIGEST)
    def test_changed_is_refused(self, request_: Request) -> None:
        other = base64.b64encode(bytes(32)).decode()
        with pytest.raises(UnknownKey):
            request_.with_header("Content-Digest", f"sha-256=:{other}:").verified()

    @each(WITH_DIGEST)
    def test_missing_is_refused(self, request_: Request) -> None:
        with pytest.raises(SignatureRefused):
            request_.without_header("Content-Digest").verified()

    @each(WITHOUT_DIGEST)
    def test_that_is_not_signed_vouches_for_no_body(self, request_: Request) -> None:
        body = b'{"value":"swapped"}'
        signed = dict(signed_headers(Ed25519PrivateKey.generate(), "http://x/", body, 0))
        added = replace(request_, body=body, headers=(*request_.headers, ("Content-Digest", signed["Content-Digest"])))
        with pytest.raises(SignatureRefused, match="does not cover content-digest"):
            added.verified()


class TestTheStandIn:
    @each(REQUESTS)
    def test_signs_as_woodpeckers_signer_does(self, request_: Request) -> None:
        """Byte for byte, so that the tests that sign with it say something about Woodpecker."""
        body = request_.body if request_.has_digest else None
        signed = signed_headers(KEY, f"http://127.0.0.1{request_.target}", body, request_.created)
        for name in ("Content-Digest", "Signature-Input", "Signature"):
            assert signed.get(name) == dict(request_.headers).get(name)


class TestTheRecording:
    def test_holds_every_kind(self) -> None:
        assert [request.kind for request in REQUESTS] == list(KINDS)

    def test_is_signed_with_everybodys_key(self) -> None:
        assert RECORDING["public_key"] == public_pem(KEY)

    @each([request for request in REQUESTS if "%" in request.target.partition("?")[0]])
    def test_has_woodpeckers_signature_on_the_decoded_path(self, request_: Request) -> None:
        """Not on the encoded one, as RFC 9421 section 2.2.5 has it: why the verifier tries both."""
        path, question_mark, query = request_.target.partition("?")
        decoded = unquote(path) + question_mark + query
        lines = [f'"@request-target": {decoded}']
        if request_.has_digest:
            lines.append(f'"content-digest": {dict(request_.headers)["Content-Digest"]}')
        parameters = dict(request_.headers)["Signature-Input"].partition("=")[2]
        lines.append(f'"@signature-params": {parameters}')
        WOODPECKER.verify(request_.verified().signature, "\n".join(lines).encode())
