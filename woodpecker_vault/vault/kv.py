"""Reading and writing one KV v2 mount."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from hvac.api.secrets_engines import KvV2
from hvac.utils import format_url

from woodpecker_vault import exact_json
from woodpecker_vault.entries import Entry, MetadataPatch
from woodpecker_vault.errors import Conflict, Denied, Invalid, NotVault, Unavailable
from woodpecker_vault.vault.faults import Missing, translated, well_formed, writing
from woodpecker_vault.vault.mounts import Mount
from woodpecker_vault.vault.sending import Patience
from woodpecker_vault.vault.transport import Adapter

_REFUSALS_OF_A_PATH = frozenset(
    {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
)
"""What a gateway answers where it lets only some paths through."""


class NoListing(Exception):
    """The server has no listing with details, or does not let our token have it."""


@dataclass(frozen=True, slots=True)
class Version:
    """The current version of an entry: its number (0 if there is none), and Vault's times.

    ``deletion`` is when it was, or will be, deleted; empty if it is not to be.
    """

    number: int
    created: str = ""
    destroyed: bool = False
    deletion: str = ""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What OpenBao's detailed listing says of an entry: enough to tell whether what is known of it still holds."""

    version: Version
    metadata: Mapping[str, str] = field(default_factory=dict)


class KV:
    """A KV v2 secrets engine; every path is relative to its mount, its segments as they are in Vault.

    Args:
        adapter: sends the requests.
        mount: the path of the engine.
        patience: how repeated writes are paced.
        written: told of every path that was written, or may have been.
    """

    def __init__(
        self,
        adapter: Adapter,
        mount: str,
        patience: Patience,
        *,
        written: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._adapter = adapter
        self._engine = KvV2(adapter)
        self._mount = mount
        self._mounted = Mount(adapter, mount)
        self._patience = patience
        self._written = written

    async def list(self, folder: str) -> list[str]:
        """The segments of the entries in a folder, without its sub-folders; empty if there is no such folder.

        ``folder`` ends in ``/``.

        Raises:
            Denied: also if ``secrets.mount`` is not one of KV version 2.
        """
        try:
            with translated(f"list {folder}"):
                answer = await self._engine.list_secrets(path=folder.rstrip("/"), mount_point=self._mount)
            with well_formed(f"list {folder}"):
                return [key for key in answer["data"]["keys"] if not key.endswith("/")]
        except Missing:
            await self._mounted.check()
            return []

    async def read(self, path: str) -> Entry:
        """The current version of an entry, deleted or not; version 0 if there is none."""
        try:
            with translated(f"read {path}"):
                answer = await self._engine.read_secret_version(
                    path=path, mount_point=self._mount, raise_on_deleted_version=True
                )
            with well_formed(f"read {path}"):
                return _entry(answer["data"], live=True)
        except Missing as missing:
            # A deleted or destroyed version answers 404 with the metadata that a check-and-set needs.
            with well_formed(f"read {path}"):
                found = missing.document.get("data")
                if found is not None:
                    return _entry(found, live=False)
            await self._mounted.check()
            return Entry()

    async def list_with_details(self, folder: str) -> Mapping[str, Any]:
        """What there is to know of everything in a folder, by segment, in one call; only OpenBao has it.

        Make sense of it with :func:`key_infos`. Where two are equal, nothing has changed.

        Raises:
            NoListing: this server does not have it, or the token may not use it.
        """
        doing = f"list {folder} with details"
        url = format_url("/v1/{mount}/detailed-metadata/{path}", mount=self._mount, path=folder.rstrip("/"))
        try:
            with translated(doing):
                answer = await self._adapter.request("list", url)
        except Missing:
            await self._mounted.check()
            return {}
        except Denied as problem:
            raise NoListing("the token's policy does not allow it, or the server does not have it") from problem
        except NotVault as problem:
            if problem.answered not in _REFUSALS_OF_A_PATH:
                raise
            raise NoListing("what stands before Vault does not let it through") from problem
        with well_formed(doing):
            found: Mapping[str, Any] = answer["data"]["key_info"]
            return found

    async def put(self, path: str, data: Mapping[str, Any], *, cas: int) -> None:
        """Write a new version, if ``cas`` still is the current one (0: if there never was any).

        Where it is not known whether Vault did it, it is done again: the check-and-set lets it happen only once.

        Raises:
            Conflict: it is not.
        """
        await self.put_dated(path, data, cas=cas)

    async def put_dated(self, path: str, data: Mapping[str, Any], *, cas: int) -> str:
        """The same; returns when Vault did it, by the clock that dates every entry."""
        await self._mounted.check()
        attempt = 0
        try:
            while True:
                try:
                    with writing(f"write {path}"):
                        answer = await self._engine.create_or_update_secret(
                            path=path, secret=dict(data), cas=cas, mount_point=self._mount
                        )
                    break
                except Conflict:
                    if attempt and (entry := await self._as_written(path, data, cas + 1)):
                        return entry.created
                    raise
                except (Denied, Invalid) as problem:
                    if attempt:  # this attempt was refused, but not the first
                        raise Unavailable(problem.detail, cause=problem.cause, maybe_done=True) from problem
                    raise
                except Unavailable as problem:
                    problem.maybe_done |= attempt > 0  # whatever became of this attempt, the first is in doubt
                    if not problem.maybe_done or not await self._patience.pause(attempt):
                        raise
                    attempt += 1
        finally:
            self._written(path)
        with well_formed(f"write {path}"):
            written: str = answer["data"]["created_time"]  # a KV version 1 mount says yes to anything, and has none
        return written

    async def _as_written(self, path: str, data: Mapping[str, Any], version: int) -> Entry | None:
        """The entry, if it is what a write of ours, whose answer was lost, has made of it."""
        entry = await self.read(path)
        # OpenBao may keep a number in other digits than it was given: 0.10 is 0.1 to it.
        same = json.loads(exact_json.dumps(entry.data)) == json.loads(exact_json.dumps(data))
        return entry if entry.live and entry.version == version and same else None

    async def patch_metadata(self, path: str, patch: MetadataPatch) -> None:
        """Change an entry's custom metadata; the entry is made, without a version, if it is not there yet."""
        try:
            await self._patch_or_make(path, patch)
        finally:
            self._written(path)

    async def _patch_or_make(self, path: str, patch: MetadataPatch) -> None:
        try:
            with translated(f"patch the metadata of {path}"):
                # hvac has no call for this one.
                await self._adapter.request(
                    "patch",
                    format_url("/v1/{mount}/metadata/{path}", mount=self._mount, path=path),
                    headers={"Content-Type": "application/merge-patch+json"},
                    json={"custom_metadata": dict(patch)},
                )
        except Missing as missing:
            # Making it replaces all custom metadata, so that nothing is there must not rest on an empty 404.
            if (await self.read(path)).version:
                raise NotVault(
                    "What answers at vault.address is not always Vault: it says that an entry is not there which is.",
                    cause=f"patch the metadata of {path}: {missing}",
                    maybe_done=True,
                ) from missing
            with writing(f"make the metadata of {path}"):
                await self._engine.update_metadata(
                    path=path,
                    custom_metadata={key: value for key, value in patch.items() if value is not None},
                    mount_point=self._mount,
                )

    async def delete(self, path: str) -> None:
        """Delete the current version; it can be undeleted."""
        try:
            with writing(f"delete {path}"):
                await self._engine.delete_latest_version_of_secret(path=path, mount_point=self._mount)
        finally:
            self._written(path)

    async def destroy(self, path: str) -> None:
        """Remove the entry with all its versions and metadata."""
        try:
            with writing(f"destroy {path}"):
                await self._engine.delete_metadata_and_all_versions(path=path, mount_point=self._mount)
        finally:
            self._written(path)


def _entry(document: Any, *, live: bool) -> Entry:
    metadata = document["metadata"]
    return Entry(
        version=metadata["version"],
        live=live,
        data=document["data"] or {},
        metadata=metadata.get("custom_metadata") or {},
        created=metadata["created_time"],
    )


def key_infos(listing: Mapping[str, Any]) -> dict[str, KeyInfo]:
    """The entries of a listing with details, without its sub-folders.

    Raises:
        Unavailable: it is none.
    """
    with well_formed("list with details"):
        return {segment: _key_info(info) for segment, info in listing.items() if not segment.endswith("/")}


def _key_info(document: Any) -> KeyInfo:
    metadata = document.get("custom_metadata") or {}
    number = document["current_version"]
    if not number:
        return KeyInfo(Version(0), metadata)
    details = document["versions"][str(number)]
    version = Version(number, details["created_time"], details["destroyed"], details["deletion_time"])
    return KeyInfo(version, metadata)
