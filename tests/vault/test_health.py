"""What ``/readyz`` says, against a real OpenBao in every state it can be in."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from tests.clock import Clock
from tests.servers import Admin
from tests.vault import Gate, Rooms, rooms
from tests.vault.raft import Raft
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.errors import Denied
from woodpecker_vault.paths import Template
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.folders import VaultFolders
from woodpecker_vault.vault.health import Health
from woodpecker_vault.vault.lately import Lately, Noted
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.reach import Reach
from woodpecker_vault.vault.shared import SharedReads

CHECKS = ["address", "seal", "login", "mount", "list", "read"]
LAYERS = ("woodpecker/global/", "woodpecker/repo/{repo_id}/")


def health(
    ours: Rooms,
    *,
    mount: str = "secret",
    layers: Sequence[str] = LAYERS,
    lately: Lately | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Health:
    templates = [Template.compile(layer) for layer in layers]
    reach = Reach(ours.adapter, ours.tokens, mount=mount, layers=templates, lately=lately or Lately(now))
    return Health(ours.adapter, ours.authenticated, ours.tokens, mount=mount, reach=reach, now=now)


@asynccontextmanager
async def gated(bao: OpenBao, *, token: str = "", longest: float = 3.0) -> AsyncIterator[tuple[Gate, Rooms]]:
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address, timeout=longest), token or bao.token) as ours:
        yield gate, ours


def check_first_failure(answer: tuple[bool, Mapping[str, Any]], name: str, word: str) -> None:
    """All checks before ``name`` hold, it does not and says why, and those after it were not made.

    List and read are made together.
    """
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
        async with gated(bao, longest=30) as (gate, ours):
            gate.hold(lambda _, asked: path in asked)
            started = time.monotonic()
            answer = await health(ours)()
            assert time.monotonic() - started < 10  # and not the thirty of a connection
            check_first_failure(answer, first, "in time")
            gate.let_go.set()

    paths = {"address": "health", "login": "lookup-self", "mount": "mounts", "list": "capabilities"}
    await asyncio.gather(*(check(first, path) for first, path in paths.items()))


async def test_one_who_gives_up_does_not_spoil_it_for_the_others(bao: OpenBao) -> None:
    async with gated(bao) as (gate, ours):
        ready = health(ours)
        gate.hold(lambda _, path: "health" in path)
        impatient, patient = asyncio.ensure_future(ready()), asyncio.ensure_future(ready())
        await asyncio.wait_for(gate.arrived.wait(), 30)
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


HIDING = [
    ("200 OK", b"<html>"),
    ("404 Not Found", b""),
    ("404 Not Found", b"<html>"),
    ("403 Forbidden", b'{"errors": ["permission denied"]}'),
    ("403 Forbidden", b'{"message": "no"}'),
    ("405 Method Not Allowed", b""),
    ("200 OK", b"{}"),
    ("200 OK", b'{"sealed": false, "data": []}'),
]


class TestHiddenSys:
    """What stands before Vault may not let anybody ask about Vault itself: pipelines are answered all the same."""

    @pytest.mark.parametrize("answer", HIDING, ids=lambda answer: f"{answer[0]} {answer[1].decode()}")
    @pytest.mark.parametrize("path", ["sys/health", "sys/internal/ui/mounts", "sys/capabilities-self", "sys/"])
    async def test_it_is_ready_as_pipelines_are_answered(
        self, bao: OpenBao, admin: Admin, path: str, answer: tuple[str, bytes]
    ) -> None:
        token = await admin.token(LEAST, name="health-least")
        between = NoVault(bao)
        between.answers[path] = answer
        async with between.listening() as address, rooms(Connection(address), token) as ours:
            healthy, document = await health(ours)()
        assert healthy, document
        assert "Not known" in json.dumps(document) or "capabilities" in path

    @pytest.mark.parametrize("path", ["sys/internal/ui/mounts", "sys/capabilities-self", "sys/"])
    @pytest.mark.parametrize("lacks", ["list", "read"])
    async def test_it_is_not_ready_where_they_are_denied(
        self, bao: OpenBao, admin: Admin, path: str, lacks: str
    ) -> None:
        kept = {"list": 'path "secret/data/woodpecker/*" { capabilities = ["read"] }'}.get(
            lacks, 'path "secret/metadata/woodpecker/*" { capabilities = ["list"] }'
        )
        token = await admin.token(kept, name=f"health-without-{lacks}")
        between = NoVault(bao)
        between.answers[path] = HIDING[1]
        async with between.listening() as address, rooms(Connection(address), token) as ours:
            healthy, document = await health(ours)()
        assert not healthy
        assert not document["checks"][lacks]["ok"]
        assert "secret/" in document["checks"][lacks]["detail"]

    @pytest.mark.parametrize("answer", HIDING[:3] + HIDING[4:], ids=lambda answer: f"{answer[0]} {answer[1].decode()}")
    async def test_where_nothing_is_vaults_word_it_is_not_ready_and_passes(
        self, bao: OpenBao, answer: tuple[str, bytes]
    ) -> None:
        between, clock = NoVault(bao), Clock()
        async with between.listening() as address, rooms(Connection(address), bao.token, now=clock) as ours:
            ready = health(ours, now=clock)
            between.answers["/v1/"] = answer
            healthy, document = await ready()
            assert not healthy
            assert not document["checks"]["address"]["ok"]
            between.answers.clear()
            clock.at += 4
            assert (await ready())[0] is True, "it never recovers"

    async def test_an_outage_is_one_wherever_it_shows(self, bao: OpenBao) -> None:
        between, clock = NoVault(bao), Clock()
        async with between.listening() as address, rooms(Connection(address), bao.token) as ours:
            ready = health(ours, now=clock)
            for path in ("internal/ui/mounts", "capabilities-self", "resultant-acl", "secret/metadata"):
                between.answers["capabilities-self"] = HIDING[1]
                between.answers[path] = ("503 Service Unavailable", b'{"errors": [{"code": 7}]}')
                healthy, document = await ready()
                assert healthy == (path == "resultant-acl"), (path, document)
                between.answers.clear()
                clock.at += 1.1
                assert (await ready())[0] is True
                clock.at += 1.1


LEAST = """
path "secret/data/woodpecker/*" { capabilities = ["read"] }
path "secret/metadata/woodpecker/*" { capabilities = ["list"] }
"""
GLOBAL = """
path "secret/data/woodpecker/global/*" { capabilities = ["read"] }
path "secret/metadata/woodpecker/global/" { capabilities = ["list"] }
"""
OWNERS = ("woodpecker/global/", "ci/{owner}/{repo}/")


def policy(**rules: str) -> str:
    """Rules below the mount: ``metadata`` to list, ``data`` to read, several separated by blanks."""
    return "".join(
        f'path "secret/{kind}/{path}" {{ capabilities = ["{ {"metadata": "list", "data": "read"}[kind] }"] }}\n'
        for kind, paths in rules.items()
        for path in paths.split()
    )


READY = {
    "stars": (LAYERS, LEAST),
    "the star at the end of a part": (LAYERS, policy(metadata="wood*", data="wood*")),
    "the whole mount": (LAYERS, 'path "secret/*" { capabilities = ["read", "list"] }'),
    "plus with a slash": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/+/", data="woodpecker/repo/+/*")),
    "plus without a slash": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/+", data="woodpecker/repo/+/+")),
    "plus and star": (LAYERS, policy(metadata="+/+/*", data="+/+/*") + GLOBAL),
    "plus for everything": (LAYERS, policy(metadata="+/+/ +/+/+/", data="+/+/+ +/+/+/+")),
    "certain ids": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/7/", data="woodpecker/repo/7/*")),
    "certain ids without a slash": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/7", data="woodpecker/repo/7/+")),
    "ids that begin with": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/7*", data="woodpecker/repo/7*")),
    "certain owners": (OWNERS, GLOBAL + policy(metadata="ci/acme/*", data="ci/acme/*")),
    "certain owners, one without a list": (
        OWNERS,
        GLOBAL + policy(metadata="ci/acme/*", data="ci/other/* ci/acme/*"),
    ),
    "an owner by star, its repositories by plus": (OWNERS, GLOBAL + policy(metadata="ci/acme/+/", data="ci/acme/*")),
    "an owner here and a repository there": (
        OWNERS,
        GLOBAL + policy(metadata="ci/acme/*", data="ci/acme/shop/*"),
    ),
    "owners that begin with": (OWNERS, GLOBAL + policy(metadata="ci/ac*", data="ci/ac*")),
    "an owner in two layers": (
        ("a/{owner}/", "b/{owner}/{repo}/"),
        policy(metadata="a/one/ a/two/ b/two/* b/three/*", data="a/one/* a/two/* b/two/* b/three/*"),
    ),
    "an owner with more before it": (("ci/o-{owner}/",), policy(metadata="ci/o-acme/", data="ci/o-acme/*")),
    "nothing but plus, for a certain owner": (("ci/{owner}/",), policy(metadata="+/acme/", data="+/acme/+")),
    "an entry by its name": (("x/", *LAYERS), LEAST + policy(metadata="x/", data="x/token")),
    "a single entry": (("one/entry",), policy(data="one/entry")),
    "a single entry for each repository": (("one/{repo_id}",), policy(data="one/+")),
    "a single entry for a certain one": (("one/{repo_id}",), policy(data="one/7")),
    "a single entry beside folders": (("one/{owner}", *LAYERS), LEAST + policy(data="one/acme")),
    "events": (("on/{event}/",), policy(metadata="on/push/", data="on/push/*")),
    "another event": (("on/{event}/",), policy(metadata="on/tag/", data="on/tag/*")),
}
NOT_READY = {
    "no list": (LAYERS, policy(data="woodpecker/*"), {"list"}),
    "no read": (LAYERS, policy(metadata="woodpecker/*"), {"read"}),
    "nothing but another path": (LAYERS, policy(metadata="other/*", data="other/*"), {"list", "read"}),
    "one folder only": (LAYERS, GLOBAL, {"list", "read"}),
    "the other only": (LAYERS, policy(metadata="woodpecker/repo/*", data="woodpecker/repo/*"), {"list", "read"}),
    "no list in one": (LAYERS, GLOBAL + policy(data="woodpecker/repo/*"), {"list"}),
    "no read in one": (LAYERS, GLOBAL + policy(metadata="woodpecker/repo/*"), {"read"}),
    "a folder without what is in it": (
        LAYERS,
        GLOBAL + policy(metadata="woodpecker/repo/ woodpecker/repo", data="woodpecker/repo/*"),
        {"list"},
    ),
    "denied after all": (
        LAYERS,
        LEAST + 'path "secret/data/woodpecker/repo/*" { capabilities = ["deny"] }',
        {"read"},
    ),
    "certain owners without a read": (OWNERS, GLOBAL + policy(metadata="ci/acme/*"), {"read"}),
    "certain owners, others to read": (OWNERS, GLOBAL + policy(metadata="ci/acme/*", data="ci/other/*"), {"read"}),
    "an owner in each layer, but not the same": (
        ("a/{owner}/", "b/{owner}/"),
        policy(metadata="a/one/ b/two/", data="a/one/* b/two/*"),
        {"read"},
    ),
    "a single entry": (("one/entry",), policy(metadata="one/*", data="one/other"), {"read"}),
    "a single entry for each repository": (("one/{repo_id}",), policy(metadata="*", data="two/*"), {"read"}),
}


class TestPolicies:
    """It is ready exactly when a pipeline of some repository would be answered."""

    @pytest.mark.parametrize("hidden", [False, True], ids=["", "capabilities hidden"])
    @pytest.mark.parametrize("name", READY)
    async def test_ready(self, bao: OpenBao, admin: Admin, name: str, *, hidden: bool) -> None:
        layers, rules = READY[name]
        await admin.put("x/token", "x")
        token = await admin.token(rules + (HIDE if hidden else ""), name="health-ready")
        async with rooms(Connection(bao.address), token) as ours:
            healthy, document = await health(ours, layers=layers)()
        assert healthy, document
        assert list(document["checks"]) == CHECKS

    @pytest.mark.parametrize("hidden", [False, True], ids=["", "capabilities hidden"])
    @pytest.mark.parametrize("name", NOT_READY)
    async def test_not_ready(self, bao: OpenBao, admin: Admin, name: str, *, hidden: bool) -> None:
        layers, rules, failing = NOT_READY[name]
        token = await admin.token(rules + (HIDE if hidden else ""), name="health-not-ready")
        async with rooms(Connection(bao.address), token) as ours:
            healthy, document = await health(ours, layers=layers)()
        assert not healthy
        assert failing_parts(document) == failing
        for part in failing:
            assert re.search(f"lacks {part} on secret/|for some repository", document["checks"][part]["detail"])

    @pytest.mark.parametrize("name", ["stars", "the whole mount", "plus with a slash", "certain ids", "a single entry"])
    async def test_ready_without_the_default_policy(self, bao: OpenBao, admin: Admin, name: str) -> None:
        layers, rules = READY[name]
        token = await without_default(admin, rules)
        async with rooms(Connection(bao.address), token) as ours:
            healthy, document = await health(ours, layers=layers)()
        assert healthy, document

    @pytest.mark.parametrize("name", ["no list", "no read", "the other only", "a single entry"])
    async def test_not_ready_without_the_default_policy(self, bao: OpenBao, admin: Admin, name: str) -> None:
        layers, rules, failing = NOT_READY[name]
        token = await without_default(admin, rules)
        async with rooms(Connection(bao.address), token) as ours:
            healthy, document = await health(ours, layers=layers)()
        assert not healthy
        assert failing_parts(document) <= failing

    async def test_what_is_missing_is_named_with_its_layer_and_path(self, bao: OpenBao, admin: Admin) -> None:
        token = await admin.token(GLOBAL, name="health-global")
        async with rooms(Connection(bao.address), token) as ours:
            _, document = await health(ours)()
        checks = document["checks"]
        assert "list on secret/metadata/woodpecker/repo/1/" in checks["list"]["detail"]
        assert "read on secret/data/woodpecker/repo/1/" in checks["read"]["detail"]
        for part in ("list", "read"):
            assert "woodpecker/repo/{repo_id}/" in checks[part]["detail"]
            assert "global" not in checks[part]["detail"]

    async def test_what_is_not_known_counts_as_well_until_pipelines_are_denied(
        self, bao: OpenBao, admin: Admin
    ) -> None:
        token = await without_default(admin, policy(metadata="ci/acme/*", data="ci/acme/*"))
        clock = Clock()
        lately = Lately(clock)
        async with rooms(Connection(bao.address), token) as ours:
            ready = health(ours, layers=("ci/{owner}/{repo}/",), lately=lately, now=clock)
            answers = Noted(VaultFolders(ours.kv, SharedReads(Budget(8, clock))), lately)

            async def answer() -> tuple[bool, str]:
                clock.at += 1.1
                healthy, document = await ready()
                return healthy, document["checks"]["list"].get("detail", "")

            healthy, detail = await answer()
            assert healthy
            assert "Not known" in detail
            with pytest.raises(Denied):
                await answers.folder("ci/other/shop/")
            healthy, detail = await answer()
            assert not healthy
            assert "ci/{owner}/{repo}/" in detail
            clock.at += 60
            assert (await answer())[0] is True
            await answers.folder("ci/acme/shop/")
            assert await answer() == (True, "")
            with pytest.raises(Denied):
                await answers.folder("ci/other/shop/")
            assert await answer() == (True, "")

    async def test_pipelines_show_what_rules_with_plus_allow(self, bao: OpenBao, admin: Admin) -> None:
        token = await admin.token(GLOBAL + policy(metadata="+/acme/+/", data="+/acme/+/*"), name="health-plus")
        clock = Clock()
        lately = Lately(clock)
        async with rooms(Connection(bao.address), token) as ours:
            ready = health(ours, layers=OWNERS, lately=lately, now=clock)
            assert (await ready())[0] is False  # Vault does not show these rules, and others explain all that it shows
            lately.note("ci/acme/shop/", answered=True)
            clock.at += 1.1
            assert (await ready())[0] is True

    async def test_folders_in_vault_show_them_as_well(self, bao: OpenBao, admin: Admin) -> None:
        await admin.put("owners/acme/shop/token", "x")
        rules = GLOBAL + policy(metadata="owners/ +/acme/+/", data="+/acme/+/*")
        token = await admin.token(rules, name="health-listed")
        async with rooms(Connection(bao.address), token) as ours:
            healthy, document = await health(ours, layers=("woodpecker/global/", "owners/{owner}/{repo}/"))()
        assert healthy, document

    async def test_a_policy_that_changes_shows_in_the_next_look(self, bao: OpenBao, admin: Admin) -> None:
        clock = Clock()
        token = await admin.token(LEAST, name="health-changing")
        async with rooms(Connection(bao.address), token) as ours:
            ready = health(ours, now=clock)
            for rules, healthy in ((LEAST, True), (GLOBAL, False), (READY["certain ids"][1], True), (OTHER, False)):
                await admin.token(rules, name="health-changing")
                clock.at += 1.1
                assert (await ready())[0] is healthy, rules

    async def test_no_value_is_read(self, bao: OpenBao, admin: Admin) -> None:
        await admin.put("x/token", "x-value")
        token = await without_default(admin, policy(metadata="x/", data="x/token"))
        async with gated(bao, token=token) as (gate, ours):
            healthy, document = await health(ours, layers=("x/",))()
        assert healthy, document
        reads = [path for method, path in gate.requests if method == "GET" and "/data/" in path]
        assert any("x/token" in path for path in reads)
        assert all("version=2147483647" in path for path in reads)
        status, _ = await admin.call("GET", "secret/data/x/token?version=2147483647")
        assert status == 404

    async def test_without_layers_nothing_is_missing(self, bao: OpenBao) -> None:
        async with rooms(Connection(bao.address), bao.token) as ours:
            assert (await health(ours, layers=())())[0] is True

    async def test_where_no_repository_has_all_that_is_said(self, bao: OpenBao, admin: Admin) -> None:
        layers, rules, _ = NOT_READY["an owner in each layer, but not the same"]
        token = await admin.token(rules, name="health-apart")
        async with rooms(Connection(bao.address), token) as ours:
            _, document = await health(ours, layers=layers)()
        assert "all of them for none" in document["checks"]["read"]["detail"]

    @pytest.mark.parametrize("known", [True, False])
    async def test_a_look_costs_few_requests_whatever_the_policy_is_like(
        self, bao: OpenBao, admin: Admin, *, known: bool
    ) -> None:
        rules = GLOBAL + policy(metadata=" ".join(f"ci/owner-{number}/" for number in range(300)))
        token = await admin.token(rules, name="health-many") if known else await without_default(admin, rules)
        lately = Lately(time.monotonic)
        for number in range(50):
            lately.note(f"ci/owner-{number}/", answered=True)
        async with gated(bao, token=token) as (gate, ours):
            ready = health(ours, layers=("woodpecker/global/", "ci/{owner}/"), lately=lately)
            healthy, document = await ready()
        assert (healthy, "read" in failing_parts(document)) == (not known, known)
        assert len(gate.requests) < (12 if known else 25)

    async def test_what_works_is_asked_for_in_one_call(self, bao: OpenBao, admin: Admin) -> None:
        clock = Clock()
        token = await admin.token(READY["an owner in two layers"][1], name="health-owners")
        async with gated(bao, token=token) as (gate, ours):
            ready = health(ours, layers=READY["an owner in two layers"][0], now=clock)
            assert (await ready())[0] is True
            gate.requests.clear()
            clock.at += 1.1
            assert (await ready())[0] is True
            assert len(gate.requests) == 3


class TestLogin:
    """It is red when Vault does not let the service in, whatever was known before."""

    @pytest.fixture
    async def method(self, admin: Admin, repo_id: int) -> AppRole:
        name = f"health-{repo_id}"
        await admin.call("POST", "sys/auth/health", {"type": "approle"})
        await admin.call("PUT", f"sys/policies/acl/{name}", {"policy": LEAST})
        await admin.call("POST", f"auth/health/role/{name}", {"token_policies": [name]})
        _, role = await admin.call("GET", f"auth/health/role/{name}/role-id")
        _, secret = await admin.call("POST", f"auth/health/role/{name}/secret-id")
        return AppRole(mount="health", role_id=role["data"]["role_id"], secret_id=secret["data"]["secret_id"])

    async def test_a_token_that_died_is_replaced_and_all_is_well(
        self, bao: OpenBao, admin: Admin, method: AppRole
    ) -> None:
        clock = Clock()
        async with rooms(Connection(bao.address), method=method) as ours:
            ready = health(ours, now=clock)
            assert (await ready())[0] is True
            await admin.call("POST", "auth/token/revoke", {"token": await ours.tokens.current()})
            clock.at += 1.1
            healthy, document = await ready()
            assert healthy, document
            await ours.tokens.end()

    async def test_a_token_that_died_where_the_login_is_refused_is_not_masked(
        self, bao: OpenBao, admin: Admin, method: AppRole, repo_id: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = Clock()
        async with rooms(Connection(bao.address), method=method) as ours:
            ready = health(ours, now=clock)
            assert (await ready())[0] is True
            await admin.call("DELETE", f"auth/health/role/health-{repo_id}")
            await admin.call("POST", "auth/token/revoke", {"token": await ours.tokens.current()})
            for _ in range(3):
                clock.at += 1.1
                check_first_failure(await ready(), "login", "refuses the service's login")
            await ours.tokens.end()
        assert len(told(caplog)) == 1

    async def test_a_login_that_is_refused_from_the_start(self, bao: OpenBao, method: AppRole) -> None:
        wrong = method.model_copy(update={"secret_id": SecretStr("wrong")})
        async with rooms(Connection(bao.address), method=wrong) as ours:
            check_first_failure(await health(ours)(), "login", "refuses the service's login")

    @pytest.mark.parametrize("default", [True, False])
    async def test_a_given_token_that_died(self, bao: OpenBao, admin: Admin, *, default: bool) -> None:
        token = await admin.token(LEAST, name="health-dies") if default else await without_default(admin, LEAST)
        clock = Clock()
        async with rooms(Connection(bao.address), token) as ours:
            ready = health(ours, now=clock)
            assert (await ready())[0] is True
            await admin.call("POST", "auth/token/revoke", {"token": token})
            for _ in range(3):
                clock.at += 1.1
                check_first_failure(await ready(), "login", "no longer valid")

    async def test_what_only_a_new_token_may_read_is_ready(
        self, bao: OpenBao, admin: Admin, method: AppRole, repo_id: int
    ) -> None:
        clock = Clock()
        async with rooms(Connection(bao.address), method=method, now=clock) as ours:
            ready = health(ours, layers=("other/",), now=clock)
            assert (await ready())[0] is False
            await admin.call("PUT", "sys/policies/acl/health-other", {"policy": OTHER})
            await admin.call("POST", f"auth/health/role/health-{repo_id}", {"token_policies": ["health-other"]})
            clock.at += 6
            assert (await ready())[0] is True
            await ours.tokens.end()


class TestLog:
    """A change is told once, with its cause."""

    async def test_what_is_wrong_is_told_once_and_that_it_is_well_again(
        self, node: Raft, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        clock = Clock()
        async with rooms(Connection(node.address), node.token, now=clock) as ours:
            ready = health(ours, now=clock)

            async def look(times: int = 3) -> None:
                for _ in range(times):
                    clock.at += 1.1
                    await ready()

            await look()
            assert told(caplog) == []
            await node.seal()
            try:
                await look()
                assert told(caplog) == ["not ready"]
                assert caplog.records[-1].__dict__["checks"] == {"seal": "Vault is sealed."}
            finally:
                await node.unseal()
            await look()
            assert told(caplog) == ["not ready", "ready again"]

    async def test_what_else_is_wrong_later_is_told_with_its_cause(
        self, bao: OpenBao, admin: Admin, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = Clock()
        token = await admin.token(GLOBAL, name="health-log")
        async with gated(bao, token=token) as (gate, ours):
            ready = health(ours, now=clock)
            for mode in ("pass", "pass", "refuse", "refuse"):
                gate.mode = mode
                gate.drop()
                clock.at += 1.1
                await ready()
        assert told(caplog) == ["not ready", "not ready"]
        first, second = [record.__dict__ for record in caplog.records if record.name.endswith("health")]
        assert set(first["checks"]) == {"list", "read"}
        assert set(second["checks"]) == {"address"}
        assert "ask for Vault's health" in second["cause"]


OTHER = policy(metadata="other/", data="other/*")
HIDE = """
path "sys/capabilities-self" { capabilities = ["deny"] }
path "sys/internal/ui/mounts/*" { capabilities = ["deny"] }
"""


async def without_default(admin: Admin, rules: str) -> str:
    """A token with these rules that may not even look itself up."""
    await admin.call("PUT", "sys/policies/acl/health-bare", {"policy": rules})
    wanted = {"policies": ["health-bare"], "no_default_policy": True}
    _, answer = await admin.call("POST", "auth/token/create", wanted)
    return str(answer["auth"]["client_token"])


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sentences about health."""
    return [record.getMessage() for record in caplog.records if record.name == "woodpecker_vault.vault.health"]


def failing_parts(document: Mapping[str, Any]) -> set[str]:
    """The parts that do not hold."""
    return {name for name, check in document["checks"].items() if not check["ok"]}
