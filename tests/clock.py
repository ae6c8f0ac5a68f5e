"""The clock that tests move, for all rooms that know time."""

import asyncio
import math


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
        async with asyncio.timeout(30):
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
