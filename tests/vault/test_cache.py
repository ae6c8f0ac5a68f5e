"""Answers kept in memory: never other than Vault's, unless the settings allow it."""

import asyncio
import gc
import logging
import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from tests.clock import Clock
from tests.servers import Admin, Proxy
from tests.vault import Gate, without_look_at_mount
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry, Snapshot
from woodpecker_vault.errors import Denied, LoginRefused, TokenRefused, Unavailable
from woodpecker_vault.vault.cache import CachedFolders, Kept, Memory, Timed, Validated
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.folders import VaultFolders
from woodpecker_vault.vault.kv import KV, KeyInfo, NoListing, Version
from woodpecker_vault.vault.sending import Patience, Sender
from woodpecker_vault.vault.shared import SharedReads
from woodpecker_vault.vault.transport import Adapter, WithToken

MAX_BYTES = 1_000_000


@dataclass
class Cached:
    """The rooms with a cache, and what stands around them. Paths are in this test's own folder."""

    gate: Gate
    clock: Clock
    kv: KV
    memory: Memory
    refresh: Timed | Validated
    answers: CachedFolders
    folder: str

    @property
    def calls(self) -> int:
        """Requests since the last time somebody asked."""
        count = len(self.gate.requests)
        self.gate.heal()
        return count

    async def values(self) -> dict[str, Any]:
        """The value of every entry that has one."""
        snapshot = await self.answers.folder(self.folder)
        return {name: entry.data["value"] for name, entry in snapshot.entries.items() if entry.has_value}


@asynccontextmanager
async def caching(
    bao: OpenBao,
    number: int,
    *,
    mode: str = "validated",
    token: str = "",
    ttl: float = 300,
    stale_if_error: float = 0,
    max_bytes: int = MAX_BYTES,
    patience: float = 5,
) -> AsyncIterator[Cached]:
    """A cache before a real OpenBao, behind a gate that counts."""
    clock, gate = Clock(), Gate(bao.address)
    budget = Budget(8, clock)
    memory = Memory(keep=max(ttl, stale_if_error), max_bytes=max_bytes, now=clock)
    where = Patience(budget, 0, lambda: 0.5, clock.skip)
    async with gate.listening(), open_session(connection := Connection(gate.address)) as session:
        adapter = WithToken(Adapter(Sender(session, connection, where)), token or bao.token)
        kv = without_look_at_mount(KV(adapter, "secret", where, written=memory.written))
        shared = SharedReads(budget)
        source = VaultFolders(kv, shared)
        refresh = (
            Timed(source, ttl=ttl, now=clock) if mode == "ttl" else Validated(kv, source, shared, ttl=ttl, now=clock)
        )
        answers = CachedFolders(
            refresh, memory, stale_if_error=stale_if_error, patience=patience, budget=budget, now=clock
        )
        yield Cached(gate, clock, kv, memory, refresh, answers, f"cache/{number}/")


class TestValidated:
    """Vault is asked whether anything has changed, and what has not is not read."""

    async def test_twenty_secrets_that_have_not_changed_cost_one_call(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id) as cached:
            for number in range(20):
                await admin.put(f"{cached.folder}{number}", f"v{number}", note="x")
            expected = {str(number): f"v{number}" for number in range(20)}
            assert await cached.values() == expected
            assert cached.calls == 21
            for _ in range(3):
                assert await cached.values() == expected
                assert cached.calls == 1

    async def test_only_what_has_changed_is_read(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            for name in "abc":
                await admin.put(cached.folder + name, "old")
            await cached.values()
            await admin.put(f"{cached.folder}b", "new")
            await admin.put(f"{cached.folder}d", "added")
            assert cached.calls == 4
            assert await cached.values() == {"a": "old", "b": "new", "c": "old", "d": "added"}
            assert cached.calls == 3

    @pytest.mark.parametrize(
        ("steps", "calls"),
        [
            pytest.param(["put"], 2, id="a new version"),
            pytest.param(["put", "put"], 2, id="two new versions"),
            pytest.param(["delete"], 2, id="deleted"),
            pytest.param(["delete", "undelete"], 2, id="deleted and undeleted"),
            pytest.param(["destroy"], 1, id="destroyed"),
            pytest.param(["metadata"], 1, id="metadata changed"),
            pytest.param(["no metadata"], 1, id="metadata removed"),
            pytest.param(["remove"], 1, id="removed"),
            pytest.param(["remove", "put"], 2, id="removed and made again with the same version"),
            pytest.param(["remove", "metadata"], 1, id="removed and made again without a version"),
            pytest.param(["put a key"], 2, id="another key"),
            pytest.param(["put in a sub-folder"], 1, id="a sub-folder"),
        ],
    )
    async def test_what_an_admin_does_shows_in_the_next_answer(
        self, bao: OpenBao, admin: Admin, repo_id: int, steps: list[str], calls: int
    ) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            doing: dict[str, Callable[[], Awaitable[object]]] = {
                "put": lambda: admin.put(path, "new"),
                "delete": lambda: admin.delete(path),
                "undelete": lambda: admin.call("POST", f"secret/undelete/{path}", {"versions": [1]}),
                "destroy": lambda: admin.destroy(path, 1),
                "metadata": lambda: admin.set_metadata(path, {"events": "tag"}),
                "no metadata": lambda: admin.set_metadata(path, {}),
                "remove": lambda: admin.call("DELETE", f"secret/metadata/{path}"),
                "put a key": lambda: admin.put(f"{cached.folder}other", "x"),
                "put in a sub-folder": lambda: admin.put(f"{cached.folder}token/sub", "x"),
            }
            await admin.put(path, "old", events="push")
            await admin.put(f"{cached.folder}same", "same")
            await cached.answers.folder(cached.folder)
            for step in steps:
                await doing[step]()
                uncached = VaultFolders(cached.kv, SharedReads(Budget(8, cached.clock)))
                expected = await uncached.folder(cached.folder)
                cached.gate.heal()
                snapshot = await cached.answers.folder(cached.folder)
                if step == steps[-1]:
                    assert cached.calls == calls
                assert _shown(snapshot) == _shown(expected)

    async def test_all_of_it_at_once_shows_in_the_next_answer(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old", events="push")
            await cached.values()
            await admin.call("DELETE", f"secret/metadata/{path}")
            await admin.put(path, "new", events="push")
            assert await cached.values() == {"token": "new"}

    async def test_a_version_that_will_be_deleted_later_is_there_until_then(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            await admin.call("POST", f"secret/metadata/{path}", {"delete_version_after": "1h"})
            await admin.put(path, "x")
            assert (await cached.kv.read(path)).live
            assert await cached.values() == {"token": "x"}
            assert await cached.values() == {"token": "x"}

    async def test_a_folder_that_is_gone_or_never_was_is_empty(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            assert await cached.values() == {}
            await admin.put(f"{cached.folder}token", "x")
            assert await cached.values() == {"token": "x"}
            await admin.call("DELETE", f"secret/metadata/{cached.folder}token")
            assert await cached.values() == {}

    async def test_a_value_is_read_again_after_a_time_even_so(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id, ttl=300, stale_if_error=3600) as cached:
            await admin.put(f"{cached.folder}token", "x")
            await cached.values()
            for passes, calls in ((200, 1), (99, 1), (2, 2), (200, 1)):
                cached.clock.at += passes
                cached.gate.heal()
                await cached.values()
                assert cached.calls == calls

    async def test_a_right_to_read_that_is_withdrawn_is_noticed_after_that_time(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        listing = 'path "secret/detailed-metadata/cache/*" { capabilities = ["list"] }'
        name = f"cache-{repo_id}"
        token = await admin.token(f'{listing}\npath "secret/data/cache/*" {{ capabilities = ["read"] }}', name=name)
        async with caching(bao, repo_id, token=token, ttl=300, stale_if_error=3600) as cached:
            await admin.put(f"{cached.folder}token", "x")
            await cached.values()
            await admin.call("PUT", f"sys/policies/acl/{name}", {"policy": listing})
            cached.clock.at += 301
            for _ in range(2):
                with pytest.raises(Denied):
                    await cached.values()
                assert cached.memory.size == 0

    async def test_many_who_ask_at_once_are_one_who_asks(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            for number in range(5):
                await admin.put(f"{cached.folder}{number}", "x")
            await asyncio.gather(*(cached.values() for _ in range(50)))
            assert cached.calls == 6
            await asyncio.gather(*(cached.values() for _ in range(50)))
            assert cached.calls == 1

    async def test_what_changes_between_the_listing_and_the_read_is_as_it_was_read(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old", events="push")
            for step, value in enumerate(["new", "newer", None]):
                await admin.put(path, f"soon gone {step}")
                cached.gate.hold(lambda method, where: method == "GET" and where.endswith(path))
                reading = asyncio.ensure_future(cached.values())
                await cached.gate.arrived.wait()
                if value is None:
                    await admin.delete(path)
                else:
                    await admin.put(path, value, events=value)
                cached.gate.let_go.set()
                expected = {} if value is None else {"token": value}
                assert await reading == expected
                cached.gate.heal()
                for calls in (2, 1):  # what was read was not what had been listed: it may be read once more
                    assert await cached.values() == expected
                    assert cached.calls in {1, calls}

    @pytest.mark.parametrize("what", ["deleted and undeleted", "restricted and opened again"])
    async def test_what_changes_and_changes_back_around_the_read_is_as_it_is_in_the_end(
        self, bao: OpenBao, admin: Admin, repo_id: int, what: str
    ) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "x", events="push")
            cached.gate.hold(lambda method, where: method == "GET" and where.endswith(path))
            reading = asyncio.ensure_future(cached.answers.folder(cached.folder))
            await cached.gate.arrived.wait()
            if what.startswith("deleted"):
                await admin.delete(path)
            else:
                await admin.set_metadata(path, {"events": "tag"})
            cached.gate.let_go.set()
            await reading
            if what.startswith("deleted"):
                await admin.call("POST", f"secret/undelete/{path}", {"versions": [1]})
            else:
                await admin.set_metadata(path, {"events": "push"})
            for _ in range(2):
                snapshot = await cached.answers.folder(cached.folder)
                entry = snapshot.entries["token"]
                assert (entry.live, entry.data, entry.metadata) == (True, {"value": "x"}, {"events": "push"})

    async def test_a_read_under_way_while_we_write_is_not_kept(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old")
            cached.gate.hold(lambda method, where: method == "GET" and where.endswith(path))
            reading = asyncio.ensure_future(cached.values())
            await cached.gate.arrived.wait()
            await cached.kv.put(path, {"value": "new"}, cas=1)
            cached.gate.let_go.set()
            await reading
            assert cached.memory.size == 0
            assert await cached.values() == {"token": "new"}

    async def test_one_entry_alone_is_read_each_time(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id) as cached:
            for value in ("one", "two"):
                await admin.put(f"{cached.folder}token", value)
                snapshot = await cached.answers.entry(f"{cached.folder}token")
                assert snapshot.entries["token"].data == {"value": value}
                assert cached.calls == 1

    async def test_without_a_right_to_the_listing_it_does_without_the_cache_and_says_so_once(
        self, bao: OpenBao, admin: Admin, repo_id: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        policy = """
            path "secret/metadata/cache/*" { capabilities = ["list"] }
            path "secret/data/cache/*" { capabilities = ["read"] }
        """
        name = f"cache-{repo_id}"
        token = await admin.token(policy, name=name)
        async with caching(bao, repo_id, token=token) as cached:
            for value, calls in (("one", 3), ("two", 2), ("three", 2)):
                await admin.put(f"{cached.folder}token", value)
                assert await cached.values() == {"token": value}
                assert cached.calls == calls
            assert len(_warnings(caplog)) == 1
            cached.clock.at += 59
            await cached.values()
            assert cached.calls == 2
            cached.clock.at += 2
            await cached.values()
            assert cached.calls == 3
            await admin.call(
                "PUT",
                f"sys/policies/acl/{name}",
                {"policy": f'{policy}\npath "secret/detailed-metadata/cache/*" {{ capabilities = ["list"] }}'},
            )
            cached.clock.at += 61
            await cached.values()
            cached.gate.heal()
            await cached.values()
            assert cached.calls == 1
            assert len(_warnings(caplog)) == 2

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, {"errors": ["no handler for route"]}),
            (404, {"errors": ["1 error occurred:\n\t* unsupported path\n\n"]}),
            (405, {"errors": ["1 error occurred:\n\t* unsupported operation\n\n"]}),
            (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}),
            (404, {}),
        ],
    )
    async def test_a_server_that_does_not_know_the_listing_is_told_from_one_that_fails(
        self, status: int, body: dict[str, Any]
    ) -> None:
        async def answer(_: str, __: str) -> tuple[int, dict[str, Any]]:
            return status, body

        async with _list_server(answer) as kv:
            with pytest.raises(NoListing):
                await kv.list_with_details("a/")

    @pytest.mark.parametrize("status", [500, 502, 503])
    async def test_a_server_that_fails_is_not_taken_for_one_without_the_listing(self, status: int) -> None:
        async def answer(_: str, __: str) -> tuple[int, dict[str, Any]]:
            return status, {"errors": ["down"]}

        async with _list_server(answer) as kv:
            with pytest.raises(Unavailable):
                await kv.list_with_details("a/")

    async def test_at_the_start_it_is_found_out_as_soon_as_vault_can_be_asked(
        self, bao: OpenBao, admin: Admin, repo_id: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = await admin.token('path "secret/metadata/cache/*" { capabilities = ["list"] }', name=f"cache-{repo_id}")
        async with caching(bao, repo_id, token=token) as cached:
            assert isinstance(cached.refresh, Validated)
            cached.gate.mode = "refuse"
            introducing = asyncio.ensure_future(cached.refresh.introduce(cached.folder, cached.clock.sleep))
            await cached.clock.settled()
            assert not _warnings(caplog)
            cached.gate.heal()
            cached.clock.wake()
            await introducing
            assert len(_warnings(caplog)) == 1
            assert await cached.values() == {}
            assert cached.calls == 2
        async with caching(bao, repo_id) as cached:
            assert isinstance(cached.refresh, Validated)
            await cached.refresh.introduce(cached.folder, cached.clock.sleep)
            assert len(_warnings(caplog)) == 1


class TestTimed:
    """What is kept is given for so many seconds."""

    async def test_what_was_read_is_given_until_it_is_too_old(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id, mode="ttl", ttl=60) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old")
            for _ in range(3):
                assert await cached.values() == {"token": "old"}
                assert (await cached.answers.entry(path)).entries["token"].data == {"value": "old"}
            assert cached.calls == 3
            await admin.put(path, "new")
            cached.clock.at += 59.9
            assert await cached.values() == {"token": "old"}
            assert cached.calls == 0
            cached.clock.at += 0.1
            assert await cached.values() == {"token": "new"}
            assert (await cached.answers.entry(path)).entries["token"].data == {"value": "new"}

    async def test_what_was_written_through_us_is_read_again_at_once(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id, mode="ttl") as cached:
            path = f"{cached.folder}token"
            writes: list[Callable[[], Awaitable[None]]] = [
                lambda: cached.kv.put(path, {"value": "two"}, cas=1),
                lambda: cached.kv.patch_metadata(path, {"events": "tag"}),
                lambda: cached.kv.delete(path),
                lambda: cached.kv.destroy(path),
            ]
            await admin.put(path, "one")
            for write in writes:
                await cached.answers.folder(cached.folder)
                await cached.answers.entry(path)
                await write()
                assert cached.memory.size == 0
                uncached = VaultFolders(cached.kv, SharedReads(Budget(8, cached.clock)))
                assert await cached.answers.folder(cached.folder) == await uncached.folder(cached.folder)
                assert await cached.answers.entry(path) == await uncached.entry(path)

    async def test_what_is_said_not_to_have_been_written_may_have_been(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id, mode="ttl") as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old")
            await cached.values()
            cached.gate.break_at(1, answered=True, lasting=False)
            with pytest.raises(Unavailable):
                await cached.kv.put(path, {"value": "new"}, cas=1)
            assert await cached.values() == {"token": "new"}

    async def test_a_read_under_way_while_we_write_is_not_kept(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id, mode="ttl") as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "old")
            cached.gate.hold(lambda method, where: method == "GET" and where.endswith(path))
            reading = asyncio.ensure_future(cached.values())
            await cached.gate.arrived.wait()
            await cached.kv.put(path, {"value": "new"}, cas=1)
            cached.gate.let_go.set()
            await reading
            assert cached.memory.size == 0
            assert await cached.values() == {"token": "new"}


class TestStale:
    """What is given while Vault cannot be asked: nothing, unless the settings allow it, and not for long."""

    @pytest.mark.parametrize("mode", ["ttl", "validated"])
    async def test_what_is_kept_is_given_while_vault_is_away_and_is_called_stale(
        self, bao: OpenBao, admin: Admin, repo_id: int, mode: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with caching(bao, repo_id, mode=mode, ttl=60, stale_if_error=600) as cached:
            path = f"{cached.folder}token"
            await admin.put(path, "x")
            fresh = await cached.answers.folder(cached.folder)
            alone = await cached.answers.entry(path)
            assert not fresh.stale
            cached.gate.mode = "refuse"
            cached.clock.at += 599
            assert await cached.answers.folder(cached.folder) == Snapshot(fresh.entries, stale=True)
            assert await cached.answers.entry(path) == Snapshot(alone.entries, stale=True)
            assert [record.__dict__["age"] for record in _warnings(caplog)] == [599, 599]
            cached.clock.at += 1
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await cached.answers.folder(cached.folder)
            assert cached.memory.size == 0

    async def test_being_given_does_not_make_it_any_younger(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        async with caching(bao, repo_id, stale_if_error=100) as cached:
            await admin.put(f"{cached.folder}token", "x")
            await cached.values()
            cached.gate.mode = "refuse"
            for _ in range(9):
                cached.clock.at += 11
                await cached.values()
            cached.clock.at += 2
            with pytest.raises(Unavailable):
                await cached.values()

    async def test_vault_is_asked_first_each_time_and_what_it_says_is_given(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id, stale_if_error=600) as cached:
            await admin.put(f"{cached.folder}token", "old")
            await cached.values()
            cached.gate.mode = "refuse"
            await cached.values()
            cached.gate.heal()
            await admin.put(f"{cached.folder}token", "new")
            assert not (await cached.answers.folder(cached.folder)).stale
            assert await cached.values() == {"token": "new"}

    async def test_vault_is_not_waited_for_longer_than_there_is_patience(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        async with caching(bao, repo_id, stale_if_error=600, patience=0.05) as cached:
            await admin.put(f"{cached.folder}token", "x")
            await cached.values()
            cached.gate.hold(lambda _, __: True)
            async with asyncio.timeout(2.9):  # and not the three of a connection
                assert (await cached.answers.folder(cached.folder)).stale
            cached.gate.let_go.set()

    @pytest.mark.parametrize("mode", ["ttl", "validated"])
    async def test_it_is_not_given_unless_the_settings_allow_it(
        self, bao: OpenBao, admin: Admin, repo_id: int, mode: str
    ) -> None:
        async with caching(bao, repo_id, mode=mode, ttl=60) as cached:
            await admin.put(f"{cached.folder}token", "x")
            await cached.values()
            cached.clock.at += 61
            cached.gate.mode = "refuse"
            with pytest.raises(Unavailable):
                await cached.values()

    async def test_what_was_never_read_is_not_made_up(self, bao: OpenBao, repo_id: int) -> None:
        async with caching(bao, repo_id, stale_if_error=600) as cached:
            cached.gate.mode = "refuse"
            with pytest.raises(Unavailable):
                await cached.values()

    @pytest.mark.parametrize("problem", [Denied("no"), TokenRefused("no"), LoginRefused("no")])
    async def test_a_no_of_vaults_is_never_answered_from_memory(self, problem: Exception) -> None:
        clock = Clock()
        refresh = _Refresh(Kept(Snapshot({"a": Entry(1, live=True)}), clock.at))
        memory = Memory(keep=60, max_bytes=MAX_BYTES, now=clock)
        answers = CachedFolders(refresh, memory, stale_if_error=60, patience=1, budget=Budget(8, clock), now=clock)
        await answers.folder("a/")
        refresh.problem = problem
        for _ in range(2):
            with pytest.raises(type(problem)):
                await answers.folder("a/")
            with pytest.raises(type(problem)):
                await answers.entry("a/a")
        assert memory.size == 0
        refresh.problem = Unavailable("gone")
        with pytest.raises(Unavailable):
            await answers.folder("a/")

    async def test_a_hung_network_is_no_reason_either_to_give_what_is_too_old(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        await admin.put(f"cache/{repo_id}/token", "x")
        proxy = Proxy(bao.address)
        async with proxy.listening(), caching(OpenBao(proxy.address, bao.token), repo_id, stale_if_error=10) as cached:
            await cached.values()
            proxy.mode = "hang"
            cached.clock.at += 11
            with cached.answers._budget.at_most(0.05), pytest.raises(Unavailable):
                await cached.values()


class TestMemory:
    """What is kept is bounded, and goes when it is of no use any more."""

    def test_the_longest_unused_goes_first(self) -> None:
        size = _sized(1)
        memory = Memory(keep=60, max_bytes=3 * size, now=Clock())
        for name in "abc":
            memory.put(name, _kept(1))
        assert memory.size == 3 * size
        memory.get("a")
        memory.put("d", _kept(1))
        assert [name for name in "abcd" if memory.get(name)] == ["a", "c", "d"]
        assert memory.size == 3 * size

    def test_what_is_too_large_alone_is_not_kept_and_displaces_only_what_it_replaces(self) -> None:
        memory = Memory(keep=60, max_bytes=2 * _sized(1), now=Clock())
        memory.put("a", _kept(1))
        memory.put("b", _kept(1))
        memory.put("b", _kept(5000))
        assert memory.get("a")
        assert memory.get("b") is None

    def test_what_is_kept_is_measured_in_bytes(self) -> None:
        plain, memory = (
            Memory(keep=1, max_bytes=MAX_BYTES, now=Clock()),
            Memory(keep=1, max_bytes=MAX_BYTES, now=Clock()),
        )
        plain.put("a", Kept(Snapshot({"a": Entry(1, live=True, data={"value": "x" * 1000})}), 1000))
        memory.put("a", Kept(Snapshot({"a": Entry(1, live=True, data={"value": "鍵" * 1000})}), 1000))
        assert memory.size >= plain.size + 1000

    def test_a_write_takes_the_entry_and_its_folder_away_and_nothing_else(self) -> None:
        memory = Memory(keep=60, max_bytes=MAX_BYTES, now=Clock())
        for where in ("a/b", "a/", "a/c", "a/b/", "b/"):
            memory.put(where, _kept(1))
        memory.written("a/b")
        assert [where for where in ("a/b", "a/", "a/c", "a/b/", "b/") if memory.get(where)] == ["a/c", "a/b/", "b/"]

    async def test_values_are_gone_when_they_expire_even_if_nobody_asks(self) -> None:
        class Data(dict[str, Any]):
            """Can be watched."""

        clock = Clock()
        memory = Memory(keep=60, max_bytes=MAX_BYTES, now=clock)
        data = Data(value="sesame")
        watched = weakref.ref(data)
        memory.put("a/", Kept(Snapshot({"a": Entry(1, live=True, data=data)}), clock.at))
        del data
        living = asyncio.ensure_future(memory.live(clock.sleep))
        await clock.settled()
        await clock.move(59)
        gc.collect()
        assert watched() is not None
        await clock.move(2)
        gc.collect()
        assert watched() is None
        assert memory.size == 0
        assert memory.next_expiry() == math.inf
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        assert all(0.1 <= pause <= 1 for pause in clock.slept)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "get", "drop", "written", "pass"]),
                st.sampled_from("abcdef"),
                st.integers(0, 900),
            )
        )
    )
    def test_its_size_is_always_that_of_what_it_keeps_and_never_too_much(
        self, steps: list[tuple[str, str, int]]
    ) -> None:
        clock = Clock()
        memory = Memory(keep=1000, max_bytes=6000, now=clock)
        for step, where, number in steps:
            if step == "put":
                memory.put(where, Kept(_kept(number).snapshot, clock.at))
            elif step == "pass":
                clock.at += number
            elif step == "get":
                kept = memory.get(where)
                assert kept is None or clock.at - kept.at < 1000
            else:
                getattr(memory, step)(where)
            assert memory.size == sum(kept.size for kept in memory._kept.values())
            assert memory.next_expiry() == min((kept.at for kept in memory._kept.values()), default=math.inf) + 1000
            assert len(memory._times) <= 2 * len(memory._kept) + 64
            assert 0 <= memory.size <= 6000
            assert (memory.size == 0) == (not memory._kept)
        clock.at += 1000
        memory.expire()
        assert memory.size == 0

    def test_to_get_one_of_many_costs_no_more_than_to_get_the_only_one(self) -> None:
        def steps(folders: int) -> int:
            looked_at: list[float] = []

            class Time(float):
                """Notes each time that it is compared."""

                @override
                def __eq__(self, other: object) -> bool:
                    looked_at.append(self)
                    return float.__eq__(self, other)

                @override
                def __le__(self, other: float) -> bool:
                    looked_at.append(self)
                    return float.__le__(self, other)

                @override
                def __lt__(self, other: float) -> bool:
                    looked_at.append(self)
                    return float.__lt__(self, other)

                __hash__ = float.__hash__

            clock = Clock()
            memory = Memory(keep=60, max_bytes=2**40, now=clock)
            kept = _kept(1)
            for number in range(folders):
                memory.put(str(number), Kept(kept.snapshot, Time(clock.at - number % 50), size=1))
            looked_at.clear()
            for _ in range(10):
                assert memory.get("0")
                assert memory.next_expiry() > clock.at
            return len(looked_at)

        assert 0 < steps(20_000) <= 2 * steps(1)

    @pytest.mark.parametrize("again", ["put", "drop"])
    def test_what_is_replaced_or_dropped_time_and_again_leaves_nothing_behind(self, again: str) -> None:
        clock = Clock()
        memory = Memory(keep=60, max_bytes=MAX_BYTES, now=clock)
        for _ in range(1000):
            clock.at += 0.01
            memory.put("a/", Kept(_kept(1).snapshot, clock.at))
            if again == "drop":
                memory.drop("a/")
        assert len(memory._times) < 100
        clock.at += 59.9
        assert (memory.get("a/") is not None) == (again == "put")
        clock.at += 0.1
        assert memory.get("a/") is None
        assert memory.next_expiry() == math.inf

    def test_nothing_kept_shows_its_values(self) -> None:
        kept = Kept(Snapshot({"a": Entry(1, live=True, data={"value": "sesame"})}), 1)
        assert "sesame" not in repr(kept)
        assert "sesame" not in repr(KeyInfo(Version(1)))


@dataclass
class _Refresh:
    """Gives what it is told to, or fails."""

    kept: Kept
    problem: Exception | None = None
    asked: list[str] = field(default_factory=list)

    async def folder(self, folder: str, kept: Kept | None) -> Kept:
        """A folder."""
        self.asked.append(folder)
        if self.problem is not None:
            raise self.problem
        return kept or self.kept

    async def entry(self, path: str, kept: Kept | None) -> Kept:
        """An entry, likewise."""
        return await self.folder(path, kept)


@asynccontextmanager
async def _list_server(answer: Callable[[str, str], Awaitable[tuple[int, dict[str, Any]]]]) -> AsyncIterator[KV]:
    """A mount on a server that is no OpenBao; it is asked with GET, as aiohttp's server knows no LIST."""

    async def handle(request: web.BaseRequest) -> web.Response:
        status, body = await answer(request.method, request.path)
        return web.json_response(body, status=status)

    class Get(Adapter):
        @override
        async def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
            """Send one."""
            return await super().request("get" if method == "list" else method, url, *args, **kwargs)

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        connection = Connection(f"http://127.0.0.1:{runner.addresses[0][1]}")
        patience = Patience(Budget(8, Clock()), 0, lambda: 0.5, Clock().skip)
        async with open_session(connection) as session:
            yield KV(Get(Sender(session, connection, patience)), "secret", patience)
    finally:
        await runner.cleanup()


def _shown(snapshot: Snapshot) -> dict[str, tuple[object, ...]]:
    return {
        name: (entry.version, entry.live, entry.data, entry.version and entry.metadata, entry.created)
        for name, entry in snapshot.entries.items()
    }


def _kept(length: int) -> Kept:
    return Kept(Snapshot({"a": Entry(1, live=True, data={"value": "x" * length})}), 1000)


def _sized(length: int) -> int:
    memory = Memory(keep=1, max_bytes=MAX_BYTES, now=Clock())
    memory.put("a", _kept(length))
    return memory.size


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.WARNING]
