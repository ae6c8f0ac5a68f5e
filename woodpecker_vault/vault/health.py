"""Is Vault usable, and if not, what is wrong with it?"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hvac.api.auth_methods import Token
from hvac.api.system_backend import SystemBackend
from hvac.utils import format_url

from woodpecker_vault.errors import Problem, Unavailable
from woodpecker_vault.vault.faults import Missing, translated
from woodpecker_vault.vault.transport import Adapter

_DEADLINE = 2.0
"""Seconds within which there is an answer, whatever Vault does."""

_REMEMBERED = 1.0
"""Seconds for which an answer holds, so that probes do not hammer Vault."""


class Health:
    """The checks behind ``/readyz``, each of them only made when the one before it holds.

    Args:
        adapter: for what needs no token.
        authenticated: for what needs ours.
        mount: the KV v2 mount.
        folders: folders in the mount, at least one of which the token must be able to list.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        adapter: Adapter,
        authenticated: Adapter,
        *,
        mount: str,
        folders: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self._system = SystemBackend(adapter)
        self._authenticated = authenticated
        self._own_token = Token(authenticated)
        self._mount = mount.strip("/")
        self._folders = folders
        self._now = now
        self._running: asyncio.Task[tuple[bool, Mapping[str, Any]]] | None = None
        self._known: tuple[bool, Mapping[str, Any]] | None = None
        self._known_at = float("-inf")

    async def __call__(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether all is well, and a document that says of each part whether it is."""
        if self._known is not None and self._now() - self._known_at < _REMEMBERED:
            return self._known
        if self._running is None:
            self._running = asyncio.ensure_future(self._check())
        return await asyncio.shield(self._running)

    async def _check(self) -> tuple[bool, Mapping[str, Any]]:
        checks: dict[str, dict[str, Any]] = {}
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "address": self._address,
            "seal": self._seal,
            "login": self._login,
            "mount": self._mounted,
            "list": self._listable,
        }
        healthy = True
        try:
            async with asyncio.timeout(_DEADLINE):
                for name, part in parts.items():
                    checks[name] = {"ok": False, "detail": "Vault did not answer in time"}
                    await part()
                    checks[name] = {"ok": True}
        except Problem as problem:
            healthy = False
            checks[name] = {"ok": False, "detail": problem.detail}
        except TimeoutError:
            healthy = False
        for name in parts.keys() - checks.keys():
            checks[name] = {"ok": False, "detail": "not checked, as another check failed"}
        document = {
            "status": "ready" if healthy else "not ready",
            "checks": {name: checks[name] for name in parts},
        }
        self._known, self._known_at, self._running = (healthy, document), self._now(), None
        return self._known

    async def _address(self) -> None:
        with translated("ask for Vault's health"):
            self._status = await self._system.read_health_status(method="GET")
        if "sealed" not in self._status:
            raise Unavailable("What answers at vault.address is no Vault.")

    async def _seal(self) -> None:
        if not self._status["initialized"]:
            raise Unavailable("Vault is not initialized.")
        if self._status["sealed"]:
            raise Unavailable("Vault is sealed.")

    async def _login(self) -> None:
        with translated("look the token up"):
            await self._own_token.lookup_self()

    async def _mounted(self) -> None:
        try:
            with translated("look the mount up"):
                url = format_url("/v1/sys/internal/ui/mounts/{mount}", mount=self._mount)
                mount = (await self._authenticated.request("get", url))["data"]
        except Missing:
            mount = {}
        except Problem as problem:
            raise Unavailable(
                f"The token may see no mount {self._mount}/: check secrets.mount and the token's policy.",
                cause=problem.cause,
            ) from problem
        if mount.get("type") != "kv" or (mount.get("options") or {}).get("version") != "2":
            raise Unavailable(f"The mount {self._mount}/ is not a KV version 2 secrets engine.")

    async def _listable(self) -> None:
        paths = [f"{self._mount}/metadata/{folder}" for folder in self._folders]
        with translated("look the capabilities up"):
            capabilities = await self._authenticated.request("post", "/v1/sys/capabilities-self", json={"paths": paths})
        if paths and not any({"list", "root"} & set(capabilities["data"].get(path, ())) for path in paths):
            raise Unavailable(f"The token may list none of {', '.join(paths)}: its policy needs list there.")
