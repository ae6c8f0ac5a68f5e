"""``serve``: how it starts, how it ends, and what it says when it cannot start."""

import asyncio
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests import servers
from tests.cli import SCRIPT, Finished, listens, run
from tests.servers import COMMAND, Client, Proxy, pipeline_body, serving, toml
from woodpecker_vault import __version__, config
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.cli.stand_in import public_pem
from woodpecker_vault.cli.wiring import running


def settings(key: Ed25519PrivateKey, bao: OpenBao, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings for a service on a free port; ``sections`` are merged in, ``[server]`` too."""
    server = sections.pop("server", {})
    document = servers.settings(key, bao, **sections)
    document["server"].update(server)
    return document


async def refused(folder: Path, document: dict[str, dict[str, Any]]) -> Finished:
    """Start it with settings with which it cannot; what it said."""
    file = folder / "refused.toml"
    file.write_text(toml(document))
    return await run(SCRIPT, "--config", str(file), "serve")


def the_line_in(finished: Finished) -> str:
    """The one line on standard error."""
    (line,) = finished.err.splitlines()
    assert line.startswith("woodpecker-vault: ")
    return line


@asynccontextmanager
async def starting(folder: Path, document: dict[str, dict[str, Any]]) -> AsyncIterator[asyncio.subprocess.Process]:
    """It as a process with both outputs kept apart, started or not."""
    file = folder / "starting.toml"
    file.write_text(toml(document))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "--config", str(file), "serve", stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_logged(process: asyncio.subprocess.Process, event: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            if event in json.loads(line)["event"]:
                return
    pytest.fail("it ended before")


class TestStart:
    async def test_the_first_answer_comes_within_seconds(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        document = settings(key, bao)
        url = f"http://127.0.0.1:{document['server']['port']}/healthz"
        started = time.monotonic()
        async with starting(folder, document), asyncio.timeout(20):
            while True:
                try:
                    async with session.get(url) as answer:
                        assert answer.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.01)
            assert time.monotonic() - started < 15

    async def test_it_says_where_it_listens(self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao) -> None:
        document = settings(key, bao, server={"port": 0, "base_path": "/extension-3f9c"})
        async with serving(folder, document) as service:
            (line,) = [line for line in service.log if line["event"] == "listening"]
            assert not any("extension-3f9c" in text for text in service.raw_log)
            assert not line["url"].startswith("http://127.0.0.1:0/")
            assert (line["version"], line["vault"]) == (__version__, bao.address)

    async def test_no_file_is_needed(
        self, key: Ed25519PrivateKey, bao: OpenBao, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "WOODPECKER_VAULT_SERVER__HOST": "127.0.0.1",
            "WOODPECKER_VAULT_SERVER__PORT": "0",
            "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([public_pem(key)]),
            "BAO_ADDR": bao.address,
            "BAO_TOKEN": bao.token,
        }.items():
            monkeypatch.setenv(name, value)
        process = await asyncio.create_subprocess_exec(SCRIPT, "serve", stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        url = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["url"]
        client = Client(session, url, key)
        assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
        process.terminate()
        await process.communicate()
        assert process.returncode == 0

    async def test_an_ipv6_address_is_listened_on_and_shown_in_brackets(
        self, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
    ) -> None:
        document = {
            "server": {"host": "::1", "port": 0},
            "woodpecker": {"public_keys": [public_pem(key)]},
            "vault": {"address": bao.address, "auth": {"token": bao.token}},
        }
        async with running(config.check(document, {})) as url:
            assert url.startswith("http://[::1]:")
            async with session.get(f"{url}/healthz") as answer:
                assert answer.status == 200

    async def test_it_serves_https_with_the_given_certificate(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey
    ) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        server = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with (
            serving(folder, settings(key, bao, server=server)) as service,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            assert service.url.startswith("https://127.0.0.1:")
            client = Client(session, service.url, key)
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    async def test_a_signal_ends_it_with_exit_code_0(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, number: signal.Signals
    ) -> None:
        document = settings(key, bao)
        async with starting(folder, document) as process:
            port = document["server"]["port"]
            async with asyncio.timeout(20):
                while not await listens(port):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.01)
            await until_logged(process, "listening")
            # The handlers are set right after that line.
            async with asyncio.timeout(30):
                while not catches(process.pid, number):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            process.send_signal(number)
            _, err = await asyncio.wait_for(process.communicate(), 20)
            assert (process.returncode, err) == (0, b"")
            assert not await listens(port)

    async def test_what_is_under_way_is_answered_first(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        async with Proxy(bao.address).listening() as proxy:
            document = settings(key, bao, vault={"address": proxy.address})
            async with serving(folder, document) as service:
                await service.logged_in()
                proxy.mode = "hang"
                proxy.drop()
                proxy.connections = 0
                client = Client(session, service.url, key)
                asking = asyncio.ensure_future(client.send("POST", "/secrets", pipeline_body()))
                async with asyncio.timeout(30):
                    while not proxy.connections:  # noqa: ASYNC110 - it is another process that connects
                        await asyncio.sleep(0.005)
                    service.process.send_signal(signal.SIGTERM)
                    while await listens(document["server"]["port"]):  # noqa: ASYNC110 - it is another process
                        await asyncio.sleep(0.005)
                assert not asking.done()
                proxy.mode = "pass"
                assert (await asking).status == 200
                assert await asyncio.wait_for(service.process.wait(), 20) == 0

    async def test_the_port_can_be_taken_again_at_once(
        self, key: Ed25519PrivateKey, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        document = {
            "server": {"host": "127.0.0.1", "port": free_port()},
            "woodpecker": {"public_keys": [public_pem(key)]},
            "vault": {"address": bao.address, "auth": {"token": bao.token}},
        }
        for _ in range(3):
            async with running(config.check(document, {})) as url:
                reply = await Client(session, url, key).send("POST", "/secrets", pipeline_body())
                assert reply.status == 200

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
    async def test_a_signal_while_it_waits_for_woodpeckers_key_ends_it_without_a_traceback(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, number: signal.Signals
    ) -> None:
        gone = f"http://127.0.0.1:{free_port()}"
        document = settings(key, bao, woodpecker={"public_keys": [], "server_url": gone})
        async with starting(folder, document) as process:
            await until_logged(process, "could not be fetched")
            process.send_signal(number)
            _, err = await asyncio.wait_for(process.communicate(), 20)
            assert "Traceback" not in err.decode()
            # Not by the signal itself: as the first process of a container it would not even end.
            assert process.returncode in {0, 1, 130}


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    # Python itself always has one for SIGINT, which raises; SIGTERM's is set at the same time as the one that counts.
    return bool(int(mask, 16) & (1 << (signal.SIGTERM - 1))) and bool(int(mask, 16) & (1 << (number - 1)))


class TestRefusal:
    async def test_a_second_service_on_the_port_says_so_and_the_first_goes_on(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        document = settings(key, bao)
        async with serving(folder, document) as service:
            finished = await refused(folder, document)
            assert finished.code == 1
            line = the_line_in(finished)
            assert f"cannot listen on 127.0.0.1:{document['server']['port']}" in line
            assert "in use" in line
            client = Client(session, service.url, key)
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200

    async def test_a_host_that_is_not_here_is_named(self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao) -> None:
        document = settings(key, bao, server={"host": "192.0.2.1"})
        finished = await refused(folder, document)
        assert finished.code == 1
        assert "cannot listen on 192.0.2.1:" in the_line_in(finished)

    async def test_a_host_name_that_does_not_resolve_is_named(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao
    ) -> None:
        document = settings(key, bao, server={"host": "nowhere.invalid"})
        finished = await refused(folder, document)
        assert finished.code == 1
        assert "cannot listen on nowhere.invalid:" in the_line_in(finished)

    @pytest.mark.parametrize("setting", ["tls_cert", "tls_key"])
    async def test_a_certificate_and_key_that_do_not_go_together_are_named(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, setting: str
    ) -> None:
        authority = trustme.CA()
        one, other = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
        one.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        other.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "empty.pem").touch()
        server = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        finished = await refused(folder, settings(key, bao, server=server))
        assert finished.code == 2
        assert "tls_cert" in the_line_in(finished)
        finished = await refused(folder, settings(key, bao, server={**server, setting: str(folder / "empty.pem")}))
        assert finished.code == 2
        assert "tls_cert" in the_line_in(finished)

    @pytest.mark.parametrize("setting", ["ca_cert", "client_cert"])
    async def test_a_certificate_for_vault_that_is_none_is_a_line_and_not_a_traceback(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao, setting: str
    ) -> None:
        (folder / "none.pem").write_text("no certificate")
        finished = await refused(
            folder, settings(key, bao, vault={"address": "https://127.0.0.1:8200", setting: str(folder / "none.pem")})
        )
        assert finished.code in {1, 2}
        assert setting in the_line_in(finished)

    async def test_a_folder_of_authorities_that_holds_something_else_is_a_line_and_not_a_traceback(
        self, folder: Path, key: Ed25519PrivateKey, bao: OpenBao
    ) -> None:
        (folder / "authorities").mkdir()
        (folder / "authorities" / "README").write_text("no certificate")
        finished = await refused(
            folder,
            settings(key, bao, vault={"address": "https://127.0.0.1:8200", "ca_path": str(folder / "authorities")}),
        )
        assert finished.code in {1, 2}
        assert "ca_path" in the_line_in(finished)
