"""An OpenBao that can be sealed, stopped and started again: raft storage in a folder of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from woodpecker_vault.cli.openbao import OpenBao, binary, free_port


@dataclass
class Raft:
    """One node. ``listeners`` is more HCL for its configuration, such as listeners with TLS."""

    folder: Path
    session: aiohttp.ClientSession
    listeners: str = ""
    address: str = ""
    token: str = field(default="", repr=False)
    _key: str = field(default="", repr=False)
    _process: asyncio.subprocess.Process | None = None

    @property
    def server(self) -> OpenBao:
        """Where it is, and its root token."""
        return OpenBao(self.address, self.token)

    async def start(self) -> None:
        """Start it, the first time on a free port; it is sealed then, or not initialized."""
        port = self.address.rpartition(":")[2] or str(free_port())
        self.address = f"http://127.0.0.1:{port}"
        storage = self.folder / "raft"
        storage.mkdir(exist_ok=True)
        config = self.folder / "config.hcl"
        config.write_text(f"""
            storage "raft" {{
              path = {json.dumps(str(storage))}
              node_id = "one"
              performance_multiplier = 1
            }}
            listener "tcp" {{
              address = "127.0.0.1:{port}"
              cluster_address = "127.0.0.1:{free_port()}"
              tls_disable = true
            }}
            {self.listeners}
            api_addr = "{self.address}"
            cluster_addr = "https://127.0.0.1:{free_port()}"
        """)
        self._process = await asyncio.create_subprocess_exec(
            binary(),
            "server",
            f"-config={config}",
            env={**os.environ, "HOME": str(self.folder)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        await self._until("GET", "sys/seal-status", lambda status, _: status == 200)

    async def initialize(self) -> None:
        """One share of the key, unsealed, and KV version 2 at ``secret/``."""
        _, answer = await self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._key, self.token = answer["keys_base64"][0], answer["root_token"]
        await self.unseal()
        status, answer = await self.call("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        assert status == 204, answer
        # The engine upgrades itself for a moment before it answers.
        await self._until("GET", "secret/config", lambda status, _: status == 200)

    async def unseal(self) -> None:
        """Unseal it, and wait until it is active."""
        await self.call("PUT", "sys/unseal", {"key": self._key})
        await self._until("GET", "sys/health", lambda status, _: status == 200)
        if self.token:
            await self._until("GET", "auth/token/lookup-self", lambda status, _: status == 200)

    async def seal(self) -> None:
        """``bao operator seal``."""
        await self.call("PUT", "sys/seal")
        await self._until("GET", "sys/seal-status", lambda _, answer: answer.get("sealed") is True)

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    async def call(self, method: str, path: str, document: object = None) -> tuple[int, Any]:
        """One raw call as root."""
        async with self.session.request(
            method, f"{self.address}/v1/{path}", json=document, headers={"X-Vault-Token": self.token}
        ) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else {}

    async def _until(self, method: str, path: str, done: Any) -> None:
        async with asyncio.timeout(30):
            while True:
                assert self._process is not None
                assert self._process.returncode is None, "OpenBao ended"
                try:
                    if done(*await self.call(method, path)):
                        return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)


@asynccontextmanager
async def raft(folder: Path, session: aiohttp.ClientSession, listeners: str = "") -> AsyncIterator[Raft]:
    """One that is unsealed and has ``secret/``, until the block ends."""
    node = Raft(folder, session, listeners)
    try:
        await node.start()
        await node.initialize()
        yield node
    finally:
        await node.stop()
