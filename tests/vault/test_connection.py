"""Where Vault is and how to talk to it."""

import shutil
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from tests.vault.conftest import Tls
from woodpecker_vault.vault.connection import Connection, open_session, tls_context


@pytest.mark.parametrize(
    ("address", "addresses"),
    [
        ("https://a.example:8200", ("https://a.example:8200",)),
        ("https://a.example:8200/", ("https://a.example:8200",)),
        ("https://a.example/vault/", ("https://a.example/vault",)),
        ("https://a.example:8200, http://b.example/ ", ("https://a.example:8200", "http://b.example")),
    ],
)
def test_addresses_stand_between_commas_and_end_without_a_slash(address: str, addresses: tuple[str, ...]) -> None:
    assert Connection(address).addresses == addresses


def test_every_authority_given_is_trusted_and_no_other(tls: Tls, tmp_path: Path) -> None:
    shutil.copy(tls.file("other-ca.pem"), tmp_path)
    context = tls_context(Connection("https://a.example", ca_cert=tls.file("ca.pem"), ca_path=str(tmp_path)))
    assert len(context.get_ca_certs()) == 2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_verification_is_off_only_if_the_settings_say_so() -> None:
    context = tls_context(Connection("https://a.example", skip_verify=True))
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    "files",
    [
        {"ca_cert": "none.pem"},
        {"ca_cert": "client.key"},
        {"client_cert": "client.pem", "client_key": "other-client.key"},
        {"client_cert": "client.pem"},
    ],
)
def test_certificates_that_cannot_be_used_are_an_error_of_the_system(tls: Tls, files: dict[str, str]) -> None:
    named = {key: tls.file(name) for key, name in files.items()}
    with pytest.raises(OSError, match=r"No such file|\[X509|\[SSL|PEM"):
        tls_context(Connection("https://a.example", **named))  # type: ignore[arg-type]


def test_a_certificate_and_its_key_may_be_in_one_file(tls: Tls) -> None:
    tls_context(Connection("https://a.example", client_cert=tls.file("both.pem")))


async def test_every_request_says_that_it_is_meant_for_vault_and_no_cookie_is_kept() -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append((request.headers.get("X-Vault-Request"), request.headers.get("Cookie")))
        return web.Response(headers={"Set-Cookie": "route=1"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "localhost", 0).start()
        address = f"http://localhost:{runner.addresses[0][1]}"
        async with open_session(Connection(address)) as session:
            for _ in range(2):
                await (await session.get(address)).read()
    finally:
        await runner.cleanup()
    assert seen == [("true", None)] * 2


async def test_a_proxy_is_used_if_it_is_set_and_none_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(request.url.authority)
        return web.Response()

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        here = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with open_session(Connection("http://vault.example:8200", proxy=here)) as session:
            await (await session.get("http://vault.example:8200/v1/sys/health")).read()
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with open_session(Connection(here)) as session:
            await (await session.get(here)).read()
    finally:
        await runner.cleanup()
    assert seen == ["vault.example:8200", here.removeprefix("http://")]
