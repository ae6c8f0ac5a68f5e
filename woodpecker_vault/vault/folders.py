"""What a folder of a KV v2 mount holds, and what stands at a path: each in as few calls at once as Vault allows."""

from collections.abc import Iterable

from woodpecker_vault.entries import Entry, Snapshot
from woodpecker_vault.tasks import all_of
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.shared import SharedReads


class VaultFolders:
    """Read from Vault each time; equal reads at the same moment are one."""

    def __init__(self, kv: KV, shared: SharedReads) -> None:
        self._kv = kv
        self._shared = shared

    async def folder(self, folder: str) -> Snapshot:
        """One LIST, and then every entry at once."""
        return await self._shared.read(("folder", folder), lambda: self._list_and_read(folder))

    async def entry(self, path: str) -> Snapshot:
        """One read."""
        return await self._shared.read(("entry", path), lambda: self._read(path))

    async def _list_and_read(self, folder: str) -> Snapshot:
        segments = sorted(await self._kv.list(folder))
        return Snapshot(await read_all(self._kv, folder, segments))

    async def _read(self, path: str) -> Snapshot:
        return Snapshot({path.rpartition("/")[2]: await self._kv.read(path)})


async def read_all(kv: KV, folder: str, segments: Iterable[str]) -> dict[str, Entry]:
    """These entries of a folder, all read at once."""
    segments = list(segments)
    entries = await all_of(kv.read(folder + segment) for segment in segments)
    return dict(zip(segments, entries, strict=True))
