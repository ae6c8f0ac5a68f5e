"""Locks against a real OpenBao: whoever holds one is the only one, whatever becomes of the others."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from tests.servers import Admin
from tests.vault import Gate, rooms
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import Conflict, Denied, Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.locks import Locks

NO_DESTROY = """
path "secret/data/locks/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/locks/*" { capabilities = ["list"] }
"""
NO_DELETE = 'path "secret/data/locks/*" { capabilities = ["create", "read", "update"] }'


@pytest.fixture
async def kv(bao: OpenBao) -> AsyncIterator[KV]:
    """The mount, with a token that may do everything."""
    async with rooms(Connection(bao.address), bao.token) as ours:
        yield ours.kv


async def soon() -> float:
    """A pause that is short, and says that it was."""
    await asyncio.sleep(0.01)
    return 0.01


async def at_length() -> float:
    """A pause that is short, and says that it took a second."""
    await asyncio.sleep(0.001)
    return 1.0


def locks(kv: KV, owner: str, *, now: Callable[[], float] = time.time, patient: bool = True) -> Locks:
    return Locks(kv, owner=owner, now=now, pause=soon if patient else at_length)


def in_an_hour() -> float:
    return time.time() + 3600


@pytest.fixture
def path(repo_id: int) -> str:
    """An entry of this test's own, and its lock at ``locks/<id>/.lock/token``."""
    return f"locks/{repo_id}/token"


def lock_of(path: str) -> str:
    folder, _, segment = path.rpartition("/")
    return f"{folder}/.lock/{segment}"


class Room:
    """Something that only one may be in at a time."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.entered = 0

    async def use(self, locks: Locks, path: str) -> None:
        """Go in, stay for a call to Vault, and go."""
        async with locks.hold(path, 1):
            self.inside += 1
            self.entered += 1
            self.most = max(self.most, self.inside)
            await locks._kv.read(path)
            self.inside -= 1


async def test_there_is_never_more_than_one_holder(kv: KV, admin: Admin, path: str) -> None:
    room = Room()
    replicas = [locks(kv, f"replica-{number}") for number in range(4)]
    results = await asyncio.gather(*(room.use(replicas[i % 4], path) for i in range(40)), return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), Conflict}
    assert room.most == 1
    assert room.entered > 0
    assert await admin.list(f"{path.rpartition('/')[0]}/.lock/") == []


async def test_within_one_process_all_get_their_turn(kv: KV, path: str) -> None:
    room = Room()
    mine = locks(kv, "mine")
    await asyncio.gather(*(room.use(mine, path) for _ in range(20)))
    assert (room.most, room.entered) == (1, 20)


async def test_a_held_lock_says_who_holds_it_and_is_gone_afterwards(kv: KV, admin: Admin, path: str) -> None:
    async with locks(kv, "mine").hold(path, 1):
        assert await admin.data(lock_of(path)) == {"owner": "mine"}
    assert await admin.version(lock_of(path)) == 0


async def test_a_lock_goes_when_its_holder_fails(kv: KV, admin: Admin, path: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with locks(kv, "mine").hold(path, 1):
            raise ZeroDivisionError
    assert await admin.version(lock_of(path)) == 0


async def test_anothers_live_lock_is_waited_for_and_then_given_up_as_a_conflict(
    kv: KV, admin: Admin, path: str
) -> None:
    async with locks(kv, "another").hold(path, 1):
        for _ in range(3):
            with pytest.raises(Conflict):
                async with locks(kv, "mine", patient=False).hold(path, 1):
                    pytest.fail("two hold it")
        assert await admin.data(lock_of(path)) == {"owner": "another"}
        assert await admin.version(lock_of(path)) == 1
    async with locks(kv, "mine").hold(path, 1):
        pass


async def test_who_waits_gets_it_when_it_is_released(kv: KV, path: str) -> None:
    first, second = locks(kv, "first"), locks(kv, "second")
    order = []

    async def then_second() -> None:
        async with second.hold(path, 1):
            order.append("second")

    async with first.hold(path, 1):
        waiting = asyncio.ensure_future(then_second())
        await asyncio.wait({waiting}, timeout=0.2)
        order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_a_lock_of_a_writer_long_dead_is_taken_over(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "dead"})
    async with locks(kv, "mine", now=in_an_hour, patient=False).hold(path, 1):
        assert await admin.data(lock_of(path)) == {"owner": "mine"}
    assert await admin.version(lock_of(path)) == 0


async def test_a_dead_writers_lock_is_taken_over_by_one_only(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "dead"})
    dead = datetime.fromisoformat((await kv.read(lock_of(path))).created).timestamp()
    ahead = dead + 60.0005  # so this one is old, and any that is made later is not
    room = Room()
    takers = [locks(kv, f"taker-{number}", now=lambda: ahead) for number in range(6)]
    results = await asyncio.gather(*(room.use(taker, path) for taker in takers), return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), Conflict}
    assert (room.most, room.entered > 0) == (1, True)


async def test_a_lock_that_this_process_left_behind_is_its_own(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "mine"})
    async with locks(kv, "mine", patient=False).hold(path, 1):
        assert await admin.version(lock_of(path)) == 2
    assert await admin.version(lock_of(path)) == 0


async def test_a_lock_that_was_only_deleted_is_free(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "another"})
    await admin.delete(lock_of(path))
    async with locks(kv, "mine", patient=False).hold(path, 1):
        assert await admin.data(lock_of(path)) == {"owner": "mine"}


async def test_a_lock_without_an_owner_is_somebody_elses(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"whose": "nobody knows"})
    with pytest.raises(Conflict):
        async with locks(kv, "mine", patient=False).hold(path, 1):
            pytest.fail("it was not free")
    assert await admin.data(lock_of(path)) == {"whose": "nobody knows"}


async def test_where_locks_may_not_be_destroyed_they_are_deleted(bao: OpenBao, admin: Admin, path: str) -> None:
    token = await admin.token(NO_DESTROY, name="locks-no-destroy")
    async with rooms(Connection(bao.address), token) as ours:
        for owner in ("one", "two", "three"):
            async with locks(ours.kv, owner, patient=False).hold(path, 1):
                assert await admin.data(lock_of(path)) == {"owner": owner}
            assert await admin.data(lock_of(path)) is None


async def test_where_locks_cannot_even_be_deleted_it_is_logged_and_the_write_stands(
    bao: OpenBao, admin: Admin, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = await admin.token(NO_DELETE, name="locks-no-delete")
    async with rooms(Connection(bao.address), token) as ours:
        mine = locks(ours.kv, "mine", patient=False)
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                async with mine.hold(path, 1):
                    pass
            assert "left behind" in caplog.text
            assert token not in caplog.text


async def test_where_locks_may_not_be_made_nothing_is_held(bao: OpenBao, admin: Admin, path: str) -> None:
    token = await admin.token('path "secret/data/*" { capabilities = ["read"] }', name="locks-none")
    async with rooms(Connection(bao.address), token) as ours:
        with pytest.raises(Denied):
            async with locks(ours.kv, "mine").hold(path, 1):
                pytest.fail("there is no lock")


@asynccontextmanager
async def gated(bao: OpenBao) -> AsyncIterator[tuple[Gate, KV]]:
    """The mount behind a gate."""
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address), bao.token) as ours:
        yield gate, ours.kv


@pytest.mark.parametrize("answered", [False, True])
async def test_a_lock_whose_making_failed_is_no_obstacle_to_its_own_process(
    bao: OpenBao, admin: Admin, path: str, *, answered: bool
) -> None:
    async with gated(bao) as (gate, kv):
        mine = locks(kv, "mine", patient=False)
        await kv.read(path)  # with a token that is known by then
        gate.break_at(1, answered=answered, lasting=False)
        with pytest.raises(Unavailable):
            async with mine.hold(path, 1):
                pytest.fail("the lock is not certain")
        gate.heal()
        async with mine.hold(path, 1):
            assert await admin.data(lock_of(path)) == {"owner": "mine"}
    assert await admin.version(lock_of(path)) == 0


async def test_a_holder_who_is_cancelled_still_releases(bao: OpenBao, admin: Admin, path: str) -> None:
    async with gated(bao) as (_, kv):
        mine = locks(kv, "mine")
        inside = asyncio.Event()

        async def stay() -> None:
            async with mine.hold(path, 1):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(stay())
        await asyncio.wait_for(inside.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await admin.version(lock_of(path)) == 0


async def test_a_release_that_comes_late_does_not_release_the_next_holders_lock(
    bao: OpenBao, admin: Admin, path: str
) -> None:
    async with gated(bao) as (gate, kv):
        mine = locks(kv, "mine")
        entered, leave = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with mine.hold(path, 1):
                pass

        async def second() -> None:
            async with mine.hold(path, 1):
                entered.set()
                await leave.wait()

        gate.hold(lambda method, _: method == "DELETE")
        one = asyncio.ensure_future(first())
        await asyncio.wait_for(gate.arrived.wait(), 30)
        one.cancel()  # its time is up, while its lock is being removed
        two = asyncio.ensure_future(second())
        waiting = asyncio.ensure_future(entered.wait())
        await asyncio.wait({waiting}, timeout=0.3)  # long enough to get in, if it does not wait
        gate.let_go.set()
        await asyncio.wait_for(waiting, 30)
        held = await admin.data(lock_of(path))
        leave.set()
        await two
        await asyncio.gather(one, return_exceptions=True)
    assert held == {"owner": "mine"}


async def test_who_was_thought_dead_does_not_release_the_lock_of_who_took_over(kv: KV, admin: Admin, path: str) -> None:
    async with contextlib.AsyncExitStack() as slow:
        await slow.enter_async_context(locks(kv, "slow").hold(path, 1))
        async with locks(kv, "taker", now=in_an_hour).hold(path, 1):
            await slow.aclose()
            assert await admin.data(lock_of(path)) == {"owner": "taker"}


async def test_names_with_odd_characters_have_locks_of_their_own(kv: KV, admin: Admin, repo_id: int) -> None:
    paths = [f"locks/{repo_id}/{name}" for name in ("é", "e\u0301", "a%2Fb", "a b", "鍵", ".lock", "a?b#c")]
    async with contextlib.AsyncExitStack() as stack:
        for path in paths:
            await stack.enter_async_context(locks(kv, path, patient=False).hold(path, 1))
        for path in paths:
            assert await admin.data(lock_of(path)) == {"owner": path}
    assert await admin.list(f"locks/{repo_id}/.lock/") == []
