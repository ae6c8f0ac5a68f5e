"""How often Vault is asked, by its own audit log."""

import asyncio
import time

from tests.outages import Load, Place, load

LAYERS = {"layers": ["woodpecker/repo/{repo_id}/"]}


async def test_two_hundred_equal_requests_at_once_cost_a_few_reads_of_the_folder(place: Place, repo_id: int) -> None:
    """One LIST and ten reads each would be 2200 calls."""
    await place.repository(repo_id, secrets=10)
    async with place.service(await place.approle("equal"), secrets=LAYERS) as (_, client):
        asking = Load(client, repo_id)
        assert (await asking.once()).status == 200
        before = place.calls()
        outcomes = await asyncio.gather(*(asking.once() for _ in range(200)))
        cost = place.calls() - before
    assert {outcome.status for outcome in outcomes} == {200}
    assert all(len(outcome.secrets) == 10 for outcome in outcomes)
    assert cost.total() <= 20 * 11, cost


async def test_a_path_that_is_denied_costs_a_handful_of_logins_and_lookups(place: Place, repo_id: int) -> None:
    await place.policy("nothing", 'path "secret/none" { capabilities = ["read"] }')
    auth = await place.approle("denied", policy="nothing")
    async with place.service(auth) as (_, client), load(client, repo_id, allowed={403}) as asking:
        before, began = place.calls(), time.monotonic()
        await asking.until(403, count=300, within=120)
        cost, seconds = place.calls() - before, time.monotonic() - began
    logins = cost["auth/approle/login"]
    assert logins <= 3 + seconds / 20, cost
    # One for each of the three layers, and again for a new token or after half a minute.
    assert cost["auth/token/lookup-self"] <= 3 * (1 + logins + seconds / 30), cost


async def test_nobody_asks_while_nothing_is_asked(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    async with (
        place.service(await place.approle("idle")) as (_, plain),
        place.service(await place.approle("idle-cache"), vault_cache={"mode": "validated", "ttl": 1.0}) as (_, cached),
    ):
        assert (await Load(plain, repo_id).once()).status == 200
        assert (await Load(cached, repo_id).once()).status == 200
        before = place.calls()
        await asyncio.sleep(2)  # that is the stretch in which nothing is asked
        assert place.calls() - before == {}
