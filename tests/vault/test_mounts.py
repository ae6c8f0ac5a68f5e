"""The wrong mount is an error, never an empty list: every kind of wrong one, on a real OpenBao."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.servers import Admin
from tests.vault import Gate, rooms
from tests.vault.front import GATEWAY_403, INGRESS_404, Front
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Denied, LoginRefused, Problem, Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.logins.userpass import Userpass
from woodpecker_vault.vault.mounts import what_is_wrong

EVERYTHING = 'path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }'
WRONG = [
    "secret/metadata",
    "secret/data",
    "secret/detailed-metadata",
    "secret/woodpecker",
    "secret/config",
    "kv-one",
    "kv-one/woodpecker",
    "transit",
    "cubbyhole",
    "identity",
    "sys",
    "auth/token",
    "nowhere",
]
CALLS: dict[str, Callable[[KV], Awaitable[object]]] = {
    "list": lambda kv: kv.list("woodpecker/none/"),
    "read": lambda kv: kv.read("woodpecker/none/token"),
    "put": lambda kv: kv.put("woodpecker/none/token", {"value": "x"}, cas=0),
}


@pytest.fixture(scope="module", autouse=True)
async def _mounts(admin: Admin) -> AsyncIterator[None]:
    """One of KV version 1, and one of another kind."""
    await admin.call("POST", "sys/mounts/kv-one", {"type": "kv", "options": {"version": "1"}})
    await admin.call("POST", "sys/mounts/transit", {"type": "transit"})
    yield
    await admin.call("DELETE", "sys/mounts/kv-one")
    await admin.call("DELETE", "sys/mounts/transit")


@pytest.mark.parametrize("mount", WRONG)
async def test_nothing_is_read_from_it_and_nothing_written_to_it(bao: OpenBao, admin: Admin, mount: str) -> None:
    everything = await admin.token(EVERYTHING, name="mounts-everything")
    for token in (bao.token, everything):
        async with rooms(Connection(bao.address), token, mount=mount, sure_of_mount=False) as ours:
            for _ in range(2):  # the second time as well
                for name, call in CALLS.items():
                    with pytest.raises(Denied) as caught:
                        await call(ours.kv)
                    assert "secrets.mount" in caught.value.detail, name
    for path in ("secret/metadata/data", "secret/metadata/woodpecker/data", "kv-one/data", "kv-one/woodpecker/data"):
        assert (await admin.call("LIST", f"{path}/woodpecker"))[0] == 404


@pytest.mark.parametrize("mount", ["secret/metadata", "kv-one"])
async def test_neither_is_a_list_with_details_empty(bao: OpenBao, mount: str) -> None:
    async with rooms(Connection(bao.address), bao.token, mount=mount, sure_of_mount=False) as ours:
        with pytest.raises(Denied):
            await ours.kv.list_with_details("woodpecker/none/")


async def test_a_path_behind_the_mount_is_called_that(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address), bao.token, mount="secret/metadata", sure_of_mount=False) as ours:
        with pytest.raises(Denied, match="behind the mount secret/"):
            await ours.kv.list("woodpecker/none/")


@pytest.mark.parametrize(
    "policy",
    [
        'path "secret/*" { capabilities = ["read", "list", "create", "update", "delete"] }',
        'path "secret/data/*" { capabilities = ["read"] } path "secret/metadata/*" { capabilities = ["list"] }',
        'path "secret/+/mounts/*" { capabilities = ["read", "list"] }',
    ],
)
async def test_the_right_mount_is_empty_to_every_policy_that_reads_it(bao: OpenBao, admin: Admin, policy: str) -> None:
    token = await admin.token(policy, name="mounts-policy")
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address), token, sure_of_mount=False) as ours:
        found = await asyncio.gather(*(ours.kv.list(f"mounts/{number}/") for number in range(10)))
        assert found == [[]] * 10
        assert await ours.kv.read("mounts/none") == Entry()
        assert len([path for _, path in gate.requests if "internal/ui/mounts" in path]) == 1


@pytest.mark.parametrize("page", [GATEWAY_403, INGRESS_404])
async def test_where_it_cannot_be_looked_at_what_vault_says_is_taken_and_it_is_not_asked_again(
    bao: OpenBao, page: object
) -> None:
    async with Front(bao.address).listening() as front:
        front.answer = lambda _, path: page if "/sys/" in path else None  # type: ignore[assignment, return-value]
        async with rooms(Connection(front.address), bao.token, retries=8, sure_of_mount=False) as ours:
            for _ in range(2):
                assert await ours.kv.list("mounts/none/") == []
        assert len([path for _, path in front.requests if "internal/ui/mounts" in path]) == 1


async def test_while_it_cannot_be_asked_nothing_is_said_to_be_there_or_not(bao: OpenBao) -> None:
    gate = Gate(bao.address)
    async with gate.listening(), rooms(Connection(gate.address), bao.token, sure_of_mount=False) as ours:
        await ours.tokens.current()
        gate.break_at(2, answered=False, lasting=True)
        with pytest.raises(Unavailable):
            await ours.kv.list("mounts/none/")
        gate.heal()
        assert await ours.kv.list("mounts/none/") == []


async def test_a_mount_that_is_made_right_is_found_right(bao: OpenBao, admin: Admin) -> None:
    await admin.call("POST", "sys/mounts/kv-mended", {"type": "kv", "options": {"version": "1"}})
    try:
        async with rooms(Connection(bao.address), bao.token, mount="kv-mended", retries=8, sure_of_mount=False) as ours:
            with pytest.raises(Denied):
                await ours.kv.list("mounts/none/")
            await admin.call("POST", "sys/mounts/kv-mended/tune", {"options": {"version": "2"}})
            assert await ours.kv.list("mounts/none/") == []
    finally:
        await admin.call("DELETE", "sys/mounts/kv-mended")


async def test_a_namespace_that_is_not_there_says_so(bao: OpenBao) -> None:
    async with rooms(Connection(bao.address, namespace="nobodys"), bao.token, sure_of_mount=False) as ours:
        for call in CALLS.values():
            with pytest.raises(Denied) as caught:
                await call(ours.kv)
            assert "no such namespace" in caught.value.detail
            assert "vault.namespace" in caught.value.detail
    method = Userpass.model_validate({"username": "ci", "password": "x", "namespace": "nobodys"})
    async with rooms(Connection(bao.address, namespace="nobodys"), method=method) as ours:
        with pytest.raises(LoginRefused) as refused:
            await ours.tokens.current()
    assert "no such namespace" in refused.value.detail


async def test_a_mount_in_a_namespace_is_found_there(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    name = f"mounts-{repo_id}"
    await admin.call("POST", f"sys/namespaces/{name}")
    inside = {"X-Vault-Namespace": name}
    for path, version in (("right", "2"), ("wrong", "1")):
        await admin.call("POST", f"sys/mounts/{path}", {"type": "kv", "options": {"version": version}}, **inside)
    try:
        for mount, namespace in (("right", name), (f"{name}/right", "")):
            connection = Connection(bao.address, namespace=namespace)
            async with rooms(connection, bao.token, mount=mount, sure_of_mount=False) as ours:
                assert await ours.kv.list("mounts/none/") == []
        connection = Connection(bao.address, namespace=name)
        async with rooms(connection, bao.token, mount="wrong", sure_of_mount=False) as ours:
            with pytest.raises(Problem, match="version 2"):
                await ours.kv.list("mounts/none/")
    finally:
        for path in ("right", "wrong"):
            await admin.call("DELETE", f"sys/mounts/{path}", **inside)
        await admin.call("DELETE", f"sys/namespaces/{name}")


@pytest.mark.parametrize(
    ("path", "found", "words"),
    [
        ("secret", {"path": "secret/", "type": "kv", "options": {"version": "2"}}, ""),
        ("secret", {"type": "kv", "options": {"version": "2"}}, ""),
        ("a/b", {"path": "a/b/", "type": "kv", "options": {"version": "2"}}, ""),
        ("secret/x", {"path": "secret/", "type": "kv", "options": {"version": "2"}}, "behind the mount secret/"),
        ("secret", {"path": "secret/", "type": "kv", "options": {"version": "1"}}, "version 2"),
        ("secret", {"path": "secret/", "type": "kv", "options": None}, "version 2"),
        ("cubbyhole", {"path": "cubbyhole/", "type": "cubbyhole", "options": {"version": "2"}}, "version 2"),
    ],
)
def test_what_is_wrong_is_said(path: str, found: dict[str, object], words: str) -> None:
    said = what_is_wrong(found, path)
    assert (words in said) if words else said == ""
