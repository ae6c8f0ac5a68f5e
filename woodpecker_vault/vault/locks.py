"""One writer an entry at a time, across all replicas.

An entry's data and metadata are two writes, and Vault can compare-and-set only the data; so two writers at once could
leave the value of one under the restrictions of the other. A writer therefore first creates a lock entry beside the
one it writes, in the sub-folder ``.lock/`` (which readers ignore), and removes it when it is done. Whoever creates it,
by check-and-set, holds the lock.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from weakref import WeakValueDictionary

from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Conflict, Denied, Problem
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
        self._releases: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(self, path: str) -> AsyncIterator[None]:
        """Be the only writer of the entry at ``path``.

        Raises:
            Conflict: another replica has been writing it for too long.
        """
        folder, _, segment = path.rpartition("/")
        lock_path = f"{folder}/.lock/{segment}"
        here = self._here.setdefault(path, asyncio.Lock())
        async with here:
            await self._acquire(lock_path)
            try:
                yield
            finally:
                # Cancelled or not, the lock goes: the release runs on its own, and is waited for if possible.
                release = asyncio.create_task(self._release(lock_path))
                self._releases.add(release)
                release.add_done_callback(self._releases.discard)
                await asyncio.shield(release)

    async def _acquire(self, lock_path: str) -> None:
        waited = 0.0
        found = Entry()
        while True:
            try:
                await self._kv.put(lock_path, {"owner": self._owner}, cas=found.version)
            except Conflict:
                found = await self._kv.read(lock_path)
                if self._is_free(found):
                    continue
                if waited >= _PATIENCE:
                    raise Conflict(
                        "Another write of this secret is under way, or was cut short; try again in a minute."
                    ) from None
                waited += await self._pause()
            else:
                return

    def _is_free(self, found: Entry) -> bool:
        """Gone in the meantime, left by a write of this very process that failed, or by a writer long dead."""
        if not found.live or found.data.get("owner") == self._owner:
            return True
        return self._now() - datetime.fromisoformat(found.created).timestamp() > _STALE_AFTER

    async def _release(self, lock_path: str) -> None:
        try:
            try:
                await self._kv.destroy(lock_path)
            except Denied:
                await self._kv.delete(lock_path)
        except Problem as problem:
            log.warning(
                "a lock was left behind; it is void in a minute",
                extra={"path": lock_path, "cause": problem.cause or problem.detail},
            )
