"""KV against a real OpenBao: what is written is what is read, whatever its name and its content."""

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.servers import Admin
from tests.vault import rooms
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Conflict, Invalid, Problem
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.kv import KV

ODD_NAMES = [
    " a",
    "a ",
    "a b",
    "a.",
    "..a",
    "...",
    "-",
    "~",
    "a+b",
    "a?b",
    "a#b",
    "a&b=c",
    "a;b",
    "a:b@c",
    "a%2Fb",
    "%2e%2e",
    "%",
    "%zz",
    "a\\b",
    "\"'`<>|*^$!",
    "{x}[y](z)",
    "é",
    "e\u0301",
    "ключ",
    "鍵",
    "😀",
    "data",
    "metadata",
    "config",
    ".lock",
]


@pytest.fixture
async def kv(bao: OpenBao) -> AsyncIterator[KV]:
    """The mount, with a token that may do everything."""
    async with rooms(Connection(bao.address), bao.token) as ours:
        yield ours.kv


@pytest.fixture
def folder(repo_id: int) -> str:
    """A folder of this test's own."""
    return f"kv/{repo_id}/"


async def test_what_never_was_is_an_entry_without_a_version(kv: KV, folder: str) -> None:
    assert await kv.read(f"{folder}none") == Entry()
    assert await kv.list(folder) == []


async def test_what_was_put_is_read_with_its_version_and_metadata(kv: KV, folder: str) -> None:
    path = f"{folder}token"
    await kv.put(path, {"value": "one"}, cas=0)
    await kv.put(path, {"value": "two", "other": {"a": [1, None, True]}}, cas=1)
    await kv.patch_metadata(path, {"events": "push", "images": "a,b"})
    entry = await kv.read(path)
    assert (entry.version, entry.live, entry.data, entry.metadata) == (
        2,
        True,
        {"value": "two", "other": {"a": [1, None, True]}},
        {"events": "push", "images": "a,b"},
    )
    assert entry.created


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_odd_names_survive_a_round_trip_as_they_are(kv: KV, admin: Admin, folder: str, name: str) -> None:
    path = folder + name
    await kv.put(path, {"value": name}, cas=0)
    await kv.patch_metadata(path, {"note": "mine"})
    entry = await kv.read(path)
    assert (entry.data, entry.metadata) == ({"value": name}, {"note": "mine"})
    assert await kv.list(folder) == [name]
    assert await admin.list(folder) == [name]
    status, answer = await admin.call("GET", f"secret/data/{folder}{quote(name, safe='')}")
    assert (status, answer["data"]["data"]) == (200, {"value": name})
    await kv.delete(path)
    assert (await kv.read(path)).live is False
    await kv.destroy(path)
    assert await kv.list(folder) == []


async def test_names_that_look_alike_are_different_entries(kv: KV, folder: str) -> None:
    names = ["é", "e\u0301", "a%2Fb", "a%2fb", "a%252Fb", "K", "k"]
    for name in names:
        await kv.put(folder + name, {"value": name}, cas=0)
    assert sorted(await kv.list(folder)) == sorted(names)
    assert [(await kv.read(folder + name)).data["value"] for name in names] == names


@pytest.mark.parametrize("name", ["a\u00a0b", "a\u200db", "a\tb", "\x7f"])
async def test_a_name_that_vault_refuses_is_invalid(kv: KV, folder: str, name: str) -> None:
    with pytest.raises(Invalid):
        await kv.put(folder + name, {"value": "x"}, cas=0)


async def test_lists_leave_sub_folders_out_and_keep_deleted_entries(kv: KV, folder: str) -> None:
    for path in ("b", "a", "sub/c"):
        await kv.put(folder + path, {"value": "x"}, cas=0)
    await kv.delete(f"{folder}a")
    assert sorted(await kv.list(folder)) == ["a", "b"]
    assert await kv.list(f"{folder}sub/") == ["c"]


@pytest.mark.parametrize("destroyed", [False, True])
async def test_a_deleted_version_is_not_live_and_tells_the_version_to_compare(
    kv: KV, admin: Admin, folder: str, *, destroyed: bool
) -> None:
    path = f"{folder}token"
    await kv.put(path, {"value": "one"}, cas=0)
    await kv.put(path, {"value": "two"}, cas=1)
    await kv.patch_metadata(path, {"events": "push"})
    if destroyed:
        await admin.destroy(path, 2)
    else:
        await kv.delete(path)
    entry = await kv.read(path)
    assert (entry.version, entry.live, entry.data, entry.metadata) == (2, False, {}, {"events": "push"})
    with pytest.raises(Conflict):
        await kv.put(path, {"value": "three"}, cas=0)
    await kv.put(path, {"value": "three"}, cas=2)
    assert (await kv.read(path)).data == {"value": "three"}


async def test_destroying_leaves_nothing_and_may_be_repeated(kv: KV, folder: str) -> None:
    path = f"{folder}token"
    await kv.put(path, {"value": "one"}, cas=0)
    await kv.patch_metadata(path, {"events": "push"})
    for _ in range(2):
        await kv.destroy(path)
        assert await kv.read(path) == Entry()


async def test_deleting_what_is_not_there_does_nothing(kv: KV, folder: str) -> None:
    await kv.delete(f"{folder}none")
    assert await kv.read(f"{folder}none") == Entry()


async def test_metadata_without_a_version_is_no_entry_yet(kv: KV, admin: Admin, folder: str) -> None:
    path = f"{folder}token"
    await kv.patch_metadata(path, {"events": "push", "images": None})
    assert await admin.metadata(path) == {"events": "push"}
    assert await kv.list(folder) == ["token"]
    entry = await kv.read(path)
    assert (entry.version, entry.live) == (0, False)
    await kv.put(path, {"value": "x"}, cas=0)
    assert (await kv.read(path)).metadata == {"events": "push"}


async def test_a_patch_leaves_other_keys_alone(kv: KV, admin: Admin, folder: str) -> None:
    path = f"{folder}token"
    await admin.put(path, "x", owner="ops", events="push", images="a")
    await kv.patch_metadata(path, {"events": "tag", "images": None, "note": "n", "never": None})
    assert await admin.metadata(path) == {"owner": "ops", "events": "tag", "note": "n"}
    assert await admin.version(path) == 1


async def test_a_lost_check_and_set_is_a_conflict(kv: KV, folder: str) -> None:
    path = f"{folder}token"
    await kv.put(path, {"value": "one"}, cas=0)
    for cas in (0, 2):
        with pytest.raises(Conflict):
            await kv.put(path, {"value": "two"}, cas=cas)
    assert (await kv.read(path)).data == {"value": "one"}


async def test_metadata_that_vault_refuses_is_invalid(kv: KV, folder: str) -> None:
    path = f"{folder}token"
    await kv.put(path, {"value": "one"}, cas=0)
    with pytest.raises(Invalid):
        await kv.patch_metadata(path, {"note": "x" * 513})
    assert (await kv.read(path)).metadata == {}


RAW_NUMBERS = ["1.5", "0.1", "0.0000001", "1234567890.123456", "1e21", "12345678901234567890", "-7", "0"]


async def _put_raw(admin: Admin, path: str, number: str) -> str:
    """Put it as raw JSON, so that no float of ours is in between; how Vault gives it back."""
    url, headers = f"{admin.server.address}/v1/secret/data/{path}", {"X-Vault-Token": admin.server.token}
    async with admin.session.post(url, data=f'{{"data":{{"value":"x","number":{number}}}}}', headers=headers) as answer:
        assert answer.status == 200
    return await _get_raw(admin, path)


async def _get_raw(admin: Admin, path: str) -> str:
    url, headers = f"{admin.server.address}/v1/secret/data/{path}", {"X-Vault-Token": admin.server.token}
    async with admin.session.get(url, headers=headers) as answer:
        found = re.search(r'"number":([^,}]+)', await answer.text())
    assert found
    return found[1]


@pytest.mark.parametrize("number", RAW_NUMBERS)
async def test_numbers_are_read_digit_for_digit(kv: KV, admin: Admin, folder: str, number: str) -> None:
    raw = await _put_raw(admin, f"{folder}token", number)
    read = (await kv.read(f"{folder}token")).data["number"]
    assert not isinstance(read, float)
    assert str(read).lower() == raw.lower()


@pytest.mark.parametrize("number", RAW_NUMBERS)
async def test_what_was_read_can_be_written_back_digit_for_digit(
    kv: KV, admin: Admin, folder: str, number: str
) -> None:
    path = f"{folder}token"
    raw = await _put_raw(admin, path, number)
    await kv.put(path, {**(await kv.read(path)).data, "value": "y"}, cas=1)
    assert await _get_raw(admin, path) == raw
    assert (await kv.read(path)).data["value"] == "y"


async def test_large_values_and_any_text_survive(kv: KV, folder: str) -> None:
    text = "".join(map(chr, range(1, 0xD800, 7))) + "\0\U0001f600" + "x" * 200_000
    await kv.put(f"{folder}token", {"value": text}, cas=0)
    assert (await kv.read(f"{folder}token")).data == {"value": text}


async def test_an_entry_of_a_kv_version_1_mount_is_a_problem_and_not_a_crash(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/kv-version-1", {"type": "kv", "options": {"version": "1"}})
    try:
        await admin.call("POST", "kv-version-1/data/folder/token", {"value": "x"})
        async with rooms(Connection(bao.address), bao.token, mount="kv-version-1") as ours:
            with pytest.raises(Problem):
                await ours.kv.read("folder/token")
    finally:
        await admin.call("DELETE", "sys/mounts/kv-version-1")


async def test_a_write_to_a_kv_version_1_mount_is_no_success(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/kv-version-one", {"type": "kv", "options": {"version": "1"}})
    try:
        async with rooms(Connection(bao.address), bao.token, mount="kv-version-one") as ours:
            with pytest.raises(Problem):
                await ours.kv.put("folder/token", {"value": "x"}, cas=0)
    finally:
        await admin.call("DELETE", "sys/mounts/kv-version-one")


async def test_a_mount_whose_path_has_slashes_works(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/teams/a/kv", {"type": "kv", "options": {"version": "2"}})
    try:
        async with rooms(Connection(bao.address), bao.token, mount="teams/a/kv") as ours:
            await ours.kv.put("folder/token", {"value": "x"}, cas=0)
            await ours.kv.patch_metadata("folder/token", {"events": "push"})
            entry = await ours.kv.read("folder/token")
            assert (entry.data, entry.metadata) == ({"value": "x"}, {"events": "push"})
            assert await ours.kv.list("folder/") == ["token"]
    finally:
        await admin.call("DELETE", "sys/mounts/teams/a/kv")


async def test_secrets_do_not_show_in_an_entrys_repr(kv: KV, folder: str) -> None:
    await kv.put(f"{folder}token", {"value": "sesame"}, cas=0)
    assert "sesame" not in repr(await kv.read(f"{folder}token"))
