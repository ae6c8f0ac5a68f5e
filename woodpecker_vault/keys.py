"""The public keys that may verify: given in the settings, in files, or fetched from the Woodpecker server."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from woodpecker_vault.signature import load_public_key

_FETCH_INTERVAL = 60.0
"""Seconds between two fetches, however many signatures fail."""

_FETCH_TIMEOUT = aiohttp.ClientTimeout(total=3)
_MAX_ANSWER = 16 * 1024

log = logging.getLogger(__name__)


class KeyFile:
    """A PEM file with one public key, read again when it changes.

    Raises:
        OSError, ValueError: there is no key in it now. Later, the last good one is kept.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._state = self._stat()
        self._warned_of: tuple[int, ...] | None = ()
        self._key = load_public_key(self._path.read_text())

    def key(self) -> Ed25519PublicKey:
        """The key that is in the file, or the last good one."""
        state = self._stat()
        if state == self._state:
            return self._key
        try:
            self._key = load_public_key(self._path.read_text())
        except (OSError, ValueError) as error:
            if state != self._warned_of:
                log.warning(
                    "a public key file cannot be read; its last key stays",
                    extra={"file": str(self._path), "cause": str(error)},
                )
            self._warned_of = state
        else:
            self._state = state
            self._warned_of = ()
            log.info("a public key file changed", extra={"file": str(self._path)})
        return self._key

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


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
        self._token = token
        self._now = now
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()

    def keys(self) -> tuple[Ed25519PublicKey, ...]:
        """The key in use and, after a change, the one that may replace it."""
        return self._keys

    def confirm(self, key: Ed25519PublicKey) -> None:
        """A request verified under this key: if it is the new one, the old one goes."""
        if len(self._keys) > 1 and key == self._keys[-1]:
            self._keys = (key,)

    async def refresh(self) -> bool:
        """Fetch the key, unless that was done within a minute; whether there is a new one.

        Several callers at once share one fetch.
        """
        before = self._keys
        async with self._fetching:
            if self._now() - self._fetched_at >= _FETCH_INTERVAL:
                self._fetched_at = self._now()
                await self._fetch()
        return self._keys != before

    async def first(self) -> bool:
        """Fetch the key at start; whether there is one. The minute begins with the first failed signature."""
        await self._fetch()
        return bool(self._keys)

    async def _fetch(self) -> None:
        try:
            token = self._token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with self._session.get(self._url, headers=headers, timeout=_FETCH_TIMEOUT) as response:
                if response.status != HTTPStatus.OK:
                    raise ValueError(f"status {response.status}")
                answer = b""
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _MAX_ANSWER:
                        raise ValueError("the answer is too long for a key")
            key = load_public_key(answer.decode())
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            log.warning(
                "Woodpecker's public key could not be fetched; known keys stay",
                extra={"url": self._url, "cause": str(error) or type(error).__name__},
            )
            return
        if key not in self._keys:
            self._keys = (*self._keys[:1], key)


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
        """The keys that may verify now."""
        fetched = self._server.keys() if self._server else ()
        return [*self._given, *(file.key() for file in self._files), *fetched]

    def confirm(self, key: Ed25519PublicKey) -> None:
        """Take note that a request verified under this key."""
        if self._server:
            self._server.confirm(key)

    async def refresh(self) -> bool:
        """Look for a new key where one may be had; whether there is one."""
        return await self._server.refresh() if self._server else False
