"""``dev``: the whole thing on one machine, for trying it out."""

import asyncio
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from woodpecker_vault import config, telemetry
from woodpecker_vault.budget import Budget
from woodpecker_vault.caller import Caller
from woodpecker_vault.cli import openbao, stand_in
from woodpecker_vault.cli.console import console, table
from woodpecker_vault.cli.loop import STOPS, run
from woodpecker_vault.cli.wiring import StartError, running, vault_rooms
from woodpecker_vault.vault.connection import Connection, open_session


@dataclass(frozen=True, slots=True)
class Sample:
    """A secret to play with."""

    path: str
    data: Mapping[str, str] = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)


SAMPLES = (
    Sample("woodpecker/global/sentry_dsn", {"value": "https://global@sentry.example/1"}),
    Sample("woodpecker/global/deploy_key", {"value": "global-deploy-key"}, {"events": "deployment"}),
    Sample(
        "woodpecker/org/1/npm_token",
        {"value": "org-npm-token"},
        {"events": "push,tag,manual", "images": "woodpeckerci/plugin-npm,docker.io/library/node"},
    ),
    Sample("woodpecker/org/1/registry", {"username": "acme-ci", "password": "org-registry-password"}),
    Sample("woodpecker/repo/1/deploy_key", {"value": "repo-deploy-key"}, {"events": "push", "branches": "main"}),
    Sample("woodpecker/repo/1/codecov", {"value": "codecov-token"}, {"events": "push,pull_request", "forks": "allow"}),
    Sample("woodpecker/repo/1/release_key", {"value": "release-key"}, {"events": "tag,release"}),
    Sample("woodpecker/repo/2/npm_token", {"value": "repo-2-npm-token"}, {"events": "push,cron"}),
)


def dev(port: int) -> int:
    """Start everything, show it, and wait for Ctrl-C; the exit code."""
    telemetry.configure("info", "console", sys.stdout)
    try:
        run(_dev(port, console()), (*STOPS, signal.SIGHUP))  # the terminal may be closed, too
    except (openbao.NoOpenBao, StartError) as error:
        print(f"woodpecker-vault: {error}", file=sys.stderr)
        return 1
    return 0


def request(key_file: Path, url: str, *, repo_id: int, org_id: int, event: str, branch: str, from_fork: bool) -> int:
    """Send one signed request and show the answer; the exit code."""
    try:
        key = stand_in.load_private_key(key_file.read_bytes())
    except (OSError, ValueError) as error:
        print(f"woodpecker-vault: {key_file}: {error}", file=sys.stderr)
        return 2
    body = _body(repo_id=repo_id, org_id=org_id, event=event, branch=branch, from_fork=from_fork)

    async def ask() -> None:
        status, answer = await _ask(key, url, body)
        if status != HTTPStatus.OK:
            raise ValueError(f"status {status}: {answer}")
        _show_answer(console(), answer)

    try:
        run(ask())
    except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
        print(f"woodpecker-vault: {url}: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


async def _dev(port: int, out: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="woodpecker-vault-dev-") as folder:
        home = Path(folder)
        key = Ed25519PrivateKey.generate()
        key_file = home / "woodpecker.pem"
        key_file.touch(mode=0o600)
        key_file.write_bytes(stand_in.private_pem(key))
        out.print("Starting OpenBao …")
        async with openbao.in_memory(home) as server:
            settings = config.check(_settings(server, key, port), {})
            await _write_samples(server, settings)
            async with running(settings) as url:
                endpoint = f"{url}/secrets"
                _show_samples(out)
                body = _body(repo_id=1, org_id=1, event="push", branch="main", from_fork=False)
                out.print("\nA signed request: repository 1 of organization 1, a push to main. Its answer:\n")
                _, answer = await _ask(key, endpoint, body)
                _show_answer(out, answer)
                _show_how(out, server, endpoint, key_file)
                await asyncio.Event().wait()


def _settings(server: openbao.OpenBao, key: Ed25519PrivateKey, port: int) -> dict[str, object]:
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "woodpecker": {"public_keys": [stand_in.public_pem(key)]},
        "vault": {"address": server.address, "auth": {"token": server.token}},
    }


async def _write_samples(server: openbao.OpenBao, settings: config.Settings) -> None:
    connection = Connection(server.address)
    budget = Budget(settings.server.request_timeout, time.monotonic)
    async with (
        open_session(connection) as session,
        vault_rooms(session, connection, settings, budget, Caller()) as vault,
    ):
        for sample in SAMPLES:
            if sample.metadata:
                await vault.kv.patch_metadata(sample.path, sample.metadata)
            await vault.kv.put(sample.path, sample.data, cas=0)


def _body(*, repo_id: int, org_id: int, event: str, branch: str, from_fork: bool) -> bytes:
    owner, name = f"org-{org_id}", f"repo-{repo_id}"
    repo = {"id": repo_id, "org_id": org_id, "owner": owner, "name": name, "full_name": f"{owner}/{name}"}
    pipeline = {"number": 1, "event": event, "branch": branch} | ({"from_fork": True} if from_fork else {})
    return json.dumps({"repo": repo, "pipeline": pipeline}).encode()


async def _ask(key: Ed25519PrivateKey, url: str, body: bytes) -> tuple[int, str]:
    headers = stand_in.signed_headers(key, url, body, int(time.time()))
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.text()


def _show_samples(out: Console) -> None:
    rows = [
        (
            sample.path,
            ", ".join(sample.data),
            sample.metadata.get("events", "").replace(",", ", "),
            sample.metadata.get("images", "").replace(",", "\n"),
            ", ".join(f"{key}={sample.metadata[key]}" for key in ("branches", "forks") if key in sample.metadata),
        )
        for sample in SAMPLES
    ]
    columns = ("path in secret/", "keys", "events", "images", "other")
    out.print(table("In Vault", columns, rows, plain=not out.is_terminal))


def _show_answer(out: Console, answer: str) -> None:
    rows = [
        (secret["name"], secret["value"], ", ".join(secret["events"]), "\n".join(secret["images"]))
        for secret in json.loads(answer)["secrets"]
    ]
    out.print(table("Given", ("name", "value", "events", "images"), rows, plain=not out.is_terminal))


def _show_how(out: Console, server: openbao.OpenBao, endpoint: str, key_file: Path) -> None:
    bao = shlex.quote(openbao.binary())
    program = Path(sys.argv[0]).absolute()
    command = shlex.join([sys.executable, "-m", "woodpecker_vault"] if program.suffix == ".py" else [str(program)])
    text = f"""
Vault (OpenBao) is at {server.address}, its root token is {server.token}
The service is at {endpoint}

Add a secret, restrictions first:

    export BAO_ADDR={server.address} BAO_TOKEN={server.token}
    {bao} kv metadata put -mount=secret -custom-metadata=events=push,tag woodpecker/repo/1/hello
    {bao} kv put -mount=secret woodpecker/repo/1/hello value=world

Send a signed request, as Woodpecker would, and see what it gets:

    {command} dev request --key {shlex.quote(str(key_file))} --url {endpoint} --repo-id 1 --event tag

Ctrl-C ends all of it.
"""
    # Not through rich: these lines are to be copied whole, not wrapped.
    print(text, file=out.file, flush=True)
