"""Certificates between the service and a real OpenBao: what is wrong with them, and new ones in their files."""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.servers import Client, pipeline_body, serving, settings
from tests.vault import rooms
from tests.vault.conftest import SERVER_NAME, Tls
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import free_port
from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.faults import translated


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


class TestWhatStandsBefore:
    """What is not TLS and not Vault either, and is not the network's fault."""

    @staticmethod
    @asynccontextmanager
    async def saying(answer: bytes) -> AsyncIterator[str]:
        """The address, without a scheme, of something that says this to whatever it hears, and hangs up."""

        async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(16)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(say, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def test_a_tls_alert_as_the_answer_to_plain_http(self) -> None:
        async with self.saying(b"\x15\x03\x01\x00\x02\x02\x46") as where:
            assert await advice(Connection(f"http://{where}"), "x") == "What answers at vault.address wants https://."

    async def test_a_hang_up_as_the_answer_to_plain_http(self) -> None:
        async with self.saying(b"") as where:
            assert "https://" in await advice(Connection(f"http://{where}"), "x")

    async def test_a_hang_up_in_the_handshake(self) -> None:
        async with self.saying(b"") as where:
            assert "TLS" in await advice(Connection(f"https://{where}"), "x")

    async def test_a_proxy_that_is_not_there(self) -> None:
        connection = Connection("https://vault.example", proxy=f"http://127.0.0.1:{free_port()}")
        assert "vault.proxy" in await advice(connection, "x")

    async def test_a_proxy_that_does_not_let_it_through(self) -> None:
        async with self.saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as where:
            assert "vault.proxy" in await advice(Connection("https://vault.example", proxy=f"http://{where}"), "x")

    def test_no_file_descriptor_left(self) -> None:
        with pytest.raises(Unavailable, match="ulimit -n"), translated("do it"):
            raise OSError(errno.EMFILE, "Too many open files")


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
