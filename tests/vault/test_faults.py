"""Each way in which Vault or the network can fail, and the error of ours that it becomes."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from hvac import exceptions

from tests.servers import Admin, Proxy, speaking
from tests.vault import rooms
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.errors import Conflict, Denied, Invalid, NoNamespace, NotVault, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.faults import Missing, translated, writing
from woodpecker_vault.vault.kv import KV

CALLS: dict[str, Callable[[KV], Awaitable[object]]] = {
    "list": lambda kv: kv.list("folder/"),
    "read": lambda kv: kv.read("folder/token"),
    "put": lambda kv: kv.put("folder/token", {"value": "sesame"}, cas=0),
    "patch": lambda kv: kv.patch_metadata("folder/token", {"events": "push"}),
    "delete": lambda kv: kv.delete("folder/token"),
    "destroy": lambda kv: kv.destroy("folder/token"),
}


async def check_all(kv: KV, expected: type[Problem], word: str, *secrets: str) -> None:
    """Every call raises this error, whose advice has this word in it; and none of them shows a secret."""
    for name, call in CALLS.items():
        with pytest.raises(expected) as caught:
            await call(kv)
        assert type(caught.value) is expected, name
        assert word in caught.value.detail, name
        assert caught.value.cause, name
        whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.cause
        for secret in ("sesame", *secrets):
            assert secret not in whole, name


async def test_a_sealed_vault_is_unavailable_until_it_is_unsealed(node: Raft) -> None:
    async with rooms(Connection(node.address), node.token) as ours:
        await ours.kv.put("sealed/token", {"value": "x"}, cas=0)
        await node.seal()
        try:
            await check_all(ours.kv, Unavailable, "sealed", node.token)
        finally:
            await node.unseal()
        assert (await ours.kv.read("sealed/token")).data == {"value": "x"}


async def test_a_stopped_vault_is_unavailable_until_it_is_back(node: Raft) -> None:
    async with rooms(Connection(node.address), node.token) as ours:
        await ours.kv.put("stopped/token", {"value": "x"}, cas=0)
        await node.stop()
        try:
            await check_all(ours.kv, Unavailable, "cannot be reached", node.token)
        finally:
            await node.start()
            await check_all(ours.kv, Unavailable, "sealed", node.token)
            await node.unseal()
        assert (await ours.kv.read("stopped/token")).data == {"value": "x"}


async def test_nobody_listening_is_unavailable() -> None:
    async with rooms(Connection(f"http://127.0.0.1:{free_port()}"), "open-sesame") as ours:
        await check_all(ours.kv, Unavailable, "cannot be reached", "open-sesame")


async def test_a_host_that_does_not_exist_is_unavailable() -> None:
    async with rooms(Connection("http://vault.invalid:8200"), "open-sesame") as ours:
        await check_all(ours.kv, Unavailable, "cannot be reached", "open-sesame")


async def test_a_vault_that_hangs_is_unavailable_after_the_timeout(bao: OpenBao) -> None:
    proxy = Proxy(bao.address)
    async with proxy.listening(), rooms(Connection(proxy.address, timeout=0.1), bao.token) as ours:
        proxy.mode = "hang"
        await check_all(ours.kv, Unavailable, "in time", bao.token)


@pytest.mark.parametrize("mode", ["refuse", "cut"])
async def test_a_connection_that_breaks_is_unavailable(bao: OpenBao, mode: str) -> None:
    proxy = Proxy(bao.address)
    async with proxy.listening(), rooms(Connection(proxy.address), bao.token) as ours:
        await ours.kv.list("folder/")
        proxy.mode = mode
        await check_all(ours.kv, Unavailable, "cannot be reached", bao.token)
    await _clean(bao)


async def _clean(bao: OpenBao) -> None:
    """What was cut may have been done."""
    async with rooms(Connection(bao.address), bao.token) as ours:
        await ours.kv.destroy("folder/token")


async def test_a_missing_policy_is_denied(bao: OpenBao, admin: Admin) -> None:
    token = await admin.token('path "secret/data/other" { capabilities = ["read"] }', name="faults-none")
    async with rooms(Connection(bao.address), token) as ours:
        await check_all(ours.kv, Denied, "policy", token)


@pytest.mark.parametrize("token", ["wrong-sesame", ""])
async def test_a_wrong_token_is_denied(bao: OpenBao, token: str) -> None:
    async with rooms(Connection(bao.address), token) as ours:
        await check_all(ours.kv, TokenRefused, "token", *filter(None, [token]))


async def test_a_missing_mount_is_denied_to_root_too(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token, mount="nowhere") as ours:
        await check_all(ours.kv, Denied, "secrets.mount", bao.token)


@pytest.mark.parametrize(("path", "word"), [("nowhere/*", "secrets.mount"), ("secret/*", "policy")])
async def test_a_missing_mount_is_denied_to_an_ordinary_token(bao: OpenBao, admin: Admin, path: str, word: str) -> None:
    policy = f'path "{path}" {{ capabilities = ["create", "read", "update", "patch", "delete", "list"] }}'
    token = await admin.token(policy, name=f"faults-{word}")
    async with rooms(Connection(bao.address), token, mount="nowhere") as ours:
        await check_all(ours.kv, Denied, word, token)


async def test_a_rate_limit_is_unavailable(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/limited", {"type": "kv", "options": {"version": "2"}})
    quota = {"path": "limited", "rate": 1, "interval": "60s", "block_interval": "60s"}
    status, answer = await admin.call("POST", "sys/quotas/rate-limit/limited", quota)
    assert status == 204, answer
    try:
        async with rooms(Connection(bao.address), bao.token, mount="limited") as ours:
            await ours.kv.list("folder/")  # the one that is allowed
            await check_all(ours.kv, Unavailable, "rate", bao.token)
    finally:
        await admin.call("DELETE", "sys/quotas/rate-limit/limited")
        await admin.call("DELETE", "sys/mounts/limited")


@asynccontextmanager
async def answering(head: str, body: bytes) -> AsyncIterator[str]:
    """Something that listens where Vault should and is no Vault: it gives every request the same answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with speaking(answer) as address:
        yield address


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("200 OK", b"<html>Welcome</html>"),
        ("200 OK", b""),
        ("200 OK", b"[]"),
        ("200 OK", b'"text"'),
        ("200 OK", b"[" * 100_000),
        ("200 OK", b"\xff\xfe"),
        ("502 Bad Gateway", b"<html>Bad gateway</html>"),
        ("503 Service Unavailable", b"no healthy upstream"),
        ("503 Service Unavailable", b'{"errors": [{"code": 7, "message": "no healthy upstream"}]}'),
        ("500 Internal Server Error", b'{"errors": null}'),
        ("500 Internal Server Error", b'{"errors": {"a": 1}}'),
        ("418 I'm a teapot", b""),
    ],
)
async def test_what_is_not_vault_is_unavailable(head: str, body: bytes) -> None:
    async with answering(head, body) as address, rooms(Connection(address), "open-sesame") as ours:
        await check_all(ours.kv, NotVault, "not Vault", "open-sesame")


@pytest.mark.parametrize("location", ["https://login.example/", "http://127.0.0.1:1/"])
async def test_a_redirect_to_somewhere_else_is_unavailable(location: str) -> None:
    async with answering(f"302 Found\r\nLocation: {location}", b"") as address, rooms(Connection(address)) as ours:
        await check_all(ours.kv, Unavailable, "redirects")


async def test_what_does_not_speak_http_is_unavailable() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        writer.close()

    async with speaking(answer) as address, rooms(Connection(address), "open-sesame") as ours:
        await check_all(ours.kv, Unavailable, "cannot be reached", "open-sesame")


@pytest.mark.parametrize("body", [b"{}", b'{"data": {}}', b'{"data": {"data": {}}}', b'{"data": null}', b'{"data": 5}'])
async def test_a_document_that_is_not_vaults_is_a_problem_and_not_a_crash(body: bytes) -> None:
    async with answering("200 OK", body) as address, rooms(Connection(address), "open-sesame") as ours:
        with pytest.raises(Problem):
            await ours.kv.list("folder/")


@pytest.mark.parametrize("body", [b'{"data": {}}', b'{"data": {"data": {}}}', b'{"data": {"metadata": {}}}'])
async def test_an_entry_that_is_not_vaults_is_a_problem_and_not_a_crash(body: bytes) -> None:
    async with answering("200 OK", body) as address, rooms(Connection(address), "open-sesame") as ours:
        with pytest.raises(Problem):
            await ours.kv.read("folder/token")


@pytest.mark.parametrize(
    ("status", "errors", "expected", "word"),
    [
        (400, ["something about the content"], Invalid, "refuses"),
        (400, ["check-and-set parameter did not match the current version"], Conflict, "first"),
        (400, ["check-and-set parameter required for this call"], Conflict, "first"),
        (401, [], Denied, "policy"),
        (403, ["permission denied"], Denied, "policy"),
        (404, ["no handler for route"], Denied, "secrets.mount"),
        (404, ["namespace not found"], NoNamespace, "namespace"),
        (405, ["unsupported operation"], Denied, "secrets.mount"),
        (413, ["http: request body too large"], Invalid, "too large"),
        (412, ["required index state not present"], Unavailable, "error"),
        (429, ["quota exceeded"], Unavailable, "rate"),
        (472, [], Unavailable, "error"),
        (473, [], Unavailable, "error"),
        (500, ["internal error"], Unavailable, "error"),
        (501, [], Unavailable, "starting"),
        (502, [], Unavailable, "error"),
        (503, ["Vault is sealed"], Unavailable, "sealed"),
    ],
)
def test_each_status_has_an_error_and_an_advice(
    status: int, errors: list[str], expected: type[Problem], word: str
) -> None:
    error = exceptions.VaultError.from_status(status, f"status {status}", errors=errors, method="get", url="/v1/x")
    error.status = status
    with pytest.raises(expected) as caught, translated("do it"):
        raise error
    assert type(caught.value) is expected
    assert word in caught.value.detail
    assert caught.value.cause.startswith("do it: ")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TimeoutError(), "in time"),
        (aiohttp.ServerTimeoutError(), "in time"),
        (aiohttp.ConnectionTimeoutError(), "in time"),
        (aiohttp.ServerDisconnectedError(), "cannot be reached"),
        (aiohttp.ClientPayloadError(), "cannot be reached"),
        (ConnectionResetError(), "cannot be reached"),
        (OSError(101, "Network is unreachable"), "cannot be reached"),
    ],
)
def test_each_error_of_the_network_has_an_advice(error: Exception, word: str) -> None:
    with pytest.raises(Unavailable) as caught, translated("do it"):
        raise error
    assert word in caught.value.detail


@pytest.mark.parametrize("document", [None, {"data": {"metadata": {}}}])
def test_a_404_is_missing_and_carries_its_document(document: dict[str, object] | None) -> None:
    with pytest.raises(Missing) as caught, translated("do it"):
        raise exceptions.VaultError.from_status(404, "status 404", errors=None, json=document)
    assert caught.value.document == (document or {})


@pytest.mark.parametrize("document", [{"errors": []}, {"warnings": ["Invalid path"]}])
def test_a_write_makes_what_is_not_there_so_that_it_cannot_be_missing(document: dict[str, object]) -> None:
    with pytest.raises(Denied, match=r"secrets\.mount"), writing("do it"):
        raise exceptions.VaultError.from_status(404, "status 404", errors=None, json=document)
    with writing("do it"):
        pass


def test_what_is_no_fault_of_vault_passes_as_it_is() -> None:
    for error in (Denied("no"), KeyError("bug"), asyncio.CancelledError()):
        with pytest.raises(type(error)) as caught, translated("do it"):
            raise error
        assert caught.value is error
