"""The time that a request may take."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import Clock
from woodpecker_vault.budget import Budget

SECONDS = st.floats(min_value=0.01, max_value=3600)


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
