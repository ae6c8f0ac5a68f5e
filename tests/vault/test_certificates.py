"""Certificates between the service and a real OpenBao: what is wrong with them, and new ones in their files."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.servers import Client, pipeline_body, serving, settings
from tests.vault import rooms
from tests.vault.conftest import SERVER_NAME, Tls
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import free_port
from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.connection import Connection


async def advice(connection: Connection, token: str) -> str:
    """What is said of a call that fails."""
    async with rooms(connection, token) as ours:
        with pytest.raises(Unavailable) as caught:
            await ours.kv.list("certificates/")
    assert "network" not in caught.value.detail
    return caught.value.detail


class TestTrouble:
    async def test_an_authority_that_is_not_trusted(self, node: Raft, tls: Tls) -> None:
        connection = Connection(tls.address, ca_cert=tls.file("other-ca.pem"), tls_server_name=SERVER_NAME)
        assert "not trusted: set vault.ca_cert" in await advice(connection, node.token)

    async def test_another_name(self, node: Raft, tls: Tls) -> None:
        connection = Connection(tls.address, ca_cert=tls.file("ca.pem"))
        assert "set vault.tls_server_name" in await advice(connection, node.token)

    async def test_plain_http_on_the_other_side(self, node: Raft, tls: Tls) -> None:
        connection = Connection(node.address.replace("http:", "https:"), ca_cert=tls.file("ca.pem"))
        assert "write http:// in vault.address" in await advice(connection, node.token)

    async def test_tls_on_the_other_side(self, node: Raft, tls: Tls) -> None:
        assert "https" in await advice(Connection(tls.address.replace("https:", "http:")), node.token)

    @pytest.mark.parametrize("own", ["", "other-client"], ids=["none", "another's"])
    async def test_a_client_certificate_that_is_refused(self, node: Raft, tls: Tls, own: str) -> None:
        files = {"client_cert": tls.file(f"{own}.pem"), "client_key": tls.file(f"{own}.key")} if own else {}
        connection = Connection(
            tls.mutual_address,
            ca_cert=tls.file("ca.pem"),
            tls_server_name=SERVER_NAME,
            **files,  # type: ignore[arg-type]  # texts, all of them
        )
        assert "check vault.client_cert" in await advice(connection, node.token)


class TestNewFiles:
    async def test_the_next_request_goes_out_under_them(self, node: Raft, tls: Tls, tmp_path: Path) -> None:
        names = {"ca_cert": "ca.pem", "client_cert": "client.pem", "client_key": "client.key"}
        mine = {setting: str(tmp_path / name) for setting, name in names.items()}

        def put(prefix: str, *settings: str) -> None:
            for setting in settings:
                shutil.copy(tls.file(prefix + names[setting]), mine[setting])

        put("", *names)
        connection = Connection(tls.mutual_address, tls_server_name=SERVER_NAME, **mine)  # type: ignore[arg-type]
        async with rooms(connection, node.token) as ours:
            assert await ours.kv.list("certificates/") == []
            put("other-", "client_cert", "client_key")
            with pytest.raises(Unavailable, match="client_cert"):
                await ours.kv.list("certificates/")
            put("", "client_cert", "client_key")
            assert await ours.kv.list("certificates/") == []
            put("other-", "ca_cert")
            with pytest.raises(Unavailable, match="not trusted"):
                await ours.kv.list("certificates/")
            put("other-", "client_key")  # half of a pair
            with pytest.raises(Unavailable, match="not trusted"):
                await ours.kv.list("certificates/")
            put("", *names)
            assert await ours.kv.list("certificates/") == []

    async def test_a_service_that_runs_comes_to_itself_by_them(
        self, node: Raft, tls: Tls, tmp_path: Path, client: Client
    ) -> None:
        shutil.copy(tls.file("other-ca.pem"), tmp_path / "ca.pem")
        document = settings(client.key, node.server, vault={"ca_cert": str(tmp_path / "ca.pem")})
        document["vault"] |= {"address": tls.address, "tls_server_name": SERVER_NAME}
        document["server"] |= {"request_timeout": 1.0, "port": free_port()}
        async with serving(tmp_path, document) as service:
            asking = Client(client.session, service.url, client.key)
            reply = await asking.send("POST", "/secrets", pipeline_body())
            assert reply.status == 503
            assert "not trusted: set vault.ca_cert" in reply.json["detail"]
            shutil.copy(tls.file("ca.pem"), tmp_path / "ca.pem")
            async with asyncio.timeout(20):  # a login that failed is only tried again after a moment
                while reply.status != 200:
                    reply = await asking.send("POST", "/secrets", pipeline_body())
