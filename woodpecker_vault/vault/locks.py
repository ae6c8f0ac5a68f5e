"""One writer an entry at a time, across all replicas.

An entry's data and metadata are two writes, and Vault can compare-and-set only the data; so two writers at once could
leave the value of one under the restrictions of the other. A writer therefore first creates a lock entry beside the
one it writes, in the sub-folder ``.lock/`` (which readers ignore), and removes it when it is done. Whoever creates it,
by check-and-set, holds the lock.

A write whose outcome is not known may still be done by Vault later. Its lock stays for a minute, and until then only a
repetition of the same write may take it over.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from weakref import WeakValueDictionary

from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Conflict, Denied, Problem, Unavailable
from woodpecker_vault.vault.faults import well_formed
from woodpecker_vault.vault.kv import KV

_STALE_AFTER = 60.0
"""Seconds after which a lock was left behind by a writer that died; far more than a request may take."""

_PATIENCE = 2.0
"""Seconds to wait for another replica's write before giving up."""

log = logging.getLogger(__name__)


class Locks:
    """The locks that this process takes.

    Args:
        kv: the mount.
        owner: this process, unlike any other.
        now: seconds since the epoch.
        pause: waits a random moment before the next attempt; returns the seconds it took.
    """

    def __init__(self, kv: KV, *, owner: str, now: Callable[[], float], pause: Callable[[], Awaitable[float]]) -> None:
        self._kv = kv
        self._owner = owner
        self._now = now
        self._pause = pause
        self._here: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unknown_outcomes: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, path: str, write: int) -> AsyncIterator[None]:
        """Be the only writer of the entry at ``path``.

        The lock stays behind if the block raises an :exc:`Unavailable` that is ``maybe_done``.

        Args:
            path: of the entry.
            write: a number that is the same for the same write and differs for others.

        Raises:
            Conflict: another write has been under way for too long.
        """
        folder, _, segment = path.rpartition("/")
        lock_path = f"{folder}/.lock/{segment}"
        here = self._here.setdefault(path, asyncio.Lock())
        async with here:
            await self._acquire(lock_path, write)
            try:
                yield
            except Unavailable as problem:
                if problem.maybe_done:
                    self._unknown_outcomes[lock_path] = write
                else:
                    await self._release(lock_path)
                raise
            except BaseException:
                await self._release(lock_path)
                raise
            else:
                await self._release(lock_path)

    async def _acquire(self, lock_path: str, write: int) -> None:
        waited = 0.0
        version = 0
        while True:
            try:
                await self._kv.put(lock_path, {"owner": self._owner}, cas=version)
            except Conflict:
                found = await self._kv.read(lock_path)
                if self._is_free(found, lock_path, write):
                    version = found.version
                    continue
                if waited >= _PATIENCE:
                    raise Conflict(
                        "Another write of this secret is under way, or was cut short; try again in a minute."
                    ) from None
                waited += await self._pause()
                version = 0  # the next lock of that name is another one
            else:
                self._unknown_outcomes.pop(lock_path, None)
                return

    def _is_free(self, found: Entry, lock_path: str, write: int) -> bool:
        """Gone in the meantime, left by this process where that does no harm, or by a writer long dead."""
        if not found.live:
            return True
        if found.data.get("owner") == self._owner and self._unknown_outcomes.get(lock_path, write) == write:
            return True
        with well_formed("read a lock"):
            taken_at = datetime.fromisoformat(found.created).timestamp()
        return self._now() - taken_at > _STALE_AFTER

    async def _release(self, lock_path: str) -> None:
        """Remove the lock. Being cancelled meanwhile has to wait: a removal that comes late could hit another's."""
        removal = asyncio.ensure_future(self._remove(lock_path))
        cancelled = None
        while not removal.done():
            try:
                await asyncio.shield(removal)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled

    async def _remove(self, lock_path: str) -> None:
        try:
            if (await self._kv.read(lock_path)).data.get("owner") != self._owner:
                return  # it was thought dead and taken over
            try:
                await self._kv.destroy(lock_path)
            except Denied:
                await self._kv.delete(lock_path)
        except Problem as problem:
            log.warning(
                "a lock was left behind; it is void in a minute",
                extra={"path": lock_path, "cause": problem.cause or problem.detail},
            )
