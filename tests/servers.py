"""Real servers for the tests: OpenBao, the service as users run it, and a TCP proxy that can be broken."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.cli.stand_in import public_pem, signed_headers

COMMAND = (sys.executable, "-m", "woodpecker_vault")


@dataclass(frozen=True, slots=True)
class Admin:
    """A Vault admin at the API, with a token that may do everything. Paths are inside ``secret/``."""

    server: OpenBao
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, document: object = None, **headers: str) -> tuple[int, Any]:
        """One raw call; ``path`` is encoded already and begins after ``/v1/``."""
        url = URL(f"{self.server.address}/v1/{path}", encoded=True)
        fields = {"X-Vault-Token": self.server.token, **headers}
        async with self.session.request(method, url, json=document, headers=fields) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else {}

    async def put(self, path: str, data: Mapping[str, Any] | str, **metadata: str) -> None:
        """``bao kv metadata put`` if there is metadata, then ``bao kv put``; a text is the ``value``."""
        if metadata:
            await self.set_metadata(path, metadata)
        document = {"data": {"value": data} if isinstance(data, str) else dict(data)}
        status, answer = await self.call("POST", f"secret/data/{quote(path)}", document)
        assert status == 200, answer

    async def set_metadata(self, path: str, metadata: Mapping[str, str]) -> None:
        """``bao kv metadata put``: replaces all custom metadata."""
        document = {"custom_metadata": dict(metadata)}
        status, answer = await self.call("POST", f"secret/metadata/{quote(path)}", document)
        assert status == 204, answer

    async def delete(self, path: str) -> None:
        """``bao kv delete``: the current version, softly."""
        await self.call("DELETE", f"secret/data/{quote(path)}")

    async def destroy(self, path: str, version: int) -> None:
        """``bao kv destroy``."""
        await self.call("PUT", f"secret/destroy/{quote(path)}", {"versions": [version]})

    async def data(self, path: str) -> dict[str, Any] | None:
        """``bao kv get``: the data of the current version, ``None`` if there is none."""
        status, answer = await self.call("GET", f"secret/data/{quote(path)}")
        return answer["data"]["data"] if status == 200 else None

    async def metadata(self, path: str) -> dict[str, str] | None:
        """The custom metadata, ``None`` if there is no such entry."""
        status, answer = await self.call("GET", f"secret/metadata/{quote(path)}")
        return (answer["data"]["custom_metadata"] or {}) if status == 200 else None

    async def version(self, path: str) -> int:
        """The number of the current version, 0 if there is none."""
        status, answer = await self.call("GET", f"secret/metadata/{quote(path)}")
        return int(answer["data"]["current_version"]) if status == 200 else 0

    async def list(self, folder: str) -> list[str]:
        """``bao kv list``, sub-folders included."""
        status, answer = await self.call("LIST", f"secret/metadata/{quote(folder)}")
        return list(answer["data"]["keys"]) if status == 200 else []

    async def token(self, policy: str, *, name: str) -> str:
        """A token that may do what the policy (HCL) says, and nothing else of ours."""
        await self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        _, answer = await self.call("POST", "auth/token/create", {"policies": [name]})
        return str(answer["auth"]["client_token"])


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as a JSON document."""
        return json.loads(self.body)


@dataclass
class Client:
    """A Woodpecker server: it asks, signed with its key."""

    session: aiohttp.ClientSession
    url: str
    key: Ed25519PrivateKey
    _methods: dict[tuple[str, bytes | None, int], str] = field(default_factory=dict, repr=False)

    async def send(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        body: bytes | None = None,
        age: float = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask for ``path`` (encoded already), signed ``age`` seconds ago; ``headers`` replace the signed ones."""
        if body is None and document is not None:
            body = json.dumps(document).encode()
        signed = signed_headers(self.key, self.url + path, body, self._created(method, path, body, age))
        return await self.raw(method, path, body, {**signed, **(headers or {})})

    def _created(self, method: str, path: str, body: bytes | None, age: float) -> int:
        """Now, or a second ago where the same signature would already have gone out under another method."""
        created = int(time.time() - age)
        while self._methods.setdefault((path, body, created), method) != method:
            created -= 1
        return created

    async def raw(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        """Ask with these headers and no others of note."""
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def secrets(self, *, repo: Mapping[str, Any] | None = None, **pipeline: Any) -> dict[str, Any]:
        """The released form: what a pipeline of this repository gets, by name."""
        reply = await self.send("POST", "/secrets", pipeline_body(repo, **pipeline))
        assert reply.status == 200, (reply.status, reply.body)
        return {secret["name"]: secret for secret in reply.json["secrets"]}


def pipeline_body(repo: Mapping[str, Any] | None = None, **pipeline: Any) -> dict[str, Any]:
    """The body of the released form, much as Woodpecker 3.17 sends it."""
    return {
        "repo": {
            "id": 1,
            "forge_id": 1,
            "forge_remote_id": "4711",
            "org_id": 7,
            "owner": "acme",
            "name": "shop",
            "full_name": "acme/shop",
            "default_branch": "main",
            "visibility": "private",
            "private": True,
            "trusted": {"network": False, "volumes": False, "security": False},
            **(repo or {}),
        },
        "pipeline": {
            "id": 100,
            "number": 12,
            "event": "push",
            "branch": "main",
            "ref": "refs/heads/main",
            "commit": "2fff90f8d288a4640e90f05049fe30e61a14fd50",
            "author": "octocat",
            **pipeline,
        },
        "netrc": {"machine": "forge.example", "login": "octocat", "password": "netrc-password", "type": "gitea"},
    }


@dataclass
class Service:
    """The service as users run it: a process, started from a file of settings."""

    process: asyncio.subprocess.Process
    url: str
    log: list[dict[str, Any]] = field(default_factory=list)
    raw_log: list[str] = field(default_factory=list)

    async def stop(self) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def logged_in(self) -> None:
        """Wait until it has a token."""
        async with asyncio.timeout(10):
            while not any(line.get("event") == "logged in to Vault" for line in self.log):  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.005)

    async def logged(self, request_id: str) -> dict[str, Any]:
        """The log line about one request; waits for it."""
        async with asyncio.timeout(10):
            while True:
                for line in self.log:
                    if line.get("request_id") == request_id:
                        return line
                await asyncio.sleep(0.005)


def settings(key: Ed25519PrivateKey, bao: OpenBao, /, **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings for a service on a free port; ``sections`` are merged in, ``vault_auth`` for ``[vault.auth]``."""
    base: dict[str, dict[str, Any]] = {
        "server": {"host": "127.0.0.1", "port": free_port()},
        "woodpecker": {"public_keys": [public_pem(key)]},
        "vault": {"address": bao.address},
        "vault.auth": {"token": bao.token},
    }
    for name, section in sections.items():
        table = base.setdefault(name.replace("_", "."), {})
        table.update(section)
    return base


def toml(document: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables as TOML; strings, numbers, booleans and lists are written as JSON writes them."""
    lines = []
    for name, table in document.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


@asynccontextmanager
async def serving(
    folder: Path, document: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    """``woodpecker-vault --config FILE serve``, until the block ends."""
    file = folder / f"config-{time.monotonic_ns()}.toml"
    file.write_text(toml(document))
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--config",
        str(file),
        "serve",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        limit=16 * 1024 * 1024,
    )
    service = Service(process, "")
    reading = asyncio.ensure_future(_read_log(service))
    try:
        async with asyncio.timeout(30):
            while not service.url:
                assert process.returncode is None, service.raw_log
                await asyncio.sleep(0.005)
        service.url += document.get("server", {}).get("base_path", "")  # which the log does not show
        yield service
    finally:
        try:
            await service.stop()
        except TimeoutError:
            process.kill()
            raise
        finally:
            await reading


async def _read_log(service: Service) -> None:
    assert service.process.stdout is not None
    async for line in service.process.stdout:
        text = line.decode()
        service.raw_log.append(text)
        with contextlib.suppress(ValueError):
            record = json.loads(text)
            service.log.append(record)
            if record.get("event") == "listening":
                service.url = record["url"]


@asynccontextmanager
async def speaking(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The URL of something that treats each connection as ``answer`` says, until the block ends."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


class Proxy:
    """A TCP proxy before Vault that can be told to misbehave.

    ``mode`` is ``"pass"``, ``"hang"`` (accept, and say nothing more), ``"refuse"`` (close at once) or ``"cut"``
    (pass requests on, but close instead of passing their answers back).
    """

    def __init__(self, target: str) -> None:
        self.mode = "pass"
        self.delay = 0.0
        self.connections = 0
        self._host, _, port = target.removeprefix("http://").partition(":")
        self._port = int(port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    def drop(self) -> None:
        """Close every connection there is."""
        for writer in self._writers:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """Serve until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.drop()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.mode != "refuse":
                there_reader, there = await asyncio.open_connection(self._host, self._port)
                self._writers.add(there)
                try:
                    await asyncio.gather(
                        self._pump(reader, there, answers=False), self._pump(there_reader, writer, answers=True)
                    )
                finally:
                    self._writers.discard(there)
                    there.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while chunk := await source.read(65536):
            if self.mode == "cut" and answers:
                raise ConnectionResetError
            if self.delay and answers:
                await asyncio.sleep(self.delay)
            while self.mode == "hang":  # noqa: ASYNC110 - tests set the mode as they please
                await asyncio.sleep(0.01)
            if self.mode == "refuse":
                raise ConnectionResetError
            sink.write(chunk)
            await sink.drain()
        sink.close()
