"""Is Vault usable, so that a pipeline of some repository would be answered; and if not, what is wrong?"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from hvac.api.system_backend import SystemBackend
from hvac.exceptions import VaultError

from woodpecker_vault.errors import LoginRefused, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.mounts import url_of, what_is_wrong
from woodpecker_vault.vault.permissions import Hidden, asked
from woodpecker_vault.vault.reach import Finding, Reach
from woodpecker_vault.vault.transport import Adapter, TokenSource

_DEADLINE = 1.8
"""Seconds after which Vault is not waited for any longer: there is an answer within two, whatever it does."""

_REMEMBERED = 1.0
"""Seconds for which an answer holds, so that probes do not hammer Vault."""

_PARTS = ("address", "seal", "login", "mount", "list", "read")

log = logging.getLogger(__name__)


class Health:
    """The checks behind ``/readyz``, each of them only made when the one before it holds (but for list and read).

    What cannot be asked about Vault itself (``sys/``), because a policy or something on the way hides it, does not
    count: then the requests that a pipeline makes decide, as :mod:`woodpecker_vault.vault.reach` says.

    Args:
        adapter: for what needs no token.
        authenticated: for what needs ours.
        tokens: where that comes from.
        mount: the KV v2 mount.
        reach: what the token may read.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        adapter: Adapter,
        authenticated: Adapter,
        tokens: TokenSource,
        *,
        mount: str,
        reach: Reach,
        now: Callable[[], float],
    ) -> None:
        self._system = SystemBackend(adapter)
        self._authenticated = authenticated
        self._tokens = tokens
        self._mount = mount.strip("/")
        self._reach = reach
        self._now = now
        self._running: asyncio.Task[tuple[bool, Mapping[str, Any]]] | None = None
        self._known: tuple[bool, Mapping[str, Any]] | None = None
        self._known_at = float("-inf")
        self._told: Mapping[str, str] = {}

    async def __call__(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether all is well, and a document that says of each part whether it is."""
        if self._known is not None and self._now() - self._known_at < _REMEMBERED:
            return self._known
        if self._running is None:
            self._running = asyncio.ensure_future(self._check())
        return await asyncio.shield(self._running)

    async def _check(self) -> tuple[bool, Mapping[str, Any]]:
        look = _Look()
        try:
            async with asyncio.timeout(_DEADLINE):
                await self._look(look)
        except (TokenRefused, LoginRefused) as problem:
            look.failed(problem.detail, problem.cause, part="login")
        except Problem as problem:
            look.failed(problem.detail, problem.cause)
        except Missing:
            look.failed("What answers at vault.address does not answer as Vault does.")
        except TimeoutError:
            look.failed("Vault did not answer in time.")
        finally:
            self._running = None
        self._tell(look)
        healthy = not look.failing
        document = {"status": "ready" if healthy else "not ready", "checks": look.checks()}
        self._known, self._known_at = (healthy, document), self._now()
        return self._known

    async def _look(self, look: "_Look") -> None:
        look.begin("address")
        initialized, sealed = await self._address(look)
        look.begin("seal")
        if not initialized:
            raise Unavailable("Vault is not initialized.")
        if sealed:
            raise Unavailable("Vault is sealed.")
        look.begin("login")
        await self._tokens.current()
        look.begin("mount")
        refusal = await self._mounted(look)
        look.begin("list")
        reached = await self._reach.look(by_requests=bool(look.hidden("mount")))
        if refusal is not None and not reached.anything:
            look.begin("mount")
            raise refusal
        look.found("list", reached.listing)
        look.found("read", reached.reading)

    async def _address(self, look: "_Look") -> tuple[bool, bool]:
        """Whether Vault is initialized, and whether it is sealed; taken for well where something hides that."""
        with translated("ask for Vault's health"):
            try:
                status = await self._system.read_health_status(method="GET")
            except VaultError as error:
                status = {"cause": str(error)}
        if {"initialized", "sealed"} <= status.keys():
            return bool(status["initialized"]), bool(status["sealed"])
        look.hide("address", "What answers to sys/health at vault.address does not answer as Vault does.")
        look.hide("seal", "sys/health does not say.")
        return True, False

    async def _mounted(self, look: "_Look") -> Problem | None:
        """Check the mount; where Vault does not show it, what to say if nothing else shows that it is there."""
        unseen = f"The token may see no mount {self._mount}/: check secrets.mount and the token's policy."
        try:
            answer = await asked(self._authenticated, "get", url_of(self._mount), "look the mount up")
        except TokenRefused as problem:
            look.hide("mount", unseen)
            return problem
        except Hidden as hidden:
            look.hide("mount", unseen)
            return Unavailable(unseen, cause=str(hidden))
        try:
            with well_formed("look the mount up"):
                wrong = what_is_wrong(answer["data"], self._mount)
        except Unavailable as problem:
            look.hide("mount", problem.detail)
            return problem
        if wrong:
            raise Unavailable(wrong)
        return None

    def _tell(self, look: "_Look") -> None:
        """Log what is wrong when it changes, and that all is well again."""
        told, self._told = self._told, look.failing
        if told == look.failing:
            return
        if look.failing:
            log.error("not ready", extra={"checks": look.failing, "cause": look.cause or None})
        else:
            log.info("ready again")


class _Look:
    """What one look has found so far, part by part."""

    def __init__(self) -> None:
        self.cause = ""
        self._at = _PARTS[0]
        self._found: dict[str, Finding] = {}
        self._hidden: dict[str, str] = {}

    def begin(self, part: str) -> None:
        """Whatever fails from now on is this part; those before it hold."""
        self._at = part
        index = _PARTS.index(part)
        self._found = {one: Finding(detail=self.hidden(one)) for one in _PARTS[:index]}

    def hide(self, part: str, why: str) -> None:
        """This part is neither well nor not: only if something after it fails, this may be why."""
        self._hidden[part] = why

    def hidden(self, part: str) -> str:
        """Why nothing is known of it; empty if something is."""
        return self._hidden.get(part, "")

    def found(self, part: str, finding: Finding) -> None:
        """This is how it is."""
        self._found[part] = finding

    def failed(self, detail: str, cause: str = "", *, part: str = "") -> None:
        """It ends here, with this part, or else the one that was begun last."""
        if part:
            self.begin(part)
        self._found[self._at] = Finding(ok=False, detail=detail)
        self.cause = cause

    @property
    def failing(self) -> dict[str, str]:
        """What is wrong with each part that does not hold."""
        failing = {part: finding.detail for part, finding in self._found.items() if not finding.ok}
        if failing and "address" not in failing and self.hidden("address"):
            failing = {"address": self.hidden("address"), **failing}
        return failing

    def checks(self) -> dict[str, dict[str, Any]]:
        """Each part, as the document has it."""
        failing = self.failing
        checks: dict[str, dict[str, Any]] = {}
        for part in _PARTS:
            if part in failing:
                checks[part] = {"ok": False, "detail": failing[part]}
            elif part not in self._found:
                checks[part] = {"ok": False, "detail": "not checked, as another check failed"}
            else:
                detail = self._found[part].detail
                checks[part] = {"ok": True, "detail": f"Not known: {detail}"} if detail else {"ok": True}
        return checks
