"""A Vault agent that adds its own token: ``bao agent``."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from woodpecker_vault.cli.openbao import binary


@asynccontextmanager
async def agent(folder: Path, configuration: str, listens_at: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One with this configuration, in the folder, from when it listens until the block ends.

    Args:
        folder: where it runs; paths in the configuration are seen from there.
        configuration: HCL.
        listens_at: the path of its socket, or ``host:port``.
    """
    (folder / "agent.hcl").write_text(configuration)
    process = await asyncio.create_subprocess_exec(
        binary(),
        "agent",
        "-config=agent.hcl",
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(20):
            while not await _listens(folder, listens_at):
                assert process.returncode is None, "the agent ended"
                await asyncio.sleep(0.01)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(folder: Path, where: str) -> bool:
    """Whether something listens there and has a token: with it, its own lookup is answered 200."""
    host, _, port = where.partition(":")
    try:
        if port:
            reader, writer = await asyncio.open_connection(host, int(port))
        else:
            reader, writer = await asyncio.open_unix_connection(folder / where)
        writer.write(b"GET /v1/auth/token/lookup-self HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
    except OSError:
        return False
    writer.close()
    return b" 200 " in status
