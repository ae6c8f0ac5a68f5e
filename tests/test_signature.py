"""Is this request from Woodpecker, unchanged and fresh?"""

import base64
import string
from collections.abc import Iterable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker_vault.cli.stand_in import private_pem, public_pem, signed_headers
from woodpecker_vault.errors import SignatureRefused, UnknownKey
from woodpecker_vault.signature import Freshness, SignedHead, load_public_key, verify, verify_body, verify_head

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
NOW = 1_795_000_000
FRESHNESS = Freshness(max_age=30.0, max_clock_skew=5.0)

BODY = b"{}"
DIGEST = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"
DIGEST_512 = "sha-512=:J8dGcK23UHX60FjVzq97IMTneGyDuuijL2Jvl4KvNMmjPCBG72D9Knh403jin+yFGAa72aZ4ePOp8c2kgwdj/Q==:"
DIGEST_OF_NOTHING = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"

PARAMETERS = '("@request-target" "content-digest");created=1795000000;alg="ed25519"'
LINES = f'"@request-target": /secrets\n"content-digest": {DIGEST}\n'

ONLY_TARGET = '("@request-target");created=1795000000;alg="ed25519"'

Headers = list[tuple[str, str]]

bounded = settings(max_examples=100, deadline=None)


def signed(
    parameters: str = PARAMETERS, lines: str = LINES, *, digest: str | None = DIGEST, key: Ed25519PrivateKey = KEY
) -> Headers:
    """The headers of a request whose signature base is these lines and these parameters."""
    base = f'{lines}"@signature-params": {parameters}'
    return [
        *([] if digest is None else [("Content-Digest", digest)]),
        ("Signature-Input", f"woodpecker-ci-extensions={parameters}"),
        ("Signature", f"woodpecker-ci-extensions=:{base64.b64encode(key.sign(base.encode())).decode()}:"),
    ]


def signed_target(target: str) -> Headers:
    """The headers of a request without a body, whose signed target is written so."""
    return signed(ONLY_TARGET, f'"@request-target": {target}\n', digest=None)


def replaced(headers: Iterable[tuple[str, str]], name: str, *values: str) -> Headers:
    """The same headers, but these lines for this name."""
    return [header for header in headers if header[0] != name] + [(name, value) for value in values]


def ask(
    headers: Iterable[tuple[str, str]],
    *,
    target: str = "/secrets",
    body: bytes = BODY,
    method: str = "POST",
    keys: Sequence[Ed25519PrivateKey] = (KEY,),
    now: float = NOW,
) -> SignedHead:
    return verify(
        method=method,
        target=target,
        headers=headers,
        body=body,
        keys=[key.public_key() for key in keys],
        now=now,
        freshness=FRESHNESS,
    )


def stand_in(path: str, body: bytes | None = BODY, *, created: int = NOW, key: Ed25519PrivateKey = KEY) -> Headers:
    return list(signed_headers(key, f"https://secrets.example{path}", body, created).items())


class TestVerify:
    def test_accepts_the_example_spelled_out(self) -> None:
        base = (
            b'"@request-target": /secrets?x=1\n'
            b'"content-digest": sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:\n'
            b'"@signature-params": ("@request-target" "content-digest");created=1795000000;alg="ed25519"'
        )
        raw = KEY.sign(base)
        head = verify(
            method="POST",
            target="/secrets?x=1",
            headers=[
                ("Content-Digest", "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"),
                (
                    "Signature-Input",
                    'woodpecker-ci-extensions=("@request-target" "content-digest");created=1795000000;alg="ed25519"',
                ),
                ("Signature", f"woodpecker-ci-extensions=:{base64.b64encode(raw).decode()}:"),
            ],
            body=b"{}",
            keys=[KEY.public_key()],
            now=1_795_000_000,
            freshness=FRESHNESS,
        )
        assert head == SignedHead(raw, KEY.public_key(), DIGEST)

    @pytest.mark.parametrize("path", ["/secrets", "/secrets?x=1&y=%20", "/", "/a%20b", "/schl%C3%BCssel?q=%C3%BC"])
    @pytest.mark.parametrize("body", [None, b"", b'{"repo": {}}'])
    def test_accepts_what_woodpecker_sends(self, path: str, body: bytes | None) -> None:
        assert ask(stand_in(path, body), target=path, body=body or b"").key == KEY.public_key()

    def test_refuses_a_body_that_was_swapped(self) -> None:
        with pytest.raises(SignatureRefused, match="not the digest of the body"):
            ask(stand_in("/secrets", b"{}"), body=b"[]")

    def test_refuses_a_body_swapped_together_with_its_digest(self) -> None:
        headers = replaced(stand_in("/secrets", b"[]"), "Content-Digest", DIGEST)
        with pytest.raises(UnknownKey):
            ask(headers, body=b"{}")

    def test_refuses_a_body_added_to_a_request_without_one(self) -> None:
        with pytest.raises(SignatureRefused, match="does not cover content-digest"):
            ask(stand_in("/secrets", None), body=b"{}")

    def test_refuses_a_digest_that_is_there_but_not_covered(self) -> None:
        headers = [*signed_target("/secrets"), ("Content-Digest", DIGEST)]
        with pytest.raises(SignatureRefused, match="does not cover content-digest"):
            ask(headers)

    @given(st.data())
    @bounded
    def test_refuses_a_request_in_which_one_byte_was_changed(self, data: st.DataObject) -> None:
        target, body = b"/repo/1/secrets/a%20b?x=1", b'{"value":"s3cret"}'
        headers = dict(stand_in(target.decode(), body))
        raw = base64.b64decode(headers["Signature"].removeprefix("woodpecker-ci-extensions=:").removesuffix(":"))
        parts = {
            "target": target,
            "body": body,
            "input": headers["Signature-Input"].encode(),
            "digest": headers["Content-Digest"].encode(),
            "signature": raw,
        }
        part = data.draw(st.sampled_from(sorted(parts)))
        at = data.draw(st.integers(0, len(parts[part]) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != parts[part][at]))
        parts[part] = parts[part][:at] + bytes([byte]) + parts[part][at + 1 :]
        headers["Signature-Input"] = parts["input"].decode("utf-8", "surrogateescape")
        headers["Content-Digest"] = parts["digest"].decode("utf-8", "surrogateescape")
        headers["Signature"] = f"woodpecker-ci-extensions=:{base64.b64encode(parts['signature']).decode()}:"
        with pytest.raises(SignatureRefused):
            ask(headers.items(), target=parts["target"].decode("utf-8", "surrogateescape"), body=parts["body"])


class TestVerifyHead:
    def head(self, headers: Iterable[tuple[str, str]], *keys: Ed25519PublicKey) -> SignedHead:
        return verify_head(method="POST", target="/secrets", headers=headers, keys=keys, now=NOW, freshness=FRESHNESS)

    def test_says_which_signature_and_key_verified_and_which_digest_is_covered(self) -> None:
        head = self.head(signed(), STRANGER.public_key(), KEY.public_key())
        assert head.key == KEY.public_key()
        assert len(head.signature) == 64
        assert head.content_digest == DIGEST

    def test_knows_of_no_digest_where_none_is_covered(self) -> None:
        headers = [*signed_target("/secrets"), ("Content-Digest", DIGEST)]
        assert self.head(headers, KEY.public_key()).content_digest is None

    def test_does_not_look_at_the_digest_before_the_body_is_there(self) -> None:
        lines = '"@request-target": /secrets\n"content-digest": nonsense\n'
        assert self.head(signed(lines=lines, digest="nonsense"), KEY.public_key()).content_digest == "nonsense"

    def test_takes_keys_that_can_be_read_only_once(self) -> None:
        headers = stand_in("/a%20b", None)
        head = verify_head(
            method="GET",
            target="/a%20b",
            headers=iter(headers),
            keys=iter([STRANGER.public_key(), KEY.public_key()]),
            now=NOW,
            freshness=FRESHNESS,
        )
        assert head.key == KEY.public_key()


class TestKeys:
    def test_any_known_key_may_verify(self) -> None:
        assert ask(signed(), keys=[STRANGER, KEY]).key == KEY.public_key()
        assert ask(signed(key=STRANGER), keys=[STRANGER, KEY]).key == STRANGER.public_key()

    @pytest.mark.parametrize("keys", [[], [STRANGER], [STRANGER, STRANGER]])
    def test_an_unknown_key_is_told_apart_from_everything_else(self, keys: list[Ed25519PrivateKey]) -> None:
        with pytest.raises(UnknownKey, match="No known key verifies"):
            ask(signed(), keys=keys)

    @pytest.mark.parametrize("created", [NOW - 31, NOW + 6])
    def test_freshness_is_checked_before_the_key(self, created: int) -> None:
        with pytest.raises(SignatureRefused) as refused:
            ask(stand_in("/secrets", created=created, key=STRANGER))
        assert type(refused.value) is SignatureRefused

    @pytest.mark.parametrize("raw", [b"", b"x", b"x" * 63, b"x" * 64, b"x" * 65, b"\x00" * 64])
    def test_refuses_bytes_that_are_no_signature_of_any_key(self, raw: bytes) -> None:
        text = f"woodpecker-ci-extensions=:{base64.b64encode(raw).decode()}:"
        with pytest.raises(UnknownKey):
            ask(replaced(signed(), "Signature", text))


class TestLabel:
    @pytest.mark.parametrize("name", ["Signature-Input", "Signature"])
    def test_refuses_a_request_that_is_not_signed(self, name: str) -> None:
        with pytest.raises(SignatureRefused, match=f"it has no {name}\\."):
            ask(replaced(signed(), name))

    @pytest.mark.parametrize("name", ["Signature-Input", "Signature"])
    @pytest.mark.parametrize("label", ["sig1", "woodpecker-ci-extension", "woodpecker-ci-extensions2"])
    def test_refuses_another_label(self, name: str, label: str) -> None:
        text = dict(signed())[name].replace("woodpecker-ci-extensions", label, 1)
        with pytest.raises(SignatureRefused, match="labelled woodpecker-ci-extensions"):
            ask(replaced(signed(), name, text))

    def test_ignores_other_labels_beside_its_own(self) -> None:
        headers = dict(signed())
        ours, value = headers["Signature-Input"], headers["Signature"]
        headers["Signature-Input"] = f'proxy=("@method");alg="rsa-v1_5-sha256", {ours}, last=("@path")'
        headers["Signature"] = f"proxy=:AAAA:, {value}, last=:BBBB:"
        assert ask(headers.items()).key == KEY.public_key()

    def test_reads_several_lines_of_a_header_as_one(self) -> None:
        headers = dict(signed())
        lines: Headers = [
            ("signature", "proxy=:AAAA:"),
            ("signature-input", 'proxy=("@method")'),
            ("CONTENT-DIGEST", f"  {DIGEST}\t"),
            ("SIGNATURE-INPUT", headers["Signature-Input"]),
            ("Signature", headers["Signature"]),
        ]
        assert ask(lines).key == KEY.public_key()

    @pytest.mark.parametrize("name", ["Signature-Input", "Signature"])
    def test_a_second_line_cannot_replace_what_was_signed(self, name: str) -> None:
        other = dict(signed(ONLY_TARGET, '"@request-target": /secrets\n', key=STRANGER))
        with pytest.raises(SignatureRefused):
            ask([*signed(), (name, other[name])])

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "woodpecker-ci-extensions",
            "woodpecker-ci-extensions=",
            "woodpecker-ci-extensions=(",
            'woodpecker-ci-extensions=("@request-target"',
            'woodpecker-ci-extensions=("@request-target" "content-digest")created=1795000000',
            'woodpecker-ci-extensions="@request-target"',
            "woodpecker-ci-extensions=:AAAA:",
            f"woodpecker-ci-extensions={PARAMETERS},",
            f"woodpecker-ci-extensions={PARAMETERS} x",
            f"Woodpecker-CI-Extensions={PARAMETERS}",
            f"woodpecker-ci-extensions={PARAMETERS};x=\u00fc",
            f"woodpecker-ci-extensions={PARAMETERS};x=\udcff",
            f"woodpecker-ci-extensions={PARAMETERS};x=@99999999999999",
            f'woodpecker-ci-extensions={PARAMETERS};x=%"%ff"',
            "woodpecker-ci-extensions=" + "(" * 5000,
        ],
    )
    def test_refuses_a_malformed_signature_input(self, text: str) -> None:
        with pytest.raises(SignatureRefused, match="Signature-Input"):
            ask(replaced(signed(), "Signature-Input", text))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "woodpecker-ci-extensions",
            "woodpecker-ci-extensions=()",
            "woodpecker-ci-extensions=token",
            'woodpecker-ci-extensions="AAAA"',
            "woodpecker-ci-extensions=1",
            "woodpecker-ci-extensions=:AAAA",
            "woodpecker-ci-extensions=:A*A:",
            "woodpecker-ci-extensions=:A:",
            "woodpecker-ci-extensions=:\u00fc:",
        ],
    )
    def test_refuses_a_malformed_signature(self, text: str) -> None:
        with pytest.raises(SignatureRefused, match="Signature "):
            ask(replaced(signed(), "Signature", text))

    @given(st.text(string.ascii_lowercase + "019@:;=\"%?()*,.- '\\\t\u00fc", max_size=40))
    @bounded
    def test_refuses_any_other_nonsense_in_the_same_words(self, text: str) -> None:
        for name, value in (
            ("Signature-Input", text),
            ("Signature-Input", f"woodpecker-ci-extensions={PARAMETERS};x={text}"),
            ("Signature", text),
            ("Signature", f"woodpecker-ci-extensions={text}"),
        ):
            with pytest.raises(SignatureRefused):
                ask(replaced(signed(), name, value))

    def test_refuses_signature_fields_longer_than_any_signer_writes(self) -> None:
        # Parsing takes quadratic time, and a stranger may send it: 128 lines of 8 KiB would stop the service for half
        # a minute.
        padding = ["a=();" + "a;" * 4000 + "a"] * 8
        with pytest.raises(SignatureRefused):
            ask([*(("Signature-Input", line) for line in padding), *signed()])


class TestSignatureInput:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('("@request-target"', '( "@request-target"'),
            ('" "', '"  "'),
            ('digest")', 'digest" )'),
            (";created", "; created"),
            ("=(", "= ("),
            (";alg", ' ;alg="x"'),
            (";created", ';keyid="x";created'),
            ('alg="ed25519"', 'alg="ed25519";tag="x"'),
            ('alg="ed25519"', 'alg="ed25519";alg="ed25519"'),
            ("created=1795000000", "created=1794999999;created=1795000000"),
            ("created=1795000000", "created=01795000000"),
            ("created=1795000000", "created=1795000001"),
            ('created=1795000000;alg="ed25519"', 'alg="ed25519";created=1795000000'),
            ('"@request-target" "content-digest"', '"content-digest" "@request-target"'),
            ('"@request-target" "content-digest"', '"@request-target"'),
            ('"@request-target" "content-digest"', '"@request-target" "content-digest" "content-digest"'),
            ('"@request-target" "content-digest"', '"@request-target" "content-digest" "signature"'),
            ('"@request-target"', '"@request-target";req'),
            ('"content-digest"', '"content-digest";sf'),
            ('"content-digest"', '"content-digest";key="sha-256"'),
            ('"content-digest"', "content-digest"),
            ('"content-digest"', '"Content-Digest"'),
            ('alg="ed25519"', 'alg="ed25519", woodpecker-ci-extensions=("@request-target");created=1795000000'),
            ('alg="ed25519"', 'alg="ed25519", woodpecker-ci-extensions'),
        ],
    )
    def test_refuses_one_that_is_not_as_it_was_signed(self, old: str, new: str) -> None:
        text = dict(signed())["Signature-Input"]
        assert old in text
        with pytest.raises(SignatureRefused):
            ask(replaced(signed(), "Signature-Input", text.replace(old, new, 1)))

    @pytest.mark.parametrize("label", ["woodpecker-ci-extensions", "x-woodpecker-ci-extensions"])
    def test_refuses_a_changed_form_even_beside_the_one_that_was_signed(self, label: str) -> None:
        changed = PARAMETERS.replace('" "', '"  "')
        text = f"{label}={PARAMETERS}, woodpecker-ci-extensions={changed}"
        with pytest.raises(SignatureRefused):
            ask(replaced(signed(), "Signature-Input", text))

    @pytest.mark.parametrize(
        "parameters",
        [
            '("content-digest" "@request-target");created=1795000000;alg="ed25519"',
            '("@request-target" "content-digest");alg="ed25519";created=1795000000',
            '("@request-target" "content-digest");created=1795000000;keyid="woodpecker";alg="ed25519"',
            '("@request-target" "content-digest");created=1795000000;alg="ed25519";nonce="n";tag="t"',
        ],
    )
    def test_takes_components_and_parameters_in_the_order_they_were_signed_in(self, parameters: str) -> None:
        names = parameters[1 : parameters.index(")")].replace('"', "").split()
        values = {"@request-target": "/secrets", "content-digest": DIGEST}
        lines = "".join(f'"{name}": {values[name]}\n' for name in names)
        assert ask(signed(parameters, lines)).key == KEY.public_key()

    @pytest.mark.parametrize(
        ("parameters", "lines"),
        [
            ("()", ""),
            ('("content-digest")', f'"content-digest": {DIGEST}\n'),
            ('("@path" "content-digest")', f'"@path": /secrets\n"content-digest": {DIGEST}\n'),
        ],
    )
    def test_refuses_one_that_does_not_cover_the_target(self, parameters: str, lines: str) -> None:
        with pytest.raises(SignatureRefused, match="does not cover @request-target"):
            ask(signed(f'{parameters};created=1795000000;alg="ed25519"', lines))

    @pytest.mark.parametrize(
        ("component", "line"),
        [
            ('"@authority"', '"@authority": secrets.example'),
            ('"@path"', '"@path": /secrets'),
            ('"@signature-params"', '"@signature-params": x'),
            ('"date"', '"date": x'),
            ('"Content-Type"', '"Content-Type": application/json'),
            ('"content-type";sf', '"content-type";sf: application/json'),
            ('"@request-target"', '"@request-target": /secrets'),
            ("token", '"token": x'),
            ("1", '"1": x'),
        ],
    )
    def test_refuses_a_component_that_cannot_be_checked(self, component: str, line: str) -> None:
        parameters = f'("@request-target" {component});created=1795000000;alg="ed25519"'
        headers = signed(parameters, f'"@request-target": /secrets\n{line}\n', digest=None)
        with pytest.raises(SignatureRefused, match="The signature covers"):
            ask([*headers, ("Content-Type", "application/json"), ("@path", "/secrets")], body=b"")

    def test_refuses_a_covered_digest_that_is_not_there(self) -> None:
        with pytest.raises(SignatureRefused, match="does not have"):
            ask(signed(digest=None), body=b"")

    def test_takes_a_covered_method_and_header_too(self) -> None:
        parameters = '("@method" "@request-target" "x-trace");created=1795000000;alg="ed25519"'
        lines = '"@method": DELETE\n"@request-target": /secrets\n"x-trace": a, b\n'
        headers = [*signed(parameters, lines, digest=None), ("X-Trace", "a"), ("x-trace", "b")]
        assert ask(headers, method="DELETE", body=b"").key == KEY.public_key()
        with pytest.raises(UnknownKey):
            ask(headers, method="GET", body=b"")


class TestParameters:
    @pytest.mark.parametrize(
        "alg", ["", ';alg="rsa-pss-sha512"', ';alg="hmac-sha256"', ';alg="ED25519"', ";alg=ed25519", ";alg", ";alg=1"]
    )
    def test_refuses_another_algorithm(self, alg: str) -> None:
        with pytest.raises(SignatureRefused, match='alg must be "ed25519"'):
            ask(signed(f'("@request-target" "content-digest");created=1795000000{alg}'))

    @pytest.mark.parametrize("age", [30.0, 29.9, 0.0, -4.9, -5.0])
    def test_accepts_a_signature_within_the_window(self, age: float) -> None:
        assert ask(signed(), now=1_795_000_000 + age).key == KEY.public_key()

    @pytest.mark.parametrize(("age", "words"), [(30.001, "30 s old"), (3600.0, "3600 s old")])
    def test_refuses_one_that_is_too_old(self, age: float, words: str) -> None:
        with pytest.raises(SignatureRefused, match=rf"{words} \(at most 30 s\).*woodpecker\.max_age"):
            ask(signed(), now=1_795_000_000 + age)

    @pytest.mark.parametrize(("lead", "words"), [(5.001, "5 s in the future"), (3600.0, "3600 s in the future")])
    def test_refuses_one_from_the_future(self, lead: float, words: str) -> None:
        with pytest.raises(SignatureRefused, match=rf"{words} \(at most 5 s\).*woodpecker\.max_clock_skew"):
            ask(signed(), now=1_795_000_000 - lead)

    def test_refuses_one_without_a_time(self) -> None:
        with pytest.raises(SignatureRefused, match="no created time"):
            ask(signed('("@request-target" "content-digest");alg="ed25519"'))

    @pytest.mark.parametrize("name", ["created", "expires"])
    @pytest.mark.parametrize("value", ["=1795000000.0", '="1795000000"', "=t1795000000", "", "=?1", "=@1795000000"])
    def test_refuses_a_time_that_is_no_whole_number(self, name: str, value: str) -> None:
        created = "" if name == "created" else ";created=1795000000"
        with pytest.raises(SignatureRefused, match=rf"{name} is not a whole number|strict form"):
            ask(signed(f'("@request-target" "content-digest"){created};{name}{value};alg="ed25519"'))

    @pytest.mark.parametrize("now", [NOW, NOW + 10])
    def test_accepts_one_until_it_expires(self, now: int) -> None:
        parameters = '("@request-target" "content-digest");created=1795000000;expires=1795000010;alg="ed25519"'
        assert ask(signed(parameters), now=now).key == KEY.public_key()

    def test_refuses_one_that_has_expired(self) -> None:
        parameters = '("@request-target" "content-digest");created=1795000000;expires=1795000010;alg="ed25519"'
        with pytest.raises(SignatureRefused, match="has expired"):
            ask(signed(parameters), now=NOW + 10.001)


class TestRequestTarget:
    @pytest.mark.parametrize(
        ("target", "written"),
        [
            ("/repo/1/secrets/a%20b", "/repo/1/secrets/a%20b"),
            ("/repo/1/secrets/a%20b", "/repo/1/secrets/a b"),
            ("/repo/1/secrets/a%20b?page=%31", "/repo/1/secrets/a%20b?page=%31"),
            ("/repo/1/secrets/a%20b?page=%31", "/repo/1/secrets/a b?page=%31"),
            ("/repo/1/secrets/schl%C3%BCssel", "/repo/1/secrets/schl\u00fcssel"),
            ("/repo/1/secrets/%F0%9F%94%91", "/repo/1/secrets/\U0001f511"),
            ("/repo/1/secrets/schl\u00fcssel", "/repo/1/secrets/schl\u00fcssel"),
            ("/repo/1/secrets/%2525", "/repo/1/secrets/%25"),
            ("/secrets?", "/secrets"),
            ("/secrets?", "/secrets?"),
            ("/secrets?a?b", "/secrets?a?b"),
            ("/repo/1/secrets/a%0ab", "/repo/1/secrets/a%0ab"),
        ],
    )
    def test_is_accepted_as_received_and_as_woodpecker_writes_it(self, target: str, written: str) -> None:
        assert ask(signed_target(written), target=target, body=b"").key == KEY.public_key()

    @pytest.mark.parametrize(
        ("target", "written"),
        [
            ("/secrets", "/registries"),
            ("/secrets", "/Secrets"),
            ("/secrets", "/secrets/"),
            ("//secrets", "/secrets"),
            ("/x/../secrets", "/secrets"),
            ("/secrets?x=1", "/secrets"),
            ("/secrets", "/secrets?x=1"),
            ("/secrets", "/secrets?"),
            ("/secrets?x=1", "/secrets?x=2"),
            ("/secrets?x=%31", "/secrets?x=1"),
            ("/secrets?x=a+b", "/secrets?x=a b"),
            ("/a b", "/a%20b"),
            ("/a%2520b", "/a b"),
            ("/a+b", "/a b"),
        ],
    )
    def test_is_refused_if_it_is_not_the_one_that_was_signed(self, target: str, written: str) -> None:
        with pytest.raises(UnknownKey):
            ask(signed_target(written), target=target, body=b"")

    @pytest.mark.parametrize("code", ["00", "0a", "0A", "0d", "09", "1f", "7f"])
    def test_is_refused_if_a_decoded_control_character_was_signed(self, code: str) -> None:
        with pytest.raises(UnknownKey):
            ask(stand_in(f"/repo/1/secrets/a%{code}b", None), target=f"/repo/1/secrets/a%{code}b", body=b"")

    @pytest.mark.parametrize("character", ["\x00", "\t", "\n", "\r", "\x1f", "\x7f"])
    def test_is_refused_with_a_raw_control_character(self, character: str) -> None:
        target = f"/secrets{character}x"
        with pytest.raises(SignatureRefused, match="control character"):
            ask(signed_target(target), target=target, body=b"")

    def test_cannot_forge_a_line_of_the_signature_base(self) -> None:
        # Woodpecker signs the path decoded: its line break makes a second line, which looks like a covered digest.
        path = f"/x%0A%22content-digest%22:%20{DIGEST}".replace("/4o", "%2F4o")
        headers = [*stand_in(path, None), ("Content-Digest", DIGEST)]
        with pytest.raises(UnknownKey):
            ask(headers, target=path, body=b"")
        headers = replaced(headers, "Signature-Input", f"woodpecker-ci-extensions={PARAMETERS}")
        with pytest.raises(UnknownKey):
            ask(headers, target="/x", body=BODY)

    def test_that_is_not_utf8_is_compared_byte_by_byte(self) -> None:
        headers = stand_in("/repo/1/secrets/%FF", None)
        assert ask(headers, target="/repo/1/secrets/%FF", body=b"").key == KEY.public_key()
        assert ask(headers, target="/repo/1/secrets/\udcff", body=b"").key == KEY.public_key()
        with pytest.raises(UnknownKey):
            ask(headers, target="/repo/1/secrets/%FE", body=b"")


class TestVerifyBody:
    def head(self, digest: str | None) -> SignedHead:
        return SignedHead(b"", KEY.public_key(), digest)

    @pytest.mark.parametrize(
        ("digest", "body"),
        [
            (DIGEST, b"{}"),
            (DIGEST_512, b"{}"),
            (f"{DIGEST_512}, {DIGEST}", b"{}"),
            (f"md5=:AAAA:, {DIGEST}, unixsum=1", b"{}"),
            (DIGEST_OF_NOTHING, b""),
            (None, b""),
        ],
    )
    def test_accepts_the_body_that_was_signed(self, digest: str | None, body: bytes) -> None:
        verify_body(self.head(digest), body)

    @pytest.mark.parametrize(
        "digest",
        [
            DIGEST_OF_NOTHING,
            f"{DIGEST_512}, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
            f"{DIGEST}, sha-512=:AAAA:",
            f"{DIGEST}, {DIGEST_OF_NOTHING}",
            "sha-256=::",
            "sha-256=RBNvo1WzZ4oRRq0W9",
            'sha-256="RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="',
            "sha-256=(:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:)",
            "sha-256",
            "sha-256=1",
        ],
    )
    def test_refuses_another(self, digest: str) -> None:
        with pytest.raises(SignatureRefused, match="not the digest of the body that arrived"):
            verify_body(self.head(digest), b"{}")

    @pytest.mark.parametrize("digest", ["md5=:AAAA:", "sha=:AAAA:, crc32c=:AAAA:", "sha256=:AAAA:"])
    def test_refuses_a_digest_by_unknown_algorithms_only(self, digest: str) -> None:
        with pytest.raises(SignatureRefused, match="no algorithm that can be checked"):
            verify_body(self.head(digest), b"{}")

    @pytest.mark.parametrize("digest", ["", "SHA-256=:AAAA:", "sha-256=:AAAA", "sha-256=:AAAA:,", "\u00fc", "=1"])
    def test_refuses_a_malformed_digest(self, digest: str) -> None:
        with pytest.raises(SignatureRefused, match="Content-Digest is not a structured field"):
            verify_body(self.head(digest), b"{}")

    def test_refuses_a_body_without_a_covered_digest(self) -> None:
        with pytest.raises(SignatureRefused, match="does not cover content-digest"):
            verify_body(self.head(None), b" ")

    def test_is_not_fooled_by_several_lines_of_the_header(self) -> None:
        headers = signed(lines=f'"@request-target": /secrets\n"content-digest": {DIGEST_512}, {DIGEST}\n', digest=None)
        both = [("Content-Digest", DIGEST_512), ("Content-Digest", DIGEST)]
        assert ask([*headers, *both]).content_digest == f"{DIGEST_512}, {DIGEST}"
        with pytest.raises(UnknownKey):
            ask([*headers, *reversed(both)])


class TestLoadPublicKey:
    def test_reads_the_key_as_woodpecker_serves_it(self) -> None:
        assert load_public_key(public_pem(KEY)) == KEY.public_key()

    def test_reads_a_key_spelled_out(self) -> None:
        pem = """
            -----BEGIN PUBLIC KEY-----
            MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=
            -----END PUBLIC KEY-----
        """
        assert load_public_key(pem.replace("            ", "")) == KEY.public_key()

    @pytest.mark.parametrize(
        "pem",
        [
            "",
            "<html>",
            "MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpd\n-----END PUBLIC KEY-----",
            private_pem(KEY).decode(),
            "\u00fc\udcff",
        ],
    )
    def test_refuses_what_is_no_public_key(self, pem: str) -> None:
        with pytest.raises(ValueError, match="not a PEM public key"):
            load_public_key(pem)

    def test_refuses_a_key_of_another_kind(self) -> None:
        rsa = generate_private_key(public_exponent=65537, key_size=2048).public_key()
        for key in (rsa, X25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key()):
            pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            with pytest.raises(ValueError, match="not an ed25519 one"):
                load_public_key(pem)

    @pytest.mark.parametrize(
        "raw",
        [
            "00" * 32,
            "01" + "00" * 31,
            "01" + "00" * 30 + "80",
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        ],
    )
    def test_refuses_a_key_for_which_anybody_can_sign(self, raw: str) -> None:
        der = bytes.fromhex("302a300506032b6570032100" + raw)
        pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
        with pytest.raises(ValueError, match=r"PEM public key|weak"):
            load_public_key(pem)
