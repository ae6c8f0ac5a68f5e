"""The command line: help, version, and what wrong usage and wrong settings are answered with."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.models import CommandInfo
from typer.testing import CliRunner

from tests.cli import SCRIPT, run
from woodpecker_vault import __version__
from woodpecker_vault.cli import app

COMMANDS = ((), ("serve",), ("dev",), ("dev", "request"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    for name in os.environ:
        if name.startswith(("WOODPECKER_VAULT_", "VAULT_", "BAO_")):
            monkeypatch.delenv(name)


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def command_names() -> Iterator[tuple[str, ...]]:
    """Every command that is registered."""
    yield ()
    for command in app.registered_commands:
        yield (name_of(command),)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield (str(group.name),)
        for command in group.typer_instance.registered_commands:
            yield (str(group.name), name_of(command))


def name_of(command: CommandInfo) -> str:
    """Its own, or its function's."""
    return command.name or str(getattr(command.callback, "__name__", ""))


class TestHelp:
    @pytest.mark.parametrize("command", list(command_names()), ids=" ".join)
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_every_command_has_it(self, runner: CliRunner, command: tuple[str, ...], option: str) -> None:
        result = runner.invoke(app, [*command, option])
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
        assert " ".join(command) in result.stdout
        assert result.stderr == ""

    def test_every_parameter_of_every_command_is_explained(self, runner: CliRunner) -> None:
        for command in command_names():
            text = runner.invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
            for option in re.findall(r"^│ \*?\s*(--[a-z-]+) .*?(?:<\w+>|FILE)\s*(.*?)\s*│$", text, flags=re.MULTILINE):
                assert len(option[1]) > 10, (command, option)

    def test_the_commands_are_these(self) -> None:
        assert set(COMMANDS) <= set(command_names())

    async def test_the_installed_command_shows_it(self) -> None:
        finished = await run(SCRIPT, "--help")
        assert finished.code == 0
        assert "serve" in finished.out
        assert finished.err == ""

    async def test_the_module_can_be_run_as_well(self) -> None:
        finished = await run(sys.executable, "-m", "woodpecker_vault", "--version")
        assert (finished.code, finished.out) == (0, f"woodpecker-vault {__version__}\n")

    async def test_without_a_terminal_it_holds_no_colour(self) -> None:
        finished = await run(SCRIPT, "dev", "request", "--help")
        assert "\x1b" not in finished.out


class TestVersion:
    def test_it_is_the_packages(self, runner: CliRunner) -> None:
        result = runner.invoke(app, ["--version"])
        assert (result.exit_code, result.stdout) == (0, f"woodpecker-vault {__version__}\n")


class TestWrongUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["unknown"],
            ["--unknown"],
            ["serve", "--unknown"],
            ["serve", "argument"],
            ["--config"],
            ["dev", "--port", "http"],
            ["dev", "unknown"],
            ["dev", "request"],
            ["dev", "request", "--key", "x"],
            ["dev", "request", "--key", "x", "--url", "http://h", "--repo-id", "one"],
        ],
        ids=" ".join,
    )
    def test_it_is_exit_code_2(self, runner: CliRunner, arguments: list[str]) -> None:
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2
        assert "Usage:" in result.output or "Error" in result.stderr

    @pytest.mark.parametrize("port", ["-1", "65536"])
    def test_a_port_that_cannot_be_is_wrong_usage_or_configuration(self, runner: CliRunner, port: str) -> None:
        result = runner.invoke(app, ["dev", "--port", port])
        assert result.exit_code == 2, result.exception
        assert "port" in result.stderr


class TestWrongSettings:
    def test_each_is_a_line_on_standard_error_and_the_exit_code_2(self, runner: CliRunner, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text("[server]\nport = 99999\nprot = 1\n[vault]\naddress = 'vault'\nauth = {method = 'magic'}\n")
        result = runner.invoke(app, ["--config", str(file), "serve"])
        assert result.exit_code == 2
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 5
        for line, start in zip(
            sorted(lines),
            (
                "woodpecker-vault: [server] port: ",
                "woodpecker-vault: [server] prot: there is no such setting",
                "woodpecker-vault: [vault.auth] method: unknown method",
                "woodpecker-vault: [vault] address: must be like",
                "woodpecker-vault: [woodpecker]: no public key",
            ),
            strict=True,
        ):
            assert line.startswith(start)

    def test_no_public_key_is_one_of_them(self, runner: CliRunner) -> None:
        result = runner.invoke(app, ["serve"], env={"VAULT_ADDR": "http://vault:8200", "VAULT_TOKEN": "hvs.x"})
        assert result.exit_code == 2
        assert result.stderr == (
            "woodpecker-vault: [woodpecker]: no public key: set public_key_files, public_keys or server_url\n"
        )

    def test_a_file_that_is_not_there_is_named(self, runner: CliRunner) -> None:
        result = runner.invoke(app, ["--config", "/nowhere.toml", "serve"])
        assert (result.exit_code, result.stderr) == (
            2,
            "woodpecker-vault: /nowhere.toml: No such file or directory\n",
        )

    def test_the_file_can_be_named_in_the_environment_and_the_option_goes_first(self, runner: CliRunner) -> None:
        environment = {"WOODPECKER_VAULT_CONFIG": "/from-environment.toml"}
        assert "/from-environment.toml: No such" in runner.invoke(app, ["serve"], env=environment).stderr
        chosen = runner.invoke(app, ["--config", "/from-option.toml", "serve"], env=environment)
        assert chosen.stderr == "woodpecker-vault: /from-option.toml: No such file or directory\n"

    async def test_the_installed_command_says_so_without_a_traceback(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text("[server\n")
        finished = await run(SCRIPT, "--config", str(file), "serve")
        assert (finished.code, finished.out) == (2, "")
        (line,) = finished.err.splitlines()
        assert line.startswith(f"woodpecker-vault: {file}: ")

    async def test_nothing_at_all_is_said_in_a_line_each(self) -> None:
        finished = await run(SCRIPT, "serve")
        assert (finished.code, finished.out) == (2, "")
        assert len(finished.err.splitlines()) == 3
        assert all(line.startswith("woodpecker-vault: [") for line in finished.err.splitlines())
