"""One request, sent until an address answers: to a real OpenBao, and to servers that answer as a test says."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import Clock
from tests.servers import Admin, Proxy
from tests.vault import Gate, without_look_at_mount
from tests.vault.raft import Raft
from woodpecker_vault.budget import Budget
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.errors import Conflict, Unavailable
from woodpecker_vault.exact_json import Digits
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.faults import translated
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.sending import Patience, Sender, _seconds, never_sent
from woodpecker_vault.vault.transport import Adapter, WithToken

PATH = "/v1/secret/data/sending/token"
TOKEN = {"X-Vault-Token": "sesame"}
NOTHING_DONE = [412, 429, 472, 473, 501, 503]
UNKNOWN = [500, 502, 504]


@dataclass
class Node:
    """An HTTP server that gives one answer after another, the last of them again and again, all in Vault's shape."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(200, {})])
    requests: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    address: str = ""

    def says(self, *answers: int | tuple[int, dict[str, str]]) -> None:
        """What it answers from now on."""
        self.answers = [(answer, {}) if isinstance(answer, int) else answer for answer in answers]

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one."""
        self.requests.append((request.method, request.path_qs, request.headers, await request.read()))
        status, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(
            status=status, headers=headers, text='{"errors": ["no"]}' if status >= 400 else '{"data": {}}'
        )

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator["Node"]:
        """Serve until the block ends."""
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()


@pytest.fixture
async def nodes() -> AsyncIterator[Sequence[Node]]:
    """Two that are asked, and one that is nobody's business."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Node().listening()) for _ in range(3)]


@asynccontextmanager
async def sending(
    *addresses: str, clock: Clock | None = None, retries: int = 0, seconds: float = 8, **connection: Any
) -> AsyncIterator[tuple[Sender, Budget]]:
    """A sender whose pauses move the clock, and the budget that it keeps to."""
    clock = clock or Clock()
    budget = Budget(seconds, clock)
    where = Connection(",".join(addresses), **connection)
    async with open_session(where) as session:
        yield Sender(session, where, Patience(budget, retries, lambda: 0.5, clock.skip)), budget


def dead() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@asynccontextmanager
async def two_gates(bao: OpenBao) -> AsyncIterator[tuple[Gate, Gate]]:
    """The same Vault at two addresses."""
    one, two = Gate(bao.address), Gate(bao.address)
    async with one.listening(), two.listening():
        yield one, two


class TestAddresses:
    """Which address gets a request, and which next."""

    async def test_one_that_answers_is_kept(self, bao: OpenBao) -> None:
        headers = {"X-Vault-Token": bao.token}
        async with two_gates(bao) as (one, two), sending(one.address, two.address) as (sender, _):
            for _ in range(3):
                assert (await sender.send("GET", "/v1/secret/config", headers)).status == 200
            assert (len(one.requests), len(two.requests)) == (3, 0)

    async def test_one_that_is_gone_is_left_for_the_other_and_not_asked_first_again(self, bao: OpenBao) -> None:
        headers = {"X-Vault-Token": bao.token}
        async with two_gates(bao) as (one, two), sending(one.address, two.address) as (sender, _):
            one.mode = "refuse"
            for _ in range(3):
                assert (await sender.send("GET", "/v1/secret/config", headers)).status == 200
            assert len(two.requests) == 3
            assert one.connections <= 2
            one.heal()
            two.mode = "refuse"
            two.drop()
            assert (await sender.send("GET", "/v1/secret/config", headers)).status == 200
            assert len(one.requests) == 1

    async def test_a_read_goes_on_when_one_hangs(self, bao: OpenBao) -> None:
        proxy = Proxy(bao.address)
        proxy.mode = "hang"
        async with proxy.listening(), sending(proxy.address, bao.address, timeout=0.1) as (sender, _):
            assert (await sender.send("GET", PATH, {"X-Vault-Token": bao.token})).status == 404

    async def test_a_write_goes_on_where_the_connection_never_came_about(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        async with sending(dead(), bao.address) as (sender, _):
            reply = await sender.send(
                "POST", f"/v1/secret/data/{path}", {"X-Vault-Token": bao.token}, json={"data": {"value": "x"}}
            )
        assert reply.status == 200
        assert await admin.version(path) == 1

    async def test_a_write_that_was_perhaps_done_is_not_sent_again(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        async with two_gates(bao) as (one, two), sending(one.address, two.address, retries=5) as (sender, _):
            one.break_at(1, answered=True, lasting=False)
            with pytest.raises(aiohttp.ClientError):
                await sender.send(
                    "POST", f"/v1/secret/data/{path}", {"X-Vault-Token": bao.token}, json={"data": {"value": "x"}}
                )
            assert (len(one.requests), len(two.requests)) == (1, 0)
        assert await admin.version(path) == 1

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
    async def test_no_write_that_was_perhaps_done_is_sent_again_by_a_library_either(
        self, bao: OpenBao, method: str
    ) -> None:
        headers = {"X-Vault-Token": bao.token}
        async with two_gates(bao) as (one, two), sending(one.address, two.address, retries=5) as (sender, _):
            one.break_at(1, answered=True, lasting=False)
            with pytest.raises(aiohttp.ClientError):
                await sender.send(method, PATH, headers, json={"data": {"value": "x"}})
            assert (len(one.requests), len(two.requests)) == (1, 0)

    async def test_one_that_is_sealed_is_left_for_one_that_is_not(self, bao: OpenBao, node: Raft) -> None:
        await node.seal()
        try:
            async with sending(node.address, bao.address) as (sender, _):
                for method, path in (("GET", PATH), ("LIST", "/v1/secret/metadata/none"), ("DELETE", PATH)):
                    reply = await sender.send(method, path, {"X-Vault-Token": bao.token})
                    assert reply.status in {204, 404}
            async with sending(node.address, dead()) as (sender, _):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await sender.send("GET", PATH, {})
            async with sending(dead(), node.address) as (sender, _):
                assert (await sender.send("GET", PATH, {})).status == 503
        finally:
            await node.unseal()

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("status", [472, 473, 501, 503])
    async def test_one_that_did_nothing_is_left_for_the_other(
        self, nodes: Sequence[Node], status: int, method: str
    ) -> None:
        one, two, _ = nodes
        one.says(status)
        async with sending(one.address, two.address) as (sender, _):
            for _ in range(2):
                assert (await sender.send(method, PATH, TOKEN)).status == 200
        assert (len(one.requests), len(two.requests)) == (1, 2)

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 412, 429])
    async def test_an_answer_that_another_would_give_too_is_the_answer(
        self, nodes: Sequence[Node], status: int
    ) -> None:
        one, two, _ = nodes
        one.says(status)
        async with sending(one.address, two.address) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == status
        assert (len(one.requests), len(two.requests)) == (1, 0)

    @pytest.mark.parametrize("status", UNKNOWN)
    async def test_a_read_that_one_cannot_answer_is_put_to_the_other(self, nodes: Sequence[Node], status: int) -> None:
        one, two, _ = nodes
        one.says(status)
        async with sending(one.address, two.address, retries=1) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == 200

    async def test_the_last_failure_is_told_when_all_fail(self) -> None:
        async with sending(dead(), dead(), retries=2) as (sender, _):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await sender.send("POST", PATH, TOKEN)
        assert never_sent(caught.value)


class TestRedirects:
    """Where a standby sends us, and where we go."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_one_to_a_configured_address_is_followed_as_it_was_asked_and_remembered(
        self, nodes: Sequence[Node], status: int
    ) -> None:
        standby, active, _ = nodes
        standby.says((status, {"Location": f"{active.address}{PATH}?version=3"}))
        async with sending(standby.address, active.address) as (sender, _):
            for _ in range(2):
                reply = await sender.send("POST", PATH, TOKEN, json={"data": {}}, params={"version": "3"})
                assert (reply.status, reply.location) == (200, "")
        assert len(standby.requests) == 1
        assert [(method, path, body) for method, path, _, body in active.requests] == [
            ("POST", f"{PATH}?version=3", b'{"data":{}}')
        ] * 2
        assert {headers["X-Vault-Token"] for _, _, headers, _ in active.requests} == {"sesame"}

    async def test_one_to_a_foreign_address_is_not_followed_and_sees_no_token(self, nodes: Sequence[Node]) -> None:
        standby, other, foreign = nodes
        foreign_port = foreign.address.rpartition(":")[2]
        for location in (
            f"{foreign.address}{PATH}",
            f"http://localhost:{foreign_port}{PATH}",
            f"//127.0.0.1:{foreign_port}{PATH}",
            f"{standby.address}@127.0.0.1:{foreign_port}{PATH}",
        ):
            standby.says((307, {"Location": location}))
            other.says(503)
            async with sending(standby.address, other.address, retries=2) as (sender, _):
                for method in ("GET", "PUT"):
                    assert (await sender.send(method, PATH, TOKEN)).status in {307, 503}
        assert foreign.requests == []

    async def test_one_to_a_foreign_address_leaves_the_other_addresses_to_answer(self, nodes: Sequence[Node]) -> None:
        standby, other, foreign = nodes
        standby.says((307, {"Location": f"{foreign.address}{PATH}"}))
        async with sending(standby.address, other.address) as (sender, _):
            assert (await sender.send("PUT", PATH, TOKEN)).status == 200
        assert foreign.requests == []

    async def test_none_is_followed_if_the_settings_say_so(self, nodes: Sequence[Node]) -> None:
        standby, active, _ = nodes
        standby.says((307, {"Location": f"{active.address}{PATH}"}))
        active.says(403)
        async with sending(standby.address, active.address, follow_redirects=False) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == 403
        assert (len(standby.requests), len(active.requests)) == (1, 1)

    @pytest.mark.parametrize("location", ["/v1/secret/data/x", "", "nonsense", "https://["])
    async def test_one_to_nowhere_is_an_answer(self, nodes: Sequence[Node], location: str) -> None:
        nodes[0].says((307, {"Location": location}))
        async with sending(nodes[0].address, retries=3) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == 307
        assert len(nodes[0].requests) == 1

    async def test_two_that_point_at_each_other_come_to_an_end(self, nodes: Sequence[Node]) -> None:
        one, two, _ = nodes
        one.says((307, {"Location": two.address}))
        two.says((307, {"Location": one.address}))
        async with sending(one.address, two.address, retries=3) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == 307
        assert len(one.requests) + len(two.requests) <= 6


class TestPatience:
    """What is tried again, when, and how often."""

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("status", NOTHING_DONE)
    async def test_what_was_not_done_is_tried_again(self, nodes: Sequence[Node], status: int, method: str) -> None:
        nodes[0].says(status, status, 200)
        async with sending(nodes[0].address, retries=2) as (sender, _):
            assert (await sender.send(method, PATH, TOKEN)).status == 200

    @pytest.mark.parametrize("status", UNKNOWN)
    async def test_what_went_wrong_is_tried_again_if_it_is_a_read(self, nodes: Sequence[Node], status: int) -> None:
        for method, requests in (("GET", 2), ("HEAD", 2), ("POST", 1), ("PATCH", 1), ("DELETE", 1)):
            nodes[0].requests.clear()
            nodes[0].says(status, 200)
            async with sending(nodes[0].address, retries=2) as (sender, _):
                assert (await sender.send(method, PATH, TOKEN)).status == (200 if requests == 2 else status)
            assert len(nodes[0].requests) == requests

    @pytest.mark.parametrize("status", [200, 400, 403, 404, 405, 409])
    async def test_any_other_answer_is_the_answer(self, nodes: Sequence[Node], status: int) -> None:
        nodes[0].says(status, 200)
        async with sending(nodes[0].address, retries=5) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == status

    async def test_pauses_grow_up_to_a_limit_and_so_many_retries_are_made(self, nodes: Sequence[Node]) -> None:
        clock = Clock()
        nodes[0].says(503)
        async with sending(nodes[0].address, clock=clock, retries=6) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN)).status == 503
        assert clock.slept == pytest.approx([0.075, 0.15, 0.3, 0.6, 0.75, 0.75])
        assert len(nodes[0].requests) == 7

    async def test_what_vault_asks_for_is_waited_and_no_less_than_that(self, nodes: Sequence[Node]) -> None:
        clock = Clock()
        nodes[0].says((429, {"Retry-After": "2"}), (429, {"Retry-After": "0"}), (503, {"Retry-After": "3"}), 200)
        async with sending(nodes[0].address, clock=clock, retries=8) as (sender, budget):
            with budget.begun():
                assert (await sender.send("PUT", PATH, TOKEN)).status == 200
        assert clock.slept == pytest.approx([2, 0.15, 3])

    async def test_a_wait_that_there_is_no_time_for_is_not_begun(self, nodes: Sequence[Node]) -> None:
        clock = Clock()
        nodes[0].says((429, {"Retry-After": "30"}))
        async with sending(nodes[0].address, clock=clock, retries=8) as (sender, budget):
            with budget.begun():
                reply = await sender.send("GET", PATH, TOKEN)
        assert (reply.status, reply.retry_after) == (429, 30)
        assert clock.slept == []

    async def test_retries_end_before_the_time_is_up(self, nodes: Sequence[Node]) -> None:
        clock = Clock()
        nodes[0].says(503)
        async with sending(nodes[0].address, clock=clock, retries=1000) as (sender, budget):
            with budget.begun():
                assert (await sender.send("GET", PATH, TOKEN)).status == 503
        assert 6 < sum(clock.slept) < 7.5

    async def test_who_has_no_patience_asks_each_address_once(self, nodes: Sequence[Node]) -> None:
        one, two, _ = nodes
        one.says(503)
        two.says(503)
        async with sending(one.address, two.address, retries=8) as (sender, _):
            assert (await sender.send("GET", PATH, TOKEN, patient=False)).status == 503
        assert (len(one.requests), len(two.requests)) == (1, 1)

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_an_address_that_nobody_listens_at_is_tried_again_until_somebody_does(self, method: str) -> None:
        address, late = dead(), Node()
        where = Connection(address)
        async with AsyncExitStack() as stack:

            async def start(_: float) -> None:
                await stack.enter_async_context(late.listening(int(address.rpartition(":")[2])))

            session = await stack.enter_async_context(open_session(where))
            sender = Sender(session, where, Patience(Budget(8, Clock()), 1, lambda: 0.5, start))
            assert (await sender.send(method, PATH, TOKEN)).status == 200
        assert len(late.requests) == 1

    async def test_the_time_that_is_left_is_the_most_that_is_waited(self, bao: OpenBao) -> None:
        proxy = Proxy(bao.address)
        proxy.mode = "hang"
        async with proxy.listening(), sending(proxy.address, retries=8) as (sender, budget):
            begun = time.monotonic()
            with budget.at_most(0.1), pytest.raises(TimeoutError):
                await sender.send("GET", PATH, TOKEN)
            assert time.monotonic() - begun < 2.9  # and not the three of a connection

    async def test_who_is_out_of_time_sends_nothing(self, nodes: Sequence[Node]) -> None:
        clock = Clock()
        async with sending(nodes[0].address, clock=clock) as (sender, budget):
            with budget.begun():
                clock.at += 60
                with pytest.raises(TimeoutError):
                    await sender.send("GET", PATH, TOKEN)

    @given(
        st.integers(0, 20),
        st.integers(0, 20),
        st.floats(0, 1),
        st.floats(0, 1e6) | st.just(math.inf),
        st.floats(0.01, 60) | st.none(),
    )
    def test_no_pause_is_longer_than_there_is_time_or_shorter_than_asked(
        self, attempt: int, retries: int, jitter: float, at_least: float, seconds: float | None
    ) -> None:
        clock = Clock()
        budget = Budget(8, clock)
        patience = Patience(budget, retries, lambda: jitter, clock.skip)
        with budget.begun(seconds or 1e9):
            left = budget.left()
            waited = asyncio.run(patience.pause(attempt, at_least))
        assert waited == bool(clock.slept)
        if waited:
            assert attempt < retries
            assert at_least <= clock.slept[0] < left
            assert clock.slept[0] <= max(at_least, 1)


class TestDoubtfulWrites:
    """A check-and-set whose answer was lost is done again: it can only happen once."""

    @staticmethod
    @asynccontextmanager
    async def kv(bao: OpenBao, *, retries: int = 3) -> AsyncIterator[tuple[Gate, KV, list[str]]]:
        """A mount behind a gate, and the paths that it tells were written."""
        gate, written = Gate(bao.address), list[str]()
        patience = Patience(Budget(8, Clock()), retries, lambda: 0.5, Clock().skip)
        async with gate.listening(), open_session(where := Connection(gate.address)) as session:
            adapter = WithToken(Adapter(Sender(session, where, patience)), bao.token)
            yield gate, without_look_at_mount(KV(adapter, "secret", patience, written=written.append)), written

    @pytest.mark.parametrize("answered", [True, False])
    async def test_it_is_done_once_whether_it_got_there_or_not(
        self, bao: OpenBao, admin: Admin, repo_id: int, *, answered: bool
    ) -> None:
        path = f"sending/{repo_id}"
        async with self.kv(bao) as (gate, kv, written):
            await kv.put(path, {"value": "old"}, cas=0)
            gate.break_at(1, answered=answered, lasting=False)
            numbers = [Digits("1e-7"), Digits("0.10"), 5]
            await kv.put(path, {"value": "new", "numbers": numbers, "more": [None, {"a": True}]}, cas=1)
            assert len(gate.requests) == (3 if answered else 2)
        assert await admin.version(path) == 2
        assert await admin.data(path) == {"value": "new", "numbers": [1e-7, 0.1, 5], "more": [None, {"a": True}]}
        assert written == [path, path]

    async def test_one_that_was_lost_to_another_is_a_conflict(self, bao: OpenBao, admin: Admin, repo_id: int) -> None:
        path = f"sending/{repo_id}"
        await admin.put(path, "theirs")
        async with self.kv(bao) as (gate, kv, written):
            gate.break_at(1, answered=True, lasting=False)
            with pytest.raises(Conflict):
                await kv.put(path, {"value": "ours"}, cas=0)
            assert len(gate.requests) == 3
        assert await admin.data(path) == {"value": "theirs"}
        assert written == [path]

    async def test_one_that_another_has_replaced_meanwhile_is_a_conflict(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        async with self.kv(bao) as (gate, kv, _):
            gate.hold(lambda method, _: method == "POST")
            gate._number, gate._answered = 1, True
            writing = asyncio.ensure_future(kv.put(path, {"value": "ours"}, cas=0))
            await gate.arrived.wait()
            await admin.put(path, "theirs")
            gate.let_go.set()
            with pytest.raises(Conflict):
                await writing
        assert await admin.data(path) == {"value": "theirs"}

    async def test_one_that_is_equal_but_not_ours_to_tell_from_ours_is_taken_for_ours(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        await admin.put(path, "same")
        async with self.kv(bao) as (gate, kv, _):
            gate.break_at(1, answered=True, lasting=False)
            await kv.put(path, {"value": "same"}, cas=0)
        assert await admin.version(path) == 1

    async def test_a_lost_race_without_doubt_is_a_conflict_at_once(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        await admin.put(path, "same")
        async with self.kv(bao) as (gate, kv, _):
            with pytest.raises(Conflict):
                await kv.put(path, {"value": "same"}, cas=0)
            assert len(gate.requests) == 1

    async def test_one_that_stays_in_doubt_is_unavailable_and_told_as_written(
        self, bao: OpenBao, admin: Admin, repo_id: int
    ) -> None:
        path = f"sending/{repo_id}"
        async with self.kv(bao) as (gate, kv, written):
            gate.break_at(1, answered=True, lasting=True)
            with pytest.raises(Unavailable) as caught:
                await kv.put(path, {"value": "x"}, cas=0)
        assert caught.value.maybe_done
        assert await admin.version(path) == 1
        assert written == [path]

    async def test_without_retries_it_is_sent_once(self, bao: OpenBao, repo_id: int) -> None:
        async with self.kv(bao, retries=0) as (gate, kv, _):
            gate.break_at(1, answered=False, lasting=False)
            with pytest.raises(Unavailable):
                await kv.put(f"sending/{repo_id}", {"value": "x"}, cas=0)
            assert len(gate.requests) == 1


class TestRetryAfter:
    """Seconds that a server asks for."""

    @given(st.integers(0, 10**9))
    def test_a_number_is_that_many_seconds(self, seconds: int) -> None:
        assert _seconds(str(seconds)) == seconds

    @given(st.text() | st.sampled_from(["-1", "+1", "1.5", "1e3", "²", "٣", " 1", "Fri, 31 Dec 1999 23:59:59 GMT"]))
    def test_anything_else_is_none(self, text: str) -> None:
        assert _seconds(text) >= 0
        if not text.isascii() or not text.isdigit():
            assert _seconds(text) == 0

    @pytest.mark.parametrize("text", ["9" * 20, "9" * 400, "-1", "soon"])
    async def test_whatever_it_is_the_caller_is_told_to_try_again_later(self, nodes: Sequence[Node], text: str) -> None:
        nodes[0].says((429, {"Retry-After": text}))
        async with sending(nodes[0].address, retries=3) as (sender, budget):
            with budget.begun(), pytest.raises(Unavailable) as caught, translated("ask"):
                await Adapter(sender).request("get", PATH)
        assert caught.value.retry_after >= 1
