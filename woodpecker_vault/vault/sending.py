"""One request to Vault, sent until one of its addresses answers or the time is up.

Reads are repeated freely. Writes are repeated only where it is certain that they were not done: the connection never
came about, or Vault said that it did not take the request. What stands before Vault may say the same, but cannot know.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from woodpecker_vault.budget import Budget
from woodpecker_vault.vault.addresses import Addresses
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.redaction import Redaction
from woodpecker_vault.vault.replies import SAFE, Reply, Word, document_in, word_of

_ELSEWHERE = frozenset({472, 473, 501, 503})
"""A node that is sealed, not initialized, or a standby: it did nothing; another address may do better."""

_LATER = frozenset({412, 429})
"""A write that a standby has not seen yet, a rate limit: it did nothing; the same may work soon."""

_PROOFS = ("/v1/sys/seal-status", "/v1/auth/token/lookup-self")
"""What Vault, and nothing else, answers even without a token. The second is for where ``sys/`` is hidden."""

_HARMLESS = re.compile(r"/v1/(auth/.+/login(/[^/]+)?|auth/token/renew-self|sys/capabilities-self)")
"""What may be done twice although it is not a read."""

_HOPS = 2
_LONGEST_WAIT = 1e9
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How retries are paced.

    Attributes:
        budget: the time of the request that is under way.
        retries: attempts after the first.
        jitter: a random number from 0 to 1, another each time.
        sleep: waits for so many seconds.
    """

    budget: Budget
    retries: int
    jitter: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]

    async def pause(self, attempt: int, at_least: float = 0.0) -> bool:
        """Wait before the next attempt; ``False``, at once, if there is none, or the time is up before.

        Args:
            attempt: how many attempts there were before the one that just failed.
            at_least: seconds, as Vault's ``Retry-After`` asks for.
        """
        if attempt >= self.retries:
            return False
        seconds = max(at_least, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt) * (0.5 + self.jitter() / 2))
        if seconds >= self.budget.left():
            return False
        await self.sleep(seconds)
        return True


@dataclass(frozen=True, slots=True)
class _Call:
    """A request without the address it goes to."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)


class Sender:
    """Sends requests over one pool of connections to whichever of Vault's addresses is well.

    Args:
        session: the pool.
        connection: where Vault is.
        patience: how retries are paced.
        headers: what every request carries besides its own, such as for whom it is.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        connection: Connection,
        patience: Patience,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._session = session
        self._connection = connection
        self._patience = patience
        self._headers = headers
        self._addresses = Addresses(connection.addresses)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], *, patient: bool = True, **body: Any
    ) -> Reply:
        """The answer to a request, whatever its status and whosever word it is, or the last of the failures.

        Args:
            method: in capitals.
            url: the encoded path after an address, with its query.
            headers: all of them.
            patient: whether to try again after all addresses failed.
            body: ``json`` and ``params``, as aiohttp takes them.

        Raises:
            aiohttp.ClientError, OSError: no address could be spoken to (``TimeoutError`` is an OSError).
        """
        call = _Call(method, url, {**self._headers(), **headers}, body)
        attempt = 0
        while True:
            outcome = await self._in_time(call)
            if isinstance(outcome, Reply) and not _may_differ(outcome, call):
                return outcome
            wait = outcome.retry_after if isinstance(outcome, Reply) else 0.0
            if not patient or not await self._patience.pause(attempt, wait):
                break
            attempt += 1
        if isinstance(outcome, Reply):
            return outcome
        raise outcome

    async def _in_time(self, call: _Call) -> Reply | aiohttp.ClientError | OSError:
        """A round; cut short where it could last longer than there is time (a connection, and then an answer)."""
        left = self._patience.budget.left()
        if left > 2 * self._connection.timeout + self._patience.budget.reserve:
            return await self._round(call)
        async with asyncio.timeout(max(left, 0.0)):
            return await self._round(call)

    async def _round(self, call: _Call) -> Reply | aiohttp.ClientError | OSError:
        """Each address in turn, until one answers; or else what was wrong with the last."""
        outcome: Reply | aiohttp.ClientError | OSError = OSError("no address")
        for address in self._addresses.in_turn():
            try:
                outcome = await self._once(address, call)
            except (aiohttp.ClientError, OSError) as error:
                outcome = await self._after_break(error, address, call)
                if not isinstance(outcome, Reply):
                    continue
            where = address
            if outcome.location:
                where, outcome = await self._redirected(outcome, address, call)
            outcome = await self._believed(outcome, where)
            if not (outcome.location or _did_nothing(outcome, call) or _broke(outcome, call)):
                if not outcome.is_foreign:
                    self._addresses.prefer(where)
                return outcome
        return outcome

    async def _after_break(
        self, error: aiohttp.ClientError | OSError, address: str, call: _Call
    ) -> Reply | aiohttp.ClientError | OSError:
        """The error, where there may be a next attempt.

        A connection out of the pool may have been closed from the other side: a read is sent again at once.
        """
        if never_sent(error):
            return error
        if call.method not in SAFE:
            raise error
        if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionResetError):
            try:
                return await self._once(address, call)
            except (aiohttp.ClientError, OSError) as second:
                return second
        return error

    async def _redirected(self, reply: Reply, address: str, call: _Call) -> tuple[str, Reply]:
        """A standby says who is active; only an address that is one of ours is shown our token."""
        for _ in range(_HOPS):
            target = self._addresses.at(reply.location) if self._connection.follow_redirects else None
            if target is None or target == address:
                break
            address = target
            reply = await self._once(address, call)
        return address, reply

    async def _believed(self, reply: Reply, address: str) -> Reply:
        """The reply; where it says only what anybody could, it has to come from where Vault has shown itself."""
        if reply.word is Word.NOBODY and not self._addresses.has_shown(address):
            for url in _PROOFS:
                try:
                    await self._once(address, _Call("GET", url, self._headers(), {}))
                except (aiohttp.ClientError, OSError):
                    continue
                if self._addresses.has_shown(address):
                    return reply
            return replace(reply, word=Word.FOREIGN)
        return reply

    async def _once(self, address: str, call: _Call) -> Reply:
        try:
            async with self._session.request(
                call.method,
                URL(address + call.url, encoded=True),
                headers=call.headers,
                server_hostname=self._connection.tls_server_name or None,
                allow_redirects=False,
                **call.body,
            ) as response:
                reply = _reply(call, response, await response.read())
        except aiohttp.ClientResponseError as error:
            # Its text quotes what came in place of HTTP, which may be an echo of what we sent.
            said = Redaction(call.headers, call.body.get("json")).struck(error.message)
            without_headers = aiohttp.RequestInfo(error.request_info.url, call.method, CIMultiDictProxy(CIMultiDict()))
            raise type(error)(without_headers, (), status=error.status, message=said) from None
        if reply.word is Word.VAULT and reply.document is not None:
            self._addresses.show(address)
        return reply


def _reply(call: _Call, response: aiohttp.ClientResponse, body: bytes) -> Reply:
    status, kind = response.status, response.content_type
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Reply(status, body, kind, location=response.headers.get("Location", "?"))
    document = document_in(body)
    wait = _seconds(response.headers.get("Retry-After", ""))
    word = word_of(call.method, call.url, status, body, document)
    return Reply(status, body, kind, retry_after=wait, document=document, word=word)


def never_sent(error: BaseException) -> bool:
    """Whether the connection failed before anything could be asked over it."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _did_nothing(reply: Reply, call: _Call) -> bool:
    """Whether this node certainly did not do it, or it does not matter."""
    return reply.status in _ELSEWHERE and (not reply.is_foreign or _may_be_repeated(call))


def _broke(reply: Reply, call: _Call) -> bool:
    """Whether it is a read that something kept from Vault, or Vault from answering."""
    return call.method in SAFE and (reply.is_foreign or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR)


def _may_differ(reply: Reply, call: _Call) -> bool:
    """Whether the same request, repeated, may be answered better and does no harm."""
    return _did_nothing(reply, call) or _broke(reply, call) or reply.passes or reply.status in _LATER


def _may_be_repeated(call: _Call) -> bool:
    return call.method in SAFE or _HARMLESS.fullmatch(call.url) is not None


def _seconds(text: str) -> float:
    """``Retry-After`` in seconds (RFC 9110, section 10.2.3); a date is not what Vault sends."""
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0
