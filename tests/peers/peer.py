"""The Go program in ``woodpecker/``: built here, and driven here."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "woodpecker"

Step = dict[str, Any]
"""One thing to ask for; ``woodpecker/step.go`` has the fields."""


class NoGo(Exception):
    """The program cannot be built here, and that is nobody's fault: no Go, or no way to its modules."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One HTTP request that left, and the status that came back; 0 if none did."""

    method: str
    target: str
    signature_input: str
    signature: str
    bytes: int
    status: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Woodpecker would have got, in its own types, and the requests that it took."""

    status: int
    got: Any
    error: str
    sent: tuple[Sent, ...]
    seconds: float

    @property
    def requests(self) -> int:
        """How often it asked."""
        return len(self.sent)


@dataclass(frozen=True, slots=True)
class Peer:
    """A Woodpecker server with this key, set up to ask the extension at this URL."""

    binary: Path
    key_file: Path
    server: str = ""

    async def ask(self, *steps: Step, at_once: bool = False, same_second: bool = False) -> list[Outcome]:
        """Take the steps, one after another or all at once; ``same_second``: begin when most of a second is left."""
        report = await self.run({"steps": steps, "at_once": at_once, "same_second": same_second})
        return [
            Outcome(**{**outcome, "sent": tuple(Sent(**sent) for sent in outcome["sent"])})
            for outcome in report["outcomes"]
        ]

    async def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The program's own report about a job."""
        document = json.dumps({"key": str(self.key_file), "server": self.server, **job}).encode()
        process = await asyncio.create_subprocess_exec(
            self.binary, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate(document)
        assert process.returncode == 0, err.decode()
        report: dict[str, Any] = json.loads(out)
        return report


async def build(folder: Path) -> Path:
    """Build the program into a folder.

    Raises:
        NoGo: there is no Go, or its modules cannot be had.
        AssertionError: all is there, and it does not build.
    """
    go = shutil.which("go")
    if go is None:
        raise NoGo("there is no go on the PATH")
    code, said = await _go(go, "mod", "download")
    if code:
        # A module that is not the one in go.sum is no lack of network.
        assert "SECURITY ERROR" not in said, said
        raise NoGo(f"go mod download: {said.splitlines()[-1] if said else f'exit code {code}'}")
    binary = folder / "woodpecker-peer"
    code, said = await _go(go, "build", "-o", str(binary), ".")
    assert code == 0, said
    return binary


async def _go(*command: str) -> tuple[int, str]:
    # buildvcs: this is built from a working tree, which may be no repository at all, or another user's.
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=SOURCE, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().strip()
