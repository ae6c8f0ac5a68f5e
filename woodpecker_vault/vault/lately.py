"""What pipelines asked for lately, and whether Vault let them: the only repositories that are known for sure."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from woodpecker_vault.entries import Snapshot
from woodpecker_vault.errors import Denied

_MOST = 16
"""Paths that are remembered of each kind."""

_RECENT = 60.0
"""Seconds for which a denial is a sign that all are denied."""


class Answers(Protocol):
    """Where the entries for an answer come from."""

    async def folder(self, folder: str) -> Snapshot:
        """Every entry in a folder."""

    async def entry(self, path: str) -> Snapshot:
        """The entry at a path."""


class Lately:
    """The paths, below the mount.

    Args:
        now: seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._answered: OrderedDict[str, float] = OrderedDict()
        self._denied: OrderedDict[str, float] = OrderedDict()

    def note(self, path: str, *, answered: bool) -> None:
        """A pipeline got what is there, or was denied it."""
        to, other = (self._answered, self._denied) if answered else (self._denied, self._answered)
        other.pop(path, None)
        to[path] = self._now()
        to.move_to_end(path)
        if len(to) > _MOST:
            to.popitem(last=False)

    def paths(self) -> list[str]:
        """All of them: those that were answered first, and the latest of these first."""
        return [*reversed(self._answered), *reversed(self._denied)]

    def denied(self) -> list[str]:
        """Those that were denied a short time ago."""
        since = self._now() - _RECENT
        return [path for path, at in self._denied.items() if at > since]


class Noted:
    """The same answers, and it is noted which could be given.

    Args:
        answers: where they come from.
        lately: where it is noted.
    """

    def __init__(self, answers: Answers, lately: Lately) -> None:
        self._answers = answers
        self._lately = lately

    async def folder(self, folder: str) -> Snapshot:
        """Every entry in a folder."""
        return await self._noted(folder, self._answers.folder)

    async def entry(self, path: str) -> Snapshot:
        """The entry at a path."""
        return await self._noted(path, self._answers.entry)

    async def _noted(self, where: str, read: Callable[[str], Awaitable[Snapshot]]) -> Snapshot:
        try:
            snapshot = await read(where)
        except Denied:  # also where it is not known whether the token or the path is refused
            self._lately.note(where, answered=False)
            raise
        if not snapshot.stale:
            self._lately.note(where, answered=True)
        return snapshot
