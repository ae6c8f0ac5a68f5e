"""Writes: whatever happens between their steps, and whoever else writes, secrets stay whole."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.servers import Admin, Client, Reply, Service, serving, settings
from tests.vault import Gate
from woodpecker_vault.cli.openbao import OpenBao

DEFAULT_EVENTS = ("push", "tag", "release", "deployment", "cron", "manual")
ALL_EVENTS = (*DEFAULT_EVENTS, "pull_request")
AT_ONCE = 24


@dataclass(frozen=True)
class Whole:
    """A secret as one writer wants it; ``None`` is what it does not say."""

    value: str | None = None
    events: Sequence[str] | None = None
    images: Sequence[str] | None = None
    note: str | None = None

    def body(self, name: str = "") -> dict[str, Any]:
        """The body of a PUT, or, with a name, of a POST."""
        said = {"value": self.value, "events": self.events, "images": self.images, "note": self.note}
        return {key: value for key, value in {"name": name or None, **said}.items() if value is not None}

    def covers(self, shown: Mapping[str, Any]) -> bool:
        """Whether a secret, as it is shown, is open to nothing that this one is not open to."""
        mine, theirs = set(self.images or ()), set(shown["images"])
        return not shown["events"] or (
            set(shown["events"]) <= set(self.events or DEFAULT_EVENTS)
            and (not mine or (bool(theirs) and theirs <= mine))
        )


def shown(answer: Mapping[str, Any]) -> Whole:
    """What an answer of the alpha form says."""
    return Whole(answer["value"], tuple(answer["events"]), tuple(answer["images"]), answer["note"])


def wanted(index: int) -> Whole:
    """A writer's own secret; no two writers have a value, events, images or a note in common."""
    events = ("push", *(event for bit, event in enumerate(ALL_EVENTS[1:]) if index + 1 >> bit & 1))
    return Whole(f"value-{index}", events, (f"plugins/number-{index}", f"plugins/other-{index}"), f"note {index}")


def url(repo_id: int, name: str = "") -> str:
    return f"/repo/{repo_id}/secrets" + (f"/{quote(name, safe='')}" if name else "")


def entry(repo_id: int, name: str) -> str:
    return f"woodpecker/repo/{repo_id}/{name}"


async def seed(admin: Admin, repo_id: int, name: str, whole: Whole) -> None:
    """A secret as an admin would put it there."""
    metadata = {
        "events": ",".join(whole.events or ()),
        "images": ",".join(whole.images or ()),
        "note": whole.note or "",
    }
    await admin.put(entry(repo_id, name), whole.value or "", **{key: text for key, text in metadata.items() if text})


async def stored(admin: Admin, repo_id: int, name: str) -> Whole | None:
    """The secret as it is in Vault; ``None`` if there is no value."""
    status, answer = await admin.call("GET", f"secret/data/{quote(entry(repo_id, name))}")
    if status != 200:
        return None
    metadata = answer["data"]["metadata"]["custom_metadata"] or {}

    def items(key: str) -> tuple[str, ...]:
        return tuple(metadata[key].split(",")) if key in metadata else ()

    return Whole(answer["data"]["data"]["value"], items("events"), items("images"), metadata.get("note", ""))


async def locks_left(admin: Admin, repo_id: int) -> list[str]:
    return await admin.list(entry(repo_id, ".lock/"))


def statuses(replies: Sequence[Reply]) -> list[int]:
    return sorted(reply.status for reply in replies)


@dataclass
class Watch:
    """What pipelines were given while others wrote: value, events and images."""

    client: Client
    repo_id: int
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def forever(self) -> None:
        """Ask and ask again."""
        while True:
            for event in ("push", "tag", "pull_request"):
                self.seen += (await self.client.secrets(repo={"id": self.repo_id}, event=event)).values()


@contextlib.asynccontextmanager
async def watched(clients: Sequence[Client], repo_id: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Pipelines that ask all the time, on every replica."""
    watches = [Watch(client, repo_id) for client in clients]
    tasks = [asyncio.ensure_future(watch.forever()) for watch in watches]
    seen: list[dict[str, Any]] = []
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        seen += [one for watch in watches for one in watch.seen]
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


def check_served(seen: Sequence[Mapping[str, Any]], by_value: Mapping[str, Whole]) -> None:
    """No value was open to more than its own writer wanted."""
    assert seen, "nobody was given anything, so nothing was seen"
    wrong = [one for one in seen if not by_value[one["value"]].covers(one)]
    assert not wrong, f"{len(wrong)} of {len(seen)}, such as {wrong[0]}: wanted {by_value[wrong[0]['value']]}"


def patient(bao: OpenBao, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Settings with time: many writers at once may need more than a request's eight seconds on a busy machine."""
    return settings(key, bao, server={"request_timeout": 30.0})


@pytest.fixture(scope="module")
async def service(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey
) -> AsyncIterator[Service]:
    """One service."""
    async with serving(tmp_path_factory.mktemp("writing"), patient(bao, key)) as service:
        yield service


@pytest.fixture(scope="module")
async def replica(
    tmp_path_factory: pytest.TempPathFactory, bao: OpenBao, key: Ed25519PrivateKey
) -> AsyncIterator[Service]:
    """A second one on the same Vault."""
    async with serving(tmp_path_factory.mktemp("writing-too"), patient(bao, key)) as service:
        yield service


# --- many writers at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token", "ключ-é-鍵", "a b+c%2F?#&"])
async def test_of_many_writers_at_once_the_last_one_wins_wholly(
    client: Client, other_client: Client, admin: Admin, repo_id: int, name: str
) -> None:
    old = Whole("value-old", ("push", "tag"), ("plugins/old",), "old")
    await seed(admin, repo_id, name, old)
    writers = [wanted(index) for index in range(AT_ONCE)]
    clients = [client, other_client]
    async with watched(clients, repo_id) as seen:
        replies = await asyncio.gather(
            *(clients[i % 2].send("PUT", url(repo_id, name), one.body()) for i, one in enumerate(writers))
        )
    won = [one for one, reply in zip(writers, replies, strict=True) if reply.status == 200]
    assert set(statuses(replies)) <= {200, 409}
    assert won
    assert await stored(admin, repo_id, name) in won
    assert await admin.version(entry(repo_id, name)) == 1 + len(won)
    assert await locks_left(admin, repo_id) == []
    check_served(seen, {str(one.value): one for one in [old, *writers]})


async def test_writers_of_values_and_of_restrictions_at_once_leave_what_some_order_of_them_leaves(
    client: Client, other_client: Client, admin: Admin, repo_id: int
) -> None:
    old = Whole("value-old", ("push", "tag"), ("plugins/old",), "old")
    await seed(admin, repo_id, "token", old)
    full = [wanted(index) for index in range(8)]
    values = [Whole(value=wanted(index).value) for index in range(8, 16)]
    restrictions = [Whole(None, one.events, one.images, one.note) for one in (wanted(index) for index in range(16, 24))]
    writers = [one for three in zip(full, values, restrictions, strict=True) for one in three]
    clients = [client, other_client]
    replies = await asyncio.gather(
        *(clients[i // 3 % 2].send("PUT", url(repo_id, "token"), one.body()) for i, one in enumerate(writers))
    )
    won = [one for one, reply in zip(writers, replies, strict=True) if reply.status == 200]
    assert set(statuses(replies)) <= {200, 409}
    assert won
    end = await stored(admin, repo_id, "token")
    assert end is not None
    last_value = next(one for one in [*won, old] if one.value == end.value)
    last_note = next(one for one in [*won, old] if one.note == end.note)
    assert (end.events, end.images) == (last_note.events, last_note.images)
    # Each full write sets both; so two of them cannot both have been the last.
    assert last_value == last_note or last_value in values or last_note in restrictions
    assert await admin.version(entry(repo_id, "token")) == 1 + sum(one.value is not None for one in won)
    assert await locks_left(admin, repo_id) == []


@pytest.mark.parametrize("name", ["token", "ключ-é-鍵"])
async def test_of_many_creators_at_once_exactly_one_wins(
    client: Client, other_client: Client, admin: Admin, repo_id: int, name: str
) -> None:
    creators = [wanted(index) for index in range(AT_ONCE)]
    clients = [client, other_client]
    async with watched(clients, repo_id) as seen:
        replies = await asyncio.gather(
            *(clients[i % 2].send("POST", url(repo_id), one.body(name)) for i, one in enumerate(creators))
        )
        await client.secrets(repo={"id": repo_id})
        await other_client.secrets(repo={"id": repo_id})
    assert statuses(replies) == [201] + [409] * (AT_ONCE - 1)
    (winner,) = (one for one, reply in zip(creators, replies, strict=True) if reply.status == 201)
    assert await stored(admin, repo_id, name) == winner
    assert await admin.version(entry(repo_id, name)) == 1
    assert await locks_left(admin, repo_id) == []
    check_served(seen or [winner.__dict__], {str(winner.value): winner})


async def test_creators_and_deleters_at_once_leave_one_whole_secret_or_none(
    client: Client, other_client: Client, admin: Admin, repo_id: int
) -> None:
    creators = [wanted(index) for index in range(AT_ONCE)]
    clients = [client, other_client]
    path = url(repo_id, "token")
    async with watched(clients, repo_id) as seen:
        replies = await asyncio.gather(
            *(
                # A signature of its own for each delete, or they would all be one request.
                clients[i % 2].send("DELETE", f"{path}?{i}")
                if i % 4 > 1
                else clients[i % 2].send("POST", url(repo_id), creators[i // 2].body("token"))
                for i in range(2 * AT_ONCE)
            )
        )
    made = [r for r in replies if r.status == 201]
    gone = [r for r in replies if r.status == 204]
    assert set(statuses(replies)) <= {201, 204, 404, 409}
    assert made
    assert len(made) - len(gone) in {0, 1}
    end = await stored(admin, repo_id, "token")
    assert (end is not None) == (len(made) > len(gone))
    assert end is None or end in [shown(reply.json) for reply in made]
    assert await admin.version(entry(repo_id, "token")) == len(made)
    assert await locks_left(admin, repo_id) == []
    check_served(seen or [wanted(0).__dict__], {str(one.value): one for one in creators})


# --- a service of our own, behind a gate ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Behind:
    """A service whose way to Vault leads through a gate."""

    gate: Gate
    client: Client


@pytest.fixture(scope="module")
async def behind(
    tmp_path_factory: pytest.TempPathFactory,
    bao: OpenBao,
    key: Ed25519PrivateKey,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Behind]:
    """One for all tests of this file; each of them heals the gate."""
    gate = Gate(bao.address)
    async with gate.listening():
        # Each fault is looked at by itself: what retries make of them is another matter.
        document = settings(key, bao, vault={"address": gate.address, "max_retries": 0})
        async with serving(tmp_path_factory.mktemp("gate"), document) as service:
            yield Behind(gate, Client(session, service.url, key))


OLD = Whole("value-old", ("push", "tag", "cron"), ("plugins/a", "plugins/b"), "old note")
CHANGES = {
    "narrower": Whole("value-new", ("push",), ("plugins/a",), "new note"),
    "wider": Whole("value-new", ("push", "tag", "cron", "manual", "pull_request"), (), "new note"),
    "other": Whole("value-new", ("push", "manual"), ("plugins/b", "plugins/c"), "new note"),
    "wholly other": Whole("value-new", ("deployment", "manual"), ("plugins/c",), "new note"),
    "events wider, images narrower": Whole("value-new", ("push", "tag", "cron", "manual"), ("plugins/a",), "new note"),
    "value only": Whole("value-new", OLD.events, OLD.images, OLD.note),
    "restrictions only": Whole("value-old", ("push", "manual"), ("plugins/b", "plugins/c"), "new note"),
}


async def check_open_to_no_more(
    admin: Admin, client: Client, repo_id: int, name: str, allowed: Mapping[str, Sequence[Whole]]
) -> Whole | None:
    """As an admin and as every pipeline sees it: each value is open to no more than one of its ``allowed`` is."""
    inside = await stored(admin, repo_id, name)
    if inside is not None:
        document = {"events": inside.events or DEFAULT_EVENTS, "images": inside.images}
        effective = {**document, "events": [event for event in document["events"] or () if event != "none"]}
        assert any(one.covers(effective) for one in allowed[str(inside.value)]), inside
    for event in ALL_EVENTS:
        given = (await client.secrets(repo={"id": repo_id}, event=event)).get(name)
        if given is not None:
            assert any(
                event in (one.events or DEFAULT_EVENTS) and one.covers({**given, "events": [event]})
                for one in allowed[given["value"]]
            ), (event, given)
    return inside


WAYS = [
    pytest.param(
        answered, lasting, id=f"{'answer lost' if answered else 'never sent'}, {'for good' if lasting else 'once'}"
    )
    for answered in (False, True)
    for lasting in (False, True)
]


@pytest.mark.parametrize(("answered", "lasting"), WAYS)
@pytest.mark.parametrize("change", CHANGES)
async def test_an_update_cut_short_at_any_step_opens_nothing_and_can_be_repeated(
    behind: Behind, client: Client, admin: Admin, repo_id: int, change: str, *, answered: bool, lasting: bool
) -> None:
    new = CHANGES[change]
    allowed = (
        {"value-old": [OLD, new], "value-new": [new]}
        if new.value == OLD.value
        else {"value-old": [OLD], "value-new": [new]}
    )
    for number in range(1, 30):
        name = f"token-{number}"
        await seed(admin, repo_id, name, OLD)
        behind.gate.break_at(number, answered=answered, lasting=lasting)
        first = await behind.client.send("PUT", url(repo_id, name), new.body())
        fired, calls = behind.gate.fired, list(behind.gate.requests)
        behind.gate.heal()
        assert first.status in {200, 503}, (calls, first)
        inside = await check_open_to_no_more(admin, client, repo_id, name, allowed)
        if first.status == 200:
            assert inside == new, calls
        if not fired:
            assert first.status == 200
            assert number > 4, calls
            break
        started = time.monotonic()
        again = await behind.client.send("PUT", url(repo_id, name), new.body(), age=2)
        assert (again.status, shown(again.json)) == (200, new), calls
        assert time.monotonic() - started < 7
        assert await stored(admin, repo_id, name) == new
        assert await locks_left(admin, repo_id) == []
    else:
        pytest.fail("an update takes 30 calls")


@pytest.mark.parametrize(("answered", "lasting"), WAYS)
@pytest.mark.parametrize("before", ["nothing", "deleted"])
async def test_a_create_cut_short_at_any_step_serves_nothing_half_made_and_can_be_repeated(
    behind: Behind, client: Client, admin: Admin, repo_id: int, before: str, *, answered: bool, lasting: bool
) -> None:
    new = CHANGES["other"]
    for number in range(1, 30):
        name = f"token-{number}"
        if before == "deleted":
            await seed(admin, repo_id, name, OLD)
            await admin.delete(entry(repo_id, name))
        behind.gate.break_at(number, answered=answered, lasting=lasting)
        first = await behind.client.send("POST", url(repo_id), new.body(name))
        fired, calls = behind.gate.fired, list(behind.gate.requests)
        behind.gate.heal()
        assert first.status in {201, 503}, (calls, first)
        inside = await check_open_to_no_more(admin, client, repo_id, name, {"value-new": [new]})
        assert inside in {None, new}
        if first.status == 201:
            assert inside == new
        if not fired:
            assert first.status == 201
            assert number > 4, calls
            break
        again = await behind.client.send("POST", url(repo_id), new.body(name), age=2)
        assert again.status == (201 if inside is None else 409), calls
        assert await stored(admin, repo_id, name) == new
        assert await locks_left(admin, repo_id) == [] or again.status == 409
    else:
        pytest.fail("a create takes 30 calls")


@pytest.mark.parametrize(("answered", "lasting"), WAYS)
async def test_a_delete_cut_short_at_any_step_can_be_repeated(
    behind: Behind, client: Client, admin: Admin, repo_id: int, *, answered: bool, lasting: bool
) -> None:
    for number in range(1, 30):
        name = f"token-{number}"
        await seed(admin, repo_id, name, OLD)
        behind.gate.break_at(number, answered=answered, lasting=lasting)
        first = await behind.client.send("DELETE", url(repo_id, name))
        fired, calls = behind.gate.fired, list(behind.gate.requests)
        behind.gate.heal()
        assert first.status in {204, 503}, (calls, first)
        inside = await check_open_to_no_more(admin, client, repo_id, name, {"value-old": [OLD]})
        assert inside in {None, OLD}
        if not fired:
            assert (first.status, inside) == (204, None)
            assert number > 3, calls
            break
        again = await behind.client.send("DELETE", url(repo_id, name), age=2)
        assert again.status == (404 if inside is None else 204), calls
        assert await stored(admin, repo_id, name) is None
        assert await locks_left(admin, repo_id) == []
    else:
        pytest.fail("a delete takes 30 calls")


async def test_writes_of_two_entries_do_not_wait_for_each_other(behind: Behind, admin: Admin, repo_id: int) -> None:
    for name in ("one", "two"):
        await seed(admin, repo_id, name, OLD)
    behind.gate.hold(lambda method, path: method == "POST" and path.endswith(f"/{repo_id}/one"))
    one = asyncio.ensure_future(behind.client.send("PUT", url(repo_id, "one"), {"value": "first"}))
    await asyncio.wait_for(behind.gate.arrived.wait(), 30)
    two = await behind.client.send("PUT", url(repo_id, "two"), {"value": "second"})
    assert two.status == 200
    assert not one.done()
    behind.gate.let_go.set()
    assert (await one).status == 200
    assert await admin.data(entry(repo_id, "one")) == {"value": "first"}
    assert await admin.data(entry(repo_id, "two")) == {"value": "second"}


async def test_a_writer_on_another_replica_waits_until_the_first_is_done(
    behind: Behind, client: Client, admin: Admin, repo_id: int
) -> None:
    await seed(admin, repo_id, "token", OLD)
    first_wants, second_wants = CHANGES["wider"], CHANGES["wholly other"]
    second_wants = Whole("value-second", second_wants.events, second_wants.images, "second")
    # The first has written its value, and is about to write its restrictions.
    behind.gate.hold(lambda method, _: method == "PATCH")
    first = asyncio.ensure_future(behind.client.send("PUT", url(repo_id, "token"), first_wants.body()))
    await asyncio.wait_for(behind.gate.arrived.wait(), 30)
    second = asyncio.ensure_future(client.send("PUT", url(repo_id, "token"), second_wants.body()))
    await asyncio.wait({second}, timeout=0.5)  # long enough for it to write, if it does not wait
    assert not second.done()
    behind.gate.let_go.set()
    assert ((await first).status, (await second).status) == (200, 200)
    assert await stored(admin, repo_id, "token") == second_wants
    assert await locks_left(admin, repo_id) == []


async def test_a_write_that_vault_does_late_does_not_open_the_next_writers_value(
    behind: Behind, client: Client, admin: Admin, repo_id: int
) -> None:
    await seed(admin, repo_id, "token", OLD)
    wide, narrow = CHANGES["wider"], Whole("value-second", ("push",), ("plugins/a",), "second")
    behind.gate.hold(lambda method, _: method == "PATCH")
    first = await behind.client.send("PUT", url(repo_id, "token"), wide.body())
    assert first.status == 503  # it is stuck on the way to Vault, and was given up
    second = await client.send("PUT", url(repo_id, "token"), narrow.body())
    behind.gate.let_go.set()
    await asyncio.wait_for(behind.gate.answered.wait(), 30)
    allowed = {"value-old": [OLD], "value-new": [wide], "value-second": [narrow]}
    assert second.status in {200, 409}
    await check_open_to_no_more(admin, client, repo_id, "token", allowed)


# --- Vault admins write too --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
async def test_an_admin_who_writes_between_our_read_and_our_write_wins(
    behind: Behind, client: Client, admin: Admin, repo_id: int, change: str
) -> None:
    new = CHANGES[change]
    if new.value == OLD.value:
        new = Whole("value-other", new.events, new.images, new.note)
    await seed(admin, repo_id, "token", OLD)
    behind.gate.hold(lambda method, path: method == "POST" and path.endswith(f"/{repo_id}/token"))
    ours = asyncio.ensure_future(behind.client.send("PUT", url(repo_id, "token"), new.body()))
    await asyncio.wait_for(behind.gate.arrived.wait(), 30)
    await admin.put(entry(repo_id, "token"), "value-admin")
    await check_open_to_no_more(admin, client, repo_id, "token", {"value-admin": [OLD]})
    behind.gate.let_go.set()
    assert (await ours).status == 409
    assert await stored(admin, repo_id, "token") == Whole("value-admin", OLD.events, OLD.images, OLD.note)
    assert await locks_left(admin, repo_id) == []


async def test_an_admin_who_creates_while_we_create_wins(behind: Behind, admin: Admin, repo_id: int) -> None:
    behind.gate.hold(lambda method, path: method == "POST" and path.endswith(f"/data/{entry(repo_id, 'token')}"))
    ours = asyncio.ensure_future(behind.client.send("POST", url(repo_id), CHANGES["other"].body("token")))
    await asyncio.wait_for(behind.gate.arrived.wait(), 30)
    await seed(admin, repo_id, "token", OLD)
    behind.gate.let_go.set()
    assert (await ours).status == 409
    assert await stored(admin, repo_id, "token") == OLD
    assert await locks_left(admin, repo_id) == []


async def test_an_admin_who_narrows_while_we_update_is_not_undone(
    behind: Behind, client: Client, admin: Admin, repo_id: int
) -> None:
    await seed(admin, repo_id, "token", OLD)
    behind.gate.hold(lambda method, path: method == "POST" and path.endswith(f"/{repo_id}/token"))
    ours = asyncio.ensure_future(behind.client.send("PUT", url(repo_id, "token"), CHANGES["narrower"].body()))
    await asyncio.wait_for(behind.gate.arrived.wait(), 30)
    admins = Whole("value-admin", ("tag",), ("plugins/b",), "admin")
    await seed(admin, repo_id, "token", admins)
    behind.gate.let_go.set()
    assert (await ours).status == 409
    await check_open_to_no_more(admin, client, repo_id, "token", {"value-admin": [admins]})
    assert await stored(admin, repo_id, "token") == admins


@pytest.mark.parametrize("scope", ["key", "mount"])
async def test_where_check_and_set_is_required_everything_works(
    client: Client, admin: Admin, repo_id: int, scope: str
) -> None:
    await client.send("POST", url(repo_id), OLD.body("token"))
    config = f"secret/metadata/{entry(repo_id, 'token')}" if scope == "key" else "secret/config"
    status, _ = await admin.call("POST", config, {"cas_required": True})
    assert status == 204
    try:
        refused, _ = await admin.call("POST", f"secret/data/{entry(repo_id, 'token')}", {"data": {"value": "x"}})
        assert refused == 400  # it is required indeed
        for change in ("narrower", "wider", "other"):
            reply = await client.send("PUT", url(repo_id, "token"), CHANGES[change].body())
            assert (reply.status, shown(reply.json)) == (200, CHANGES[change])
        created = await client.send("POST", url(repo_id), OLD.body("another"))
        assert created.status == 201
        assert (await client.send("DELETE", url(repo_id, "token"))).status == 204
        recreated = await client.send("POST", url(repo_id), CHANGES["other"].body("token"))
        assert recreated.status == 201
    finally:
        await admin.call("POST", config, {"cas_required": False})
    assert await stored(admin, repo_id, "token") == CHANGES["other"]
    assert await stored(admin, repo_id, "another") == OLD
    assert await locks_left(admin, repo_id) == []


async def test_an_admins_other_keys_stay_number_for_number(client: Client, admin: Admin, repo_id: int) -> None:
    # As raw JSON, so that no float of ours is in between; Vault itself rounds what a float cannot hold.
    document = (
        b'{"data":{"value":"old","rate":1.5,"small":1e-7,"big":12345678901234567890,"deep":{"x":[0.1,null,true]}}}'
    )
    path = f"{admin.server.address}/v1/secret/data/{entry(repo_id, 'token')}"
    token = {"X-Vault-Token": admin.server.token}
    async with admin.session.post(path, data=document, headers=token) as answer:
        assert answer.status == 200

    async def others() -> Any:
        async with admin.session.get(path, headers=token) as answer:
            found = json.loads(await answer.text(), parse_float=str, parse_int=str)["data"]["data"]
        del found["value"]
        return found

    before = await others()
    assert before["rate"] == "1.5"
    reply = await client.send("PUT", url(repo_id, "token"), {"value": "new"})
    assert reply.status == 200, reply.body
    assert await others() == before


# --- policies ----------------------------------------------------------------------------------------------------


DATA_ONLY = """
path "secret/data/woodpecker/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/woodpecker/*" { capabilities = ["read", "list"] }
"""
METADATA_ONLY = """
path "secret/data/woodpecker/*" { capabilities = ["read"] }
path "secret/data/woodpecker/repo/+/.lock/*" { capabilities = ["create", "read", "update", "delete"] }
path "secret/metadata/woodpecker/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
"""
READ_ONLY = """
path "secret/data/woodpecker/*" { capabilities = ["read"] }
path "secret/metadata/woodpecker/*" { capabilities = ["read", "list"] }
"""


@dataclass(frozen=True)
class Limited:
    """Services whose tokens may do only so much."""

    clients: Mapping[str, Client]


@pytest.fixture(scope="module")
async def limited(
    tmp_path_factory: pytest.TempPathFactory,
    bao: OpenBao,
    admin: Admin,
    key: Ed25519PrivateKey,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Limited]:
    """One service a policy."""
    policies = {"data only": DATA_ONLY, "metadata only": METADATA_ONLY, "read only": READ_ONLY}
    async with contextlib.AsyncExitStack() as stack:

        async def start(policy: str) -> Client:
            token = await admin.token(policies[policy], name=f"writes-{uuid.uuid4().hex}")
            folder: Path = tmp_path_factory.mktemp("limited")
            document = settings(key, OpenBao(bao.address, token))
            service = await stack.enter_async_context(serving(folder, document))
            return Client(session, service.url, key)

        clients = await asyncio.gather(*map(start, policies))
        yield Limited(dict(zip(policies, clients, strict=True)))


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        (policy, change)
        for policy in ("data only", "metadata only", "read only")
        for change in CHANGES
        if change != "value only"
        and (policy, change) != ("metadata only", "restrictions only")  # all of it may be done
    ],
)
async def test_a_write_that_the_policy_lets_only_half_be_done_is_403_and_changes_nothing(
    limited: Limited, client: Client, admin: Admin, repo_id: int, *, policy: str, change: str
) -> None:
    await seed(admin, repo_id, "token", OLD)
    reply = await limited.clients[policy].send("PUT", url(repo_id, "token"), CHANGES[change].body())
    assert reply.status == 403, reply.body
    assert await stored(admin, repo_id, "token") == OLD
    assert (await client.secrets(repo={"id": repo_id}))["token"]["value"] == OLD.value
    # Whoever may write can do so at once.
    allowed = await client.send("PUT", url(repo_id, "token"), CHANGES[change].body())
    assert allowed.status == 200
    assert await stored(admin, repo_id, "token") == CHANGES[change]


@pytest.mark.parametrize("policy", ["data only", "metadata only", "read only"])
async def test_a_create_that_the_policy_lets_only_half_be_done_is_403_and_makes_nothing(
    limited: Limited, client: Client, admin: Admin, repo_id: int, policy: str
) -> None:
    reply = await limited.clients[policy].send("POST", url(repo_id), CHANGES["other"].body("token"))
    assert reply.status == 403, reply.body
    assert await stored(admin, repo_id, "token") is None
    assert (await client.send("GET", url(repo_id))).json == []
    assert (await client.send("POST", url(repo_id), OLD.body("token"))).status == 201
    assert await stored(admin, repo_id, "token") == OLD


async def test_without_the_right_to_destroy_locks_they_are_deleted(
    limited: Limited, client: Client, admin: Admin, repo_id: int
) -> None:
    await seed(admin, repo_id, "token", OLD)
    for writer, value in ((limited.clients["data only"], "one"), (client, "two"), (limited.clients["data only"], "x3")):
        reply = await writer.send("PUT", url(repo_id, "token"), {"value": value})
        assert (reply.status, reply.json.get("value")) == (200, value)
    assert await admin.data(entry(repo_id, ".lock/token")) is None


# --- locks that were left behind ----------------------------------------------------------------------------------


async def test_a_lock_that_another_replica_holds_is_respected(client: Client, admin: Admin, repo_id: int) -> None:
    async def check(method: str) -> None:
        name = f"token-{method}"
        before = None if method == "POST" else OLD
        if before:
            await seed(admin, repo_id, name, before)
        await admin.put(entry(repo_id, f".lock/{name}"), {"owner": "another replica"})
        started = time.monotonic()
        path = url(repo_id) if method == "POST" else url(repo_id, name)
        body = {"PUT": {"value": "new"}, "POST": CHANGES["other"].body(name), "DELETE": None}[method]
        reply = await client.send(method, path, body)
        assert reply.status == 409, method
        assert time.monotonic() - started < 9.5, method
        assert await stored(admin, repo_id, name) == before
        assert await admin.data(entry(repo_id, f".lock/{name}")) == {"owner": "another replica"}
        assert await admin.version(entry(repo_id, f".lock/{name}")) == 1

    await asyncio.gather(*map(check, ("PUT", "POST", "DELETE")))


async def test_a_lock_is_served_to_nobody(client: Client, admin: Admin, repo_id: int) -> None:
    await admin.put(entry(repo_id, ".lock/token"), {"owner": "another replica", "value": "no secret"})
    await seed(admin, repo_id, "token", OLD)
    assert list(await client.secrets(repo={"id": repo_id})) == ["token"]
    assert [one["name"] for one in (await client.send("GET", url(repo_id))).json] == ["token"]
    assert (await client.send("GET", url(repo_id, ".lock"))).status == 404
