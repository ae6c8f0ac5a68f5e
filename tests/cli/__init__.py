"""Tests of the commands, and how they are run."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SCRIPT = str(Path(sys.executable).parent / "woodpecker-vault")
"""The command as it is installed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left."""

    code: int
    out: str
    err: str


async def run(*command: str, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end, which must come within 30 seconds; ``environment`` is added to the tests' own."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 30)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def processes_with(text: str) -> list[int]:
    """The processes on this machine whose command line holds the text."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if text.encode() in command:
                found.append(int(folder.name))
    return found


def is_running(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def content(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


async def listens(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
