"""Answers kept in memory: either only as long as Vault says that nothing has changed, or for a time.

Off unless asked for: Vault's audit log does not show a read that was answered from memory.
"""

import heapq
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from woodpecker_vault import exact_json
from woodpecker_vault.budget import Budget
from woodpecker_vault.entries import Entry, Snapshot
from woodpecker_vault.errors import Denied, LoginRefused, Problem, Unavailable
from woodpecker_vault.vault.folders import VaultFolders, read_all
from woodpecker_vault.vault.kv import KV, KeyInfo, NoListing, Version, key_infos
from woodpecker_vault.vault.shared import SharedReads

_ENTRY_BYTES = 512
"""What an entry takes besides its data, roughly."""

_MOST_OUTDATED = 64
"""Times of expiry that are not needed any more, but not removed yet, beside as many as there are snapshots."""

_SOONEST, _LATEST = 0.1, 1.0
"""Seconds between two looks for what has expired."""

_ASK_AGAIN = 60.0
"""Seconds until a server that had no detailed listing, or denied it, is asked for it again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """When an entry was read, and which version."""

    at: float
    version: Version


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot, when it was true last, and how its entries came to be known, where that matters.

    All times are seconds of the clock; ``size`` is in bytes, roughly, and 0 until it is known. While the listing stays
    the same, and until ``holds_until``, there is no need to look at it.
    """

    snapshot: Snapshot
    at: float
    readings: Mapping[str, Reading] = field(default_factory=dict)
    listing: Mapping[str, Any] | None = None
    holds_until: float = -math.inf
    size: int = 0


class Memory:
    """What is kept, bounded in size; the longest unused goes first.

    A heap knows what expires next, so that no call looks at every snapshot. A time stays in it when its snapshot is
    replaced or dropped, and is passed over when it gets to the top; when most of the heap is of that kind, it is built
    anew.

    Args:
        keep: seconds for which a snapshot is of any use after it was true last.
        max_bytes: how much room all of it may take, roughly.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, *, keep: float, max_bytes: int, now: Callable[[], float]) -> None:
        self._keep = keep
        self._max_bytes = max_bytes
        self._now = now
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._times: list[tuple[float, str]] = []
        self.size = 0
        self.writes = 0

    def get(self, where: str) -> Kept | None:
        """What is kept of this folder or path, unless it has expired."""
        self.expire()
        kept = self._kept.get(where)
        if kept is not None:
            self._kept.move_to_end(where)
        return kept

    def put(self, where: str, kept: Kept) -> None:
        """Keep this; if it alone is too large, do not."""
        self.drop(where)
        size = kept.size or sum(map(_size, kept.snapshot.entries.values())) + _ENTRY_BYTES
        if size > self._max_bytes:
            return
        self._kept[where] = replace(kept, size=size)
        self.size += size
        heapq.heappush(self._times, (kept.at, where))
        if len(self._times) > 2 * len(self._kept) + _MOST_OUTDATED:
            self._times = [(one.at, where) for where, one in self._kept.items()]
            heapq.heapify(self._times)
        while self.size > self._max_bytes:
            self.drop(next(iter(self._kept)))

    def drop(self, where: str) -> None:
        """Forget this folder or path."""
        kept = self._kept.pop(where, None)
        if kept is not None:
            self.size -= kept.size

    def written(self, path: str) -> None:
        """An entry was written through us, or may have been: what is kept of it, or on its way here, is void."""
        self.drop(path)
        self.drop(path.rpartition("/")[0] + "/")
        self.writes += 1

    def expire(self) -> None:
        """Let go of everything that is too old to be used."""
        oldest = self._now() - self._keep
        while self._first_time() <= oldest:
            self.drop(self._times[0][1])

    def next_expiry(self) -> float:
        """When something expires; infinite if nothing is kept."""
        return self._first_time() + self._keep

    def _first_time(self) -> float:
        """When the oldest snapshot was true last; infinite if nothing is kept."""
        while self._times:
            at, where = self._times[0]
            kept = self._kept.get(where)
            if kept is not None and kept.at == at:
                return at
            heapq.heappop(self._times)
        return math.inf

    async def live(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Let go of values when they expire, even if nobody asks any more; until cancelled."""
        while True:
            await sleep(min(max(self.next_expiry() - self._now(), _SOONEST), _LATEST))
            self.expire()


class Refresh(Protocol):
    """How what is kept becomes what is given."""

    async def folder(self, folder: str, kept: Kept | None) -> Kept:
        """A folder, given what is kept of it; the very same if that may be given as it is."""

    async def entry(self, path: str, kept: Kept | None) -> Kept:
        """An entry, likewise."""


class Timed:
    """``mode = "ttl"``: what is kept is given for so many seconds.

    Args:
        source: reads from Vault.
        ttl: seconds.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, source: VaultFolders, *, ttl: float, now: Callable[[], float]) -> None:
        self._source = source
        self._ttl = ttl
        self._now = now

    async def folder(self, folder: str, kept: Kept | None) -> Kept:
        """A folder, read if what is kept is too old."""
        return await self._or_read(kept, lambda: self._source.folder(folder))

    async def entry(self, path: str, kept: Kept | None) -> Kept:
        """An entry, read if what is kept is too old."""
        return await self._or_read(kept, lambda: self._source.entry(path))

    async def _or_read(self, kept: Kept | None, read: Callable[[], Awaitable[Snapshot]]) -> Kept:
        now = self._now()
        if kept is not None and now - kept.at < self._ttl:
            return kept
        return Kept(await read(), now)


class Validated:
    """``mode = "validated"``: Vault is asked for the versions of a folder in one call, and what changed is read.

    A value is read again after ``ttl`` seconds even so: the right to read it may have been withdrawn.

    Args:
        kv: the mount.
        source: reads from Vault, where it has no listing with details.
        shared: makes equal reads one.
        ttl: seconds.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self, kv: KV, source: VaultFolders, shared: SharedReads, *, ttl: float, now: Callable[[], float]
    ) -> None:
        self._kv = kv
        self._source = source
        self._shared = shared
        self._ttl = ttl
        self._now = now
        self._without_until = -math.inf

    async def introduce(self, folder: str, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Find out, and say in the log, whether there is such a listing at all, as soon as Vault can be asked."""
        while True:
            try:
                await self._kv.list_with_details(folder)
            except NoListing as error:
                self._do_without(folder, error)
            except Problem:
                await sleep(_LATEST)
                continue
            return

    async def folder(self, folder: str, kept: Kept | None) -> Kept:
        """A folder as it is in Vault now."""
        now = self._now()
        if now >= self._without_until:
            try:
                return await self._shared.read(("validated", folder), lambda: self._validated(folder, kept))
            except NoListing as error:
                self._do_without(folder, error)
        return Kept(await self._source.folder(folder), now)

    async def entry(self, path: str, kept: Kept | None) -> Kept:  # noqa: ARG002 - to ask is as much work as to read
        """An entry as it is in Vault now."""
        now = self._now()
        return Kept(await self._source.entry(path), now)

    def _do_without(self, folder: str, error: NoListing) -> None:
        known = self._now() < self._without_until
        self._without_until = self._now() + _ASK_AGAIN
        if not known:
            log.warning(
                "vault.cache cannot validate: there is no listing of detailed-metadata; doing without the cache",
                extra={"path": folder, "cause": str(error)},
            )

    async def _validated(self, folder: str, kept: Kept | None) -> Kept:
        now = self._now()
        listing = await self._kv.list_with_details(folder)
        if kept is not None and now < kept.holds_until and listing == kept.listing:
            return replace(kept, at=now)
        infos = key_infos(listing)
        entries: dict[str, Entry] = {}
        readings: dict[str, Reading] = {}
        for segment, info in infos.items():
            known, reading = _known(kept, segment)
            if not info.version.number or info.version.destroyed:
                version = info.version
                entries[segment] = Entry(version.number, metadata=info.metadata, created=version.created)
            elif known and reading and self._still_holds(known, reading, info.version, now):
                same = known.metadata == info.metadata
                entries[segment] = known if same else replace(known, metadata=info.metadata)
                readings[segment] = reading
        changed = sorted(infos.keys() - entries.keys())
        entries.update(await read_all(self._kv, folder, changed))
        readings.update({segment: Reading(now, infos[segment].version) for segment in changed})
        as_listed = all(_is_as_listed(entry, infos[segment]) for segment, entry in entries.items())
        holds_until = min((reading.at for reading in readings.values()), default=math.inf) + self._ttl
        return Kept(Snapshot(entries), now, readings, listing, holds_until if as_listed else -math.inf)

    def _still_holds(self, known: Entry, reading: Reading, version: Version, now: float) -> bool:
        """Whether what was read is what there is. Only Vault's clock says whether a time of deletion has come."""
        if now - reading.at >= self._ttl:
            return False
        if known.live:
            return (known.version, known.created, "") == (version.number, version.created, version.deletion)
        return reading.version == version and bool(version.deletion)


def _is_as_listed(entry: Entry, info: KeyInfo) -> bool:
    """Whether what was read is what had been listed, so that as long as the listing stays the same, it does."""
    version = info.version
    if (entry.version, entry.created, entry.metadata) != (version.number, version.created, info.metadata):
        return False
    return entry.live != bool(version.deletion or version.destroyed or not version.number)


def _known(kept: Kept | None, segment: str) -> tuple[Entry | None, Reading | None]:
    return (kept.snapshot.entries.get(segment), kept.readings.get(segment)) if kept else (None, None)


class CachedFolders:
    """Folders and entries, from memory where that is allowed.

    Args:
        refresh: reads a folder given what is kept of it; :class:`Validated` or :class:`Timed`.
        memory: what is kept.
        stale_if_error: seconds after which what is kept is no longer given while Vault cannot be asked; 0 for never.
        patience: seconds to wait for Vault where there is something kept to give instead.
        budget: the time of the request that is under way.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        refresh: Refresh,
        memory: Memory,
        *,
        stale_if_error: float,
        patience: float,
        budget: Budget,
        now: Callable[[], float],
    ) -> None:
        self._refresh = refresh
        self._memory = memory
        self._stale_if_error = stale_if_error
        self._patience = patience
        self._budget = budget
        self._now = now

    async def folder(self, folder: str) -> Snapshot:
        """Every entry in a folder."""
        return await self._get(folder, self._refresh.folder)

    async def entry(self, path: str) -> Snapshot:
        """The entry at a path."""
        return await self._get(path, self._refresh.entry)

    async def _get(self, where: str, read: Callable[[str, Kept | None], Awaitable[Kept]]) -> Snapshot:
        kept = self._memory.get(where)
        writes = self._memory.writes
        may_be_stale = kept is not None and self._now() - kept.at < self._stale_if_error
        try:
            if may_be_stale:
                with self._budget.at_most(self._patience):
                    fresh = await read(where, kept)
            else:
                fresh = await read(where, kept)
        except (Denied, LoginRefused):
            self._memory.drop(where)
            raise
        except Unavailable as problem:
            if kept is None or not may_be_stale:
                raise
            log.warning(
                "answered from memory: Vault cannot be asked",
                extra={"path": where, "age": round(self._now() - kept.at, 1), "cause": problem.cause or problem.detail},
            )
            return replace(kept.snapshot, stale=True)
        if fresh is not kept and self._memory.writes == writes:
            self._memory.put(where, fresh)
        return fresh.snapshot


def _size(entry: Entry) -> int:
    return len(exact_json.dumps([entry.data, entry.metadata]).encode()) + _ENTRY_BYTES
