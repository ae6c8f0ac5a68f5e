"""Reading and writing one KV v2 mount."""

from collections.abc import Mapping
from typing import Any

from hvac.api.secrets_engines import KvV2
from hvac.utils import format_url

from woodpecker_vault.entries import Entry, MetadataPatch
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.transport import Adapter


class KV:
    """A KV v2 secrets engine; every path is relative to its mount, its segments as they are in Vault."""

    def __init__(self, adapter: Adapter, mount: str) -> None:
        self._adapter = adapter
        self._engine = KvV2(adapter)
        self._mount = mount

    async def list(self, folder: str) -> list[str]:
        """The segments of the entries in a folder, without its sub-folders; empty if there is no such folder.

        ``folder`` ends in ``/``.
        """
        try:
            with translated(f"list {folder}"):
                answer = await self._engine.list_secrets(path=folder.rstrip("/"), mount_point=self._mount)
            with well_formed(f"list {folder}"):
                return [key for key in answer["data"]["keys"] if not key.endswith("/")]
        except Missing:
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
                return Entry() if found is None else _entry(found, live=False)

    async def put(self, path: str, data: Mapping[str, Any], *, cas: int) -> None:
        """Write a new version, if ``cas`` still is the current one (0: if there never was any).

        Raises:
            Conflict: it is not.
        """
        with translated(f"write {path}"):
            answer = await self._engine.create_or_update_secret(
                path=path, secret=dict(data), cas=cas, mount_point=self._mount
            )
        with well_formed(f"write {path}"):
            answer["data"]["version"]  # a KV version 1 mount says yes to anything, and has none

    async def patch_metadata(self, path: str, patch: MetadataPatch) -> None:
        """Change an entry's custom metadata; the entry is made, without a version, if it is not there yet."""
        try:
            with translated(f"patch the metadata of {path}"):
                # hvac has no call for this one.
                await self._adapter.request(
                    "patch",
                    format_url("/v1/{mount}/metadata/{path}", mount=self._mount, path=path),
                    headers={"Content-Type": "application/merge-patch+json"},
                    json={"custom_metadata": dict(patch)},
                )
        except Missing:
            with translated(f"make the metadata of {path}"):
                await self._engine.update_metadata(
                    path=path,
                    custom_metadata={key: value for key, value in patch.items() if value is not None},
                    mount_point=self._mount,
                )

    async def delete(self, path: str) -> None:
        """Delete the current version; it can be undeleted."""
        with translated(f"delete {path}"):
            await self._engine.delete_latest_version_of_secret(path=path, mount_point=self._mount)

    async def destroy(self, path: str) -> None:
        """Remove the entry with all its versions and metadata."""
        with translated(f"destroy {path}"):
            await self._engine.delete_metadata_and_all_versions(path=path, mount_point=self._mount)


def _entry(document: Any, *, live: bool) -> Entry:
    metadata = document["metadata"]
    return Entry(
        version=metadata["version"],
        live=live,
        data=document["data"] or {},
        metadata=metadata.get("custom_metadata") or {},
        created=metadata["created_time"],
    )
