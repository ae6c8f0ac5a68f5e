"""What is read again while the service runs: certificates and keys when they change, everything at SIGHUP."""

import asyncio
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.cli import SCRIPT
from tests.servers import Admin, Client, Service, pipeline_body, serving, settings, toml
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.cli.reloading import Reloads
from woodpecker_vault.cli.stand_in import public_pem


async def logged(service: Service, event: str, times: int = 1) -> list[dict[str, Any]]:
    """The log's lines about it, once there are so many."""
    async with asyncio.timeout(20):
        while True:
            found = [line for line in service.log if line["event"] == event]
            if len(found) >= times:
                return found
            await asyncio.sleep(0.005)


def hangup(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)


class TestSighup:
    async def test_everything_is_read_again_and_what_cannot_be_is_said(
        self,
        *,
        folder: Path,
        bao: OpenBao,
        admin: Admin,
        key: Ed25519PrivateKey,
        session: aiohttp.ClientSession,
    ) -> None:
        (folder / "key.pem").write_text(public_pem(key))
        token = await admin.token('path "secret/*" { capabilities = ["read", "list"] }', name="reloaded")
        (folder / "token").write_text(token)
        document = settings(key, bao, woodpecker={"public_keys": [], "public_key_files": [str(folder / "key.pem")]})
        document["vault.auth"] = {"token_file": str(folder / "token")}
        async with serving(folder, document) as service:
            (file,) = folder.glob("config-*.toml")  # noqa: ASYNC240 - a handful of files
            document["server"]["request_timeout"] = 5.0
            file.write_text(toml(document))
            hangup(service)
            await logged(service, "reading certificates, keys and credentials again")
            await logged(service, "a public key file was read again")
            (line,) = await logged(service, "some settings have changed; they count from the next start on")
            assert line["settings"] == ["[server] request_timeout"]
            document["server"]["request_timeout"] = -1
            file.write_text(toml(document))
            hangup(service)
            (line,) = await logged(service, "the settings are wrong now; with them the service would not start")
            assert "request_timeout" in line["lines"][0]
            client = Client(session, service.url, key)
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200

    async def test_new_credentials_are_logged_in_with(
        self, *, folder: Path, bao: OpenBao, admin: Admin, key: Ed25519PrivateKey
    ) -> None:
        await admin.call("POST", "sys/auth/reloaded", {"type": "approle"})
        await admin.call("POST", "auth/reloaded/role/ci", {"token_policies": ["default"]})
        _, answer = await admin.call("GET", "auth/reloaded/role/ci/role-id")
        auth = {"method": "approle", "mount": "reloaded", "role_id": answer["data"]["role_id"]}
        auth["secret_id_file"] = str(folder / "secret-id")

        async def new_secret_id() -> None:
            _, answer = await admin.call("POST", "auth/reloaded/role/ci/secret-id", {})
            (folder / "secret-id").write_text(answer["data"]["secret_id"])

        try:
            await new_secret_id()
            document = settings(key, bao)
            document["vault.auth"] = auth
            async with serving(folder, document) as service:
                await logged(service, "logged in to Vault")
                await new_secret_id()
                hangup(service)
                await logged(service, "logged in to Vault", times=2)
                (folder / "secret-id").write_text("wrong")
                hangup(service)
                async with asyncio.timeout(20):
                    while not any("login to Vault failed" in line["event"] for line in service.log):  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
        finally:
            await admin.call("DELETE", "sys/auth/reloaded")

    async def test_with_nothing_to_read_again_it_does_no_harm_however_often(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
    ) -> None:
        async with serving(folder, settings(key, bao)) as service:
            for _ in range(50):
                hangup(service)
                await asyncio.sleep(0.002)
            client = Client(session, service.url, key)
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
            assert await service.stop() == 0

    async def test_it_ends_nothing_from_the_first_line_on_until_the_last(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey
    ) -> None:
        """During the start and the end, too: sent all the time from when the process ignores it for the first time."""
        file = folder / "config.toml"
        file.write_text(toml(settings(key, bao)))
        process = await asyncio.create_subprocess_exec(
            SCRIPT, "--config", str(file), "serve", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while not deaf_to(process.pid, signal.SIGHUP):  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.001)

        async def keep_sending() -> None:
            while process.returncode is None:
                try:
                    # Not send_signal: that polls, and may take the exit code away from asyncio, which then reports 255.
                    os.kill(process.pid, signal.SIGHUP)
                except ProcessLookupError:
                    return
                await asyncio.sleep(0.0005)

        sending = asyncio.ensure_future(keep_sending())
        async with asyncio.timeout(30):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "it ended before"
        process.terminate()
        await process.communicate()
        await sending
        assert process.returncode == 0

    async def test_dev_ends_by_it_and_takes_its_openbao_with_it(self, tmp_path: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            SCRIPT,
            "dev",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"Ctrl-C ends all of it" not in (line := await process.stdout.readline()):
                assert line, "it ended before"
            process.send_signal(signal.SIGHUP)
            await process.communicate()
        assert process.returncode == 0
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a handful of files


def deaf_to(pid: int, number: signal.Signals) -> bool:
    """Whether the process ignores this signal, or has a handler for it."""
    masks = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("SigIgn:", "SigCgt:")):
            masks |= int(line.split()[1], 16)
    return bool(masks & (1 << (number - 1)))


class TestReloads:
    async def test_a_part_that_fails_does_not_keep_the_others_from_being_read(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        reloads, done = Reloads(), asyncio.Event()

        def fail() -> None:
            raise RuntimeError("hunter2")

        async def succeed() -> None:
            done.set()

        reloads.add(fail)
        reloads.add(succeed)
        living = asyncio.ensure_future(reloads.live())
        for _ in range(2):
            reloads.ask()
            await asyncio.wait_for(done.wait(), 20)
            done.clear()
        living.cancel()
        assert "hunter2" not in caplog.text


class TestCertificates:
    async def test_the_servers_is_the_one_in_the_file_and_a_half_written_one_changes_nothing(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey
    ) -> None:
        authority = trustme.CA()
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)

        def write(*, whole: bool) -> bytes:
            """A new pair, or its certificate without its key; the certificate."""
            made = authority.issue_cert("127.0.0.1")
            made.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
            if whole:
                made.private_key_pem.write_to_path(str(folder / "key.pem"))
            return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

        async def shown(port: int) -> bytes:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return certificate

        first = write(whole=True)
        document = settings(key, bao)
        document["server"] |= {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
        port = document["server"]["port"]
        async with serving(folder, document) as service:
            assert await shown(port) == first
            write(whole=False)
            assert [await shown(port) for _ in range(3)] == [first] * 3
            second = write(whole=True)
            assert await shown(port) == second
        warnings = [line for line in service.log if line["level"] == "warning"]
        assert ["stays" in line["event"] for line in warnings] == [True]


class TestSilentConnections:
    async def test_more_than_it_may_have_do_not_stop_it(
        self, folder: Path, bao: OpenBao, key: Ed25519PrivateKey, session: aiohttp.ClientSession
    ) -> None:
        file = folder / "config.toml"
        document = settings(key, bao)
        file.write_text(toml(document))
        limited = f"ulimit -n 200; exec {SCRIPT} --config {file} serve"
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", limited, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while b"listening" not in (line := await process.stdout.readline()):
                assert line, "it ended before"
        port = document["server"]["port"]
        silent = []
        for _ in range(400):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            silent.append(writer)
        client = Client(session, f"http://127.0.0.1:{port}", key)
        for _ in range(5):
            assert (await client.send("POST", "/secrets", pipeline_body())).status == 200
        for writer in silent:
            writer.close()
        process.terminate()
        out, _ = await process.communicate()
        assert process.returncode == 0
        assert out.count(b"ulimit -n") == 1
