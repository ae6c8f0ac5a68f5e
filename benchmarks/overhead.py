"""What the service costs on top of the calls to Vault that it cannot do without, and what its cache saves.

Measures, in turns and in one run against the same OpenBao: the service answering for 20 secrets, uncached; the same
with ``vault.cache.mode = "validated"``; and a bare client that does one LIST and 20 reads at once. Prints the medians
as ratios: figures of different runs or machines cannot be compared, ratios of one run can.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from woodpecker_vault.cli.openbao import OpenBao, free_port, in_memory
from woodpecker_vault.cli.stand_in import public_pem, signed_headers

SECRETS = 20
ROUNDS = 300
FOLDER = "woodpecker/repo/1"


async def main() -> int:
    """Measure, print, and fail if the ratio is over the limit given as an argument."""
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else None
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as home:
        async with (
            in_memory(Path(home)) as bao,
            aiohttp.ClientSession(headers={"X-Vault-Token": bao.token}) as vault,
            serving(bao, key, "off") as url,
            serving(bao, key, "validated") as cached_url,
            aiohttp.ClientSession() as woodpecker,
        ):
            for number in range(SECRETS):
                path = f"{bao.address}/v1/secret/data/{FOLDER}/secret-{number}"
                await (await vault.post(path, json={"data": {"value": f"value-{number}"}})).read()
            times = await in_turns(
                {
                    "bare": lambda: bare(vault, bao.address),
                    "service": lambda: through_service(woodpecker, f"{url}/secrets", key),
                    "cached": lambda: through_service(woodpecker, f"{cached_url}/secrets", key),
                }
            )
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    ratio = medians["service"] / medians["bare"]
    print(f"1 LIST + {SECRETS} reads, {ROUNDS} rounds in turns: service / bare client = {ratio:.2f} (medians)")
    print(f"the same {SECRETS} secrets: uncached / validated = {medians['service'] / medians['cached']:.2f} (medians)")
    return 1 if limit is not None and ratio > limit else 0


async def in_turns(runs: dict[str, Callable[[], Awaitable[None]]]) -> dict[str, list[float]]:
    """The seconds that each took, round after round, so that what else the machine does hits all alike."""
    for run in runs.values():  # connections and caches
        for _ in range(20):
            await run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            await run()
            times[name].append(time.perf_counter() - started)
    return times


async def bare(session: aiohttp.ClientSession, address: str) -> None:
    """The least that any client must do: list, then read everything at once."""

    async def read(name: str) -> str:
        async with session.get(f"{address}/v1/secret/data/{FOLDER}/{name}") as answer:
            return str(json.loads(await answer.read())["data"]["data"]["value"])

    async with session.request("LIST", f"{address}/v1/secret/metadata/{FOLDER}") as answer:
        names = json.loads(await answer.read())["data"]["keys"]
    values = await asyncio.gather(*map(read, names))
    assert len(values) == SECRETS  # noqa: S101 - a benchmark of something else is worse than none


async def through_service(session: aiohttp.ClientSession, url: str, key: Ed25519PrivateKey, repo: int = 1) -> None:
    """The same secrets as Woodpecker gets them."""
    body = json.dumps({"repo": {"id": repo, "org_id": 1}, "pipeline": {"number": 1, "event": "push"}}).encode()
    async with session.post(url, data=body, headers=signed_headers(key, url, body, int(time.time()))) as answer:
        secrets = json.loads(await answer.read())["secrets"]
    assert len(secrets) == SECRETS  # noqa: S101 - see above


@asynccontextmanager
async def serving(bao: OpenBao, key: Ed25519PrivateKey, cache: str) -> AsyncIterator[str]:
    """The service as a process of its own."""
    port = free_port()
    environment = {
        **os.environ,
        "WOODPECKER_VAULT_SERVER__HOST": "127.0.0.1",
        "WOODPECKER_VAULT_SERVER__PORT": str(port),
        "WOODPECKER_VAULT_WOODPECKER__PUBLIC_KEYS": json.dumps([public_pem(key)]),
        "WOODPECKER_VAULT_VAULT__ADDRESS": bao.address,
        "WOODPECKER_VAULT_VAULT__AUTH__TOKEN": bao.token,
        "WOODPECKER_VAULT_VAULT__CACHE__MODE": cache,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "woodpecker_vault", "serve", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while True:
                try:
                    await (await session.get(f"{url}/healthz")).read()
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)
        yield url
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main()))
