"""The stand-in for Woodpecker signs as Woodpecker signs: checked against signature bases that are spelled out here."""

import base64
import hashlib
import re

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from woodpecker_vault.cli.stand_in import load_private_key, private_pem, public_pem, signed_headers

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CREATED = 1_795_000_000


def signature_in(headers: dict[str, str]) -> bytes:
    """The bytes that the ``Signature`` field holds under Woodpecker's label."""
    match = re.fullmatch(r"woodpecker-ci-extensions=:([A-Za-z0-9+/=]+):", headers["Signature"])
    assert match, headers["Signature"]
    return base64.b64decode(match[1], validate=True)


def digest_of(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


class TestSignedHeaders:
    def test_a_body_is_signed_by_its_digest_and_the_request_target(self) -> None:
        headers = signed_headers(KEY, "https://vault.example:8080/secrets?x=1", b'{"a":1}', CREATED)
        # printf '{"a":1}' | openssl dgst -sha256 -binary | base64
        digest = "AVq9f1zFei3ZS3WQ8ErYCEJzkF7jPsXOvq5iJ2qX+GI="
        assert digest == digest_of(b'{"a":1}')
        base = (
            '"@request-target": /secrets?x=1\n'
            f'"content-digest": sha-256=:{digest}:\n'
            '"@signature-params": ("@request-target" "content-digest");created=1795000000;alg="ed25519"'
        )
        KEY.public_key().verify(signature_in(headers), base.encode())
        assert headers["Content-Digest"] == f"sha-256=:{digest}:"
        assert headers["Signature-Input"] == (
            'woodpecker-ci-extensions=("@request-target" "content-digest");created=1795000000;alg="ed25519"'
        )
        assert headers["Content-Type"] == "application/json"

    def test_an_empty_body_has_the_digest_of_nothing(self) -> None:
        headers = signed_headers(KEY, "http://h/secrets", b"", CREATED)
        assert headers["Content-Digest"] == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
        base = (
            '"@request-target": /secrets\n'
            '"content-digest": sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\n'
            '"@signature-params": ("@request-target" "content-digest");created=1795000000;alg="ed25519"'
        )
        KEY.public_key().verify(signature_in(headers), base.encode())

    def test_without_a_body_only_the_request_target_is_signed(self) -> None:
        headers = signed_headers(KEY, "http://h/repo/1/secrets/x", None, CREATED)
        base = (
            '"@request-target": /repo/1/secrets/x\n'
            '"@signature-params": ("@request-target");created=1795000000;alg="ed25519"'
        )
        KEY.public_key().verify(signature_in(headers), base.encode())
        assert headers.keys() == {"Signature-Input", "Signature"}

    def test_the_path_is_signed_decoded_and_the_query_as_it_is(self) -> None:
        headers = signed_headers(KEY, "http://h/repo/1/secrets/a%20b%2Fc?q=%20x", None, CREATED)
        base = (
            '"@request-target": /repo/1/secrets/a b/c?q=%20x\n'
            '"@signature-params": ("@request-target");created=1795000000;alg="ed25519"'
        )
        KEY.public_key().verify(signature_in(headers), base.encode())

    def test_a_url_without_a_path_is_signed_as_the_root(self) -> None:
        headers = signed_headers(KEY, "http://h:8080", None, CREATED)
        base = '"@request-target": /\n"@signature-params": ("@request-target");created=1795000000;alg="ed25519"'
        KEY.public_key().verify(signature_in(headers), base.encode())

    def test_the_signature_is_of_this_key_and_no_other(self) -> None:
        headers = signed_headers(KEY, "http://h/", None, CREATED)
        base = '"@request-target": /\n"@signature-params": ("@request-target");created=1795000000;alg="ed25519"'
        with pytest.raises(InvalidSignature):
            Ed25519PrivateKey.generate().public_key().verify(signature_in(headers), base.encode())


class TestPublicPem:
    def test_it_is_a_subject_public_key_info_as_woodpecker_serves_it(self) -> None:
        pem = public_pem(KEY)
        assert pem.startswith("-----BEGIN PUBLIC KEY-----\n")
        loaded = load_pem_public_key(pem.encode())
        assert isinstance(loaded, Ed25519PublicKey)
        assert loaded == KEY.public_key()


class TestLoadPrivateKey:
    def test_it_reads_what_private_pem_wrote(self) -> None:
        assert load_private_key(private_pem(KEY)).public_key() == KEY.public_key()

    def test_a_key_of_another_kind_is_refused(self) -> None:
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with pytest.raises(ValueError, match="not an ed25519 private key"):
            load_private_key(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @pytest.mark.parametrize("pem", [b"", b"no key", public_pem(KEY).encode()])
    def test_what_holds_no_private_key_is_refused(self, pem: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            load_private_key(pem)
