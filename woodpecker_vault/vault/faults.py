"""Every error of hvac and of the network, made one of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from hvac import exceptions

from woodpecker_vault.errors import Conflict, Denied, Invalid, Problem, Unavailable

_OURS: tuple[tuple[tuple[type[Exception], ...], type[Problem], str], ...] = (
    (
        (exceptions.Forbidden, exceptions.Unauthorized),
        Denied,
        "Vault denies this to the service's token: its policy lacks a path, or the token is no longer valid.",
    ),
    ((exceptions.InvalidRequest,), Invalid, "Vault refuses this name or this content."),
    ((exceptions.RateLimitExceeded,), Unavailable, "Vault limits the rate of requests; try again shortly."),
    (
        (exceptions.VaultDown, exceptions.VaultNotInitialized),
        Unavailable,
        "Vault is sealed, starting or on standby: see `vault status`.",
    ),
    ((exceptions.VaultError,), Unavailable, "Vault answered with an error; its own log says more."),
    ((TimeoutError,), Unavailable, "Vault did not answer in time."),
    (
        (aiohttp.ClientError, OSError),
        Unavailable,
        "Vault cannot be reached: check vault.address and the network.",
    ),
)
"""Foreign errors in the order in which they are looked for, what each becomes, and what to do about it."""


class Missing(Exception):
    """Vault's 404. ``document`` is its body: a deleted version answers 404 too, and says so there."""

    def __init__(self, document: dict[str, object]) -> None:
        super().__init__("no such path")
        self.document = document


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our error instead of a foreign one.

    Args:
        doing: what was being done, for the log: ``"read woodpecker/repo/1/token"``.

    Raises:
        Missing: Vault has nothing at this path.
        Denied: the token may not do this, or there is no such KV v2 mount.
        Conflict: a check-and-set was lost.
        Invalid: Vault refuses what it was given.
        Unavailable: anything that may be different next time.
    """
    try:
        yield
    except (exceptions.VaultError, aiohttp.ClientError, OSError) as error:
        raise _ours(error, doing) from error


def _ours(error: Exception, doing: str) -> Exception:
    cause = f"{doing}: {type(error).__name__}: {error}"
    if isinstance(error, exceptions.InvalidPath):
        if not error.errors:
            return Missing(error.json or {})
        # "no handler for route": only a token that may do everything is told so, to others it is a 403.
        return Denied("Vault has no KV v2 secrets engine there: check secrets.mount.", cause=cause)
    if isinstance(error, exceptions.InvalidRequest) and "check-and-set" in str(error):
        return Conflict("Another write came first; read the secret and try again.", cause=cause)
    problem, advice = next((problem, advice) for foreign, problem, advice in _OURS if isinstance(error, foreign))
    return problem(advice, cause=cause)
