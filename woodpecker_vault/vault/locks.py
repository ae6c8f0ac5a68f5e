"""One writer an entry at a time, across all replicas.

An entry's data and metadata are two writes, and Vault can compare-and-set only the data; so two writers at once could
leave the value of one under the restrictions of the other. A writer therefore first creates a lock entry beside the
one it writes, in the sub-folder ``.lock/`` (which readers ignore), and removes it when it is done. Whoever creates it,
by check-and-set, holds the lock.

A write whose outcome is not known may still be done by Vault later. Its lock stays for a minute, and until then only a
repetition of the same write may take it over.

The age of a lock is measured by the clock that dated it, which is Vault's. Whoever has waited in vain writes an entry
of its own beside the lock; the two dates tell the age. Our own clocks have no part in it, and may be off by hours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Conflict, Denied, Problem, Unavailable
from woodpecker_vault.vault.faults import well_formed
from woodpecker_vault.vault.kv import KV

_STALE_AFTER = 60.0
"""Seconds after which a lock was left behind by a writer that died; far more than a request may take."""

_LONG = 0.25
"""Seconds of waiting after which it is time to ask how old the lock is; most are held for milliseconds."""

_PATIENCE = 2.0
"""Seconds to wait for another replica's write before giving up."""

log = logging.getLogger(__name__)


class Locks:
    """The locks that this process takes.

    Args:
        kv: the mount.
        owner: this process, unlike any other.
        pause: waits a random moment before the next attempt; returns the seconds it took.
        stale_after: seconds after which a lock is void.
    """

    def __init__(
        self, kv: KV, *, owner: str, pause: Callable[[], Awaitable[float]], stale_after: float = _STALE_AFTER
    ) -> None:
        self._kv = kv
        self._owner = owner
        self._pause = pause
        self._stale_after = stale_after
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
        vaults_time: datetime | None = None
        while True:
            try:
                await self._kv.put(lock_path, {"owner": self._owner}, cas=version)
            except Conflict:
                found = await self._kv.read(lock_path)
                may_have_it = self._is_free(found, lock_path, write) or self._is_void(found, vaults_time)
                if may_have_it and found.version != version:
                    version = found.version
                    continue
                if waited >= _PATIENCE:
                    raise Conflict(
                        "Another write of this secret is under way, or was cut short; try again in a minute."
                    ) from None
                if waited >= _LONG and vaults_time is None:
                    vaults_time = await self._vaults_time(lock_path)
                waited += await self._pause()
                version = 0  # the next lock of that name is another one
            else:
                self._unknown_outcomes.pop(lock_path, None)
                return

    def _is_free(self, found: Entry, lock_path: str, write: int) -> bool:
        """Whether it is gone in the meantime, or was left by this process where taking it over does no harm."""
        if not found.live:
            return True
        return found.data.get("owner") == self._owner and self._unknown_outcomes.get(lock_path, write) == write

    def _is_void(self, found: Entry, vaults_time: datetime | None) -> bool:
        """Whether its writer is long dead. A lock made since we asked for Vault's time is younger than that."""
        if vaults_time is None:
            return False
        return (vaults_time - _date(found.created)).total_seconds() > self._stale_after

    async def _vaults_time(self, lock_path: str) -> datetime:
        """What the clock says that dates locks; the beginning of time if our token may not find out."""
        path = f"{lock_path}.{self._owner}"
        try:
            before = await self._kv.read(path)
            written = await self._kv.put_dated(path, {"owner": self._owner}, cas=before.version)
        except Denied:
            return datetime.min.replace(tzinfo=UTC)
        await self._remove(path)
        return _date(written)

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


def _date(written: str) -> datetime:
    with well_formed("read the date of an entry"):
        return datetime.fromisoformat(written).astimezone(UTC)
