"""The public keys that may verify: given in the settings, in files, or fetched from the Woodpecker server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from yarl import URL

from woodpecker_vault.errors import NoKeyYet
from woodpecker_vault.signature import load_public_key
from woodpecker_vault.tls import Peer, trouble
from woodpecker_vault.watched import Watched

PEER = Peer("The Woodpecker server", "woodpecker.server_url", "woodpecker.ca_cert")

_FETCH_INTERVAL = 5.0
"""Seconds between two fetches, however many signatures fail."""

_PAUSES = (0.5, 5.0)
"""Seconds between two fetches while there is no key: at first, and at most."""

_FETCH_TIMEOUT = aiohttp.ClientTimeout(total=3)
_MAX_ANSWER = 16 * 1024

log = logging.getLogger(__name__)


class KeyFile:
    """A PEM file with one public key, read again when it changes; if that fails, the last good key stays.

    Raises:
        OSError, ValueError: there is no key in it at the start.
    """

    def __init__(self, path: str) -> None:
        file = Path(path)
        self._watched = Watched("a public key file", lambda: [file], lambda: load_public_key(file.read_text()))

    def key(self) -> Ed25519PublicKey:
        """The key that is in the file, or the last good one."""
        return self._watched.current()

    def reload(self) -> None:
        """Read it again, whether or not it seems to have changed."""
        self._watched.reload()


class ServerKey:
    """The key that the Woodpecker server itself serves, at ``/api/signature/public-key``.

    A newly fetched key stands beside the one before until a request verifies under it: so a wrong server, or a
    page that happens to hold a key, never takes away the key that works.

    Args:
        session: for the fetch.
        server_url: Woodpecker's address, with its root path if it has one.
        token: gives a personal access token, which older releases ask for, or an empty string.
        now: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server_url: str,
        token: Callable[[], str],
        now: Callable[[], float],
    ) -> None:
        self._session = session
        self._url = server_url.rstrip("/") + "/api/signature/public-key"
        self._shown_url = str(URL(self._url).with_user(None))
        self._token = token
        self._now = now
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._failure = self._cause = ""

    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The key in use and, after a change, the one that may replace it."""
        return self._keys

    def confirm(self, key: Ed25519PublicKey) -> None:
        """A request verified under this key: if it is the new one, the old one goes."""
        if len(self._keys) > 1 and key == self._keys[-1]:
            self._keys = (key,)

    async def refresh(self) -> bool:
        """Fetch the key because a signature failed, unless that was just done; whether there is a new one.

        Several callers at once share one fetch.
        """
        before = self._keys
        async with self._fetching:
            if self._now() - self._fetched_at >= _FETCH_INTERVAL:
                self._fetched_at = self._now()
                await self._fetch()
        return self._keys != before

    async def first(self) -> bool:
        """Fetch the key, however short ago that was done; whether there is one."""
        async with self._fetching:
            await self._fetch()
        return bool(self._keys)

    async def live(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Fetch the key, again and again until there is one.

        Args:
            sleep: waits for so many seconds.
        """
        pause, longest = _PAUSES
        while not self._keys and not await self.first():
            await sleep(pause)
            pause = min(2 * pause, longest)

    @property
    def failure(self) -> str:
        """What was wrong with the last fetch and what to do about it; empty if nothing was. Names no host."""
        return self._failure

    async def _fetch(self) -> None:
        try:
            key = load_public_key(await self._answer())
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            self._failed(_advice(error), str(error) or type(error).__name__)
            return
        self._failure = self._cause = ""
        if key not in self._keys:
            self._keys = (*self._keys[:1], key)
            log.info("Woodpecker's public key was fetched", extra={"url": self._shown_url})

    async def _answer(self) -> str:
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.get(self._url, headers=headers, timeout=_FETCH_TIMEOUT) as response:
            if response.status != HTTPStatus.OK:
                raise _StatusError(response.status)
            answer = b""
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _MAX_ANSWER:
                    raise ValueError("the answer is too long for a key")
        return answer.decode()

    def _failed(self, advice: str, cause: str) -> None:
        self._failure = advice
        if cause == self._cause:
            return  # it has been said
        self._cause = cause
        log.warning(
            "Woodpecker's public key could not be fetched; %s",
            "the one that was fetched before stays" if self._keys else "it is tried again",
            extra={"url": self._shown_url, "cause": cause, "advice": advice},
        )


class _StatusError(ValueError):
    """Woodpecker did not answer 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def _advice(error: Exception) -> str:
    match error:
        case _ if advice := trouble(error, PEER):
            return advice
        case _StatusError(status=HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN):
            return "The Woodpecker server refuses: releases before 3.13 need woodpecker.token_file."
        case _StatusError():
            return f"What answers at woodpecker.server_url says {error.status}: is it the Woodpecker server?"
        case aiohttp.ClientError() | TimeoutError():
            return "The Woodpecker server cannot be reached: is it up, and is woodpecker.server_url right?"
        case OSError() | UnicodeDecodeError():
            return "woodpecker.token_file cannot be read, or what the server answers is not text."
    return "What woodpecker.server_url serves is not an ed25519 public key, or woodpecker.token_file not one line."


class Keys:
    """All the keys that may verify, whichever way they come."""

    def __init__(
        self,
        given: Sequence[Ed25519PublicKey] = (),
        files: Sequence[KeyFile] = (),
        server: ServerKey | None = None,
    ) -> None:
        self._given = given
        self._files = files
        self._server = server

    def current(self) -> list[Ed25519PublicKey]:
        """The keys that may verify now.

        Raises:
            NoKeyYet: there is none, so that nobody's request can be verified; Woodpecker's may come later.
        """
        fetched = self._server.keys() if self._server else ()
        keys = [*self._given, *(file.key() for file in self._files), *fetched]
        if not keys:
            raise NoKeyYet(
                "There is no public key of Woodpecker's yet to verify requests with; it is being fetched.",
                cause=self._server.failure if self._server else "",
            )
        return keys

    def missing(self) -> str:
        """Why there is no key, and what to do about it; empty if there is one."""
        try:
            self.current()
        except NoKeyYet as problem:
            return f"There is no public key of Woodpecker's yet. {problem.cause}".rstrip()
        return ""

    async def reload(self) -> None:
        """Read the files again, and fetch Woodpecker's key. The log says what came of it."""
        for file in self._files:
            file.reload()
        if self._server:
            await self._server.first()

    def confirm(self, key: Ed25519PublicKey) -> None:
        """Take note that a request verified under this key."""
        if self._server:
            self._server.confirm(key)

    async def refresh(self) -> bool:
        """Look for a new key where one may be had; whether there is one."""
        return await self._server.refresh() if self._server else False
