"""No login: a real agent adds its token, over TCP or a Unix socket, and what it answers is Vault's."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.agent import agent
from tests.servers import Admin, Client, pipeline_body, serving, settings
from tests.vault import rooms
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.errors import Denied, TokenRefused, Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.none import NoLogin
from woodpecker_vault.vault.transport import WithToken

POLICY = """
path "secret/data/none/*" { capabilities = ["create", "read", "update"] }
path "secret/metadata/none/*" { capabilities = ["list"] }
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: that of a socket may have no more than about 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="wv-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def token(admin: Admin) -> str:
    """The agent's token."""
    return await admin.token(POLICY, name="agent-of-none")


def configuration(bao: OpenBao, listener: str) -> str:
    """An agent that takes its token out of a file beside it."""
    return f"""
        vault {{ address = "{bao.address}" }}
        auto_auth {{ method "token_file" {{ config = {{ token_file_path = "agent-token" }} }} }}
        api_proxy {{ use_auto_auth_token = true }}
        listener {listener}
    """


UNIX = '"unix" {\naddress = "agent.sock"\ntls_disable = true\n}'


@pytest.fixture
async def socket(short: Path, bao: OpenBao, token: str) -> AsyncIterator[str]:
    """The address of one that listens at a socket."""
    (short / "agent-token").write_text(token)
    async with agent(short, configuration(bao, UNIX), "agent.sock"):
        yield f"unix://{short}/agent.sock"


async def test_at_a_socket_secrets_are_read_and_written_with_the_agents_token(socket: str) -> None:
    async with rooms(Connection(socket), method=NoLogin()) as ours:
        await ours.kv.put("none/by-socket", {"value": "x"}, cas=0)
        assert (await ours.kv.read("none/by-socket")).data == {"value": "x"}
        assert await ours.kv.list("none/") == ["by-socket"]
        await ours.tokens.end()  # there is nothing to revoke
        assert (await ours.kv.read("none/by-socket")).data == {"value": "x"}


async def test_over_tcp_as_well(tmp_path: Path, bao: OpenBao, token: str) -> None:
    where = f"127.0.0.1:{free_port()}"
    (tmp_path / "agent-token").write_text(token)
    listener = f'"tcp" {{\naddress = "{where}"\ntls_disable = true\n}}'
    async with (
        agent(tmp_path, configuration(bao, listener), where),
        rooms(Connection(f"http://{where}"), method=NoLogin()) as ours,
    ):
        await ours.kv.put("none/by-tcp", {"value": "x"}, cas=0)
        assert (await ours.kv.read("none/by-tcp")).data == {"value": "x"}


async def test_what_the_policy_lacks_is_a_matter_of_the_policy(socket: str) -> None:
    async with rooms(Connection(socket), method=NoLogin()) as ours:
        with pytest.raises(Denied, match="policy") as caught:
            await ours.kv.read("elsewhere/token")
        assert not isinstance(caught.value, TokenRefused)


async def test_a_token_that_is_sent_all_the_same_is_used_by_the_agent(socket: str, bao: OpenBao) -> None:
    """So an empty header must not be sent: it would be the one that counts, or not, as the agent pleases."""
    async with rooms(Connection(socket), method=NoLogin()) as ours:
        answer = await WithToken(ours.adapter, bao.token).request("get", "/v1/auth/token/lookup-self")
        assert "root" in answer["data"]["policies"]


async def test_a_vault_without_an_agent_denies(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), method=NoLogin()) as ours:
        with pytest.raises(Denied):
            await ours.kv.read("none/token")


@pytest.mark.parametrize("first", ["socket", "address"])
async def test_a_socket_and_an_address_stand_in_for_each_other(
    socket: str, tmp_path: Path, bao: OpenBao, token: str, first: str
) -> None:
    """The first of the two is dead."""
    gone = f"unix://{tmp_path}/gone.sock" if first == "socket" else f"http://127.0.0.1:{free_port()}"
    async with rooms(Connection(f"{gone},{socket}"), method=NoLogin()) as ours:
        assert await ours.kv.list("none/nothing/") == []
    async with rooms(Connection(f"{gone},{bao.address}"), token) as ours:
        assert await ours.kv.list("none/nothing/") == []


async def test_two_sockets_are_two_places(socket: str, short: Path) -> None:
    other = f"unix://{short}/other.sock"
    async with rooms(Connection(f"{socket},{other}"), method=NoLogin()) as ours:
        assert await ours.kv.list("none/nothing/") == []
    (short / "other.sock").symlink_to("agent.sock")
    async with rooms(Connection(f"unix://{short}/gone.sock,{other}"), method=NoLogin()) as ours:
        assert await ours.kv.list("none/nothing/") == []


async def test_a_proxy_in_the_settings_is_not_asked_for_a_socket(socket: str) -> None:
    connection = Connection(socket, proxy=f"http://127.0.0.1:{free_port()}")
    async with rooms(connection, method=NoLogin()) as ours:
        assert await ours.kv.list("none/nothing/") == []


async def test_a_socket_that_is_not_there_is_named_as_that(tmp_path: Path) -> None:
    async with rooms(Connection(f"unix://{tmp_path}/gone.sock"), method=NoLogin()) as ours:
        with pytest.raises(Unavailable, match="socket") as caught:
            await ours.kv.list("none/")
        assert f"{tmp_path}/gone.sock" in caught.value.cause
        assert "network" not in caught.value.detail


class TestService:
    """The whole service behind an agent."""

    @staticmethod
    def behind(socket: str, key: Ed25519PrivateKey, bao: OpenBao, **sections: Any) -> dict[str, Any]:
        document = settings(key, bao, vault={"address": socket}, **sections)
        document["vault.auth"] = {"method": "none"}
        return document

    async def test_it_is_ready_answers_and_never_says_that_it_logged_in(
        self,
        *,
        folder: Path,
        short: Path,
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
        repo_id: int,
    ) -> None:
        policy = """
            path "secret/data/woodpecker/*" { capabilities = ["read"] }
            path "secret/metadata/woodpecker/*" { capabilities = ["list"] }
        """
        (short / "agent-token").write_text(await admin.token(policy, name="agent-of-a-service"))
        await admin.put(f"woodpecker/repo/{repo_id}/x", "x-value")
        async with (
            agent(short, configuration(bao, UNIX), "agent.sock"),
            serving(folder, self.behind(f"unix://{short}/agent.sock", key, bao)) as service,
        ):
            client = Client(session, service.url, key)
            ready = await client.raw("GET", "/readyz", None, {})
            assert ready.status == 200, ready.body
            assert (await client.secrets(repo={"id": repo_id}))["x"]["value"] == "x-value"
        assert not any("logged in" in line for line in service.raw_log)
        (listening,) = [line for line in service.log if line["event"] == "listening"]
        assert listening["vault"] == f"unix://{short}/agent.sock"

    async def test_without_the_agent_it_answers_503_and_recovers_when_it_is_there(
        self, *, folder: Path, short: Path, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
    ) -> None:
        (short / "agent-token").write_text(bao.token)
        document = self.behind(f"unix://{short}/agent.sock", key, bao, server={"request_timeout": 1.0})
        document["server"]["host"] = "127.0.0.1"
        async with serving(folder, document) as service:
            client = Client(session, service.url, key)
            reply = await client.send("POST", "/secrets", pipeline_body())
            assert reply.status == 503
            assert "Retry-After" in reply.headers
            async with agent(short, configuration(bao, UNIX), "agent.sock"):
                assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
