"""TLS: which authorities are trusted, and how trouble is named. Every handshake here is a real one."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from tests.certificates import DAY, LOOPBACK, NOW, Signed, leaf, plain_authority, signed
from woodpecker_vault.tls import Peer, authority_files, load_pair, serving, trouble, trusting

VAULT = Peer("Vault", "vault.address", "vault.ca_cert", "vault.tls_server_name", "vault.client_cert")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200 for any request, 400 for what is none, as most servers do."""
    line = await reader.readline()
    writer.write(b"HTTP/1.1 200 OK\r\n" if line.endswith(b"HTTP/1.1\r\n") else b"HTTP/1.1 400 Bad Request\r\n")
    writer.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


@asynccontextmanager
async def server(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """The port of one that listens."""
    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def asked(context: ssl.SSLContext, url: str) -> str:
    """The trouble with a request to it; ``"200"`` if there was none."""
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        try:
            async with session.get(url) as reply:
                return str(reply.status)
        except aiohttp.ClientError as error:
            return trouble(error, VAULT)


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    """As Python 3.13 makes them."""
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


class TestTrusting:
    async def test_a_private_authority_without_the_finer_points_of_rfc_5280_is_accepted_on_every_python(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = plain_authority()
        file, _ = authority.write(tmp_path, "ca")
        pair = leaf(authority).write(tmp_path, "vault")
        made: Callable[..., ssl.SSLContext] = ssl.create_default_context
        async with server(serving(*pair)) as port:
            assert "refused" in await asked(strict(made(cafile=file)), f"https://127.0.0.1:{port}/")
            monkeypatch.setattr(ssl, "create_default_context", lambda **given: strict(made(**given)))
            assert await asked(trusting([Path(file)]), f"https://127.0.0.1:{port}/") == "200"

    async def test_an_intermediate_authority_may_be_the_one_that_is_trusted(self, tmp_path: Path) -> None:
        root = plain_authority()
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        between = signed("between", root, extensions=[(constraints, True)])
        file, _ = between.write(tmp_path, "between")
        async with server(serving(*leaf(between).write(tmp_path, "vault"))) as port:
            assert await asked(trusting([Path(file)]), f"https://127.0.0.1:{port}/") == "200"

    async def test_every_one_that_is_given_is_trusted_and_no_other(self, tmp_path: Path) -> None:
        authorities = [plain_authority(f"ca-{n}") for n in range(3)]
        files = [Path(authority.write(tmp_path, f"ca-{n}")[0]) for n, authority in enumerate(authorities)]
        for number, authority in enumerate(authorities):
            async with server(serving(*leaf(authority).write(tmp_path, "vault"))) as port:
                said = await asked(trusting(files[:2]), f"https://127.0.0.1:{port}/")
                assert (said == "200") is (number < 2)

    def test_without_any_the_systems_are_trusted(self) -> None:
        context = trusting([])
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname

    def test_files_in_a_folder_count_but_no_folders_in_it(self, tmp_path: Path) -> None:
        for name in ("b.pem", "a.pem"):
            (tmp_path / name).touch()
        (tmp_path / "..data").mkdir()
        assert authority_files("", "") == []
        assert authority_files("ca.pem", "") == [Path("ca.pem")]
        assert authority_files("ca.pem", str(tmp_path)) == [Path("ca.pem"), tmp_path / "a.pem", tmp_path / "b.pem"]


class TestLoadPair:
    def test_an_encrypted_key_is_an_error_and_not_a_question_at_the_terminal(self, tmp_path: Path) -> None:
        authority = plain_authority()
        certificate, key = authority.write(tmp_path, "ca")
        encrypted = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
        Path(key).write_bytes(encrypted)
        with pytest.raises(ValueError, match="encrypted"):
            load_pair(ssl.create_default_context(), certificate, key)

    def test_one_that_belongs_to_another_certificate_is_an_error(self, tmp_path: Path) -> None:
        certificate, _ = plain_authority().write(tmp_path, "one")
        _, key = plain_authority().write(tmp_path, "other")
        with pytest.raises(ssl.SSLError):
            serving(certificate, key)


class TestTrouble:
    """Each kind has its words, with the setting to look at."""

    @pytest.fixture
    def authority(self) -> Signed:
        return plain_authority()

    @pytest.fixture
    def context(self, authority: Signed, tmp_path: Path) -> ssl.SSLContext:
        return trusting([Path(authority.write(tmp_path, "ca")[0])])

    async def test_an_authority_of_the_same_name_but_with_another_key(
        self, context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        async with server(serving(*leaf(plain_authority()).write(tmp_path, "vault"))) as port:
            said = await asked(context, f"https://127.0.0.1:{port}/")
        assert said == "Vault's certificate is not trusted: set vault.ca_cert to the authority that signed it."

    async def test_an_authority_of_another_name(self, context: ssl.SSLContext, tmp_path: Path) -> None:
        async with server(serving(*leaf(plain_authority("other")).write(tmp_path, "vault"))) as port:
            said = await asked(context, f"https://127.0.0.1:{port}/")
        assert said == "Vault's certificate is not trusted: set vault.ca_cert to the authority that signed it."

    async def test_one_that_signed_itself(self, context: ssl.SSLContext, tmp_path: Path) -> None:
        own = signed("vault", extensions=[(x509.SubjectAlternativeName([LOOPBACK]), False)])
        async with server(serving(*own.write(tmp_path, "vault"))) as port:
            assert "not trusted: set vault.ca_cert" in await asked(context, f"https://127.0.0.1:{port}/")

    async def test_another_name(self, context: ssl.SSLContext, authority: Signed, tmp_path: Path) -> None:
        async with server(serving(*leaf(authority).write(tmp_path, "vault"))) as port:
            said = await asked(context, f"https://localhost:{port}/")
        assert said == ("Vault's certificate is for another name: check vault.address, or set vault.tls_server_name.")

    @pytest.mark.parametrize(
        "times", [(NOW - DAY, NOW - DAY / 2), (NOW + DAY / 2, NOW + DAY)], ids=["expired", "not yet"]
    )
    async def test_a_time_that_is_over_or_to_come(
        self, context: ssl.SSLContext, authority: Signed, tmp_path: Path, times: tuple[dt.datetime, dt.datetime]
    ) -> None:
        async with server(serving(*leaf(authority, start=times[0], end=times[1]).write(tmp_path, "vault"))) as port:
            said = await asked(context, f"https://127.0.0.1:{port}/")
        assert said == "Vault's certificate has expired or is not valid yet: renew it, or set the clock."

    async def test_an_authority_that_is_none(self, context: ssl.SSLContext, authority: Signed, tmp_path: Path) -> None:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        false = signed("between", authority, extensions=[(constraints, True)])
        chain = leaf(false)
        certificate, key = chain.write(tmp_path, "vault")
        whole = chain.certificate.public_bytes(Encoding.PEM) + false.certificate.public_bytes(Encoding.PEM)
        await asyncio.to_thread(Path(certificate).write_bytes, whole)
        async with server(serving(certificate, key)) as port:
            said = await asked(context, f"https://127.0.0.1:{port}/")
        assert said.startswith("Vault's certificate is refused (")
        assert "vault.ca_cert" in said

    async def test_plain_http_on_the_other_side(self, context: ssl.SSLContext) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(16)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        listening = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with listening:
            said = await asked(context, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        assert said == "Vault does not speak TLS there: check the port, or write http:// in vault.address."

    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "vault.client_cert"),
            ("SSLV3_ALERT_BAD_CERTIFICATE", "vault.client_cert"),
            ("TLSV1_ALERT_UNKNOWN_CA", "vault.client_cert"),
            ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "vault.client_cert"),
            ("SSLV3_ALERT_HANDSHAKE_FAILURE", "vault.client_cert"),
            ("TLSV1_UNRECOGNIZED_NAME", "vault.tls_server_name"),
            ("TLSV1_ALERT_PROTOCOL_VERSION", "TLS version"),
            ("UNEXPECTED_EOF_WHILE_READING", "unexpected eof"),
            (None, "no reason given"),
        ],
    )
    def test_what_other_servers_say(self, reason: str | None, words: str) -> None:
        error = ssl.SSLError(1, "it broke")
        error.reason = reason  # type: ignore[assignment]  # None where OpenSSL has no name for it
        said = trouble(error, VAULT)
        assert words in said
        assert "network" not in said

    def test_a_peer_without_such_settings_is_not_told_to_set_them(self) -> None:
        error = ssl.SSLError(1, "it broke")
        error.reason = "TLSV1_ALERT_UNKNOWN_CA"
        said = trouble(error, Peer("Woodpecker", "woodpecker.server_url", "woodpecker.ca_cert"))
        assert "client" not in said

    @pytest.mark.parametrize("error", [OSError(111, "refused"), TimeoutError(), ValueError()])
    def test_what_is_not_tls_has_none(self, error: Exception) -> None:
        assert trouble(error, VAULT) == ""
