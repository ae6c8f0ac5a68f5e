"""The token's life: got at the start, renewed in time, replaced before it ends or once it is refused, revoked at last.

A token that still works is never given up before there is another. However many requests wait for a login, there is
one login at a time, and one that failed is not tried again before a pause that grows.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hvac.api.auth_methods import Token as TokenApi

from woodpecker_vault.budget import Budget
from woodpecker_vault.errors import Denied, Invalid, LoginRefused, NoNamespace, Problem, TokenRefused, Unavailable
from woodpecker_vault.vault.faults import Missing, translated, well_formed
from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.transport import Adapter, WithToken

_DUE = 2 / 3
"""The part of a lease after which it is renewed or the token replaced, give or take :data:`_SPREAD`."""

_SPREAD = 0.05
_CAPPED = 0.9
"""A renewal that gives less than this part of the first lease has come near the token's maximum."""

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 3.0
_LONGEST_PAUSE_IF_REFUSED = 15.0
"""Seconds between two logins, or renewals, that fail; longer where each may count as a wrong password."""

_ASK_AGAIN = 3.0
"""Seconds until Vault is asked again about a token that it could not be asked about."""

_FRESH = 5.0
"""Seconds for which a token has the policies that a new one would have."""

_FRUITLESS = (5.0, 60.0)
"""Seconds, the first and the longest, until a login is tried again because of a 403 that the last did not help."""

_KNOWN_DENIED = 30.0
"""Seconds for which a 403 to a path that the policy denied is not asked about again."""

_KNOWN_DEAD = 5.0
"""The same for a token that Vault no longer knows."""

_MOST_DENIED = 1000
_GOODBYE = 2.0
"""Seconds that revoking may take at the end."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """The token in use.

    ``lives`` is what Vault said when it was asked because a login or a renewal had been refused; ``None`` if that is
    not known. ``may_look_up`` says that this very token could look itself up before.
    """

    grant: Grant
    version: object
    since: float
    ends: float
    due: float
    uses_left: float
    renewable: bool
    may_look_up: bool = False
    lives: bool | None = None
    failures: int = 0
    dead_at: float = -math.inf
    denied: dict[str, float] = field(default_factory=dict)


class Tokens:
    """The service's own token.

    Args:
        adapter: sends the logins, in the namespace where they take place.
        method: how to log in.
        budget: the time that a login may take, if nobody waits for it.
        now: seconds of a clock that never goes back.
        sleep: waits for so many seconds.
        jitter: a random number from 0 to 1, another each time.
    """

    def __init__(
        self,
        adapter: Adapter,
        method: Method,
        *,
        budget: Budget,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._adapter = adapter
        self._method = method
        self._budget = budget
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        self._held: _Held | None = None
        self._retired: list[tuple[float, str]] = []
        self._login: asyncio.Task[_Held] | None = None
        self._lookup: asyncio.Task[bool] | None = None
        self._in_question: set[str] = set()
        self._failure: Problem | None = None
        self._failures = 0
        self._try_again_at = -math.inf
        self._may_look_up = False
        self._refusals_wait = 0.0
        self._refusals_wait_until = -math.inf
        self._changed = asyncio.Event()

    async def current(self) -> str:
        """The token to use now, logging in first if there is none that works.

        Raises:
            Problem: there is none, and a login does not give one.
        """
        if self._held is not None and self._held.version != self._method.version():
            try:
                await self._replaced()
            except Problem:
                log.debug("the changed credentials do not work (yet)")
        held = self._held
        while held is None or not self._usable(held):
            held = await self._replaced()
            if held.uses_left > 0:  # else all were taken by others who waited
                break
        held.uses_left -= 1
        return held.grant.token

    async def after_refusal(self, refused: str, url: str) -> str | None:
        """A different token than the one Vault just answered 403 to, if that may help.

        Args:
            refused: that token.
            url: what it was refused for.

        Raises:
            TokenRefused: the token is no longer valid, and there is no other.
            Problem: it is not valid, and the login for another one failed.
        """
        held = self._held
        if held is None or held.grant.token != refused:
            return await self.current()
        now = self._now()
        if now - held.dead_at >= _KNOWN_DEAD:
            if now - held.denied.get(url, -math.inf) < _KNOWN_DENIED:
                return await self._with_newer_policies(held)
            self._in_question.add(url)
            if await self._lives(held):
                return await self._with_newer_policies(held)
            held.dead_at = self._now()
        if self._held is not held:
            return await self.current()
        if not self._replaceable(held):
            raise _no_other_token()
        if self._may_look_up or self._login is not None or self._now() >= self._refusals_wait_until:
            return await self._after_death()
        return None

    async def log_in_again(self) -> None:
        """Log in with the credentials that there are now. The log says what came of it; a token that works stays."""
        if self._method.method != "none":
            with contextlib.suppress(Problem):
                await self._replaced()

    def accepted(self, token: str) -> None:
        """Take note that a token given after a refusal did help."""
        if self._held is not None and self._held.grant.token == token:
            self._refusals_wait, self._refusals_wait_until = 0.0, -math.inf

    async def live(self) -> None:
        """Log in, and then renew and replace the token in time, until cancelled."""
        while True:
            try:
                await self._wait_until(self._next_due())
                await self._revoke_retired()
                await self._keep()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next token is needed all the same
                log.error("the token could not be looked after", extra={"cause": type(error).__name__})  # noqa: TRY400
                await self._sleep(_LONGEST_PAUSE)

    async def end(self) -> None:
        """Revoke what logins of ours made; to be called when nothing needs a token any more."""
        if self._login is not None:
            self._login.cancel()
        tokens = [token for _, token in self._retired]
        if self._held is not None and self._held.grant.ours:
            tokens.append(self._held.grant.token)
        self._held, self._retired = None, []
        await asyncio.gather(*map(self._revoke, tokens))

    def _usable(self, held: _Held) -> bool:
        """Whether it is worth a try. A token that somebody else made is: there is no other, and Vault knows best."""
        return not self._replaceable(held) or (held.uses_left > 0 and self._now() < held.ends)

    def _replaceable(self, held: _Held) -> bool:
        return self._method.method != "token" or held.version != self._method.version()

    async def _replaced(self) -> _Held:
        """Log in; all who wait share one login."""
        if self._login is None:
            if self._failure is not None and self._now() < self._try_again_at:
                raise _again(self._failure)
            self._login = asyncio.ensure_future(self._log_in())
            self._login.add_done_callback(self._logged_in)
        return await asyncio.shield(self._login)

    async def _log_in(self) -> _Held:
        try:
            return await self._new_login()
        except LoginRefused:
            if self._held is not None:
                with contextlib.suppress(Problem):  # then nothing is known of it
                    await self._look(self._held)
            raise

    async def _new_login(self) -> _Held:
        version, since = self._method.version(), self._now()
        with self._budget.begun():
            try:
                with well_formed("log in"), translated(f"log in by {self._method.method}"):
                    grant = await self._method.login(self._adapter)
            except NoNamespace as error:
                raise LoginRefused(error.detail, cause=error.cause) from error
            except (Denied, Invalid, Missing) as error:
                raise LoginRefused(
                    f"Vault refuses the service's login by {self._method.method}: check vault.auth.",
                    cause=error.cause if isinstance(error, Problem) else str(error),
                ) from error
            except Problem:
                raise
            except Exception as error:  # whatever a library of a login raises, the token in use is kept
                raise Unavailable("The login failed unexpectedly.", cause=type(error).__name__) from error
        old = self._held
        if old is not None and old.grant.ours and old.grant.token != grant.token:
            self._retired.append((self._now() + self._budget.seconds, old.grant.token))
        if old is None or _told_of(old.grant) != _told_of(grant):
            _tell(self._method.method, grant)
        self._held = held = _Held(
            grant,
            version,
            since,
            ends=since + grant.lease if grant.lease else math.inf,
            due=self._due(since, grant.lease) if grant.known else self._now() + _ASK_AGAIN,
            uses_left=grant.uses or math.inf,
            renewable=grant.renewable,
            may_look_up=self._method.method == "token" and grant.known and not grant.refused,
        )
        return held

    def _logged_in(self, login: "asyncio.Task[_Held]") -> None:
        self._login = None
        if login.cancelled():
            return
        error = login.exception()  # noqa: LOG004 - a task's, not a logger's
        if error is None:
            self._failure, self._failures = None, 0
        else:
            self._failure = error if isinstance(error, Problem) else Unavailable("The login failed.")
            longest = _LONGEST_PAUSE_IF_REFUSED if isinstance(error, LoginRefused) else _LONGEST_PAUSE
            self._try_again_at = self._now() + self._pause(self._failures, longest)
            self._failures += 1
            log.warning(
                "the login to Vault failed%s; it is tried again",
                self._token_in_use(self._failure),
                extra={"login": self._method.method, "cause": self._failure.cause or self._failure.detail},
            )
        self._changed.set()

    def _token_in_use(self, failure: Problem) -> str:
        """What is known of the token in use after a login that failed; nothing unless Vault has said it just now."""
        held = self._held
        if held is None or not isinstance(failure, LoginRefused):
            return ""
        if held.lives is False:
            return ", and the token from before is no longer valid"
        return ", the token in use stays" if held.lives and self._usable(held) else ""

    async def _look(self, held: _Held) -> None:
        """Have Vault say whether the token lives; where it does not let it look itself up, that remains open."""
        held.lives = None
        if await self._lives(held):
            held.lives = True
        elif self._may_look_up or held.may_look_up:
            held.lives = False

    async def _lives(self, held: _Held) -> bool:
        """Whether Vault still knows the token; all who ask at once share one look."""
        if self._lookup is None:
            self._lookup = asyncio.ensure_future(self._look_up(held.grant.token))
            self._lookup.add_done_callback(lambda lookup: self._looked_up(held, lookup))
        return await asyncio.shield(self._lookup)

    async def _look_up(self, token: str) -> bool:
        with self._budget.begun():
            try:
                with translated("look the token up"):
                    await TokenApi(WithToken(self._adapter, token)).lookup_self()
            except Denied:
                return False
        self._may_look_up = True
        return True

    def _looked_up(self, held: _Held, lookup: "asyncio.Task[bool]") -> None:
        """Note the result for all who asked, as some of them may be gone: a request ends at its first denial."""
        self._lookup = None
        urls, self._in_question = self._in_question, set()
        # Whoever waited for an error has it, if anybody did.
        if not lookup.cancelled() and lookup.exception() is None and lookup.result():
            for url in urls:
                _note_denied(held, url, self._now())

    async def _with_newer_policies(self, held: _Held) -> str | None:
        """A token keeps the policies that it was born with; a new one may have more. Not asked for at every denial."""
        now = self._now()
        if not self._replaceable(held) or now - held.since < _FRESH or now < self._refusals_wait_until:
            return None
        self._wait_longer(now)
        try:
            return (await self._replaced()).grant.token
        except Problem:
            return None

    async def _after_death(self) -> str:
        first = self._login is None
        held = await self._replaced()
        if first and not self._may_look_up and not await self._lives(held):
            self._wait_longer(self._now())  # the old one may live after all, and only not be allowed to look itself up
        return held.grant.token

    def _wait_longer(self, now: float) -> None:
        shortest, longest = _FRUITLESS
        self._refusals_wait = min(max(shortest, 2 * self._refusals_wait), longest)
        self._refusals_wait_until = now + self._refusals_wait

    def _due(self, since: float, lease: float) -> float:
        if not lease:
            return math.inf
        # Vault counts in whole seconds: a token may end up to one earlier than its lease says.
        latest = max(lease * 0.4, lease - 1.2)
        return since + min(latest, lease * (_DUE + _SPREAD * (2 * self._jitter() - 1)))

    def _pause(self, failures: int, longest: float = _LONGEST_PAUSE) -> float:
        return min(longest, math.ldexp(_FIRST_PAUSE, min(failures, 10))) * (0.5 + self._jitter() / 2)

    def _next_due(self) -> float:
        if self._login is not None:
            return math.inf  # its end says when to look again
        token_due = self._held.due if self._held is not None else -math.inf
        if self._failure is not None:
            token_due = max(token_due, self._try_again_at)
        return min([token_due, *(at for at, _ in self._retired)])

    async def _wait_until(self, due: float) -> None:
        """Wait until then, or until a login changes what is due."""
        self._changed.clear()
        if due <= self._now():
            return
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
        if math.isfinite(due):
            waits.append(asyncio.ensure_future(self._sleep(due - self._now())))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _keep(self) -> None:
        """Do what is due for the token in use; what fails is tried again while it works."""
        held = self._held
        if held is not None and self._now() < held.due:
            return
        if held is not None and held.renewable and await self._renewed(held):
            return
        if held is not None and held.grant.known and not self._replaceable(held):
            if not held.renewable:
                held.due = math.inf
                if held.lives is False:
                    log.error("the token in vault.auth is no longer valid: provide a new one")
                else:
                    log.warning(
                        "the token in vault.auth is about to expire and cannot be renewed: provide a new one",
                        extra={"seconds_left": round(held.ends - self._now())},
                    )
            return
        with contextlib.suppress(Problem):  # it has been logged, and the next attempt is planned
            await self._replaced()

    async def _renewed(self, held: _Held) -> bool:
        """Renew the lease; whether that settles it for now."""
        before = self._now()
        held.uses_left -= 1
        api = TokenApi(WithToken(self._adapter, held.grant.token))
        with self._budget.begun():
            try:
                with translated("renew the token"):
                    answer = await api.renew_self()
                with well_formed("renew the token"):
                    lease = float(answer["auth"]["lease_duration"])
            except Unavailable as problem:
                # At least four attempts before it ends.
                pause = min(self._pause(held.failures), max(0.05, (held.ends - self._now()) / 4))
                held.due, held.failures = self._now() + pause, held.failures + 1
                in_time = self._now() < held.ends
                log.warning(
                    "the token could not be renewed; it is tried again"
                    if in_time
                    else "the token could not be renewed before its lease ended",
                    extra={"cause": problem.cause or problem.detail},
                )
                return in_time
            except (Problem, Missing) as problem:
                log.warning("Vault does not renew the token", extra={"cause": getattr(problem, "cause", "")})
                held.renewable = False
                if not self._replaceable(held):
                    with contextlib.suppress(Problem):  # then nothing is known of it
                        await self._look(held)
                return False
        held.ends, held.due, held.failures = before + lease, self._due(before, lease), 0
        held.renewable = lease >= _CAPPED * held.grant.lease
        if not held.renewable:
            held.due = self._now()
        return held.renewable

    async def _revoke_retired(self) -> None:
        now = self._now()
        due = [token for at, token in self._retired if at <= now]
        self._retired = [(at, token) for at, token in self._retired if at > now]
        await asyncio.gather(*map(self._revoke, due))

    async def _revoke(self, token: str) -> None:
        with self._budget.begun(_GOODBYE):
            try:
                with translated("revoke a token"):
                    await TokenApi(WithToken(self._adapter, token)).revoke_self()
            except (Problem, Missing) as problem:
                log.info("a token was not revoked", extra={"cause": getattr(problem, "cause", "")})


def _told_of(grant: Grant) -> tuple[str, bool, str]:
    """What of a token the log is told: when it differs, there is something new to tell."""
    return grant.token, grant.known, grant.refused


def _tell(method: str, grant: Grant) -> None:
    """Say in the log what is known of a new token: a login is one only if Vault said so."""
    if not grant.token:
        return  # an agent on the way adds its own, of which nothing is known here
    if not grant.known:
        log.warning("Vault could not be asked about the token in vault.auth; it is used as it is, and looked up later")
    elif grant.refused:
        log.warning("Vault does not confirm the token in vault.auth: %s", grant.refused)
    else:
        log.info("logged in to Vault", extra={"login": method, "lease": grant.lease, "renewable": grant.renewable})


def _no_other_token() -> TokenRefused:
    return TokenRefused(
        "The service's token is no longer valid (or its policy lacks this path): give it another in vault.auth.",
        cause="Vault refuses the token",
    )


def _note_denied(held: _Held, url: str, now: float) -> None:
    if len(held.denied) >= _MOST_DENIED:
        held.denied.clear()
    held.denied[url] = now


def _again(failure: Problem) -> Problem:
    """The same once more, without the tracebacks of everybody who got it before."""
    if isinstance(failure, Unavailable):
        return type(failure)(failure.detail, cause=failure.cause, retry_after=failure.retry_after)
    return type(failure)(failure.detail, cause=failure.cause)
