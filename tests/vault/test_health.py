"""What ``/readyz`` says, against a real OpenBao in every state it can be in."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clock import Clock
from tests.servers import Admin
from tests.vault import Gate, Rooms, rooms
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.health import Health

CHECKS = ["address", "seal", "login", "mount", "list"]
FOLDERS = ("woodpecker/global", "woodpecker/repo/1")


def health(
    ours: Rooms, *, mount: str = "secret", folders: Sequence[str] = FOLDERS, now: Callable[[], float] = time.monotonic
) -> Health:
    return Health(ours.adapter, ours.authenticated, ours.tokens, mount=mount, folders=folders, now=now)


@asynccontextmanager
async def gated(bao: OpenBao, *, namespace: str = "") -> AsyncIterator[tuple[Gate, Rooms]]:
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address, namespace=namespace), bao.token) as ours:
        yield gate, ours


def check_first_failure(answer: tuple[bool, Mapping[str, Any]], name: str, word: str) -> None:
    """All checks before ``name`` hold, it does not and says why, and those after it were not made."""
    healthy, document = answer
    assert (healthy, document["status"]) == (False, "not ready")
    checks = document["checks"]
    assert list(checks) == CHECKS
    index = CHECKS.index(name)
    assert [checks[one] for one in CHECKS[:index]] == [{"ok": True}] * index
    assert checks[name]["ok"] is False
    assert word in checks[name]["detail"]
    assert all("not checked" in checks[one]["detail"] and not checks[one]["ok"] for one in CHECKS[index + 1 :])


async def test_all_is_well(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token) as ours:
        healthy, document = await health(ours)()
    assert healthy is True
    assert document == {"status": "ready", "checks": {name: {"ok": True} for name in CHECKS}}


async def test_a_token_that_may_only_read_is_enough(bao: OpenBao, admin: Admin) -> None:
    policy = """
    path "secret/data/woodpecker/*" { capabilities = ["read"] }
    path "secret/metadata/woodpecker/*" { capabilities = ["list"] }
    """
    token = await admin.token(policy, name="health-least")
    async with rooms(Connection(bao.address), token) as ours:
        healthy, document = await health(ours)()
    assert healthy, document


async def test_one_folder_that_may_be_listed_is_enough(bao: OpenBao, admin: Admin) -> None:
    policy = 'path "secret/metadata/woodpecker/repo/*" { capabilities = ["list"] }'
    token = await admin.token(policy, name="health-one")
    async with rooms(Connection(bao.address), token) as ours:
        healthy, document = await health(ours)()
    assert healthy, document


async def test_nobody_listening(bao: OpenBao) -> None:
    async with rooms(Connection(f"http://127.0.0.1:{free_port()}"), bao.token) as ours:
        answer = await health(ours)()
    check_first_failure(answer, "address", "cannot be reached")
    assert bao.token not in json.dumps(answer)


async def test_a_sealed_vault(node: Raft) -> None:
    clock = Clock()
    async with rooms(Connection(node.address), node.token) as ours:
        ready = health(ours, now=clock)
        await node.seal()
        try:
            check_first_failure(await ready(), "seal", "sealed")
        finally:
            await node.unseal()
        clock.at += 1.1
        assert (await ready())[0] is True


async def test_a_wrong_token(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), "open-sesame") as ours:
        answer = await health(ours)()
    check_first_failure(answer, "login", "token")
    assert "sesame" not in json.dumps(answer)


async def test_a_token_file_that_is_not_there(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), token_file="/nowhere/token") as ours:
        answer = await health(ours)()
    check_first_failure(answer, "login", "cannot be read")


async def test_a_missing_mount(bao: OpenBao, admin: Admin) -> None:
    ordinary = await admin.token('path "nowhere/*" { capabilities = ["read", "list"] }', name="health-nowhere")
    for token in (bao.token, ordinary):
        async with rooms(Connection(bao.address), token) as ours:
            answer = await health(ours, mount="nowhere")()
        check_first_failure(answer, "mount", "nowhere/")


async def test_a_mount_of_kv_version_1(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/health-one", {"type": "kv", "options": {"version": "1"}})
    try:
        async with rooms(Connection(bao.address), bao.token) as ours:
            answer = await health(ours, mount="health-one")()
    finally:
        await admin.call("DELETE", "sys/mounts/health-one")
    check_first_failure(answer, "mount", "version 2")


async def test_a_mount_of_another_kind(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token) as ours:
        answer = await health(ours, mount="cubbyhole")()
    check_first_failure(answer, "mount", "version 2")


async def test_a_path_behind_the_mount(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token) as ours:
        check_first_failure(await health(ours, mount="secret/metadata")(), "mount", "behind the mount secret/")


async def test_a_namespace_that_is_not_there(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address, namespace="nobodys"), bao.token) as ours:
        check_first_failure(await health(ours)(), "mount", "namespace")


async def test_a_token_that_may_list_nothing(bao: OpenBao, admin: Admin) -> None:
    token = await admin.token('path "secret/data/woodpecker/*" { capabilities = ["read"] }', name="health-no-list")
    async with rooms(Connection(bao.address), token) as ours:
        answer = await health(ours)()
    check_first_failure(answer, "list", "list")


async def test_in_a_namespace_sys_health_is_asked_without_it(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    name = f"health-{repo_id}"
    await admin.call("POST", f"sys/namespaces/{name}")
    mount = {"type": "kv", "options": {"version": "2"}}
    await admin.call("POST", "sys/mounts/inside", mount, **{"X-Vault-Namespace": name})
    try:
        async with rooms(Connection(bao.address, namespace=name), bao.token) as ours:
            healthy, document = await health(ours, mount="inside")()
            assert healthy, document
        async with rooms(Connection(bao.address), bao.token) as ours:
            check_first_failure(await health(ours, mount="inside")(), "mount", "inside/")
    finally:
        await admin.call("DELETE", "sys/mounts/inside", **{"X-Vault-Namespace": name})
        await admin.call("DELETE", f"sys/namespaces/{name}")


async def test_many_who_ask_at_once_cost_one_look(bao: OpenBao) -> None:
    async with gated(bao) as (gate, ours):
        ready = health(ours)
        answers = await asyncio.gather(*(ready() for _ in range(20)))
        assert all(healthy for healthy, _ in answers)
        assert len(gate.requests) == 4


async def test_an_answer_holds_for_a_second_and_no_longer(bao: OpenBao) -> None:
    clock = Clock()
    async with gated(bao) as (gate, ours):
        ready = health(ours, now=clock)
        assert (await ready())[0] is True
        looks = len(gate.requests)
        gate.mode = "refuse"
        gate.drop()
        clock.at += 0.9
        assert (await ready())[0] is True
        assert len(gate.requests) == looks
        clock.at += 0.2
        check_first_failure(await ready(), "address", "cannot be reached")
        gate.mode = "pass"
        clock.at += 0.9
        assert (await ready())[0] is False
        clock.at += 0.2
        assert (await ready())[0] is True


async def test_it_answers_within_two_seconds_wherever_vault_hangs(bao: OpenBao) -> None:
    async def check(first: str, path: str) -> None:
        async with gated(bao) as (gate, ours):
            gate.hold(lambda _, asked: path in asked)
            started = time.monotonic()
            answer = await health(ours)()
            assert time.monotonic() - started < 2.5
            check_first_failure(answer, first, "in time")
            gate.let_go.set()

    paths = {"address": "health", "login": "lookup-self", "mount": "mounts", "list": "capabilities"}
    await asyncio.gather(*(check(first, path) for first, path in paths.items()))


async def test_one_who_gives_up_does_not_spoil_it_for_the_others(bao: OpenBao) -> None:
    async with gated(bao) as (gate, ours):
        ready = health(ours)
        gate.hold(lambda _, path: "health" in path)
        impatient, patient = asyncio.ensure_future(ready()), asyncio.ensure_future(ready())
        await asyncio.wait_for(gate.arrived.wait(), 5)
        impatient.cancel()
        gate.let_go.set()
        assert (await patient)[0] is True
        with pytest.raises(asyncio.CancelledError):
            await impatient


class NoVault:
    """Something between us and Vault that answers one path itself, as long as it is told to."""

    def __init__(self, bao: OpenBao) -> None:
        self.bao = bao
        self.answers: dict[str, tuple[str, bytes]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        own = next(
            (answer for path, answer in self.answers.items() if path.encode() in head.partition(b"\r\n")[0]), None
        )
        if own is not None:
            status, body = own
            text = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(text.encode() + body)
        else:
            host, _, port = self.bao.address.removeprefix("http://").partition(":")
            there_reader, there = await asyncio.open_connection(host, int(port))
            there.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            there.write(await reader.readexactly(_length(head)))
            writer.write(await there_reader.read())
            there.close()
        await writer.drain()
        writer.close()


def _length(head: bytes) -> int:
    lines = (line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return int(dict(line for line in lines if len(line) == 2).get(b"content-length", b"0"))


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("sys/health", ("200 OK", b"<html>")),
        ("sys/health", ("404 Not Found", b"")),
        ("sys/health", ("200 OK", b'{"sealed": false}')),
        ("internal/ui/mounts", ("200 OK", b"{}")),
        ("internal/ui/mounts", ("404 Not Found", b"")),
        ("capabilities-self", ("404 Not Found", b"")),
        ("capabilities-self", ("200 OK", b"{}")),
        ("capabilities-self", ("503 Service Unavailable", b'{"errors": [{"code": 7}]}')),
    ],
)
async def test_what_makes_no_sense_is_not_ready_and_passes(bao: OpenBao, path: str, answer: tuple[str, bytes]) -> None:
    between, clock = NoVault(bao), Clock()
    async with between.listening() as address, rooms(Connection(address), bao.token) as ours:
        ready = health(ours, now=clock)
        between.answers[path] = answer
        try:
            healthy: object = (await ready())[0]
        except Exception as error:  # noqa: BLE001 - the next look is what matters more
            healthy = error
        between.answers.clear()
        clock.at += 1.1
        assert (await ready())[0] is True, "it never recovers"
        assert healthy is False
