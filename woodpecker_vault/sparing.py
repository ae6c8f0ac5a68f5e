"""Warnings that whoever connects can cause: each is logged at most once in a while, however often it happens."""

import logging
from collections.abc import Callable

_MOST_KINDS = 200


class Sparing:
    """Logs a kind of event when it first happens, and then no more than once in an interval.

    A kind is the event and its cause. The next line of a kind says how many were left out before it.

    Args:
        log: where to.
        now: seconds of a clock that never goes back.
        interval: seconds between two lines of a kind.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float], interval: float = 60.0) -> None:
        self._log = log
        self._now = now
        self._interval = interval
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def warn(self, event: str, cause: str = "", **fields: object) -> None:
        """Log it, unless it was logged a short while ago."""
        kind, now = (event, cause), self._now()
        logged_at, left_out = self._kinds.get(kind, (float("-inf"), 0))
        if now - logged_at < self._interval:
            self._kinds[kind] = logged_at, left_out + 1
            return
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        if left_out:
            fields["left_out_before"] = left_out
        self._log.warning(event, extra={**({"cause": cause} if cause else {}), **fields})
