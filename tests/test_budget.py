"""The time that a request may take; and the clock that tests move, for all rooms that know time."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker_vault.budget import Budget

SECONDS = st.floats(min_value=0.01, max_value=3600)


class Clock:
    """A clock that only a test moves. Who sleeps by it wakes when it gets there.

    ``slept`` is how long everybody wanted to sleep, in order.
    """

    def __init__(self) -> None:
        self.at = 1000.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()

    def __call__(self) -> float:
        """The time."""
        return self.at

    async def sleep(self, seconds: float) -> None:
        """Wait until a test has moved the clock that far."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.slept.append(seconds)
        self._sleepers.append((self.at + seconds, sleeper))
        self._asleep.set()
        await sleeper

    async def skip(self, seconds: float) -> None:
        """Wait by moving the clock oneself."""
        self.slept.append(seconds)
        self.at += seconds

    async def settled(self) -> None:
        """Wait until somebody sleeps."""
        async with asyncio.timeout(5):
            await self._asleep.wait()

    def wake(self) -> None:
        """Let time pass until the next one wakes."""
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].done()]
        at, sleeper = min(self._sleepers, key=lambda pair: pair[0])
        self.at = max(self.at, at)
        self._asleep.clear()
        sleeper.set_result(None)

    async def move(self, seconds: float) -> None:
        """Let so much time pass, and everybody who wakes meanwhile do their work and fall asleep again."""
        for _ in range(10):
            await asyncio.sleep(0)
        end = self.at + seconds
        while min((at for at, sleeper in self._sleepers if not sleeper.done()), default=math.inf) <= end:
            self.wake()
            await self.settled()
        self.at = end


def test_without_a_request_under_way_time_is_endless() -> None:
    assert Budget(8, lambda: 5.0).left() == math.inf


async def test_time_runs_and_a_sixteenth_of_it_is_kept_back() -> None:
    clock = Clock()
    budget = Budget(8, clock)
    with budget.begun():
        assert budget.left() == 7.5
        clock.at += 7
        assert budget.left() == 0.5
        clock.at += 7
        assert budget.left() == -6.5
    assert budget.left() == math.inf


async def test_a_request_may_have_another_time_and_what_is_in_it_no_more_than_it_has() -> None:
    budget = Budget(8, Clock())
    with budget.begun(2):
        assert budget.left() == 1.5
        with budget.at_most(1):
            assert budget.left() == 1
        with budget.at_most(60):
            assert budget.left() == 1.5
        with budget.begun():
            assert budget.left() == 7.5
        assert budget.left() == 1.5


async def test_the_time_is_known_in_the_tasks_that_a_request_makes_and_in_no_others() -> None:
    budget = Budget(8, Clock())

    async def left() -> float:
        return budget.left()

    async def request(seconds: float) -> list[float]:
        with budget.begun(seconds):
            await asyncio.sleep(0)
            return await asyncio.gather(*[left(), asyncio.ensure_future(left())])

    assert await asyncio.gather(*[request(1), request(2)]) == [[0.5, 0.5], [1.5, 1.5]]
    assert await left() == math.inf


def test_the_time_ends_even_if_the_request_fails() -> None:
    budget = Budget(8, lambda: 0.0)

    def fail() -> None:
        with budget.begun(), budget.at_most(1):
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    assert budget.left() == math.inf


@given(SECONDS, st.lists(st.tuples(SECONDS, SECONDS), max_size=5))
def test_no_inner_limit_ever_gives_more_time(seconds: float, limits: list[tuple[float, float]]) -> None:
    clock = Clock()
    budget = Budget(8, clock)

    def descend(limits: list[tuple[float, float]]) -> None:
        before = budget.left()
        if limits:
            (limit, passes), *others = limits
            with budget.at_most(limit):
                assert budget.left() <= min(before, limit) + 1e-6
                clock.at += passes
                descend(others)
            assert budget.left() == pytest.approx(before - passes - sum(more for _, more in others), abs=1e-6)

    with budget.begun(seconds):
        descend(limits)
