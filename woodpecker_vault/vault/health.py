"""Is Vault usable, and if not, what is wrong with it?"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hvac.api.system_backend import SystemBackend
from hvac.utils import format_url

from woodpecker_vault.errors import Denied, NoNamespace, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.mounts import what_is_wrong
from woodpecker_vault.vault.transport import Adapter, TokenSource

_DEADLINE = 1.8
"""Seconds after which Vault is not waited for any longer: there is an answer within two, whatever it does."""

_REMEMBERED = 1.0
"""Seconds for which an answer holds, so that probes do not hammer Vault."""


class Health:
    """The checks behind ``/readyz``, each of them only made when the one before it holds.

    Args:
        adapter: for what needs no token.
        authenticated: for what needs ours.
        tokens: where that comes from.
        mount: the KV v2 mount.
        folders: folders in the mount, at least one of which the token must be able to list.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        adapter: Adapter,
        authenticated: Adapter,
        tokens: TokenSource,
        *,
        mount: str,
        folders: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self._system = SystemBackend(adapter)
        self._authenticated = authenticated
        self._tokens = tokens
        self._mount = mount.strip("/")
        self._folders = folders
        self._now = now
        self._initialized = self._sealed = False
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
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "address": self._address,
            "seal": self._seal,
            "login": self._login,
            "mount": self._mounted,
            "list": self._listable,
        }
        checks = {name: {"ok": False, "detail": "not checked, as another check failed"} for name in parts}
        try:
            async with asyncio.timeout(_DEADLINE):
                for name, part in parts.items():
                    checks[name] = {"ok": False, "detail": "Vault did not answer in time."}
                    await part()
                    checks[name] = {"ok": True}
        except TokenRefused as problem:
            checks[name]["detail"] = "not checked, as another check failed"
            checks["login"] = {"ok": False, "detail": problem.detail}
        except Problem as problem:
            checks[name]["detail"] = problem.detail
        except Missing:
            checks[name]["detail"] = "What answers at vault.address does not answer as Vault does."
        except TimeoutError:
            pass  # it says so already
        finally:
            self._running = None
        healthy = all(check["ok"] for check in checks.values())
        document = {"status": "ready" if healthy else "not ready", "checks": checks}
        self._known, self._known_at = (healthy, document), self._now()
        return self._known

    async def _address(self) -> None:
        with translated("ask for Vault's health"):
            status = await self._system.read_health_status(method="GET")
        with well_formed("ask for Vault's health"):
            self._initialized, self._sealed = bool(status["initialized"]), bool(status["sealed"])

    async def _seal(self) -> None:
        if not self._initialized:
            raise Unavailable("Vault is not initialized.")
        if self._sealed:
            raise Unavailable("Vault is sealed.")

    async def _login(self) -> None:
        await self._tokens.current()

    async def _mounted(self) -> None:
        url = format_url("/v1/sys/internal/ui/mounts/{mount}", mount=self._mount)
        try:
            with translated("look the mount up"):
                answer = await self._authenticated.request("get", url)
        except (TokenRefused, NoNamespace):
            raise
        except Denied as problem:
            raise Unavailable(
                f"The token may see no mount {self._mount}/: check secrets.mount and the token's policy.",
                cause=problem.cause,
            ) from problem
        with well_formed("look the mount up"):
            wrong = what_is_wrong(answer["data"], self._mount)
        if wrong:
            raise Unavailable(wrong)

    async def _listable(self) -> None:
        paths = [f"{self._mount}/metadata/{folder}" for folder in self._folders]
        try:
            with translated("look the capabilities up"):
                answer = await self._authenticated.request("post", "/v1/sys/capabilities-self", json={"paths": paths})
        except Denied:
            return  # a token without Vault's default policy may not ask, which says nothing about what it may list
        with well_formed("look the capabilities up"):
            listable = [path for path in paths if {"list", "root"} & set(answer["data"].get(path, ()))]
        if paths and not listable:
            raise Unavailable(f"The token may list none of {', '.join(paths)}: its policy needs list there.")
