"""The ``woodpecker-vault`` command: its sub-commands, each a few lines over the rooms above."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from woodpecker_vault import __version__, config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. Exit codes: 0, 1 for a failure, 2 for wrong usage or configuration."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"woodpecker-vault {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="WOODPECKER_VAULT_CONFIG",
            help="TOML file with the settings; see config.example.toml.",
        ),
    ] = None,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Secrets for Woodpecker CI out of HashiCorp Vault or OpenBao."""
    context.obj = config_file


@app.command()
def serve(context: typer.Context) -> None:
    """Answer Woodpecker's requests until stopped."""
    settings = _settings(context)
    from woodpecker_vault.cli.serve import serve  # noqa: PLC0415 - what one command needs, others need not load

    file = context.find_root().obj
    raise typer.Exit(serve(settings, lambda: config.load(file, os.environ)))


dev_app = typer.Typer(invoke_without_command=True)
app.add_typer(dev_app, name="dev")


@dev_app.callback()
def dev(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0 takes a free one.")] = 0,
) -> None:
    """Try it all: a real OpenBao in memory, sample secrets, the service, and one signed request. Ctrl-C ends it."""
    if context.invoked_subcommand is None:
        from woodpecker_vault.cli.dev import dev  # noqa: PLC0415 - see serve

        raise typer.Exit(dev(port))


@dev_app.command()
def request(
    key: Annotated[Path, typer.Option(help="The private key to sign with, as `dev` made it.")],
    url: Annotated[str, typer.Option(help="The service's /secrets, as `dev` prints it.")],
    repo_id: Annotated[int, typer.Option(help="The repository that asks.")] = 1,
    org_id: Annotated[int, typer.Option(help="Its organization.")] = 1,
    event: Annotated[str, typer.Option(help="What started the pipeline.")] = "push",
    branch: Annotated[str, typer.Option(help="The branch it runs on.")] = "main",
    from_fork: Annotated[bool, typer.Option(help="Whether it comes from a fork.")] = False,
) -> None:
    """Ask a service that `dev` started, signed as Woodpecker signs, and show its answer."""
    from woodpecker_vault.cli.dev import request  # noqa: PLC0415 - see serve

    raise typer.Exit(request(key, url, repo_id=repo_id, org_id=org_id, event=event, branch=branch, from_fork=from_fork))


def _settings(context: typer.Context) -> config.Settings:
    try:
        return config.load(context.find_root().obj, os.environ)
    except config.ConfigError as error:
        _stop(error.lines)


def _stop(lines: list[str]) -> NoReturn:
    for line in lines:
        print(f"woodpecker-vault: {line}", file=sys.stderr)
    raise typer.Exit(2)
