"""The service, where something before Vault answers in its place: never an empty list, and nothing kept is lost."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.servers import Admin, Client, pipeline_body, serving, settings
from tests.vault.front import CDN_521, GATEWAY_403, GATEWAY_404, INGRESS_404, WELCOME_200, Front, Page
from woodpecker_vault.cli.openbao import OpenBao

PAGES = pytest.mark.parametrize("page", [INGRESS_404, GATEWAY_403, GATEWAY_404, WELCOME_200, CDN_521])


def at(key: Ed25519PrivateKey, bao: OpenBao, address: str, **sections: Any) -> dict[str, dict[str, Any]]:
    """Settings for a Vault at that address, without much patience."""
    return settings(key, bao, **{"vault": {"address": address, "max_retries": 1}, **sections})


async def test_an_address_with_a_path_too_many_is_an_outage(
    bao: OpenBao, session: aiohttp.ClientSession, key: Ed25519PrivateKey, folder: Path
) -> None:
    async with serving(folder, at(key, bao, f"{bao.address}/vault")) as service:
        client = Client(session, service.url, key)
        for method, path, document in (
            ("POST", "/secrets", pipeline_body()),
            ("GET", "/repo/1/secrets", None),
            ("GET", "/repo/1/secrets/token", None),
            ("DELETE", "/repo/1/secrets/token", None),
        ):
            reply = await client.send(method, path, document)
            assert reply.status == 503
            assert "not Vault" in reply.json["detail"]
            assert reply.headers["Retry-After"]


@pytest.mark.parametrize("mount", ["secret/metadata", "secret/woodpecker", "cubbyhole", "nowhere"])
async def test_the_wrong_mount_is_an_error_that_names_the_setting(
    bao: OpenBao, session: aiohttp.ClientSession, key: Ed25519PrivateKey, folder: Path, mount: str
) -> None:
    async with serving(folder, settings(key, bao, secrets={"mount": mount})) as service:
        client = Client(session, service.url, key)
        reply = await client.send("POST", "/secrets", pipeline_body())
        assert (reply.status, "secrets.mount" in reply.json["detail"]) == (403, True)
        assert (await client.send("GET", "/repo/1/secrets")).status == 403


@PAGES
@pytest.mark.parametrize("mode", ["validated", "ttl"])
async def test_what_is_kept_is_given_and_stays(
    bao: OpenBao, admin: Admin, key: Ed25519PrivateKey, folder: Path, *, repo_id: int, mode: str, page: Page
) -> None:
    await admin.put(f"woodpecker/repo/{repo_id}/token", "x")
    async with Front(bao.address).listening() as front:
        cache = {"mode": mode, "ttl": 0.05, "stale_if_error": 600}
        async with serving(folder, at(key, bao, front.address, vault_cache=cache)) as service:
            client = Client(admin.session, service.url, key)

            async def is_stale() -> bool:
                reply = await client.send("POST", "/secrets", pipeline_body({"id": repo_id}))
                assert [secret["name"] for secret in reply.json["secrets"]] == ["token"]
                return "stale" in await service.logged(reply.headers["X-Request-Id"])

            assert not await is_stale()
            front.says(page)
            while not await is_stale():  # it may be kept for ttl seconds
                pass
            assert await is_stale()
            assert (await client.send("GET", f"/repo/{repo_id}/secrets")).status == 503
            front.says(None)
            assert not await is_stale()


@PAGES
async def test_a_write_that_something_else_answers_is_not_told_as_done(
    bao: OpenBao, admin: Admin, key: Ed25519PrivateKey, folder: Path, *, repo_id: int, page: Page
) -> None:
    await admin.put(f"woodpecker/repo/{repo_id}/token", "x")
    async with (
        Front(bao.address).listening() as front,
        serving(folder, at(key, bao, front.address)) as service,
    ):
        client = Client(admin.session, service.url, key)
        assert (await client.send("GET", f"/repo/{repo_id}/secrets")).status == 200
        front.answer = lambda method, _: page if method == "DELETE" else None
        reply = await client.send("DELETE", f"/repo/{repo_id}/secrets/token")
        assert reply.status == 503
        assert await admin.data(f"woodpecker/repo/{repo_id}/token") == {"value": "x"}
