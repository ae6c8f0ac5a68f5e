"""Several things at once."""

import asyncio

import pytest

from woodpecker_vault.tasks import all_of


async def test_results_come_in_order_whoever_is_done_first() -> None:
    first = asyncio.Event()

    async def one() -> int:
        await first.wait()
        return 1

    async def two() -> int:
        first.set()
        return 2

    assert await all_of([one(), two()]) == [1, 2]


async def test_nothing_to_do_is_done() -> None:
    assert await all_of(()) == []


async def test_the_first_failure_is_raised_alone_and_ends_the_others() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise ValueError("first")

    async def fail_too() -> None:
        await asyncio.sleep(0)
        raise ValueError("second")

    with pytest.raises(ValueError, match="first"):
        await all_of([forever(), fail(), fail_too()])
    async with asyncio.timeout(30):
        await ended.wait()


async def test_when_who_waits_is_cancelled_so_are_they_all() -> None:
    ended: list[int] = []
    begun = asyncio.Event()

    async def forever(number: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    waiting = asyncio.ensure_future(all_of(forever(number) for number in range(3)))
    await begun.wait()
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sorted(ended) == [0, 1, 2]
