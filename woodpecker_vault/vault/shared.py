"""Equal reads at the same moment are one read.

Nobody joins a read that has begun: what was written to Vault in the meantime, by whomever, would not be in it. Who
comes while one is under way waits for the next, which begins when that one is over, or shortly after if it takes its
time, and serves all who have come until then.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from woodpecker_vault.budget import Budget
from woodpecker_vault.errors import Unavailable

_AT_MOST = 0.1
"""Seconds that the next read waits for the one under way."""

Result = TypeVar("Result")


@dataclass(slots=True)
class _Read(Generic[Result]):
    task: "asyncio.Task[Result]"
    waiting: int = 0


class SharedReads:
    """Reads by what they are about.

    Args:
        budget: how long one who waits may wait, and a read may take.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._next: dict[Hashable, _Read[object]] = {}
        self._under_way: dict[Hashable, asyncio.Task[object]] = {}

    async def read(self, about: Hashable, reading: Callable[[], Awaitable[Result]]) -> Result:
        """The result of ``reading``, or of another equal one that begins after this call.

        Raises:
            Unavailable: the caller's time is up; and whatever the reading raises.
        """
        read = self._next.get(about)
        if read is None:
            before = self._under_way.get(about)
            read = _Read(asyncio.ensure_future(self._begin(about, before, reading)))
            read.task.add_done_callback(_looked_at)
            self._next[about] = read
        read.waiting += 1
        left = self._budget.left()
        # A moment more than the read itself has: its own error says better what is wrong.
        patience = None if math.isinf(left) else max(0.0, left + self._budget.reserve / 2)
        try:
            async with asyncio.timeout(patience):
                return cast(Result, await asyncio.shield(read.task))  # what equal reads are about is of one type
        except TimeoutError as error:
            raise Unavailable("Vault did not answer in time.", cause="the time was up") from error
        finally:
            read.waiting -= 1
            if not read.waiting and not read.task.done():
                if self._next.get(about) is read:
                    del self._next[about]
                read.task.cancel()

    async def _begin(
        self, about: Hashable, before: "asyncio.Task[object] | None", reading: Callable[[], Awaitable[object]]
    ) -> object:
        if before is not None:
            await asyncio.wait({before}, timeout=_AT_MOST)
        self._next.pop(about, None)
        task = asyncio.current_task()
        if task is not None:
            self._under_way[about] = task
        try:
            with self._budget.begun():
                return await reading()
        finally:
            if self._under_way.get(about) is task:
                del self._under_way[about]


def _looked_at(task: "asyncio.Task[object]") -> None:
    """Whoever still waits gets the error; that nobody does is nothing to complain about."""
    if not task.cancelled():
        task.exception()
