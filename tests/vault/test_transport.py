"""hvac over aiohttp against a real OpenBao: TLS, namespaces, connections, tokens."""

import asyncio
import traceback
from typing import Any

import pytest

from tests.servers import Admin, Proxy
from tests.vault import Gate, rooms
from tests.vault.conftest import SERVER_NAME, Tls
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Denied, Unavailable
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.transport import AuthenticatedAdapter


async def test_tls_with_the_right_ca_and_name_works(node: Raft, tls: Tls) -> None:
    connection = Connection(tls.address, ca_cert=tls.file("ca.pem"), tls_server_name=SERVER_NAME)
    async with rooms(connection, node.token) as ours:
        await ours.kv.put("tls/token", {"value": "x"}, cas=0)
        assert (await ours.kv.read("tls/token")).data == {"value": "x"}
        await ours.kv.destroy("tls/token")


async def test_a_folder_of_cas_works_too(node: Raft, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cas")
    for name in ("other-ca.pem", "ca.pem"):
        folder.joinpath(name).write_text(tls.folder.joinpath(name).read_text())
    connection = Connection(tls.address, ca_path=str(folder), tls_server_name=SERVER_NAME)
    async with rooms(connection, node.token) as ours:
        assert await ours.kv.read("tls/none") == Entry()


@pytest.mark.parametrize(
    "connection",
    [
        pytest.param({"ca_cert": "other-ca.pem", "tls_server_name": SERVER_NAME}, id="another CA"),
        pytest.param({"tls_server_name": SERVER_NAME}, id="the system's CAs"),
        pytest.param({"ca_cert": "ca.pem"}, id="no server name"),
        pytest.param({"ca_cert": "ca.pem", "tls_server_name": "other.example"}, id="another server name"),
    ],
)
async def test_tls_that_cannot_be_trusted_is_unavailable_and_sees_no_token(
    node: Raft, tls: Tls, connection: dict[str, str]
) -> None:
    files: dict[str, Any] = {key: tls.file(text) if key.endswith("cert") else text for key, text in connection.items()}
    async with rooms(Connection(tls.address, **files), node.token) as ours:
        with pytest.raises(Unavailable) as caught:
            await ours.kv.read("tls/token")
    assert "ertificate" in caught.value.cause
    assert node.token not in "".join(traceback.format_exception(caught.value))


async def test_verification_can_be_skipped(node: Raft, tls: Tls) -> None:
    async with rooms(Connection(tls.address, skip_verify=True), node.token) as ours:
        assert await ours.kv.read("tls/none") == Entry()


@pytest.mark.parametrize(
    "files",
    [
        {"client_cert": "client.pem", "client_key": "client.key"},
        {"client_cert": "both.pem"},
    ],
)
async def test_a_client_certificate_is_shown(node: Raft, tls: Tls, files: dict[str, str]) -> None:
    paths: dict[str, Any] = {key: tls.file(name) for key, name in files.items()}
    connection = Connection(tls.mutual_address, ca_cert=tls.file("ca.pem"), tls_server_name=SERVER_NAME, **paths)
    async with rooms(connection, node.token) as ours:
        assert await ours.kv.read("tls/none") == Entry()


@pytest.mark.parametrize(
    "files", [{}, {"client_cert": "other-client.pem", "client_key": "other-client.key"}], ids=["none", "of another CA"]
)
async def test_without_the_right_client_certificate_vault_is_unavailable(
    node: Raft, tls: Tls, files: dict[str, str]
) -> None:
    paths: dict[str, Any] = {key: tls.file(name) for key, name in files.items()}
    connection = Connection(tls.mutual_address, ca_cert=tls.file("ca.pem"), tls_server_name=SERVER_NAME, **paths)
    async with rooms(connection, node.token) as ours:
        with pytest.raises(Unavailable):
            await ours.kv.read("tls/none")


@pytest.mark.parametrize("field", ["ca_cert", "client_cert"])
async def test_a_certificate_that_cannot_be_read_is_an_os_error(tls: Tls, field: str) -> None:
    for name in ("absent.pem", "client.key"):
        files: dict[str, Any] = {field: tls.file(name)}
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLError and FileNotFoundError
            open_session(Connection("https://127.0.0.1:1", **files))


async def test_plain_http_to_a_tls_port_is_unavailable(node: Raft, tls: Tls) -> None:
    async with rooms(Connection(tls.address.replace("https", "http")), node.token) as ours:
        with pytest.raises(Unavailable):
            await ours.kv.read("tls/token")


async def test_a_namespace_has_secrets_of_its_own(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    name = f"team-{repo_id}"
    await admin.call("POST", f"sys/namespaces/{name}")
    mount = {"type": "kv", "options": {"version": "2"}}
    status, _ = await admin.call("POST", "sys/mounts/secret", mount, **{"X-Vault-Namespace": name})
    assert status == 204
    try:
        async with (
            rooms(Connection(bao.address, namespace=name), bao.token) as inside,
            rooms(Connection(bao.address), bao.token) as outside,
        ):
            path = f"namespaces/{repo_id}/token"
            await inside.kv.put(path, {"value": "inside"}, cas=0)
            assert (await inside.kv.read(path)).data == {"value": "inside"}
            assert await outside.kv.read(path) == Entry()
            assert await inside.kv.list(f"namespaces/{repo_id}/") == ["token"]
            await outside.kv.put(path, {"value": "outside"}, cas=0)
            assert (await inside.kv.read(path)).data == {"value": "inside"}
    finally:
        await admin.call("DELETE", "sys/mounts/secret", **{"X-Vault-Namespace": name})
        await admin.call("DELETE", f"sys/namespaces/{name}")


async def test_a_namespace_that_is_not_there_is_denied(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address, namespace="nobodys"), bao.token) as ours:
        with pytest.raises(Denied):
            await ours.kv.read("namespaces/token")


async def test_no_more_connections_are_made_than_allowed(bao: OpenBao) -> None:
    proxy = Proxy(bao.address)
    async with proxy.listening(), rooms(Connection(proxy.address, max_connections=3), bao.token) as ours:
        proxy.delay = 0.01
        entries = await asyncio.gather(*(ours.kv.read(f"connections/{number}") for number in range(30)))
        assert entries == [Entry()] * 30
        assert proxy.connections == 3


async def test_waiting_for_a_free_connection_does_not_count_as_vault_being_slow(bao: OpenBao) -> None:
    proxy = Proxy(bao.address)
    async with (
        proxy.listening(),
        rooms(Connection(proxy.address, max_connections=2, timeout=0.4), bao.token) as ours,
    ):
        proxy.delay = 0.04
        entries = await asyncio.gather(*(ours.kv.read(f"connections/{number}") for number in range(40)))
        assert entries == [Entry()] * 40


async def test_connections_are_used_again(bao: OpenBao) -> None:
    proxy = Proxy(bao.address)
    async with proxy.listening(), rooms(Connection(proxy.address), bao.token) as ours:
        for number in range(5):
            await ours.kv.read(f"connections/{number}")
        assert proxy.connections == 1


async def test_a_connection_that_vault_closed_is_not_held_against_the_next_request(bao: OpenBao) -> None:
    proxy = Proxy(bao.address)
    async with proxy.listening(), rooms(Connection(proxy.address), bao.token) as ours:
        for number in range(3):
            assert await ours.kv.read(f"connections/{number}") == Entry()
            proxy.drop()
        assert proxy.connections == 3


async def test_an_address_that_ends_in_a_slash_works(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address + "/"), bao.token) as ours:
        assert await ours.kv.read("connections/none") == Entry()


class Counted:
    """A source of tokens that says how often it was asked."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)
        self.refusals: list[str] = []
        self.helped: list[str] = []

    async def current(self) -> str:
        return self._tokens[0]

    async def after_refusal(self, refused: str, url: str) -> str | None:
        assert url.endswith("lookup-self")
        self.refusals.append(refused)
        self._tokens.pop(0)
        return self._tokens[0] if self._tokens else None

    def accepted(self, token: str) -> None:
        self.helped.append(token)


async def test_a_refused_token_is_replaced_once_and_only_once(bao: OpenBao) -> None:
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address)) as ours:
        tokens = Counted("wrong", bao.token)
        answer = await AuthenticatedAdapter(ours.sender, "", tokens).request("get", "/v1/auth/token/lookup-self")
        assert answer["data"]["id"] == bao.token
        assert (tokens.refusals, tokens.helped, len(gate.requests)) == (["wrong"], [bao.token], 2)
        gate.heal()
        tokens = Counted("wrong", "wrong too", bao.token)
        with pytest.raises(Exception, match="permission denied"):
            await AuthenticatedAdapter(ours.sender, "", tokens).request("get", "/v1/auth/token/lookup-self")
        assert (tokens.refusals, tokens.helped, len(gate.requests)) == (["wrong"], [], 2)


async def test_the_unauthenticated_adapter_sends_no_token(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token) as ours:
        with pytest.raises(Exception, match=r"permission denied|missing client token"):
            await ours.adapter.request("get", "/v1/auth/token/lookup-self")


async def test_a_login_hands_back_the_token_that_it_got(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    mount = f"approle-{repo_id}"
    await admin.call("POST", f"sys/auth/{mount}", {"type": "approle"})
    try:
        await admin.call("POST", f"auth/{mount}/role/ci", {"token_policies": ["default"]})
        _, role = await admin.call("GET", f"auth/{mount}/role/ci/role-id")
        _, secret = await admin.call("POST", f"auth/{mount}/role/ci/secret-id")
        document = {"role_id": role["data"]["role_id"], "secret_id": secret["data"]["secret_id"]}
        async with rooms(Connection(bao.address)) as ours:
            answer = await ours.adapter.login(f"/v1/auth/{mount}/login", use_token=True, json=document)
            token = ours.adapter.get_login_token(answer)
        async with rooms(Connection(bao.address), token) as ours:
            found = await ours.authenticated.request("get", "/v1/auth/token/lookup-self")
            assert found["data"]["policies"] == ["default"]
    finally:
        await admin.call("DELETE", f"sys/auth/{mount}")


async def test_no_repr_shows_a_token(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token) as ours:
        await ours.kv.read("connections/none")
        for thing in (
            ours,
            ours.adapter,
            ours.authenticated,
            ours.tokens,
            ours.tokens._held,
            ours.tokens._method,
            ours.kv,
        ):
            assert bao.token not in repr(thing)
            assert bao.token not in str(thing)
