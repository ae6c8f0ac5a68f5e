"""``/readyz`` while Vault is away, and the start without it."""

import asyncio
import time
from typing import Any

from tests.outages import RECOVERY, Place, load
from tests.servers import Client, Proxy, Reply


async def _ready(client: Client) -> Reply:
    return await client.raw("GET", "/readyz", None, {})


def _failing(reply: Reply) -> dict[str, str]:
    """The checks that do not hold, other than because of another."""
    checks: dict[str, dict[str, Any]] = reply.json["checks"]
    return {
        name: check["detail"]
        for name, check in checks.items()
        if not check["ok"] and "not checked" not in check["detail"]
    }


async def _becomes(client: Client, check: str, words: str) -> None:
    """This check fails, with these words, in a moment."""
    failing: dict[str, str] = {}
    try:
        async with asyncio.timeout(RECOVERY):
            while words not in failing.get(check, ""):
                reply = await _ready(client)
                failing = _failing(reply)
                assert reply.status == 503, reply.json
    except TimeoutError:
        raise AssertionError(failing) from None


async def _becomes_ready(client: Client) -> None:
    async with asyncio.timeout(RECOVERY):
        while (await _ready(client)).status != 200:
            pass


async def test_it_starts_without_vault_says_what_is_missing_and_becomes_ready_by_itself(
    place: Place, repo_id: int
) -> None:
    await place.repository(repo_id)
    auth = await place.approle("starting")
    await place.node.stop()
    async with place.service(auth, request_timeout=2.0) as (service, client):
        await _becomes(client, "address", "cannot be reached")
        assert (await client.raw("GET", "/healthz", None, {})).status == 200
        async with load(client, repo_id, clients=1, allowed={200, 503}) as asking:
            await asking.until(503, under_way=True)
            await place.node.start()
            await _becomes(client, "seal", "sealed")
            await place.node.unseal()
            await asyncio.gather(_becomes_ready(client), asking.recovers())
        assert service.process.returncode is None


async def test_readiness_is_answered_in_two_seconds_and_many_who_ask_cost_few_calls(place: Place) -> None:
    auth = await place.approle("ready")
    proxy = Proxy(place.node.address)
    async with proxy.listening(), place.service(auth, address=proxy.address, vault={"timeout": 30.0}) as (_, client):
        before = place.calls()
        probes = await asyncio.gather(*(_ready(client) for _ in range(50)))
        assert {probe.status for probe in probes} == {200}
        cost = place.calls() - before
        assert cost["sys/capabilities-self"] == 1
        assert cost.total() <= 6, cost

        proxy.mode = "hang"

        async def not_ready() -> bool:
            return (await _ready(client)).status == 503

        async with asyncio.timeout(30):
            while not await not_ready():
                pass

        async def timed() -> tuple[int, float]:
            began = time.monotonic()
            reply = await _ready(client)
            return reply.status, time.monotonic() - began

        probes_in_time = await asyncio.gather(*(timed() for _ in range(50)))
        assert {status for status, _ in probes_in_time} == {503}
        assert max(seconds for _, seconds in probes_in_time) < 5  # and not the eight of a request
        proxy.mode = "pass"
        await _becomes_ready(client)
