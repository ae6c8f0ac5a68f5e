"""Locks against a real OpenBao: whoever holds one is the only one, whatever becomes of the others."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from typing_extensions import override

from tests.servers import Admin
from tests.vault import Gate, rooms
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry
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


def locks(kv: KV, owner: str, *, stale_after: float = 60.0, patient: bool = True) -> Locks:
    return Locks(kv, owner=owner, pause=soon if patient else at_length, stale_after=stale_after)


async def grown_old(admin: Admin, path: str, seconds: float) -> None:
    """Wait until Vault's clock says that an entry is older than that."""
    made = datetime.fromisoformat(
        (await admin.call("GET", f"secret/data/{path}"))[1]["data"]["metadata"]["created_time"]
    )
    while True:
        _, answer = await admin.call("POST", "secret/data/locks/clock", {"data": {}})
        if (datetime.fromisoformat(answer["data"]["created_time"]) - made).total_seconds() > seconds:
            return
        await asyncio.sleep(0.01)


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
    await grown_old(admin, lock_of(path), 0.2)
    async with locks(kv, "mine", stale_after=0.2).hold(path, 1):
        assert await admin.data(lock_of(path)) == {"owner": "mine"}
        assert await admin.list(lock_of(path).rpartition("/")[0] + "/") == ["token"]
    assert await admin.version(lock_of(path)) == 0


async def test_one_that_is_not_long_dead_is_not(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "dead"})
    await grown_old(admin, lock_of(path), 0.2)
    with pytest.raises(Conflict):
        async with locks(kv, "mine", patient=False).hold(path, 1):
            pytest.fail("it is younger than a minute")
    assert await admin.data(lock_of(path)) == {"owner": "dead"}
    assert await admin.list(lock_of(path).rpartition("/")[0] + "/") == ["token"]


async def test_without_the_right_to_find_out_how_old_it_is_it_is_not(bao: OpenBao, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "dead"})
    policy = f'path "secret/data/{lock_of(path)}" {{ capabilities = ["create", "read", "update", "delete"] }}'
    token = await admin.token(policy, name="locks-only")
    await grown_old(admin, lock_of(path), 0.2)
    async with rooms(Connection(bao.address), token) as ours:
        with pytest.raises(Conflict):
            async with locks(ours.kv, "mine", patient=False, stale_after=0.2).hold(path, 1):
                pytest.fail("nobody knows how old it is")


async def test_a_dead_writers_lock_is_taken_over_by_one_only(kv: KV, admin: Admin, path: str) -> None:
    await admin.put(lock_of(path), {"owner": "dead"})
    await grown_old(admin, lock_of(path), 3)  # so this one is old, and any that is made later is not
    room = Room()
    takers = [locks(kv, f"taker-{number}", stale_after=3) for number in range(6)]
    results = await asyncio.gather(*(room.use(taker, path) for taker in takers), return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), Conflict}
    assert (room.most, room.entered > 0) == (1, True)


async def test_a_free_lock_that_is_never_got_is_given_up(kv: KV, admin: Admin, path: str) -> None:
    """As where a standby answers reads from the past: what it says is free is taken. It is not asked without end."""

    class Past(KV):
        asked = 0

        @override
        async def read(self, path: str) -> Entry:
            self.asked += 1
            return Entry()

    past = Past(kv._adapter, "secret", kv._patience)
    await admin.put(lock_of(path), {"owner": "another"})
    with pytest.raises(Conflict):
        async with locks(past, "mine", patient=False).hold(path, 1):
            pytest.fail("another has it")
    assert past.asked < 10


class TestUnknownOutcomes:
    """A write of which nobody knows whether Vault did it, or will yet."""

    @staticmethod
    async def left_behind(mine: Locks, path: str, write: int) -> None:
        with pytest.raises(Unavailable):
            async with mine.hold(path, write):
                raise Unavailable("cut short", maybe_done=True)

    async def test_only_a_repetition_takes_its_lock_over(self, kv: KV, admin: Admin, path: str) -> None:
        mine = locks(kv, "mine", patient=False)
        await self.left_behind(mine, path, write=1)
        for another in (2, 3):
            with pytest.raises(Conflict):
                async with mine.hold(path, another):
                    pytest.fail("the first may be done yet")
        assert await admin.data(lock_of(path)) == {"owner": "mine"}
        async with mine.hold(path, 1):
            pass
        assert await admin.version(lock_of(path)) == 0
        async with mine.hold(path, 2):
            pass

    async def test_no_other_process_takes_its_lock_over_even_for_the_same_write(self, kv: KV, path: str) -> None:
        await self.left_behind(locks(kv, "mine", patient=False), path, write=1)
        with pytest.raises(Conflict):
            async with locks(kv, "another", patient=False).hold(path, 1):
                pytest.fail("the first may be done yet")

    async def test_after_a_minute_whoever_comes_does(self, kv: KV, admin: Admin, path: str) -> None:
        mine = locks(kv, "mine", stale_after=0.2)
        await self.left_behind(mine, path, write=1)
        await grown_old(admin, lock_of(path), 0.2)
        async with mine.hold(path, 2):
            assert await admin.version(lock_of(path)) == 2

    async def test_a_repetition_in_doubt_again_leaves_it_for_the_next_one(self, kv: KV, path: str) -> None:
        mine = locks(kv, "mine", patient=False)
        await self.left_behind(mine, path, write=1)
        await self.left_behind(mine, path, write=1)
        with pytest.raises(Conflict):
            async with mine.hold(path, 2):
                pytest.fail("it may be done yet")


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
        await grown_old(admin, lock_of(path), 0.2)
        async with locks(kv, "taker", stale_after=0.2).hold(path, 1):
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
