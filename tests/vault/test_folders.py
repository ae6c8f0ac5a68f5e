"""Folders read from a real OpenBao each time."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.servers import Admin
from tests.vault import Gate, rooms
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry, Snapshot
from woodpecker_vault.errors import Denied
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.folders import VaultFolders
from woodpecker_vault.vault.shared import SharedReads


@pytest.fixture
async def gate(bao: OpenBao) -> AsyncIterator[Gate]:
    """Counts."""
    async with Gate(bao.address).listening() as gate:
        assert isinstance(gate, Gate)
        yield gate


@pytest.fixture
async def folders(bao: OpenBao, gate: Gate) -> AsyncIterator[VaultFolders]:
    """With a token that may do everything."""
    async with rooms(Connection(gate.address), bao.token) as ours:
        await ours.tokens.current()
        gate.heal()
        yield VaultFolders(ours.kv, SharedReads(Budget(8, time.monotonic)))


async def test_a_folder_is_one_list_and_every_entry_read_once(
    folders: VaultFolders, gate: Gate, admin: Admin, repo_id: int
) -> None:
    for name in ("c", "a", "b", "sub/d"):
        await admin.put(f"folders/{repo_id}/{name}", name)
    await admin.delete(f"folders/{repo_id}/b")
    snapshot = await folders.folder(f"folders/{repo_id}/")
    assert list(snapshot.entries) == ["a", "b", "c"]
    assert [entry.live for entry in snapshot.entries.values()] == [True, False, True]
    assert snapshot.entries["a"].data == {"value": "a"}
    assert not snapshot.stale
    assert len(gate.requests) == 4


async def test_a_folder_that_is_not_there_is_empty(folders: VaultFolders, repo_id: int) -> None:
    assert await folders.folder(f"folders/{repo_id}/") == Snapshot({})


async def test_an_entry_is_one_read_named_by_its_last_segment(
    folders: VaultFolders, gate: Gate, admin: Admin, repo_id: int
) -> None:
    await admin.put(f"folders/{repo_id}/all", {"a": "1", "b": "2"})
    snapshot = await folders.entry(f"folders/{repo_id}/all")
    assert {name: entry.data for name, entry in snapshot.entries.items()} == {"all": {"a": "1", "b": "2"}}
    assert (await folders.entry(f"folders/{repo_id}/none")).entries == {"none": Entry()}
    assert len(gate.requests) == 2


async def test_many_who_ask_at_once_are_one_who_asks(
    folders: VaultFolders, gate: Gate, admin: Admin, repo_id: int
) -> None:
    for number in range(5):
        await admin.put(f"folders/{repo_id}/{number}", "x")
    snapshots = await asyncio.gather(*(folders.folder(f"folders/{repo_id}/") for _ in range(50)))
    assert all(snapshot == snapshots[0] for snapshot in snapshots)
    assert len(gate.requests) == 6


async def test_who_asks_after_a_write_sees_it_even_if_a_read_is_under_way(
    folders: VaultFolders, gate: Gate, admin: Admin, repo_id: int
) -> None:
    path = f"folders/{repo_id}/token"
    await admin.put(path, "old")
    gate.hold(lambda method, where: method == "GET" and where.endswith(path))
    early = asyncio.ensure_future(folders.entry(path))
    await gate.arrived.wait()
    await admin.put(path, "new")
    late = asyncio.ensure_future(folders.entry(path))
    await asyncio.sleep(0.01)
    gate.let_go.set()
    await early
    assert (await late).entries["token"].data == {"value": "new"}


async def test_one_entry_that_is_denied_denies_the_folder(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    await admin.put(f"folders/{repo_id}/open", "x")
    await admin.put(f"folders/{repo_id}/shut", "x")
    token = await admin.token(
        f"""
        path "secret/metadata/folders/{repo_id}" {{ capabilities = ["list"] }}
        path "secret/metadata/folders/{repo_id}/" {{ capabilities = ["list"] }}
        path "secret/data/folders/{repo_id}/open" {{ capabilities = ["read"] }}
        """,
        name=f"folders-{repo_id}",
    )
    async with rooms(Connection(bao.address), token) as ours:
        folders = VaultFolders(ours.kv, SharedReads(Budget(8, time.monotonic)))
        assert (await folders.entry(f"folders/{repo_id}/open")).entries["open"].live
        with pytest.raises(Denied):
            await folders.folder(f"folders/{repo_id}/")
