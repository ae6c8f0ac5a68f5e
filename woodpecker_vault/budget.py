"""The time that one request may take, known wherever it is spent."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Budget:
    """A deadline that belongs to a request and to everything done for it, down to the last retry.

    Args:
        seconds: for a whole request; a sixteenth of them is kept back, so that there is time to answer.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self.seconds = seconds
        self.reserve = seconds / 16
        self._now = now
        self._ends: ContextVar[float] = ContextVar("ends", default=math.inf)

    @contextmanager
    def begun(self, seconds: float | None = None) -> Iterator[None]:
        """What is done inside, in this task and those it makes, has to end within so many seconds (or ours)."""
        before = self._ends.set(self._now() + (self.seconds if seconds is None else seconds))
        try:
            yield
        finally:
            self._ends.reset(before)

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """The same, but for no longer than what is under way may take."""
        with self.begun(min(seconds, self.left()) + self.reserve):
            yield

    def left(self) -> float:
        """The seconds that may still be spent; infinite where no request is under way."""
        return self._ends.get() - self.reserve - self._now()
