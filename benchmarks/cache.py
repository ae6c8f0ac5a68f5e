"""What ``vault.cache.mode = "validated"`` saves under load.

Two services on the same OpenBao, one with the cache and one without, answer the same pipelines in turns: 16 at once, of
20 repositories with 20 secrets each. Prints how many times as many answers a second the cache gives; figures of
different runs or machines cannot be compared.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from overhead import SECRETS, serving, through_service

from woodpecker_vault.cli.openbao import in_memory

REPOSITORIES = 20
AT_ONCE = 16
REQUESTS = 320
ROUNDS = 5


async def main() -> int:
    """Measure and print."""
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as home:
        async with (
            in_memory(Path(home)) as bao,
            aiohttp.ClientSession(headers={"X-Vault-Token": bao.token}) as vault,
            serving(bao, key, "off") as uncached,
            serving(bao, key, "validated") as cached,
            aiohttp.ClientSession() as woodpecker,
        ):
            for repo in range(1, REPOSITORIES + 1):
                for number in range(SECRETS):
                    path = f"{bao.address}/v1/secret/data/woodpecker/repo/{repo}/secret-{number}"
                    await (await vault.post(path, json={"data": {"value": f"value-{number}"}})).read()
            rates: dict[str, list[float]] = {uncached: [], cached: []}
            for round_number in range(ROUNDS + 1):
                for url, measured in rates.items():
                    rate = await load(woodpecker, f"{url}/secrets", key)
                    if round_number:  # the first one warms up
                        measured.append(rate)
    ratio = statistics.median(rates[cached]) / statistics.median(rates[uncached])
    print(f"{AT_ONCE} at once, {REPOSITORIES} repositories: answers a second, validated / uncached = {ratio:.2f}")
    return 0


async def load(session: aiohttp.ClientSession, url: str, key: Ed25519PrivateKey) -> float:
    """Answers a second."""
    numbers = iter(range(REQUESTS))

    async def ask() -> None:
        for number in numbers:
            await through_service(session, url, key, repo=1 + number % REPOSITORIES)

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return REQUESTS / (time.perf_counter() - started)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
