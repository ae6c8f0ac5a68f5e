"""Equal reads at the same moment are one, and nobody gets what was read before they asked."""

import asyncio
import time

import pytest

from tests.clock import Clock
from woodpecker_vault.budget import Budget
from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.shared import SharedReads


class Store:
    """Something to read that can be written meanwhile. A read takes until :attr:`let_go` is set."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def read(self) -> int:
        """What it was when the read began."""
        self.reads += 1
        value = self.value
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return value


@pytest.fixture
def store() -> Store:
    """One whose reads wait."""
    return Store()


@pytest.fixture
def shared() -> SharedReads:
    """Without a limit of time, unless a test sets one."""
    return SharedReads(Budget(8, time.monotonic))


async def test_reads_at_the_same_moment_are_one(shared: SharedReads, store: Store) -> None:
    store.let_go.set()
    assert await asyncio.gather(*(shared.read("a", store.read) for _ in range(100))) == [0] * 100
    assert store.reads == 1


async def test_reads_one_after_another_are_each_their_own(shared: SharedReads, store: Store) -> None:
    store.let_go.set()
    for number in range(3):
        store.value = number
        assert await shared.read("a", store.read) == number
    assert store.reads == 3


async def test_reads_about_different_things_do_not_wait_for_each_other(shared: SharedReads, store: Store) -> None:
    hung = asyncio.ensure_future(shared.read("a", store.read))
    await store.begun.wait()
    other = Store()
    other.let_go.set()
    assert await shared.read("b", other.read) == 0
    store.let_go.set()
    assert await hung == 0


async def test_who_comes_while_a_read_is_under_way_gets_what_was_written_before(
    shared: SharedReads, store: Store
) -> None:
    early = asyncio.ensure_future(shared.read("a", store.read))
    await store.begun.wait()
    store.value = 1
    late = [asyncio.ensure_future(shared.read("a", store.read)) for _ in range(50)]
    await asyncio.sleep(0)
    assert store.reads == 1
    store.let_go.set()
    assert await early == 0
    assert await asyncio.gather(*late) == [1] * 50
    assert store.reads == 2


async def test_a_read_that_hangs_delays_the_next_by_a_moment_only(shared: SharedReads, store: Store) -> None:
    hung = asyncio.ensure_future(shared.read("a", store.read))
    await store.begun.wait()
    other = Store()
    other.let_go.set()
    begun = time.monotonic()
    assert await shared.read("a", other.read) == 0
    assert time.monotonic() - begun > 0.05  # and not for ever, as it does that hangs
    took = []
    for _ in range(10):
        begun = time.monotonic()
        assert await shared.read("a", other.read) == 0
        took.append(time.monotonic() - begun)
    assert min(took) < 0.05
    store.let_go.set()
    await hung


async def test_one_who_leaves_does_not_disturb_those_who_stay(shared: SharedReads, store: Store) -> None:
    first, second, third = (asyncio.ensure_future(shared.read("a", store.read)) for _ in range(3))
    await store.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    store.let_go.set()
    assert await asyncio.gather(*[second, third]) == [0, 0]
    assert (store.reads, store.cancelled) == (1, 0)


async def test_a_read_ends_when_nobody_waits_for_it_any_more(shared: SharedReads, store: Store) -> None:
    waiting = [asyncio.ensure_future(shared.read("a", store.read)) for _ in range(2)]
    await store.begun.wait()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert store.cancelled == 1
    store.let_go.set()
    assert await shared.read("a", store.read) == 0


async def test_a_read_that_nobody_waits_for_any_more_does_not_begin(shared: SharedReads, store: Store) -> None:
    early = asyncio.ensure_future(shared.read("a", store.read))
    await store.begun.wait()
    late = asyncio.ensure_future(shared.read("a", store.read))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    last = asyncio.ensure_future(shared.read("a", store.read))
    store.value = 1
    store.let_go.set()
    assert await asyncio.gather(*[early, last]) == [0, 1]
    assert store.reads == 2


async def test_who_is_out_of_time_goes_and_the_others_get_their_answer(store: Store) -> None:
    budget = Budget(0.4, time.monotonic)
    shared = SharedReads(budget)

    async def hurried() -> int:
        with budget.at_most(0.02):
            return await shared.read("a", store.read)

    patient = asyncio.ensure_future(shared.read("a", store.read))
    hasty = asyncio.ensure_future(hurried())
    with pytest.raises(Unavailable) as caught:
        await hasty
    assert caught.value.cause == "the time was up"
    assert not patient.done()
    store.let_go.set()
    assert await patient == 0


async def test_who_has_no_time_left_gets_no_answer_and_starts_nothing_that_stays(store: Store) -> None:
    clock = Clock()
    budget = Budget(8, clock)
    shared = SharedReads(budget)
    with budget.begun():
        clock.at += 60
        with pytest.raises(Unavailable):
            await shared.read("a", store.read)
    await asyncio.sleep(0)
    assert store.reads == store.cancelled


async def test_the_read_has_time_of_its_own_not_that_of_whoever_came_first() -> None:
    budget = Budget(8, Clock())
    shared = SharedReads(budget)

    async def left() -> float:
        return budget.left()

    with budget.begun(2):
        assert await shared.read("a", left) == 7.5


async def test_an_error_reaches_all_who_wait_and_the_next_read_is_anew(shared: SharedReads, store: Store) -> None:
    store.error = Unavailable("no", cause="why")
    store.let_go.set()
    results = await asyncio.gather(*(shared.read("a", store.read) for _ in range(20)), return_exceptions=True)
    assert results == [store.error] * 20
    store.error = None
    assert await shared.read("a", store.read) == 0
    assert store.reads == 2


async def test_an_error_of_the_read_under_way_is_none_of_who_waits_for_the_next(
    shared: SharedReads, store: Store
) -> None:
    early = asyncio.ensure_future(shared.read("a", store.read))
    await store.begun.wait()
    other = Store()
    other.let_go.set()
    late = asyncio.ensure_future(shared.read("a", other.read))
    await asyncio.sleep(0)
    store.error = ValueError("bad")
    store.let_go.set()
    with pytest.raises(ValueError, match="bad"):
        await early
    assert await late == 0


async def test_nothing_is_kept_of_reads_that_are_over(shared: SharedReads, store: Store) -> None:
    store.let_go.set()
    await asyncio.gather(*(shared.read(about, store.read) for about in range(10)))
    gone = [asyncio.ensure_future(shared.read("gone", Store().read)) for _ in range(2)]
    await asyncio.sleep(0)
    for one in gone:
        one.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await asyncio.sleep(0)
    assert not shared._next
    assert not shared._under_way
