"""Vault fails while pipelines ask: the service as a process, a real OpenBao, and a steady load. Here is what is shared.

``WOODPECKER_VAULT_SOAK`` is for how many seconds the tests of short-lived tokens keep asking; 8 if it is not set.
"""

import asyncio
import itertools
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.servers import Client, Service, pipeline_body, serving, settings
from tests.vault.raft import Raft

SOAK = float(os.environ.get("WOODPECKER_VAULT_SOAK", "8"))
"""Seconds."""

LONGEST = 9.5
"""Seconds for any request: Woodpecker gives up after ten."""

RECOVERY = 15.0
"""Seconds after which all is well again by itself, once the fault is gone; a third of that, if nothing else runs."""

VALUE = "value-that-nobody-may-see-"
"""What every value in these tests begins with."""

READER = """
path "secret/data/woodpecker/*" { capabilities = ["read"] }
path "secret/metadata/woodpecker/*" { capabilities = ["list"] }
path "secret/detailed-metadata/woodpecker/*" { capabilities = ["list"] }
"""

_NEVER_LOGGED = re.compile(rf"Traceback|{VALUE}|\b(?:hv)?[sbr]\.[\w-]{{20,}}")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request of the load."""

    status: int
    began: float
    seconds: float
    headers: Mapping[str, str]
    secrets: Mapping[str, str]
    """The values by name."""


@dataclass
class Load:
    """Clients, each of whom asks again as soon as it is answered."""

    client: Client
    repo_id: int
    outcomes: list[Outcome] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def once(self) -> Outcome:
        """Ask once, for a pipeline that nobody asked for before."""
        began = time.monotonic()
        body = pipeline_body({"id": self.repo_id}, number=next(_numbers))
        reply = await self.client.send("POST", "/secrets", body)
        secrets = {one["name"]: one["value"] for one in reply.json["secrets"]} if reply.status == 200 else {}
        outcome = Outcome(reply.status, began, time.monotonic() - began, reply.headers, secrets)
        self.outcomes.append(outcome)
        self._news.set()
        return outcome

    async def forever(self) -> None:
        """Ask again and again."""
        while True:
            await self.once()

    async def until(self, status: int, *, count: int = 1, within: float = 20.0, under_way: bool = False) -> float:
        """Wait for so many answers; when the request of the first of them began.

        Args:
            status: of the answers.
            count: how many.
            within: seconds.
            under_way: whether those count, too, that were asked for before.
        """
        start = 0.0 if under_way else time.monotonic()
        position = len(self.outcomes)
        found: list[Outcome] = []
        try:
            async with asyncio.timeout(within):
                while len(found) < count:
                    while position < len(self.outcomes):
                        outcome = self.outcomes[position]
                        position += 1
                        if outcome.status == status and outcome.began >= start:
                            found.append(outcome)
                    self._news.clear()
                    if len(found) < count:
                        await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not {count} x {status} within {within:g} s, but {self.statuses(start)}") from None
        return found[0].began

    async def recovers(self, *, count: int = 12, within: float = RECOVERY) -> None:
        """All is well within so many seconds from now, and stays so."""
        first = await self.until(200, within=within)
        await self.until(200, count=count)
        assert self.statuses(first).keys() == {200}

    def statuses(self, since: float = 0.0) -> Counter[int]:
        """How often each status was the answer to a request that began since then."""
        return Counter(outcome.status for outcome in self.outcomes if outcome.began >= since)

    def slowest(self) -> float:
        """Seconds."""
        return max(outcome.seconds for outcome in self.outcomes)


@asynccontextmanager
async def load(client: Client, repo_id: int, *, clients: int = 4, allowed: set[int]) -> AsyncIterator[Load]:
    """A steady load until the block ends; no answer but those of these statuses, and none that Woodpecker gives up."""
    one = Load(client, repo_id)
    tasks = [asyncio.create_task(one.forever()) for _ in range(clients)]
    ended = asyncio.ensure_future(asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))
    try:
        yield one
        assert not ended.done(), [task.exception() for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ended
    assert set(one.statuses()) <= allowed, one.statuses()
    assert one.slowest() < LONGEST, one.slowest()
    assert all("Retry-After" in outcome.headers for outcome in one.outcomes if outcome.status == 503)


@dataclass
class Place:
    """An OpenBao that tests may break, services on it, and what it wrote into its audit log."""

    node: Raft
    key: Ed25519PrivateKey
    session: aiohttp.ClientSession
    folder: Path
    audit: Path

    @asynccontextmanager
    async def service(
        self, auth: Mapping[str, Any], *, address: str = "", request_timeout: float = 8.0, **sections: Mapping[str, Any]
    ) -> AsyncIterator[tuple[Service, Client]]:
        """A service, and Woodpecker asking it; nothing is in its log in the end that must not be.

        Args:
            auth: ``[vault.auth]``.
            address: where it thinks that Vault is; the node's own, if that is not said.
            request_timeout: of the service.
            sections: other settings.
        """
        document = settings(self.key, self.node.server, server={"request_timeout": request_timeout}, **sections)
        document["vault"]["address"] = address or self.node.address
        document["vault.auth"] = dict(auth)
        async with serving(self.folder, document) as service:
            yield service, Client(self.session, service.url, self.key)
        text = "".join(service.raw_log)
        assert not (found := _NEVER_LOGGED.search(text)), text[max(0, found.start() - 500) : found.end() + 1500]
        for secret in (value for name, value in auth.items() if name in {"secret_id", "token", "password"}):
            assert secret not in text

    async def put(self, path: str, value: str = "", **metadata: str) -> None:
        """``bao kv metadata put`` if there is metadata, then ``bao kv put``, below ``woodpecker/``."""
        if metadata:
            await self.call("POST", f"secret/metadata/woodpecker/{path}", {"custom_metadata": metadata})
        await self.call("POST", f"secret/data/woodpecker/{path}", {"data": {"value": VALUE + value}})

    async def repository(self, repo_id: int, secrets: int = 3) -> None:
        """A repository with so many secrets, ``secret0`` and so on."""
        for number in range(secrets):
            await self.put(f"repo/{repo_id}/secret{number}", str(number))

    async def call(self, method: str, path: str, document: object = None) -> Any:
        """One raw call as root, that is done."""
        status, answer = await self.node.call(method, path, document)
        assert status < 300, (method, path, status, answer)
        return answer

    async def policy(self, name: str, text: str = READER) -> None:
        """``bao policy write``."""
        await self.call("PUT", f"sys/policies/acl/{name}", {"policy": text})

    async def approle(self, name: str, policy: str = "reader", **role: Any) -> dict[str, str]:
        """A role, and ``[vault.auth]`` to log in by it."""
        await self.call("POST", f"auth/approle/role/{name}", {"token_policies": [policy], **role})
        role_id = (await self.call("GET", f"auth/approle/role/{name}/role-id"))["data"]["role_id"]
        return {"method": "approle", "role_id": role_id, "secret_id": await self.secret_id(name)}

    async def secret_id(self, name: str) -> str:
        """Another secret id for the role."""
        answer = await self.call("POST", f"auth/approle/role/{name}/secret-id", {})
        return str(answer["data"]["secret_id"])

    async def mend(self) -> None:
        """Start it if it is stopped, unseal it if it is sealed."""
        process = self.node._process
        if process is None or process.returncode is not None:
            await self.node.start()
        await self.node.unseal()

    async def revoke_tokens_of(self, name: str) -> int:
        """``bao token revoke -accessor`` for every token of the role; how many there were."""
        revoked = 0
        for accessor in (await self.call("LIST", "auth/token/accessors"))["data"]["keys"]:
            status, answer = await self.node.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})
            if status == 200 and (answer["data"]["meta"] or {}).get("role_name") == name:
                status, _ = await self.node.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
                revoked += status == 204
        return revoked

    def calls(self) -> Counter[str]:
        """How often each path was asked for, by whomever, since OpenBao began its audit log."""
        records = map(json.loads, self.audit.read_text().splitlines())
        return Counter(record["request"]["path"] for record in records if record["type"] == "request")


async def eventually(condition: Callable[[], bool], *, within: float = RECOVERY) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what it asks about has no event
            await asyncio.sleep(0.01)
