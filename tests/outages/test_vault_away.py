"""Vault is stopped, sealed, or cannot be reached, and comes back."""

import asyncio
import time

from tests.outages import LONGEST, Place, load
from tests.servers import Proxy


async def test_while_vault_is_stopped_or_sealed_the_answer_is_503_and_then_all_is_well_again(
    place: Place, repo_id: int
) -> None:
    await place.repository(repo_id)
    auth = await place.approle("stopped")
    async with (
        place.service(auth, request_timeout=2.0) as (_, client),
        load(client, repo_id, allowed={200, 503}) as asking,
    ):
        await asking.until(200, count=8)
        await place.node.stop()
        await asking.until(503, count=4, under_way=True)
        await place.node.start()
        await place.node.unseal()
        await asking.recovers()
        await place.node.seal()
        await asking.until(503, count=4, under_way=True)
        await place.node.unseal()
        await asking.recovers()


async def test_an_outage_shorter_than_the_budget_costs_no_request(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    auth = await place.approle("short-outage")
    proxy = Proxy(place.node.address)
    async with (
        proxy.listening(),
        place.service(auth, address=proxy.address) as (_, client),
        load(client, repo_id, allowed={200}) as asking,
    ):
        await asking.until(200, count=8)
        proxy.mode = "refuse"
        proxy.drop()
        await asyncio.sleep(1.5)  # that is the outage
        proxy.mode = "pass"
        await asking.recovers()
        began = time.monotonic()
        await place.node.seal()
        await place.node.unseal()
        assert time.monotonic() - began < 6.5, "too slow a machine to be a short outage"
        await asking.recovers()


async def _hanging(place: Place, repo_id: int, auth: dict[str, str], seconds: float) -> None:
    proxy = Proxy(place.node.address)
    async with (
        proxy.listening(),
        place.service(auth, address=proxy.address, request_timeout=seconds) as (_, client),
        load(client, repo_id, clients=2, allowed={200, 503}) as asking,
    ):
        await asking.until(200, count=4)
        proxy.mode = "hang"
        await asking.until(503, count=2, under_way=True)
        proxy.mode = "pass"
        await asking.recovers()
        assert asking.slowest() < min(seconds + 5, LONGEST)


async def _cut(place: Place, repo_id: int, auth: dict[str, str]) -> None:
    proxy = Proxy(place.node.address)
    async with (
        proxy.listening(),
        place.service(auth, address=proxy.address, request_timeout=2.0) as (_, client),
        load(client, repo_id, clients=2, allowed={200, 503}) as asking,
    ):
        await asking.until(200, count=4)
        proxy.mode = "cut"
        await asking.until(503, count=2, under_way=True)
        proxy.mode = "pass"
        await asking.recovers()


async def _dropped(place: Place, repo_id: int, auth: dict[str, str]) -> None:
    proxy = Proxy(place.node.address)
    async with (
        proxy.listening(),
        place.service(auth, address=proxy.address) as (_, client),
        load(client, repo_id, clients=2, allowed={200}) as asking,
    ):
        for _ in range(20):
            await asking.until(200)
            proxy.drop()
        await asking.recovers()


async def _slow(place: Place, repo_id: int, auth: dict[str, str]) -> None:
    proxy = Proxy(place.node.address)
    async with (
        proxy.listening(),
        place.service(auth, address=proxy.address) as (_, client),
        load(client, repo_id, clients=2, allowed={200}) as asking,
    ):
        proxy.delay = 0.5
        await asking.until(200, count=6)
        proxy.delay = 0.0
        await asking.recovers()


async def test_a_network_that_hangs_cuts_drops_or_is_slow(place: Place, repo_id: int) -> None:
    """One of them hangs with the default ``server.request_timeout`` of 8 s, which is what takes this test so long."""
    await place.repository(repo_id)
    auth = await place.approle("network")
    await asyncio.gather(
        _hanging(place, repo_id, auth, 8.0),
        _hanging(place, repo_id, auth, 2.0),
        _cut(place, repo_id, auth),
        _dropped(place, repo_id, auth),
        _slow(place, repo_id, auth),
    )
