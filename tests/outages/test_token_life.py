"""The service's token ends, is used up, revoked, replaced or loses its policy, while pipelines ask."""

import asyncio
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.outages import SOAK, Place, eventually, load
from tests.servers import Service


def _logged(service: Service, words: str) -> bool:
    return any(words in line.get("event", "") for line in service.log)


async def _lives_on(place: Place, repo_id: int, name: str, role: dict[str, Any]) -> tuple[str, int, float]:
    """How many logins there were, and after how many seconds."""
    auth = await place.approle(name, **role)
    async with (
        place.service(auth) as (service, client),
        load(client, repo_id, clients=1, allowed={200}) as asking,
    ):
        began = time.monotonic()
        await asyncio.sleep(SOAK)  # it is the time that matters
        seconds = time.monotonic() - began
        await asking.until(200)
    return name, sum(line.get("event") == "logged in to Vault" for line in service.log), seconds


async def _outlives_its_secret_id(place: Place, repo_id: int, folder: Path) -> None:
    """It is renewed twice; then its maximum is near, logins fail, and say so; then there is another secret id.

    Renewed after about 4 and 8 seconds, it gets less than its lease the second time: there are 5 for another login.
    """
    auth = await place.approle("outlives", token_ttl="6s", token_max_ttl="13s")
    file = folder / "secret-id"
    first = auth.pop("secret_id")
    file.write_text(first)
    before = place.calls()
    async with (
        place.service({**auth, "secret_id_file": str(file)}) as (service, client),
        load(client, repo_id, clients=1, allowed={200}) as asking,
    ):
        await asking.until(200)
        began = time.monotonic()
        await place.call("POST", "auth/approle/role/outlives/secret-id/destroy", {"secret_id": first})
        await eventually(lambda: _logged(service, "the login to Vault failed"), within=30)
        assert (place.calls() - before)["auth/token/renew-self"] >= 2
        second = await place.secret_id("outlives")
        file.write_text(second)
        await eventually(lambda: sum(line.get("event") == "logged in to Vault" for line in service.log) >= 2)
        await asking.until(200, count=4)
        await eventually(lambda: time.monotonic() - began > 13.5)  # the first token's maximum is over by then
        await asking.recovers()
    assert first not in "".join(service.raw_log)
    assert second not in "".join(service.raw_log)


async def test_tokens_that_end_soon_cost_no_request_even_if_the_next_login_fails_at_first(
    place: Place, repo_id: int, folder: Path
) -> None:
    """After two seconds, or five uses; or the login's secret id is destroyed, and another is given in time."""
    await place.repository(repo_id)
    *results, _ = await asyncio.gather(
        _lives_on(place, repo_id, "two-seconds", {"token_ttl": "2s", "token_max_ttl": "2s"}),
        _lives_on(place, repo_id, "renewed-to-six", {"token_ttl": "2s", "token_max_ttl": "6s"}),
        _lives_on(place, repo_id, "batch", {"token_ttl": "2s", "token_max_ttl": "2s", "token_type": "batch"}),
        _lives_on(place, repo_id, "five-uses", {"token_num_uses": 5}),
        _outlives_its_secret_id(place, repo_id, folder),
    )
    lives = {"two-seconds": (0.8, 2), "batch": (0.8, 2), "renewed-to-six": (3, 6)}
    """Seconds after which a token is replaced, at the earliest and at the latest; a busy machine may be late."""
    for name, logins, seconds in results:
        earliest, latest = lives.get(name, (0, math.inf))
        assert seconds / latest / 2 <= logins, results
        assert not earliest or logins <= seconds / earliest + 4, results


async def test_a_token_that_is_revoked_again_and_again_costs_no_request(place: Place, repo_id: int) -> None:
    await place.repository(repo_id)
    auth = await place.approle("revoked")
    async with place.service(auth) as (_, client), load(client, repo_id, allowed={200}) as asking:
        for _ in range(10):
            await asking.until(200, count=4)
            assert await place.revoke_tokens_of("revoked") >= 1
        await asking.recovers()


@pytest.mark.parametrize("how", ["deleted", "emptied"])
async def test_without_its_policy_the_answer_is_403_and_with_it_again_all_is_well(
    place: Place, repo_id: int, how: str
) -> None:
    await place.repository(repo_id)
    name = f"taken-away-{how}"
    await place.policy(name)
    auth = await place.approle(name, policy=name)
    async with place.service(auth) as (_, client), load(client, repo_id, allowed={200, 403}) as asking:
        await asking.until(200, count=8)
        if how == "deleted":
            await place.call("DELETE", f"sys/policies/acl/{name}")
        else:
            await place.policy(name, 'path "secret/none" { capabilities = ["deny"] }')
        first = await asking.until(403, count=12)
        assert asking.statuses(first).keys() == {403}
        await place.policy(name)
        await asking.recovers()


async def test_a_token_file_whose_token_is_replaced_and_the_old_one_revoked_costs_no_request(
    place: Place, repo_id: int, folder: Path
) -> None:
    await place.repository(repo_id)
    file = folder / "token"

    async def new_token() -> str:
        answer = await place.call("POST", "auth/token/create", {"policies": ["reader"], "no_parent": True})
        token = str(answer["auth"]["client_token"])
        beside = folder / "token.new"
        beside.write_text(token + "\n")
        os.replace(beside, file)  # noqa: PTH105 - as those do it who keep such files
        return token

    old = await new_token()
    async with (
        place.service({"method": "token", "token_file": str(file)}) as (_, client),
        load(client, repo_id, allowed={200}) as asking,
    ):
        for _ in range(10):
            await asking.until(200, count=4)
            new = await new_token()
            await place.call("POST", "auth/token/revoke", {"token": old})
            old = new
        await asking.recovers()


async def test_a_token_that_is_revoked_before_there_is_another_is_an_outage_until_there_is(
    place: Place, repo_id: int, folder: Path
) -> None:
    await place.repository(repo_id)
    file = folder / "token"

    async def create() -> str:
        answer = await place.call("POST", "auth/token/create", {"policies": ["reader"], "no_parent": True})
        return str(answer["auth"]["client_token"])

    old = await create()
    file.write_text(old)
    async with (
        place.service({"method": "token", "token_file": str(file)}) as (_, client),
        load(client, repo_id, allowed={200, 403, 503}) as asking,
    ):
        await asking.until(200, count=4)
        await place.call("POST", "auth/token/revoke", {"token": old})
        await asking.until(403, count=4)
        file.write_text(await create())
        await asking.recovers()
