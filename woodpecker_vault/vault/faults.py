"""Every error of hvac and of the network, made one of ours."""

import errno
import math
from http import HTTPStatus
from types import TracebackType

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from hvac import exceptions
from typing_extensions import override

from woodpecker_vault.errors import Conflict, Denied, Invalid, NoNamespace, NotVault, Problem, Unavailable
from woodpecker_vault.tls import trouble
from woodpecker_vault.vault.connection import PEER
from woodpecker_vault.vault.redaction import shortened
from woodpecker_vault.vault.replies import errors_in
from woodpecker_vault.vault.sending import never_sent
from woodpecker_vault.vault.transport import ForeignAnswer

WRONG_MOUNT = "Vault has no KV v2 secrets engine there: check secrets.mount."

_TLS_ALERT = r"\x15\x03"
"""How the first bytes of a TLS alert look in aiohttp's complaint about them: a server that expects TLS answers so."""


class Missing(Exception):
    """Vault's 404. ``document`` is its body: a deleted version answers 404 too, and says so there."""

    def __init__(self, document: dict[str, object]) -> None:
        super().__init__("no such path")
        self.document = document


class translated:  # noqa: N801 - used as a statement: with translated("read it"):
    """Raise our error instead of a foreign one.

    A class and not a generator, as every call to Vault goes through it.

    Args:
        doing: what was being done, for the log: ``"read woodpecker/repo/1/token"``.

    Raises:
        Missing: Vault has nothing at this path.
        Denied: the token may not do this, or there is no such KV v2 mount.
        Conflict: a check-and-set was lost.
        Invalid: Vault refuses what it was given.
        NotVault: something else answered.
        Unavailable: anything that may be different next time.
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Translate what was raised, if anything was."""
        if isinstance(error, exceptions.VaultError):
            raise _from_vault(error, f"{self._doing}: {type(error).__name__}: {error}") from error
        if isinstance(error, aiohttp.ClientError | OSError):  # TimeoutError is an OSError
            raise _from_network(error, f"{self._doing}: {type(error).__name__}: {shortened(str(error))}") from error


class writing(translated):  # noqa: N801 - see translated
    """The same for a write, which makes what is not there: that Vault has nothing at a path is the wrong mount."""

    __slots__ = ()

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Translate what was raised, if anything was."""
        try:
            super().__exit__(kind, error, traceback)
        except Missing as missing:
            raise Denied(WRONG_MOUNT, cause=f"{self._doing}: {missing}") from missing


class well_formed:  # noqa: N801 - see translated
    """Raise :exc:`Unavailable` where an answer does not have the shape of Vault's."""

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Translate what was raised, if anything was."""
        if isinstance(error, LookupError | TypeError | AttributeError | ValueError):
            raise Unavailable(
                "What answers at vault.address does not answer as Vault does.",
                cause=f"{self._doing}: the answer has another shape ({type(error).__name__})",
                maybe_done=True,
            ) from error


def _from_vault(error: exceptions.VaultError, cause: str) -> Problem | Missing:  # noqa: PLR0911 - one per kind of error
    status = getattr(error, "status", 0)
    match error:
        case ForeignAnswer():
            return _not_vault(error, cause)
        case exceptions.InvalidPath():
            return _nothing_there(error, cause)
        case exceptions.InvalidRequest():
            return _bad_request(error, cause)
        case exceptions.Forbidden() | exceptions.Unauthorized():
            return Denied(
                "Vault denies this to the service's token: its policy lacks a path, or the token is no longer valid.",
                cause=cause,
            )
        case _ if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return Denied(WRONG_MOUNT, cause=cause)
        case _ if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Invalid("Vault refuses this content: it is too large.", cause=cause)
        case exceptions.RateLimitExceeded():
            return Unavailable(
                "Vault limits the rate of requests; try again shortly.", cause=cause, retry_after=_retry_after(error)
            )
        case exceptions.VaultDown() | exceptions.VaultNotInitialized():
            return Unavailable(
                "Vault is sealed, starting or on standby: see `vault status`.",
                cause=cause,
                retry_after=_retry_after(error),
            )
        case _ if 300 <= status < 400:  # noqa: PLR2004 - the redirects
            return Unavailable("Vault redirects to an address that is not among vault.address.", cause=cause)
        case _:
            return Unavailable(
                "Vault answered with an error; its own log says more.",
                cause=cause,
                maybe_done=True,
            )


def _nothing_there(error: exceptions.InvalidPath, cause: str) -> Denied | Missing:
    said = _said(error)
    if "namespace not found" in said:
        return NoNamespace("Vault has no such namespace: check vault.namespace and vault.auth.namespace.", cause=cause)
    document = error.json or {}
    # "no handler for route" is only said to a token that may do everything, to others it is a 403. A warning is that
    # the engine has no such path: secrets.mount goes on behind the mount.
    if said or (document.get("warnings") and not document.get("data")):
        return Denied(WRONG_MOUNT, cause=cause)
    return Missing(document)


def _bad_request(error: exceptions.InvalidRequest, cause: str) -> Problem:
    if getattr(error, "passes", False):
        return Unavailable("Vault is upgrading a mount to KV version 2, which passes.", cause=cause)
    if "check-and-set" in _said(error):
        return Conflict("Another write came first; read the secret and try again.", cause=cause)
    return Invalid("Vault refuses this name or this content.", cause=cause)


def _said(error: exceptions.VaultError) -> str:
    """What Vault said, whole: what is shown of it may have lost the very words that tell one error from another."""
    return ", ".join(errors_in(error.json) or error.errors or ())


def _not_vault(error: ForeignAnswer, cause: str) -> NotVault:
    if error.wants_tls:
        return NotVault("What answers at vault.address wants https://.", cause=cause)
    return NotVault(
        f"What answers at vault.address (HTTP {error.status}) is not Vault: check the address, its path, and what"
        " stands before Vault.",
        cause=cause,
        maybe_done=True,
        answered=error.status,
    )


def _retry_after(error: exceptions.VaultError) -> int:
    """What Vault asks for, in whole seconds; at least one."""
    return max(1, math.ceil(getattr(error, "retry_after", 0.0)))


def _from_network(error: Exception, cause: str) -> Unavailable:
    return Unavailable(_advice(error), cause=cause, maybe_done=not never_sent(error))


def _advice(error: Exception) -> str:  # noqa: PLR0911 - one per kind of error
    """What to look at. TLS trouble is called that, and not blamed on the network."""
    found = getattr(error, "os_error", error)
    match error:
        case _ if advice := trouble(error, PEER):
            return advice
        case TimeoutError():
            return "Vault did not answer in time."
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "Vault cannot be reached: the proxy in vault.proxy does not let the service through."
        case _ if getattr(found, "errno", None) in {errno.EMFILE, errno.ENFILE}:
            return "Vault cannot be reached: the service has no file descriptor left, raise its limit (ulimit -n)."
        case UnixClientConnectorError():
            return "Vault cannot be reached: nothing that lets this user in listens at the socket in vault.address."
        case aiohttp.ClientConnectorError() if isinstance(found, ConnectionError) and found.errno is None:
            # Only a handshake ends so: what the system says of a connection that fails has a number.
            return (
                "Vault cannot be reached: the connection was closed in the TLS handshake, check vault.address"
                " and vault.client_cert."
            )
        case aiohttp.ClientResponseError() if _TLS_ALERT in error.message:
            return "What answers at vault.address wants https://."
        case aiohttp.ServerDisconnectedError():
            return (
                "Vault cannot be reached: the connection was closed without an answer, check vault.address"
                " (https:// or http://, a client certificate) and what stands before Vault."
            )
    return "Vault cannot be reached: check vault.address and the network."
