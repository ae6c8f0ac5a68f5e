"""The token's life against a real OpenBao, by a clock that the tests move."""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from pydantic import ConfigDict, SecretStr
from typing_extensions import override

from tests.clock import Clock
from tests.servers import Admin
from tests.vault import Gate, without_look_at_mount
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.entries import Entry
from woodpecker_vault.errors import Denied, LoginRefused, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.logins.token import Token
from woodpecker_vault.vault.sending import Patience, Sender
from woodpecker_vault.vault.tokens import Tokens
from woodpecker_vault.vault.transport import Adapter, AuthenticatedAdapter, WithToken

MOUNT = "tokens-approle"
HOUR = 3600.0
LOGIN = f"auth/{MOUNT}/login"
LOOKUP = "auth/token/lookup-self"
RENEW = "auth/token/renew-self"
REVOKE = "auth/token/revoke-self"


@dataclass(frozen=True, slots=True)
class Role:
    """An AppRole of this test's own, whose tokens may read below :attr:`folder`."""

    admin: Admin
    name: str
    folder: str

    async def change(self, **settings: Any) -> None:
        """What its tokens are like."""
        status, answer = await self.admin.call("POST", f"auth/{MOUNT}/role/{self.name}", settings)
        assert status == 204, answer

    async def method(self) -> AppRole:
        """Log in as this role."""
        _, role = await self.admin.call("GET", f"auth/{MOUNT}/role/{self.name}/role-id")
        _, secret = await self.admin.call("POST", f"auth/{MOUNT}/role/{self.name}/secret-id")
        return AppRole(mount=MOUNT, role_id=role["data"]["role_id"], secret_id=SecretStr(secret["data"]["secret_id"]))


class Child(Method):
    """A login of sorts: a child of another token, as the settings want it. It may be told to fail first."""

    method: Literal["child"] = "child"
    mount: str = "token"
    parent: SecretStr
    wanted: dict[str, Any]
    failures: list[BaseException]

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Make one."""
        if self.failures:
            raise self.failures.pop(0)
        create = WithToken(adapter, self.parent.get_secret_value())
        return Grant.from_login(await create.request("post", "/v1/auth/token/create", json=self.wanted))


def child(bao: OpenBao, *failures: BaseException, **wanted: Any) -> Child:
    """A child of the admin's token that may do nothing of note."""
    return Child(parent=SecretStr(bao.token), wanted={"policies": ["default"], **wanted}, failures=list(failures))


@pytest.fixture(scope="session")
async def approle(admin: Admin) -> str:
    """Where the roles of these tests are."""
    status, answer = await admin.call("POST", f"sys/auth/{MOUNT}", {"type": "approle"})
    assert status == 204, answer
    return MOUNT


@pytest.fixture
async def role(admin: Admin, approle: str, repo_id: int) -> Role:
    """Its tokens have a lease of an hour, can be renewed for a day, and may read a folder."""
    assert approle
    role = Role(admin, f"role-{repo_id}", f"tokens/{repo_id}/")
    await allow(admin, role.name, f"{role.folder}*")
    await role.change(token_policies=[role.name], token_ttl="1h", token_max_ttl="24h")
    return role


async def allow(admin: Admin, name: str, path: str) -> None:
    """A policy to read there."""
    policy = f'path "secret/data/{path}" {{ capabilities = ["create", "read", "update"] }}'
    await admin.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})


async def alive(admin: Admin, token: str) -> bool:
    """Whether Vault knows the token."""
    status, _ = await admin.call("POST", "auth/token/lookup", {"token": token})
    return status == 200


async def revoke(admin: Admin, token: str) -> None:
    """Make it worthless."""
    status, _ = await admin.call("POST", "auth/token/revoke", {"token": token})
    assert status == 204


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - whatever there is to wait for
            await asyncio.sleep(0.001)


@dataclass
class Living:
    """The rooms up to the mount behind a gate, and the clock that they go by."""

    gate: Gate
    clock: Clock
    tokens: Tokens
    kv: KV
    session: aiohttp.ClientSession

    def count(self, path: str) -> int:
        """Requests for it since the gate counts."""
        return sum(where.endswith(path) for _, where in self.gate.requests)

    @property
    def token(self) -> str:
        """The one in use."""
        assert self.tokens._held is not None
        return self.tokens._held.grant.token


@asynccontextmanager
async def living(
    bao: OpenBao, method: Method, *, live: bool = True, jitter: float = 0.5, up: bool = True
) -> AsyncIterator[Living]:
    """They live, and have tried to log in, if they are to; or else they only do what they are asked."""
    gate, clock = Gate(bao.address), Clock()
    gate.mode = "pass" if up else "refuse"
    budget = Budget(8, clock)
    patience = Patience(budget, 0, lambda: 0.5, clock.skip)
    async with gate.listening(), open_session(connection := Connection(gate.address)) as session:
        sender = Sender(session, connection, patience)
        tokens = Tokens(Adapter(sender), method, budget=budget, now=clock, sleep=clock.sleep, jitter=lambda: jitter)
        kv = without_look_at_mount(KV(AuthenticatedAdapter(sender, "", tokens), "secret", patience))
        tasks = [asyncio.ensure_future(tokens.live())] if live else []
        try:
            if live:
                await until(lambda: (tokens._held or tokens._failure) and tokens._login is None)
            yield Living(gate, clock, tokens, kv, session)
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sentences about the token."""
    return [record.getMessage() for record in caplog.records if record.name == "woodpecker_vault.vault.tokens"]


def written_to(file: Path, token: str) -> Token:
    """A file with this token in it, and the login that reads it."""
    file.write_text(token)
    return Token(token_file=str(file))


class TestLogins:
    """When there is a login, and how many."""

    async def test_it_is_done_before_anybody_asks(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            assert ours.gate.requests == [("POST", f"/v1/{LOGIN}")]
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert ours.count(LOGIN) == 1

    @pytest.mark.parametrize("live", [True, False])
    async def test_all_who_wait_share_one(self, bao: OpenBao, role: Role, *, live: bool) -> None:
        async with living(bao, await role.method(), live=live) as ours:
            await asyncio.gather(*(ours.kv.read(f"{role.folder}none") for _ in range(50)))
            assert ours.count(LOGIN) == 1

    async def test_one_who_leaves_does_not_end_it_for_the_others(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method(), live=False) as ours:
            ours.gate.hold(lambda _, path: path.endswith(LOGIN))
            first, second = (asyncio.ensure_future(ours.tokens.current()) for _ in range(2))
            await ours.gate.arrived.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            ours.gate.let_go.set()
            assert await second == ours.token
            assert ours.count(LOGIN) == 1

    async def test_one_that_failed_is_told_to_all_and_not_tried_again_before_a_pause(
        self, bao: OpenBao, role: Role
    ) -> None:
        async with living(bao, await role.method(), live=False, up=False) as ours:
            for _ in range(20):
                problems = await asyncio.gather(
                    *(ours.kv.read(f"{role.folder}none") for _ in range(10)), return_exceptions=True
                )
                assert {type(problem) for problem in problems} == {Unavailable}
            assert ours.count(LOGIN) <= 2  # a connection that was closed at once may be tried twice
            ours.gate.heal()
            with pytest.raises(Unavailable):
                await ours.tokens.current()
            assert ours.gate.requests == []
            ours.clock.at += 0.25
            assert await ours.tokens.current()

    async def test_pauses_grow_to_three_seconds_while_vault_is_away(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method(), up=False, jitter=1) as ours:
            await ours.clock.move(20)
            assert ours.clock.slept[:7] == pytest.approx([0.25, 0.5, 1, 2, 3, 3, 3])
            ours.gate.heal()
            await ours.clock.move(3)
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert ours.count(LOGIN) == 1

    async def test_pauses_grow_to_fifteen_seconds_while_vault_refuses(self, bao: OpenBao, role: Role) -> None:
        right = await role.method()
        wrong = AppRole(mount=MOUNT, role_id=right.role_id, secret_id=SecretStr("sesame"))
        async with living(bao, wrong, jitter=1) as ours:
            with pytest.raises(LoginRefused):
                await ours.tokens.current()
            await ours.clock.move(60)
            assert ours.clock.slept[:9] == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 15, 15, 15])

    async def test_everybody_gets_an_error_of_their_own(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method(), up=False) as ours:
            problems = await asyncio.gather(*(ours.tokens.current() for _ in range(3)), return_exceptions=True)
            assert len({id(problem) for problem in problems}) == 3
            depth = len(traceback.extract_tb(problems[-1].__traceback__))  # type: ignore[union-attr]
            for _ in range(30):
                with pytest.raises(Unavailable) as caught:
                    await ours.tokens.current()
            assert len(traceback.extract_tb(caught.value.__traceback__)) <= depth + 1

    @pytest.mark.parametrize(
        "error", [RuntimeError("sesame"), KeyError("sesame"), ImportError("x"), TimeoutError(), RecursionError()]
    )
    async def test_whatever_a_login_raises_it_is_tried_again(
        self, bao: OpenBao, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with living(bao, child(bao, error, ttl="1h")) as ours:
            with pytest.raises(Unavailable):
                await ours.tokens.current()
            await ours.clock.move(1)
            assert await ours.tokens.current()
        assert "sesame" not in "".join(str(record.__dict__) for record in caplog.records)

    async def test_not_even_an_error_where_none_is_expected_ends_it(self, bao: OpenBao) -> None:
        errors = [RuntimeError("once")]

        class Odd(Child):
            @override
            def version(self) -> object:
                """Fail at first."""
                if errors:
                    raise errors.pop()
                return None

        odd = Odd(parent=SecretStr(bao.token), wanted={"policies": ["default"], "ttl": "1h"}, failures=[])
        async with living(bao, odd) as ours:
            await ours.clock.settled()
            await ours.clock.move(4)
            assert await alive(Admin(bao, ours.session), ours.token)

    @pytest.mark.parametrize("answer", [{}, {"auth": None}, {"auth": {"client_token": "x"}}, {"auth": []}])
    async def test_an_answer_that_is_no_logins_is_unavailable(self, bao: OpenBao, answer: dict[str, Any]) -> None:
        class Odd(Child):
            @override
            async def login(self, adapter: Adapter) -> Grant:
                """Misunderstand."""
                return Grant.from_login(answer)

        odd = Odd(parent=SecretStr("x"), wanted={}, failures=[])
        async with living(bao, odd, live=False) as ours:
            with pytest.raises(Unavailable):
                await ours.tokens.current()


class TestRenewal:
    """A lease is renewed in time; where that is not possible, there is a new token in time."""

    @pytest.mark.parametrize(("jitter", "part"), [(0, 2 / 3 - 0.05), (0.5, 2 / 3), (1, 2 / 3 + 0.05)])
    async def test_it_takes_place_at_two_thirds_give_or_take(
        self, bao: OpenBao, role: Role, jitter: float, part: float
    ) -> None:
        async with living(bao, await role.method(), jitter=jitter) as ours:
            ours.gate.heal()
            await ours.clock.move(HOUR * part - 1)
            assert ours.clock.slept == pytest.approx([HOUR * part])
            assert ours.gate.requests == []
            await ours.clock.move(1.1)
            assert ours.gate.requests == [("POST", f"/v1/{RENEW}")]

    async def test_an_idle_hour_costs_one_renewal_and_an_idle_day_no_login(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            ours.gate.heal()
            await ours.clock.move(HOUR)
            assert ours.gate.requests == [("POST", f"/v1/{RENEW}")]
            await ours.clock.move(23 * HOUR)
            assert set(ours.gate.requests) == {("POST", f"/v1/{RENEW}")}
            assert 24 <= len(ours.gate.requests) <= 48
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    @pytest.mark.parametrize("lease", ["768h", "0"])
    async def test_an_idle_hour_with_a_long_lease_costs_nothing(self, bao: OpenBao, lease: str) -> None:
        method = child(bao, ttl=lease) if lease != "0" else Token(token=SecretStr(bao.token))
        async with living(bao, method) as ours:
            ours.gate.heal()
            await ours.clock.move(HOUR)
            assert ours.gate.requests == []

    async def test_one_that_gives_less_than_before_is_followed_by_a_login_while_the_old_token_works(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            old = ours.token
            await role.change(token_ttl="50m")
            ours.gate.heal()
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            assert [path for _, path in ours.gate.requests] == [f"/v1/{RENEW}", f"/v1/{LOGIN}"]
            assert ours.token != old
            assert await alive(admin, old)

    async def test_one_that_gives_nearly_as_much_as_before_is_enough(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            await role.change(token_ttl="55m")
            ours.gate.heal()
            await ours.clock.move(HOUR * 0.67)
            assert [path for _, path in ours.gate.requests] == [f"/v1/{RENEW}"]

    async def test_the_old_token_is_revoked_once_no_request_can_still_use_it(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            old = ours.token
            await role.change(token_ttl="50m")
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            assert ours.token != old
            ours.gate.heal()
            await ours.clock.move(7.5)
            assert await alive(admin, old)
            assert ours.gate.requests == []
            await ours.clock.move(1)
            assert ours.count(REVOKE) == 1
            assert not await alive(admin, old)
            assert await alive(admin, ours.token)
            await ours.clock.move(60)
            assert ours.count(REVOKE) == 1

    @pytest.mark.parametrize("wanted", [{"renewable": False}, {"type": "batch"}])
    async def test_a_token_that_cannot_be_renewed_is_replaced_in_time(
        self, bao: OpenBao, wanted: dict[str, Any]
    ) -> None:
        async with living(bao, child(bao, ttl="1h", **wanted)) as ours:
            first = ours.token
            await ours.clock.move(HOUR * 0.66)
            assert ours.token == first
            ours.gate.heal()
            await ours.clock.move(HOUR * 0.01)
            assert ours.token != first
            assert ours.count(RENEW) == 0
            await ours.clock.move(10)
            assert ours.count(REVOKE) == ("type" not in wanted)
            ours.gate.heal()
            await ours.clock.move(HOUR * 0.67)
            assert ours.count("auth/token/create") == 1

    async def test_batch_tokens_of_a_role_are_replaced_in_time(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_type="batch")
        async with living(bao, await role.method()) as ours:
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            ours.gate.heal()
            await ours.clock.move(HOUR)
            assert ours.gate.requests == [("POST", f"/v1/{LOGIN}")]

    async def test_one_that_vault_refuses_is_followed_by_a_login(self, bao: OpenBao, admin: Admin, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            await revoke(admin, ours.token)
            ours.gate.heal()
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            assert [path for _, path in ours.gate.requests] == [f"/v1/{RENEW}", f"/v1/{LOGIN}"]
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    async def test_one_that_fails_is_tried_again_with_the_token_in_use_and_without_a_storm(
        self, bao: OpenBao, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            token = ours.token
            await ours.clock.move(HOUR * 2 / 3 - 1)
            ours.gate.mode = "refuse"
            before = len(ours.clock.slept)
            await ours.clock.move(60)
            assert 15 <= len(ours.clock.slept) - before <= 60
            ours.gate.heal()
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            await ours.clock.move(4)
            assert (ours.count(RENEW), ours.count(LOGIN)) == (1, 0)
            assert ours.token == token

    async def test_where_it_failed_until_the_lease_was_over_there_is_a_login(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            await ours.clock.move(HOUR * 2 / 3 - 1)
            ours.gate.mode = "refuse"
            ours.clock.at += HOUR * 0.32
            await ours.clock.move(HOUR * 0.02)
            await revoke(admin, ours.token)
            ours.gate.heal()
            await ours.clock.move(4)
            assert ours.count(LOGIN) == 1
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    async def test_a_login_that_fails_leaves_the_token_in_use_and_is_paced(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_type="batch")
        async with living(bao, await role.method()) as ours:
            token = ours.token
            await ours.clock.move(HOUR * 2 / 3 - 1)
            ours.gate.mode = "refuse"
            before = len(ours.clock.slept)
            await ours.clock.move(60)
            assert 15 <= len(ours.clock.slept) - before <= 40
            ours.gate.heal()
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert ours.token == token
            await ours.clock.move(4)
            assert ours.token != token
            assert ours.count(LOGIN) == 1


class TestRefusals:
    """What follows a 403: is it the token that is dead, or the path that is denied?"""

    async def test_a_dead_token_costs_a_look_and_a_login_and_the_request_is_repeated(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            path = f"/v1/secret/data/{role.folder}none"
            for first in (True, False):
                await revoke(admin, ours.token)
                ours.gate.heal()
                assert await ours.kv.read(f"{role.folder}none") == Entry()
                # The first time, it is also to be found out whether such tokens may look themselves up at all.
                asked = [path, f"/v1/{LOOKUP}", f"/v1/{LOGIN}", *([f"/v1/{LOOKUP}"] if first else []), path]
                assert [where for _, where in ours.gate.requests] == asked

    async def test_fifty_requests_with_a_dead_token_cost_no_more(self, bao: OpenBao, admin: Admin, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            await revoke(admin, ours.token)
            ours.gate.heal()
            await asyncio.gather(*(ours.kv.read(f"{role.folder}none") for _ in range(50)))
            assert ours.count(LOGIN) == 1
            assert 1 <= ours.count(LOOKUP) <= 3  # a look for each wave of connections
            assert len(ours.gate.requests) <= 104

    async def test_a_write_that_was_refused_is_done_once(self, bao: OpenBao, admin: Admin, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            await revoke(admin, ours.token)
            await ours.kv.put(f"{role.folder}token", {"value": "x"}, cas=0)
        assert await admin.version(f"{role.folder}token") == 1

    async def test_a_token_that_dies_again_and_again_is_replaced_each_time(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            for _ in range(5):
                await revoke(admin, ours.token)
                assert await ours.kv.read(f"{role.folder}none") == Entry()

    async def test_a_dead_token_whose_login_fails_is_the_logins_problem_and_heals(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        method = await role.method()
        async with living(bao, method) as ours:
            await revoke(admin, ours.token)
            await admin.call("DELETE", f"auth/{MOUNT}/role/{role.name}")
            ours.gate.heal()
            for _ in range(20):
                with pytest.raises(LoginRefused):
                    await ours.kv.read(f"{role.folder}none")
            assert ours.count(LOGIN) == 1

    async def test_a_denied_path_costs_a_look_now_and_then_and_a_login_ever_more_rarely(
        self, bao: OpenBao, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            ours.gate.heal()
            for _ in range(200):
                with pytest.raises(Denied):
                    await ours.kv.read("elsewhere/token")
            assert (ours.count(LOOKUP), ours.count(LOGIN)) == (1, 0)
            assert len(ours.gate.requests) == 201
            ours.gate.heal()
            for _ in range(200):
                await ours.clock.move(1)
                with pytest.raises(Denied) as caught:
                    await ours.kv.read("elsewhere/token")
                assert not isinstance(caught.value, TokenRefused)
            assert 5 <= ours.count(LOOKUP) <= 15
            assert 2 <= ours.count(LOGIN) <= 7
            ours.gate.heal()
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert len(ours.gate.requests) == 1

    async def test_a_denied_path_stays_one_where_a_login_for_it_fails(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            token = ours.token
            ours.clock.at += 10
            await admin.call("POST", f"auth/{MOUNT}/role/{role.name}", {"secret_id_bound_cidrs": ["192.0.2.1/32"]})
            with pytest.raises(Denied):
                await ours.kv.read("elsewhere/token")
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert ours.token == token

    async def test_many_denied_requests_at_once_share_a_look(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            ours.clock.at += 10
            ours.gate.heal()
            await asyncio.gather(
                *(ours.kv.read(f"elsewhere/{number % 20}") for number in range(200)), return_exceptions=True
            )
            assert ours.count(LOOKUP) <= 10
            assert ours.count(LOGIN) == 1

    async def test_a_denied_request_that_is_given_up_meanwhile_needs_no_look_the_next_time(
        self, bao: OpenBao, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            ours.gate.hold(lambda _, path: path.endswith(LOOKUP))
            asking = asyncio.ensure_future(ours.kv.read("elsewhere/token"))
            await ours.gate.arrived.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            ours.gate.let_go.set()
            await until(lambda: ours.tokens._lookup is None)
            with pytest.raises(Denied):
                await ours.kv.read("elsewhere/token")
            assert ours.count(LOOKUP) == 1

    async def test_policies_that_only_a_new_token_has_are_found(self, bao: OpenBao, admin: Admin, role: Role) -> None:
        path = f"elsewhere/{role.name}"
        await admin.put(path, "x")
        async with living(bao, await role.method()) as ours:
            old = ours.token
            with pytest.raises(Denied):
                await ours.kv.read(path)
            await allow(admin, f"{role.name}-more", path)
            await role.change(token_policies=[role.name, f"{role.name}-more"])
            with pytest.raises(Denied):
                await ours.kv.read(path)
            await ours.clock.move(5.1)
            ours.gate.heal()
            assert (await ours.kv.read(path)).data == {"value": "x"}
            assert (ours.count(LOOKUP), ours.count(LOGIN)) == (0, 1)
            assert await alive(admin, old)
            await ours.clock.move(9)
            assert not await alive(admin, old)

    async def test_after_a_login_that_helped_the_next_need_not_wait_long(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        policies = [role.name]
        async with living(bao, await role.method()) as ours:
            for number in range(6):
                path = f"elsewhere/{role.name}-{number}"
                await allow(admin, f"{role.name}-{number}", path)
                policies.append(f"{role.name}-{number}")
                await role.change(token_policies=policies)
                await ours.clock.move(5.1)
                assert await ours.kv.read(path) == Entry()

    async def test_a_token_that_may_not_look_itself_up_causes_no_storm(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_no_default_policy=True)
        async with living(bao, await role.method()) as ours:
            ours.gate.heal()
            for _ in range(200):
                with pytest.raises(Denied):
                    await ours.kv.read("elsewhere/token")
            assert ours.count(LOGIN) <= 1
            assert ours.count(LOOKUP) <= 200
            for _ in range(200):
                await ours.clock.move(1)
                with pytest.raises(Denied):
                    await ours.kv.read("elsewhere/token")
            assert ours.count(LOGIN) <= 8
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    async def test_a_token_that_may_not_look_itself_up_is_replaced_when_it_dies(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        await role.change(token_no_default_policy=True)
        async with living(bao, await role.method()) as ours:
            for _ in range(3):
                await revoke(admin, ours.token)
                assert await ours.kv.read(f"{role.folder}none") == Entry()
                await ours.clock.move(61)

    async def test_a_look_that_fails_for_another_reason_decides_nothing(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method()) as ours:
            token = ours.token
            ours.clock.at += 10
            ours.gate.break_at(2, answered=False, lasting=True)
            with pytest.raises(Unavailable):
                await ours.kv.read("elsewhere/token")
            ours.gate.heal()
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert ours.token == token

    async def test_a_token_for_so_many_requests_is_replaced_when_they_are_used_up(
        self, bao: OpenBao, role: Role
    ) -> None:
        await role.change(token_num_uses=5)
        async with living(bao, await role.method()) as ours:
            ours.gate.heal()
            for _ in range(14):
                assert await ours.kv.read(f"{role.folder}none") == Entry()
            assert (ours.count(LOGIN), ours.count(LOOKUP)) == (2, 0)
            await asyncio.gather(*(ours.kv.read(f"{role.folder}none") for _ in range(14)))
            assert ours.count(LOGIN) <= 6


class TestGivenTokens:
    """A token that somebody else made, given as it is."""

    @pytest.fixture
    async def given(self, admin: Admin, role: Role) -> str:
        """May do what those of the role may."""
        _, answer = await admin.call("POST", "auth/token/create", {"policies": [role.name], "ttl": "1h"})
        return str(answer["auth"]["client_token"])

    async def test_it_is_renewed_in_time_and_never_revoked(
        self, bao: OpenBao, admin: Admin, role: Role, given: str
    ) -> None:
        async with living(bao, Token(token=SecretStr(given))) as ours:
            assert ours.gate.requests == [("GET", f"/v1/{LOOKUP}")]
            await ours.clock.move(HOUR)
            assert ours.count(RENEW) == 1
            assert await ours.kv.read(f"{role.folder}none") == Entry()
            await ours.tokens.end()
            assert ours.count(REVOKE) == 0
        assert await alive(admin, given)

    async def test_one_that_is_dead_is_told_as_such_and_looked_up_now_and_then(
        self, bao: OpenBao, admin: Admin, role: Role, given: str
    ) -> None:
        async with living(bao, Token(token=SecretStr(given))) as ours:
            await revoke(admin, given)
            ours.gate.heal()
            for _ in range(50):
                with pytest.raises(TokenRefused) as caught:
                    await ours.kv.read(f"{role.folder}none")
            assert ours.count(LOOKUP) == 1
            assert "vault.auth" in caught.value.detail
            ours.clock.at += 6
            with pytest.raises(TokenRefused):
                await ours.kv.read(f"{role.folder}none")
            assert ours.count(LOOKUP) == 2

    async def test_one_that_was_never_any_good_is_told_as_such(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, Token(token=SecretStr("wrong"))) as ours:
            with pytest.raises(TokenRefused):
                await ours.kv.read(f"{role.folder}none")

    async def test_one_that_lives_is_denied_a_path_and_no_login_is_tried(
        self, bao: OpenBao, role: Role, given: str
    ) -> None:
        async with living(bao, Token(token=SecretStr(given))) as ours:
            ours.clock.at += 10
            ours.gate.heal()
            for _ in range(50):
                with pytest.raises(Denied) as caught:
                    await ours.kv.read("elsewhere/token")
                assert not isinstance(caught.value, TokenRefused)
            assert len(ours.gate.requests) == 51
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    @pytest.mark.parametrize("wanted", [{"renewable": False}, {"no_default_policy": True}])
    async def test_one_that_cannot_be_renewed_is_used_to_its_end_and_a_warning_says_so_once(
        self, bao: OpenBao, admin: Admin, role: Role, wanted: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        _, answer = await admin.call("POST", "auth/token/create", {"policies": [role.name], "ttl": "1h", **wanted})
        token = answer["auth"]["client_token"]
        async with living(bao, Token(token=SecretStr(token))) as ours:
            if "no_default_policy" not in wanted:  # of that one nothing is known
                await ours.clock.settled()
                ours.clock.wake()
                await until(lambda: "cannot be renewed" in caplog.text)
            await ours.clock.move(HOUR)
            assert await ours.tokens.current() == token
            assert caplog.text.count("cannot be renewed") == ("no_default_policy" not in wanted)

    async def test_no_refusal_is_needed_to_keep_it(self, bao: OpenBao) -> None:
        async with living(bao, Token(token=SecretStr("one"))) as ours:
            assert await ours.tokens.current() == "one"
            assert await ours.tokens.after_refusal("an older one", "/v1/x") == "one"


class TestTokenFiles:
    """A token in a file, which others may replace at any time."""

    async def test_a_new_one_is_used_from_the_next_request_on(
        self, bao: OpenBao, admin: Admin, role: Role, folder: Path
    ) -> None:
        first, second = [await admin.token("", name=f"{role.name}-file") for _ in range(2)]
        method = written_to(folder / "token", f"{first}\n")
        async with living(bao, method) as ours:
            assert await ours.tokens.current() == first
            written_to(folder / "token", f"  {second}\r\n\r\n")
            ours.gate.heal()
            assert await ours.tokens.current() == second
            assert await ours.tokens.current() == second
            assert ours.gate.requests == [("GET", f"/v1/{LOOKUP}")]
            await ours.clock.move(60)
            await ours.tokens.end()
        assert await alive(admin, first)
        assert await alive(admin, second)

    async def test_a_file_that_is_gone_or_makes_no_sense_leaves_the_token_in_use(
        self, bao: OpenBao, admin: Admin, role: Role, folder: Path
    ) -> None:
        file = folder / "token"
        token = await admin.token("", name=f"{role.name}-file")
        async with living(bao, written_to(file, token)) as ours:
            ours.gate.heal()
            for content in (None, b"", b"two\nlines", b"\xff\xfe"):
                if content is None:
                    file.unlink()
                else:
                    file.write_bytes(content)
                for _ in range(10):
                    ours.clock.at += 0.1
                    assert await ours.tokens.current() == token
            assert ours.gate.requests == []
            other = await admin.token("", name=f"{role.name}-file")
            written_to(file, other)
            ours.clock.at += 3
            assert await ours.tokens.current() == other

    async def test_one_that_died_is_replaced_by_what_is_in_the_file_by_then(
        self, bao: OpenBao, admin: Admin, role: Role, folder: Path
    ) -> None:
        file = folder / "token"
        method = written_to(file, "wrong")
        async with living(bao, method) as ours:
            with pytest.raises(TokenRefused):
                await ours.kv.put(f"{role.folder}token", {"value": "x"}, cas=0)
            _, answer = await admin.call("POST", "auth/token/create", {"policies": [role.name]})
            written_to(file, answer["auth"]["client_token"])
            await asyncio.gather(*(ours.kv.read(f"{role.folder}token") for _ in range(20)))
            await ours.kv.put(f"{role.folder}token", {"value": "x"}, cas=0)
        assert await admin.version(f"{role.folder}token") == 1

    async def test_two_wrong_ones_in_a_row_are_denied(self, bao: OpenBao, folder: Path) -> None:
        file = folder / "token"
        async with living(bao, written_to(file, "wrong")) as ours:
            for text in ("wrong too", "wrong as well"):
                written_to(file, text)
                with pytest.raises(TokenRefused):
                    await ours.kv.read("tokens/none")

    async def test_one_that_is_not_there_yet_is_waited_for(
        self, bao: OpenBao, admin: Admin, role: Role, folder: Path
    ) -> None:
        file = folder / "token"
        method = written_to(file, "soon gone")
        file.unlink()
        async with living(bao, method) as ours:
            with pytest.raises(Unavailable) as caught:
                await ours.kv.read(f"{role.folder}none")
            assert str(file) in caught.value.cause
            _, answer = await admin.call("POST", "auth/token/create", {"policies": [role.name]})
            written_to(file, answer["auth"]["client_token"])
            await ours.clock.settled()
            ours.clock.wake()
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    @pytest.mark.parametrize(
        "content",
        [b"", b"\n", b"hvs.one-sesame\nhvs.two-sesame\n", b"\xff\xfesesame", b"sesame\0", "sésame-ключ".encode()],
    )
    async def test_what_is_no_token_is_a_problem_that_does_not_show_it(
        self, bao: OpenBao, folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        file = folder / "token"
        file.write_bytes(content)
        async with living(bao, Token(token_file=str(file))) as ours:
            with pytest.raises(Problem) as caught:
                await ours.kv.read("tokens/none")
        whole = "".join(traceback.format_exception(caught.value)) + caught.value.cause + caught.value.detail
        whole += "".join(str(record.__dict__) for record in caplog.records)
        assert "same" not in whole.replace("the same", "").replace("sesame\\n", "")


class TestLog:
    """Every sentence is so: what Vault has not said is not claimed."""

    @pytest.fixture(autouse=True)
    def everything(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)

    async def test_a_token_that_vault_knows_is_logged_in(
        self, bao: OpenBao, admin: Admin, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = await admin.token("", name="log-good")
        async with living(bao, Token(token=SecretStr(token))):
            assert said(caplog) == ["logged in to Vault"]

    async def test_a_token_that_vault_refuses_is_not(
        self, bao: OpenBao, admin: Admin, role: Role, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, answer = await admin.call(
            "POST", "auth/token/create", {"policies": [role.name], "no_default_policy": True, "ttl": "1h"}
        )
        for token in ("wrong", answer["auth"]["client_token"]):
            caplog.clear()
            async with living(bao, Token(token=SecretStr(token))) as ours:
                await ours.clock.move(HOUR)
            (sentence,) = said(caplog)
            assert "look itself up" in sentence
            assert "logged in" not in sentence

    async def test_a_token_that_vault_could_not_be_asked_about_is_not_until_it_is(
        self, bao: OpenBao, admin: Admin, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = await admin.token("", name="log-later")
        async with living(bao, Token(token=SecretStr(token)), up=False) as ours:
            await ours.clock.move(10)
            (sentence,) = said(caplog)
            assert "could not be asked" in sentence
            ours.gate.heal()
            await ours.clock.move(4)
            assert said(caplog)[1:] == ["logged in to Vault"]

    async def test_a_file_with_a_wrong_token_instead_is_not(
        self, bao: OpenBao, admin: Admin, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        method = written_to(folder / "token", await admin.token("", name="log-file"))
        async with living(bao, method) as ours:
            caplog.clear()
            written_to(folder / "token", "another")
            await ours.tokens.current()
        assert "logged in" not in caplog.text
        assert "look itself up" in caplog.text

    async def test_a_login_that_is_refused_while_the_token_lives_says_that_it_stays(
        self, bao: OpenBao, admin: Admin, role: Role, caplog: pytest.LogCaptureFixture
    ) -> None:
        await role.change(token_type="batch")
        async with living(bao, await role.method()) as ours:
            await admin.call("DELETE", f"auth/{MOUNT}/role/{role.name}")
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            assert "the login to Vault failed, the token in use stays; it is tried again" in said(caplog)
            assert await ours.kv.read(f"{role.folder}none") == Entry()

    async def test_a_login_that_is_refused_when_the_token_is_dead_says_that_too(
        self, bao: OpenBao, admin: Admin, role: Role, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with living(bao, await role.method()) as ours:
            with pytest.raises(Denied):  # and so it is known that such tokens may look themselves up
                await ours.kv.read("elsewhere/token")
            await admin.call("DELETE", f"auth/{MOUNT}/role/{role.name}")
            await revoke(admin, ours.token)
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            with pytest.raises(LoginRefused):
                await ours.kv.read(f"{role.folder}none")
        sentences = said(caplog)
        assert "Vault does not renew the token" in sentences
        assert "the login to Vault failed, and the token from before is no longer valid; it is tried again" in sentences
        assert not [sentence for sentence in sentences if "stays" in sentence]

    @pytest.mark.parametrize("how", ["dead and not known to look itself up", "away"])
    async def test_where_nothing_is_known_of_the_token_nothing_is_said(
        self, bao: OpenBao, admin: Admin, role: Role, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with living(bao, await role.method()) as ours:
            await revoke(admin, ours.token)
            if how == "away":
                ours.gate.mode = "refuse"
                ours.clock.at += HOUR
            else:
                await admin.call("DELETE", f"auth/{MOUNT}/role/{role.name}")
            with pytest.raises(Unavailable):
                await ours.kv.read(f"{role.folder}none")
            await until(lambda: "the login to Vault failed" in caplog.text)
        assert "the login to Vault failed; it is tried again" in said(caplog)
        assert not [sentence for sentence in said(caplog) if "stays" in sentence or "no longer" in sentence]

    async def test_a_given_token_that_died_is_called_that_and_not_about_to_expire(
        self, bao: OpenBao, admin: Admin, role: Role, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, answer = await admin.call("POST", "auth/token/create", {"policies": [role.name], "ttl": "1h"})
        token = answer["auth"]["client_token"]
        async with living(bao, Token(token=SecretStr(token))) as ours:
            await revoke(admin, token)
            await ours.clock.settled()
            ours.clock.wake()
            await until(lambda: "provide a new one" in caplog.text)
        assert said(caplog) == [
            "logged in to Vault",
            "Vault does not renew the token",
            "the token in vault.auth is no longer valid: provide a new one",
        ]

    async def test_a_renewal_that_fails_is_tried_again_only_as_long_as_the_lease_lasts(
        self, bao: OpenBao, role: Role, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with living(bao, await role.method()) as ours:
            await ours.clock.move(HOUR * 2 / 3 - 1)
            ours.gate.mode = "refuse"
            await ours.clock.move(10)
            assert said(caplog)[-1] == "the token could not be renewed; it is tried again"
            ours.clock.at += HOUR
            await ours.clock.move(1)
            await until(lambda: "before its lease ended" in caplog.text)


class TestEnd:
    """What was made for us is revoked when nothing needs it any more."""

    async def test_the_token_in_use_and_those_before_it_are_revoked(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        async with living(bao, await role.method()) as ours:
            first = ours.token
            await role.change(token_ttl="50m")
            await ours.clock.move(HOUR * 2 / 3 + 0.1)
            second = ours.token
            assert await alive(admin, first)
            await ours.tokens.end()
            assert first != second
            assert not await alive(admin, first)
            assert not await alive(admin, second)

    async def test_nothing_is_revoked_that_cannot_be(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_type="batch")
        async with living(bao, await role.method()) as ours:
            await ours.tokens.end()
            assert ours.count(REVOKE) == 0

    @pytest.mark.parametrize("mode", ["refuse", "hang"])
    async def test_it_comes_about_without_vault_too(
        self,
        bao: OpenBao,
        role: Role,
        mode: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.INFO)
        monkeypatch.setattr("woodpecker_vault.vault.tokens._GOODBYE", 0.6)
        async with living(bao, await role.method(), live=False) as ours:
            token = await ours.tokens.current()
            if mode == "refuse":
                ours.gate.mode = mode
            else:
                ours.gate.hold(lambda _, __: True)
            begun = time.monotonic()
            await ours.tokens.end()
            assert time.monotonic() - begun < 2.9  # and not the three of a connection
            ours.gate.let_go.set()
        assert "not revoked" in caplog.text
        assert token not in "".join(str(record.__dict__) for record in caplog.records)

    async def test_one_that_may_not_revoke_itself_ends_by_itself(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_no_default_policy=True)
        async with living(bao, await role.method()) as ours:
            await ours.tokens.end()
            assert ours.count(REVOKE) == 1

    async def test_it_does_not_wait_for_a_login(self, bao: OpenBao, role: Role) -> None:
        async with living(bao, await role.method(), live=False) as ours:
            ours.gate.hold(lambda _, path: path.endswith(LOGIN))
            waiting = asyncio.ensure_future(ours.tokens.current())
            await ours.gate.arrived.wait()
            async with asyncio.timeout(30):
                await ours.tokens.end()
                await asyncio.gather(waiting, return_exceptions=True)
            ours.gate.let_go.set()


async def test_nothing_shows_the_token(
    bao: OpenBao, admin: Admin, role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    problems: list[BaseException] = []
    method = await role.method()
    async with living(bao, method) as ours:
        seen.append(ours.token)
        await role.change(token_ttl="50m")
        await ours.clock.move(HOUR * 0.67)
        seen.append(ours.token)
        problems += await asyncio.gather(ours.kv.read("elsewhere/token"), return_exceptions=True)  # type: ignore[arg-type]
        await revoke(admin, ours.token)
        await admin.call("DELETE", f"auth/{MOUNT}/role/{role.name}")
        problems += await asyncio.gather(  # type: ignore[arg-type]
            ours.kv.read("elsewhere/token"), ours.tokens.current(), return_exceptions=True
        )
        ours.gate.mode = "refuse"
        problems += await asyncio.gather(ours.kv.read("elsewhere/token"), return_exceptions=True)  # type: ignore[arg-type]
        shown = [repr(ours.tokens._held), repr(ours.tokens), repr(method)]
        await ours.tokens.end()
    for problem in problems:
        if isinstance(problem, Problem):
            shown += [*traceback.format_exception(problem), problem.detail, problem.cause, repr(problem)]
    shown += [str(record.__dict__) for record in caplog.records]
    assert len(set(seen)) == 2
    assert len(shown) > 20
    for token in [*seen, method.secret_id.get_secret_value()]:
        assert not [text for text in shown if token in text]
