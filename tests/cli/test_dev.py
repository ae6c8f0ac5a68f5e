"""``dev``: what it shows works when it is done as shown, and nothing of it is left when it ends."""

import asyncio
import os
import pty
import re
import shlex
import shutil
import signal
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner

from tests.cli import SCRIPT, Finished, content, listens, processes_with, run
from woodpecker_vault.cli import app
from woodpecker_vault.cli.openbao import free_port
from woodpecker_vault.cli.stand_in import private_pem, public_pem

READY = "Ctrl-C ends all of it."


@dataclass
class Dev:
    """A running ``dev`` with a home and a folder for temporary files of its own."""

    process: asyncio.subprocess.Process
    home: Path
    temporary: Path
    terminal: int | None
    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All that it has shown."""
        return b"".join(self.chunks).decode(errors="replace").replace("\r\n", "\n")

    def shown(self, pattern: str) -> str:
        """The group of a pattern in what it has shown."""
        match = re.search(pattern, self.text, flags=re.MULTILINE)
        assert match, self.text
        return match[1]

    @property
    def vault(self) -> str:
        return self.shown(r"Vault \(OpenBao\) is at (http://\S+),")

    @property
    def token(self) -> str:
        return self.shown(r"root token is (\S+)$")

    @property
    def service(self) -> str:
        return self.shown(r"The service is at (http://\S+)$")

    @property
    def put_commands(self) -> str:
        """The lines to copy into a shell that add a secret."""
        return "\n".join(re.findall(r"^    (export BAO_ADDR=.*|\S*bao\S* kv .*)$", self.text, flags=re.MULTILINE))

    @property
    def request_command(self) -> str:
        """The line to copy into a shell that sends a request."""
        return self.shown(r"^    (.* dev request .*)$")

    def ports(self) -> list[int]:
        return [
            int(self.shown(pattern))
            for pattern in (r"OpenBao\) is at http://[\d.]+:(\d+)", r"e service is at \S+:(\d+)/")
        ]

    async def until_shown(self, text: str) -> None:
        async with asyncio.timeout(30):
            while text not in self.text:
                assert self.process.returncode is None, self.text
                await asyncio.sleep(0.005)

    async def nothing_left(self) -> None:
        """It has ended, and with it all that belongs to it."""
        for port in self.ports():
            assert not await listens(port)
            assert processes_with(f"127.0.0.1:{port}") == []
        assert content(self.temporary) == []
        assert not (self.home / ".vault-token").exists()


@asynccontextmanager
async def developing(
    folder: Path,
    *command: str,
    on_terminal: bool = False,
    temporary: str = "tmp",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Dev]:
    """``dev``, until the block ends; killed then if it has not ended itself."""
    home, temporary_folder = folder / "home", folder / temporary
    home.mkdir()
    temporary_folder.mkdir()
    ours, its = pty.openpty() if on_terminal else os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(command or (SCRIPT, "dev")),
        stdin=its if on_terminal else asyncio.subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(temporary_folder), "TERM": "xterm", **(environment or {})},
        start_new_session=True,
        # So that Ctrl-C on the terminal reaches it.
        preexec_fn=(lambda: ioctl(its, termios.TIOCSCTTY, 0)) if on_terminal else None,
    )
    os.close(its)
    dev = Dev(process, home, temporary_folder, ours if on_terminal else None)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # a terminal that nobody has open any more
            chunk = b""
        if chunk:
            dev.chunks.append(chunk)
        else:
            loop.remove_reader(ours)

    loop.add_reader(ours, read)
    try:
        yield dev
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()
        loop.remove_reader(ours)
        os.close(ours)
        for pid in processes_at_home_in(temporary_folder):
            os.kill(pid, signal.SIGKILL)  # a test has said so already


@pytest.fixture(scope="module")
async def dev(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """The installed command, not on a terminal, in a shell that is set up for another Vault."""
    other_vault = {
        "VAULT_ADDR": "http://127.0.0.1:9",
        "VAULT_TOKEN": "hvs.wrong",
        "WOODPECKER_VAULT_SERVER__PORT": "1",
        "WOODPECKER_VAULT_SECRETS__MOUNT": "wrong",
    }
    async with developing(tmp_path_factory.mktemp("dev"), environment=other_vault) as dev:
        await dev.until_shown(READY)
        yield dev


@pytest.fixture(scope="module")
async def dev_on_terminal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """``python -m woodpecker_vault dev`` on a terminal, its folder for temporary files oddly named."""
    command = (sys.executable, "-m", "woodpecker_vault", "dev")
    folder = tmp_path_factory.mktemp("dev")
    async with developing(folder, *command, on_terminal=True, temporary="temporary $files") as dev:
        await dev.until_shown(READY)
        yield dev


async def shell(command: str) -> Finished:
    """What somebody who copies the command into a shell gets."""
    return await run("/bin/sh", "-ec", command)


class TestDev:
    async def test_it_shows_vaults_address_and_a_token_that_work(self, dev: Dev) -> None:
        finished = await run(
            str(Path(sys.executable).parent / "bao"),
            "kv",
            "list",
            "-mount=secret",
            "woodpecker/",
            environment={"BAO_ADDR": dev.vault, "BAO_TOKEN": dev.token},
        )
        assert (finished.code, finished.out.split()) == (0, ["Keys", "----", "global/", "org/", "repo/"])

    async def test_it_shows_the_samples_and_the_answer_of_a_request_as_tables(self, dev: Dev) -> None:
        in_vault, _, given = dev.text.partition("Its answer:")
        assert re.search(r"^\| woodpecker/org/1/registry +\| username, password +\|", in_vault, flags=re.MULTILINE)
        assert re.search(r"^\| deploy_key +\| repo-deploy-key +\| push +\|", given, flags=re.MULTILINE)
        assert re.search(r"^\| registry_password +\| org-registry-password +\|", given, flags=re.MULTILINE)
        assert "global-deploy-key" not in given
        assert "release-key" not in given

    async def test_away_from_a_terminal_it_is_plain(self, dev: Dev) -> None:
        assert "\x1b" not in dev.text

    async def test_on_a_terminal_it_is_in_colour(self, dev_on_terminal: Dev) -> None:
        assert re.search(r"\x1b\[[0-9;]*m", dev_on_terminal.text)

    async def test_the_commands_it_shows_work_when_they_are_copied_into_a_shell(self, dev: Dev) -> None:
        before = await shell(dev.request_command)
        assert before.code == 0, before.err
        assert "hello" not in before.out
        assert dev.put_commands.count("\n") == 2
        put = await shell(dev.put_commands)
        assert put.code == 0, put.err
        after = await shell(dev.request_command)
        assert after.code == 0, after.err
        assert re.search(r"^\| hello +\| world +\| push, tag +\|", after.out, flags=re.MULTILINE)
        assert after.err == ""

    async def test_the_request_command_can_be_run_when_dev_was_started_as_a_module(self, dev_on_terminal: Dev) -> None:
        program = shlex.split(dev_on_terminal.request_command)[0]
        assert shutil.which(program), f"{program} cannot be run"

    @pytest.mark.parametrize("which", ["dev", "dev_on_terminal"])
    def test_the_request_command_names_the_key_file_whatever_its_folder_is_called(
        self, request: pytest.FixtureRequest, which: str
    ) -> None:
        dev: Dev = request.getfixturevalue(which)
        words = shlex.split(dev.request_command)
        file = Path(words[words.index("--key") + 1])
        assert file.is_relative_to(dev.temporary)
        assert file.exists()
        assert file.stat().st_mode & 0o077 == 0

    async def test_nothing_is_written_to_the_home(self, dev: Dev) -> None:
        assert content(dev.home) == []

    async def test_vault_and_service_are_for_this_machine_only(self, dev: Dev) -> None:
        assert dev.vault.startswith("http://127.0.0.1:")
        assert dev.service.startswith("http://127.0.0.1:")

    async def test_a_taken_port_is_a_line_and_leaves_nothing(self, dev: Dev, folder: Path) -> None:
        taken = dev.ports()[1]
        async with developing(folder, SCRIPT, "dev", "--port", str(taken)) as second:
            assert await asyncio.wait_for(second.process.wait(), 30) == 1
            assert content(second.temporary) == []
            assert processes_at_home_in(second.temporary) == []
        assert f"woodpecker-vault: cannot listen on 127.0.0.1:{taken}" in second.text
        assert "Traceback" not in second.text


class TestEnd:
    async def test_ctrl_c_ends_all_of_it(self, folder: Path) -> None:
        async with developing(folder, on_terminal=True) as dev:
            await dev.until_shown(READY)
            assert len(processes_with(f"127.0.0.1:{dev.ports()[0]}")) == 1
            assert content(dev.temporary)
            assert dev.terminal is not None
            os.write(dev.terminal, b"\x03")
            assert await asyncio.wait_for(dev.process.wait(), 20) == 0
            await dev.nothing_left()
        assert "Traceback" not in dev.text

    async def test_sigterm_ends_all_of_it(self, folder: Path) -> None:
        port = free_port()
        async with developing(folder, SCRIPT, "dev", "--port", str(port)) as dev:
            await dev.until_shown(READY)
            assert dev.ports()[1] == port
            dev.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(dev.process.wait(), 20) == 0
            await dev.nothing_left()
        assert "Traceback" not in dev.text

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
    async def test_a_signal_while_it_starts_leaves_nothing_either(self, folder: Path, number: signal.Signals) -> None:
        async with developing(folder) as dev:
            await dev.until_shown("Starting OpenBao")
            dev.process.send_signal(number)
            code = await asyncio.wait_for(dev.process.wait(), 20)
            # OpenBao's home is in that folder, and so in its environment.
            assert processes_at_home_in(dev.temporary) == []
            assert content(dev.temporary) == []
            assert code == 0
        assert "Traceback" not in dev.text


def processes_at_home_in(folder: Path) -> list[int]:
    """The processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # it has just ended
        if str(folder).encode() in environment:
            found.append(int(process.name))
    return found


@pytest.fixture
def key_file(dev: Dev) -> Path:
    """The key that the running service trusts."""
    (file,) = dev.temporary.glob("*/*.pem")
    return file


async def request(key: Path, url: str, *options: str) -> Finished:
    return await run(SCRIPT, "dev", "request", "--key", str(key), "--url", url, *options)


class TestRequest:
    async def test_it_asks_for_what_the_options_say(self, dev: Dev, key_file: Path) -> None:
        pull_request = await request(key_file, dev.service, "--event", "pull_request", "--from-fork")
        assert re.findall(r"^\| (\w+) +\|", pull_request.out, flags=re.MULTILINE) == ["name", "codecov"]
        other = await request(key_file, dev.service, "--repo-id", "2", "--org-id", "2", "--event", "cron")
        assert re.findall(r"^\| (\w+) +\|", other.out, flags=re.MULTILINE) == ["name", "npm_token", "sentry_dsn"]
        branch = await request(key_file, dev.service, "--branch", "feature")
        assert "deploy_key" not in branch.out

    async def test_a_value_is_shown_as_it_is(self, dev: Dev, key_file: Path) -> None:
        value = "[bold]not bold[/] [/italic] :smile: \\[x]"
        put = await run(
            str(Path(sys.executable).parent / "bao"),
            "kv",
            "put",
            "-mount=secret",
            "woodpecker/repo/31/odd",
            f"value={value}",
            environment={"BAO_ADDR": dev.vault, "BAO_TOKEN": dev.token},
        )
        assert put.code == 0, put.err
        finished = await request(key_file, dev.service, "--repo-id", "31")
        assert finished.code == 0, finished.err
        assert value in finished.out

    async def test_a_refusal_is_exit_code_1_and_shown(self, dev: Dev, folder: Path) -> None:
        stranger = folder / "stranger.pem"
        stranger.write_bytes(private_pem(Ed25519PrivateKey.generate()))
        finished = await request(stranger, dev.service)
        assert (finished.code, finished.out) == (1, "")
        assert "status 401" in finished.err
        assert "No known key verifies this signature" in finished.err

    async def test_a_wrong_path_is_exit_code_1_and_shown(self, dev: Dev, key_file: Path) -> None:
        finished = await request(key_file, dev.service.replace("/secrets", "/secret"))
        assert (finished.code, finished.out) == (1, "")
        assert "status 404" in finished.err

    @pytest.mark.parametrize("url", ["http://127.0.0.1:{free}/secrets", "nonsense", "http://", "http://[", "ftp://h/"])
    async def test_a_url_that_cannot_be_reached_is_exit_code_1_and_a_line(self, key_file: Path, url: str) -> None:
        url = url.format(free=free_port())
        finished = await request(key_file, url)
        assert finished.code in {1, 2}
        assert finished.out == ""
        (line,) = finished.err.splitlines()
        assert line.startswith(f"woodpecker-vault: {url}: ")

    async def test_an_answer_that_is_no_list_of_secrets_is_exit_code_1_and_a_line(self, key_file: Path) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            finished = await request(key_file, url)
        assert (finished.code, finished.out) == (1, "")
        (line,) = finished.err.splitlines()
        assert url in line

    @pytest.mark.parametrize("kind", ["missing", "a folder", "empty", "no key", "public", "RSA", "encrypted"])
    def test_a_key_file_without_an_ed25519_private_key_is_exit_code_2_and_a_line(self, folder: Path, kind: str) -> None:
        file = folder / "key.pem"
        ed25519 = Ed25519PrivateKey.generate()
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        match kind:
            case "a folder":
                file.mkdir()
            case "empty":
                file.touch()
            case "no key":
                file.write_text("no key")
            case "public":
                file.write_text(public_pem(ed25519))
            case "RSA":
                file.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            case "encrypted":
                encryption = BestAvailableEncryption(b"password")
                file.write_bytes(ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        options = ["--key", str(file), "--url", "http://127.0.0.1:9/secrets"]
        result = CliRunner().invoke(app, ["dev", "request", *options])
        assert (result.exit_code, result.stdout) == (2, ""), result.exception
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"woodpecker-vault: {file}: ")
