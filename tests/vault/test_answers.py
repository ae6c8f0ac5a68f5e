"""What answers is Vault, or it is an outage: whatever asks Vault, with something in between that answers itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from tests.servers import Admin
from tests.vault import Gate, Rooms, rooms
from tests.vault.front import (
    CDN_521,
    EMPTY_404,
    FOREIGN,
    GATEWAY_403,
    GATEWAY_404,
    INGRESS_404,
    METHOD_405,
    NOTHING_204,
    WELCOME_200,
    Front,
    Page,
)
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Conflict, LoginRefused, NotVault, Problem, Unavailable
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.faults import translated
from woodpecker_vault.vault.folders import VaultFolders
from woodpecker_vault.vault.kv import KV, NoListing
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.logins.userpass import Userpass
from woodpecker_vault.vault.shared import SharedReads
from woodpecker_vault.vault.transport import WithToken

WRITES: dict[str, Callable[[KV], Awaitable[object]]] = {
    "put": lambda kv: kv.put("answers/write", {"value": "sesame"}, cas=0),
    "patch": lambda kv: kv.patch_metadata("answers/write", {"events": "push"}),
    "delete": lambda kv: kv.delete("answers/write"),
    "destroy": lambda kv: kv.destroy("answers/write"),
}


@pytest.fixture
async def front(bao: OpenBao) -> AsyncIterator[Front]:
    """Something between us and Vault."""
    async with Front(bao.address).listening() as front:
        yield front


@asynccontextmanager
async def behind(front: Front, bao: OpenBao, *more: str, retries: int = 0, **options: Any) -> AsyncIterator[Rooms]:
    """The rooms, with the front first and then more addresses."""
    async with rooms(Connection(",".join((front.address, *more))), bao.token, retries=retries, **options) as ours:
        yield ours


@contextlib.contextmanager
def not_vault() -> Iterator[None]:
    """What is done inside finds that it is not Vault that answers."""
    with pytest.raises(NotVault) as caught:
        yield
    assert "not Vault" in caught.value.detail
    assert "vault.address" in caught.value.detail
    assert "not an answer of Vault's" in caught.value.cause


@pytest.mark.parametrize("page", [*FOREIGN.values(), NOTHING_204], ids=[*FOREIGN, "NOTHING_204"])
class TestReads:
    """A read is an outage, tried again, and put to other addresses."""

    async def test_none_is_believed(self, front: Front, bao: OpenBao, page: Page) -> None:
        async with behind(front, bao) as ours:
            assert await ours.kv.read("answers/none") == Entry()  # the address has shown to be Vault
            front.says(page)
            with not_vault():
                await ours.kv.list("answers/")
            with not_vault():
                await ours.kv.read("answers/token")

    async def test_it_is_tried_again(self, front: Front, bao: OpenBao, admin: Admin, repo_id: int, page: Page) -> None:
        await admin.put(f"answers/{repo_id}/token", "x")
        async with behind(front, bao, retries=2) as ours:
            await ours.kv.read("answers/none")
            front.says(page, times=2)
            assert (await ours.kv.read(f"answers/{repo_id}/token")).live
            front.says(page, times=2)
            assert await ours.kv.list(f"answers/{repo_id}/") == ["token"]

    async def test_another_address_is_asked(
        self, front: Front, bao: OpenBao, admin: Admin, repo_id: int, page: Page
    ) -> None:
        await admin.put(f"answers/{repo_id}/token", "x")
        front.says(page)
        async with behind(front, bao, bao.address) as ours:
            assert (await ours.kv.read(f"answers/{repo_id}/token")).live
            assert await ours.kv.list(f"answers/{repo_id}/") == ["token"]


@pytest.mark.parametrize("page", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_something_else_answers_may_have_been_done_and_is_not_repeated(
    front: Front, bao: OpenBao, name: str, page: Page
) -> None:
    others = [] if page is EMPTY_404 else [bao.address]  # that one makes a patch read on
    async with behind(front, bao, *others, retries=0) as ours:
        await ours.kv.read("answers/none")
        front.says(page)
        with pytest.raises(NotVault) as caught:
            await WRITES[name](ours.kv)
        assert caught.value.maybe_done
        assert len([method for method, _ in front.requests if method != "GET"]) == 1


async def test_metadata_is_not_replaced_because_something_said_that_there_is_none(
    front: Front, bao: OpenBao, admin: Admin, repo_id: int
) -> None:
    path = f"answers/{repo_id}"
    await admin.put(path, "x", events="push", owner="ops")
    async with behind(front, bao) as ours:
        await ours.kv.read("answers/none")
        front.says(EMPTY_404, times=1)
        with pytest.raises(NotVault) as caught:
            await ours.kv.patch_metadata(path, {"events": "tag"})
        assert caught.value.maybe_done
        assert await admin.metadata(path) == {"events": "push", "owner": "ops"}
        await ours.kv.patch_metadata(path, {"events": "tag"})
    assert await admin.metadata(path) == {"events": "tag", "owner": "ops"}


async def test_a_write_with_a_check_is_repeated_until_vault_answers(
    front: Front, bao: OpenBao, admin: Admin, repo_id: int
) -> None:
    async with behind(front, bao, retries=3) as ours:
        await ours.kv.read("answers/none")
        front.says(GATEWAY_403, times=2)
        await ours.kv.put(f"answers/{repo_id}", {"value": "x"}, cas=0)
    assert await admin.version(f"answers/{repo_id}") == 1


class TestWritesInDoubt:
    """Once it is not known whether a write was done, no later attempt makes it one that was not."""

    async def test_an_attempt_that_cannot_be_made_leaves_it_in_doubt(self, bao: OpenBao, repo_id: int) -> None:
        gate = Gate(bao.address)
        async with (
            contextlib.AsyncExitStack() as stack,
            rooms(Connection(f"http://127.0.0.1:{(port := free_port())}"), bao.token, retries=1) as ours,
        ):
            server = await asyncio.start_server(gate._accept, "127.0.0.1", port)
            stack.callback(server.close)
            await ours.kv.read("answers/none")
            gate.hold(lambda method, _: method == "POST")
            writing = asyncio.ensure_future(ours.kv.put(f"answers/{repo_id}", {"value": "x"}, cas=0))
            await gate.arrived.wait()
            server.close()  # nobody listens any more
            gate.drop()
            with pytest.raises(Unavailable) as caught:
                await writing
            gate.let_go.set()
        assert caught.value.maybe_done

    async def test_a_refusal_of_a_later_attempt_does_too(self, front: Front, admin: Admin, repo_id: int) -> None:
        policy = f'path "secret/data/answers/{repo_id}" {{ capabilities = ["read"] }}'
        token = await admin.token(policy, name=f"answers-{repo_id}")
        async with rooms(Connection(front.address), token, retries=1) as ours:
            await ours.kv.read(f"answers/{repo_id}")
            front.says(INGRESS_404, times=1)
            with pytest.raises(Unavailable) as caught:
                await ours.kv.put(f"answers/{repo_id}", {"value": "x"}, cas=0)
        assert caught.value.maybe_done
        assert "policy" in caught.value.detail


class TestAnAddressWithAPathTooMany:
    """Where ``/vault`` is not a proxy's, Vault's own server answers: 404 with an empty list of errors."""

    async def test_nothing_there_is_not_believed(self, bao: OpenBao) -> None:
        async with rooms(Connection(f"{bao.address}/vault"), bao.token) as ours:
            with not_vault():
                await ours.kv.list("answers/")
            with not_vault():
                await ours.kv.read("answers/token")
            for write in WRITES.values():
                with pytest.raises(Problem):
                    await write(ours.kv)

    async def test_the_right_address_beside_it_answers(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        await admin.put(f"answers/{repo_id}/token", "x")
        async with rooms(Connection(f"{bao.address}/vault,{bao.address}"), bao.token) as ours:
            assert await ours.kv.list(f"answers/{repo_id}/") == ["token"]

    async def test_a_proxy_that_strips_the_path_is_fine(self, front: Front, bao: OpenBao) -> None:
        front.strips = "/vault"
        async with rooms(Connection(f"{front.address}/vault"), bao.token) as ours:
            assert await ours.kv.list("answers/none/") == []
            assert await ours.kv.read("answers/none") == Entry()
        assert [path for _, path in front.requests if "seal-status" in path] == []  # the login has shown it

    async def test_that_it_is_vault_is_found_out_even_if_it_says_nothing_else(self, bao: OpenBao, front: Front) -> None:
        front.says(METHOD_405, to="/sys/")  # hidden
        async with rooms(Connection(front.address), bao.token) as ours:
            reply = await ours.sender.send("GET", "/v1/secret/data/answers/none", {"X-Vault-Token": bao.token})
            assert (reply.status, reply.is_foreign) == (404, False)
            asked = len(front.requests)
            await ours.sender.send("GET", "/v1/secret/data/answers/none", {"X-Vault-Token": bao.token})
            assert len(front.requests) == asked + 1  # once is enough


class TestTokensAndLogins:
    """A login that something else answers is not refused, and a token not dead."""

    @pytest.mark.parametrize("page", [GATEWAY_403, GATEWAY_404, INGRESS_404, METHOD_405, CDN_521, WELCOME_200])
    async def test_a_login_fails_but_is_not_refused(self, front: Front, page: Page) -> None:
        front.says(page)
        for method in (
            AppRole(role_id="x", secret_id=SecretStr("sesame")),
            AppRole(role_id="x", secret_id=SecretStr("sesame"), secret_id_wrapped=True),
            Userpass(username="ci", password=SecretStr("sesame")),
        ):
            async with rooms(Connection(front.address), method=method) as ours:
                with pytest.raises(NotVault) as caught:
                    await ours.tokens.current()
                assert not isinstance(caught.value, LoginRefused)
                assert "sesame" not in caught.value.cause

    @pytest.mark.parametrize("page", [GATEWAY_403, INGRESS_404, WELCOME_200])
    async def test_a_token_is_not_dead_because_something_else_refuses_it(
        self, front: Front, bao: OpenBao, admin: Admin, repo_id: int, page: Page
    ) -> None:
        await admin.put(f"answers/{repo_id}/token", "x")
        async with behind(front, bao) as ours:
            front.says(page, to="lookup-self")
            assert (await ours.kv.read(f"answers/{repo_id}/token")).live
            front.says(page)
            with pytest.raises(NotVault):
                await ours.kv.read(f"answers/{repo_id}/token")
            front.says(None)
            assert (await ours.kv.read(f"answers/{repo_id}/token")).live

    @pytest.mark.parametrize("page", [GATEWAY_403, INGRESS_404, WELCOME_200])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("get", "/v1/auth/token/lookup-self"),
            ("post", "/v1/auth/token/renew-self"),
            ("post", "/v1/auth/token/revoke-self"),
            ("post", "/v1/sys/capabilities-self"),
            ("get", "/v1/sys/internal/ui/mounts/secret"),
            ("put", "/v1/sys/wrapping/unwrap"),
            ("get", "/v1/sys/health"),
        ],
    )
    async def test_whatever_is_asked_it_is_no_word_of_vaults(
        self, front: Front, bao: OpenBao, page: Page, method: str, path: str
    ) -> None:
        front.says(page)
        async with behind(front, bao) as ours:
            with not_vault(), translated("ask"):
                await WithToken(ours.adapter, bao.token).request(method, path)
            with not_vault(), translated("ask"):
                await WithToken(ours.adapter, bao.token).request(method, path, raise_exception=False)


class TestLists:
    """What asks for a list does so as Vault's own client does."""

    @staticmethod
    def knows_no_list(method: str, _path: str) -> Page | None:
        return None if method in {"GET", "POST", "PUT", "PATCH", "DELETE"} else METHOD_405

    async def test_a_proxy_that_does_not_know_the_method_lets_lists_through(
        self, front: Front, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        front.answer = self.knows_no_list
        for name in ("a", "a b", "a%2Fb", "ключ", "a?b#c", "a&list=false"):
            await admin.put(f"answers/{repo_id}/{name}/token", "x")
        async with behind(front, bao) as ours:
            for name in ("a", "a b", "a%2Fb", "ключ", "a?b#c", "a&list=false"):
                assert await ours.kv.list(f"answers/{repo_id}/{name}/") == ["token"]
                assert set(await ours.kv.list_with_details(f"answers/{repo_id}/{name}/")) == {"token"}
            assert await ours.kv.list(f"answers/{repo_id}/none/") == []
            assert await ours.kv.list_with_details(f"answers/{repo_id}/none/") == {}
        assert {method for method, path in front.requests if "metadata" in path} == {"GET"}

    async def test_the_right_to_list_is_still_what_it_takes(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        await admin.put(f"answers/{repo_id}/token", "x")
        path = f"secret/metadata/answers/{repo_id}/"
        may = await admin.token(f'path "{path}" {{ capabilities = ["list"] }}', name=f"answers-may-{repo_id}")
        may_not = await admin.token(f'path "{path}" {{ capabilities = ["read"] }}', name=f"answers-not-{repo_id}")
        async with rooms(Connection(bao.address), may) as ours:
            assert await ours.kv.list(f"answers/{repo_id}/") == ["token"]
        async with rooms(Connection(bao.address), may_not) as ours:
            with pytest.raises(Problem, match="policy"):
                await ours.kv.list(f"answers/{repo_id}/")

    @pytest.mark.parametrize("page", [GATEWAY_403, GATEWAY_404, METHOD_405])
    async def test_a_gateway_that_lets_no_detailed_listing_through_is_a_server_without_one(
        self, front: Front, bao: OpenBao, page: Page
    ) -> None:
        front.says(page, to="detailed-metadata")
        async with behind(front, bao) as ours:
            with pytest.raises(NoListing):
                await ours.kv.list_with_details("answers/")

    async def test_one_that_is_broken_is_not(self, front: Front, bao: OpenBao) -> None:
        front.says(CDN_521, to="detailed-metadata")
        async with behind(front, bao) as ours:
            with not_vault():
                await ours.kv.list_with_details("answers/")


async def test_a_folder_is_whole_or_an_outage(front: Front, bao: OpenBao, admin: Admin, repo_id: int) -> None:
    for name in ("one", "two", "three"):
        await admin.put(f"answers/{repo_id}/{name}", "x")
    async with behind(front, bao) as ours:
        folders = VaultFolders(ours.kv, SharedReads(ours.sender._patience.budget))
        front.says(INGRESS_404, to="/data/", times=1)
        with not_vault():
            await folders.folder(f"answers/{repo_id}/")
        assert set((await folders.folder(f"answers/{repo_id}/")).entries) == {"one", "two", "three"}


async def test_a_mount_that_is_being_upgraded_is_an_outage_that_passes(bao: OpenBao, admin: Admin) -> None:
    """For real: ``bao kv enable-versioning`` on a mount with much in it."""
    await admin.call("POST", "sys/mounts/growing", {"type": "kv", "options": {"version": "1"}})
    try:
        for first in range(0, 2000, 200):
            await asyncio.gather(
                *(admin.call("POST", f"growing/k{number}", {"value": "x"}) for number in range(first, first + 200))
            )
        async with (
            rooms(Connection(bao.address), bao.token, mount="growing") as hasty,
            rooms(Connection(bao.address), bao.token, mount="growing", retries=60) as patient,
        ):
            await asyncio.gather(hasty.tokens.current(), patient.tokens.current())
            await admin.call("POST", "sys/mounts/growing/tune", {"options": {"version": "2"}})
            found = await asyncio.gather(
                hasty.kv.read("k1"),
                hasty.kv.list(""),
                hasty.kv.patch_metadata("k1", {"a": "b"}),
                hasty.kv.put("k1", {"value": "y"}, cas=1),
                patient.kv.put("k2", {"value": "y"}, cas=1),
                patient.kv.read("k3"),
                return_exceptions=True,
            )
        for one in found[:4]:
            assert isinstance(one, Unavailable), one
            assert "upgrading" in one.detail
            assert not one.maybe_done
        assert found[4] is None
        assert isinstance(found[5], Entry)
        assert found[5].data == {"value": "x"}
    finally:
        await admin.call("DELETE", "sys/mounts/growing")


async def test_a_conflict_stays_one_whatever_the_value_says(bao: OpenBao, admin: Admin, repo_id: int) -> None:
    await admin.put(f"answers/{repo_id}", "x")
    async with rooms(Connection(bao.address), bao.token) as ours:
        with pytest.raises(Conflict):
            await ours.kv.put(f"answers/{repo_id}", {"value": "check-and-set"}, cas=0)
