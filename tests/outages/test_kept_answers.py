"""``[vault.cache]``: what is kept is given only where it may be."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from tests.outages import VALUE, Load, Outcome, Place, load
from tests.servers import Client, Proxy, Service

LAYERS = {"layers": ["woodpecker/repo/{repo_id}/"]}
IMPATIENT = {"timeout": 0.25}


def _about(place: Place, repo_id: int) -> int:
    """Calls for anything of the repository's."""
    return sum(count for path, count in place.calls().items() if f"woodpecker/repo/{repo_id}" in path)


async def test_validated_asks_once_about_twenty_secrets_that_did_not_change(place: Place, repo_id: int) -> None:
    await place.repository(repo_id, secrets=20)
    auth = await place.approle("validated")
    async with place.service(auth, secrets=LAYERS, vault_cache={"mode": "validated"}) as (_, client):
        asking = Load(client, repo_id)
        assert len((await asking.once()).secrets) == 20
        before = _about(place, repo_id)
        for _ in range(10):
            assert len((await asking.once()).secrets) == 20
        assert _about(place, repo_id) - before == 10


async def test_validated_shows_every_change_in_the_next_answer_under_load(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    path = f"repo/{repo_id}/secret0"
    auth = await place.approle("changing")
    async with (
        place.service(auth, secrets=LAYERS, vault_cache={"mode": "validated"}) as (_, client),
        load(client, repo_id, allowed={200}) as asking,
    ):
        await asking.until(200, count=8)
        for number in range(10):
            await place.put(path, f"new-{number}")
            assert (await asking.once()).secrets["secret0"] == f"{VALUE}new-{number}"
            await place.call("POST", f"secret/metadata/woodpecker/{path}", {"custom_metadata": {"events": "tag"}})
            assert "secret0" not in (await asking.once()).secrets
            await place.call("POST", f"secret/metadata/woodpecker/{path}", {"custom_metadata": {}})
            assert "secret0" in (await asking.once()).secrets
            await place.call("DELETE", f"secret/{('data', 'metadata')[number % 2]}/woodpecker/{path}")
            assert (await asking.once()).secrets.keys() == {"secret1", "secret2"}


async def test_ttl_gives_what_it_keeps_for_that_long_and_no_longer(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    auth = await place.approle("ttl")
    async with place.service(auth, secrets=LAYERS, vault_cache={"mode": "ttl", "ttl": 4.0}) as (_, client):
        asking = Load(client, repo_id)
        assert (await asking.once()).secrets["secret0"] == f"{VALUE}0"
        kept = time.monotonic()
        before = _about(place, repo_id)
        for _ in range(5):
            assert (await asking.once()).status == 200
        assert _about(place, repo_id) == before
        await place.put(f"repo/{repo_id}/secret0", "new")
        async with asyncio.timeout(30):
            while (await asking.once()).secrets["secret0"] != f"{VALUE}new":
                assert asking.outcomes[-1].began - kept < 4


async def test_ttl_shows_what_was_written_through_the_service_at_once(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    auth = {"method": "token", "token": place.node.token}
    async with place.service(auth, secrets=LAYERS, vault_cache={"mode": "ttl", "ttl": 60.0}) as (_, client):
        asking = Load(client, repo_id)
        one = f"/repo/{repo_id}/secrets/secret0"
        for number in range(5):
            await asyncio.gather(*(asking.once() for _ in range(8)))
            reply = await client.send("PUT", one, {"name": "secret0", "value": f"{VALUE}new-{number}"})
            assert reply.status == 200, reply.body
            assert (await asking.once()).secrets["secret0"] == f"{VALUE}new-{number}"
        reply = await client.send("DELETE", one)
        assert reply.status == 204, reply.body
        assert "secret0" not in (await asking.once()).secrets
        reply = await client.send("POST", f"/repo/{repo_id}/secrets", {"name": "secret9", "value": f"{VALUE}9"})
        assert reply.status == 201, reply.body
        assert "secret9" in (await asking.once()).secrets


async def _is_stale(service: Service, outcome: Outcome) -> bool:
    return (await service.logged(outcome.headers["X-Request-Id"])).get("stale", False) is True


async def _stale_answers(client: Client) -> float:
    text = (await client.raw("GET", "/metrics", None, {})).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("woodpecker_vault_stale_answers_total ")]
    assert len(lines) == 1, text
    return float(lines[0].split()[1])


MODES: list[dict[str, Any]] = [
    {"mode": "validated", "stale_if_error": 60.0},
    {"mode": "ttl", "ttl": 0.5, "stale_if_error": 60.0},
]


async def test_stale_if_error_answers_while_vault_is_sealed_stopped_or_hangs(place: Place, repo_id: int) -> None:
    """And says so in the log and the metrics; no request fails."""
    await place.repository(repo_id)
    proxy = Proxy(place.node.address)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(proxy.listening())
        both: list[tuple[Service, Client, Load]] = []
        for number, cache in enumerate(MODES):
            service, client = await stack.enter_async_context(
                place.service(
                    await place.approle(f"stale-{number}"),
                    address=proxy.address,
                    secrets=LAYERS,
                    vault=IMPATIENT,
                    vault_cache=cache,
                )
            )
            asking = await stack.enter_async_context(load(client, repo_id, clients=1, allowed={200}))
            await asking.until(200, count=4)
            assert await _stale_answers(client) == 0
            both.append((service, client, asking))

        async def become(*, stale: bool) -> None:
            for service, _, asking in both:
                async with asyncio.timeout(30):
                    while await _is_stale(service, await asking.once()) is not stale:
                        pass
                assert asking.outcomes[-1].secrets.keys() == {"secret0", "secret1", "secret2"}

        await place.node.seal()
        await become(stale=True)
        await place.node.unseal()
        await become(stale=False)
        proxy.mode = "hang"
        await become(stale=True)
        proxy.mode = "pass"
        await become(stale=False)
        await place.node.stop()
        await become(stale=True)
        await place.mend()
        await become(stale=False)
        for _, client, _ in both:
            assert await _stale_answers(client) >= 6


async def test_after_a_denial_nothing_stale_is_given(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    await place.policy("no-longer")
    auth = await place.approle("no-longer", policy="no-longer")
    async with AsyncExitStack() as stack:
        both: list[tuple[Service, Client, Load]] = []
        for cache in MODES:
            service, client = await stack.enter_async_context(
                place.service(auth, request_timeout=2.0, secrets=LAYERS, vault=IMPATIENT, vault_cache=cache)
            )
            asking = await stack.enter_async_context(load(client, repo_id, clients=1, allowed={200, 403, 503}))
            await asking.until(200, count=4)
            both.append((service, client, asking))
        await place.call("DELETE", "sys/policies/acl/no-longer")
        denied = [await asking.until(403, count=4) for _, _, asking in both]
        await place.node.stop()
        for since, (service, client, asking) in zip(denied, both, strict=True):
            await asking.until(503, under_way=True)
            assert 200 not in asking.statuses(since)
            assert await _stale_answers(client) == 0
            assert not any(line.get("stale") for line in service.log)
        await place.mend()
        await place.policy("no-longer")
        for _, _, asking in both:
            await asking.recovers()
