"""Connections: who may have one, and for how long.

aiohttp answers requests and keeps connections open until the next; here is what it has no setting for. A connection is
always in one of these states, and each but the second ends by itself:

=========  =================================================================  ====================
handshake  TLS is being agreed on                                             ``Bounds.peer``
busy       a request is being answered                                        the request's own time
head       connected, or part of a head has come                              ``Bounds.peer``
stalled    the peer does not take the answer that is sent                     ``Bounds.peer``
idle       answered; the next request may come                                ``Bounds.idle``
=========  =================================================================  ====================

Only so many connections are open at once, so that file descriptors remain for Vault. One more takes the place of the
one that has waited longest for its peer.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from typing_extensions import override

from woodpecker_vault.sparing import Sparing

SERVER = "woodpecker-vault"
"""The ``Server`` header: who answers, but not which version or with which libraries."""

_BACKLOG = 1024
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 0.05
"""Seconds before the next connection is accepted, when one could not be."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What connections may take.

    Attributes:
        peer: seconds for a TLS handshake, for the head of a request, and for an answer to be taken.
        idle: seconds between an answer and the next request.
        most: how many connections may be open.
    """

    peer: float = 10.0
    idle: float = 90.0
    most: int = 10_000


class Waiting:
    """The open connections, and among them, longest first, those that wait for their peer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[object] = set()
        self._waiting: dict[object, Callable[[], object]] = {}

    @property
    def full(self) -> bool:
        """Whether no other may be opened."""
        return len(self._open) >= self._most

    def add(self, connection: object, close: Callable[[], object]) -> None:
        """It is open, and waits for its peer; ``close`` ends it at once."""
        self._open.add(connection)
        self._waiting.pop(connection, None)
        self._waiting[connection] = close

    def busy(self, connection: object) -> None:
        """It waits no more: there is something to do."""
        self._waiting.pop(connection, None)

    def remove(self, connection: object) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def make_room(self) -> bool:
        """Close the one that has waited longest; whether there was one."""
        for connection, close in self._waiting.items():
            self.remove(connection)
            close()
            return True
        return False


class Connection(web.RequestHandler):
    """One connection, which ends when its peer keeps it waiting for too long."""

    __slots__ = ("_bounds", "_idle", "_timer", "_waiting")

    def __init__(self, server: web.Server, waiting: Waiting, bounds: Bounds) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to have none
            auto_decompress=False,  # the digest is of the bytes received
            keepalive_timeout=2 * (bounds.peer + bounds.idle),  # ours come first, and wait for no goodbye
        )
        self._waiting = waiting
        self._bounds = bounds
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._waiting.add(self, self._drop)
        self._wait(self._bounds.peer)

    @override
    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._waiting.busy(self)
            self._stop_waiting()
        elif self._idle and self._waiter is not None:
            self._wait(self._bounds.peer)  # from the first byte of the next head on, whatever else trickles in

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(self._bounds.peer)

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_waiting()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        self._waiting.remove(self)
        super().connection_lost(exc)

    @override
    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        resp.headers.setdefault("Server", SERVER)
        finished = await super().finish_response(request, resp, start_time)
        if self.transport is not None and not self._messages:
            self._waiting.add(self, self._drop)
            self._wait(self._bounds.idle)
            self._idle = True
        return finished

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, self._drop)

    def _stop_waiting(self) -> None:
        self._idle = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        # Not close: that waits until the peer has taken what was sent, or said goodbye in TLS.
        if self.transport is not None:
            self.transport.abort()


class Listener:
    """Accepts connections for a server.

    Not :class:`aiohttp.web.TCPSite`: there nobody learns of a handshake that failed, or that there was no file
    descriptor left, and a certificate cannot be replaced.

    Args:
        server: answers requests.
        tls: what to show to the next connection, or ``None`` for plain HTTP.
        bounds: what connections may take.
        sparing: told of connections that come to nothing.
    """

    def __init__(
        self, server: web.Server, tls: Callable[[], ssl.SSLContext] | None, bounds: Bounds, sparing: Sparing
    ) -> None:
        self._server = server
        self._tls = tls
        self._bounds = bounds
        self._sparing = sparing
        self._waiting = Waiting(bounds.most)
        self._sockets: list[socket.socket] = []
        self._pausing: dict[socket.socket, asyncio.TimerHandle] = {}
        self._opening: dict[asyncio.Task[None], socket.socket] = {}

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the first address and port of those that are listened at.

        Raises:
            OSError: that is not possible.
        """
        self._sockets = await _bound(host, port)
        for one in self._sockets:
            one.listen(_BACKLOG)
            self._listen_to(one)
        found: tuple[str, int] = self._sockets[0].getsockname()[:2]
        return found

    async def stop(self) -> None:
        """Accept no more connections. Those that are open are the server's to close."""
        for pause in self._pausing.values():
            pause.cancel()
        for one in self._sockets:
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    def _listen_to(self, listening: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept one connection; if there are more, the loop calls again."""
        try:
            accepted, peer = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._not_now(listening, error)
            return
        if not self._room_for(peer):
            accepted.close()
            return
        accepted.setblocking(False)  # noqa: FBT003 - it takes no keyword
        task = asyncio.ensure_future(self._open(accepted, peer))
        self._opening[task] = accepted
        self._waiting.add(task, task.cancel)
        task.add_done_callback(self._opened)

    def _not_now(self, listening: socket.socket, error: OSError) -> None:
        """Nothing can be accepted: wait a moment, as it would be tried again at once."""
        if error.errno in _EXHAUSTED:
            self._waiting.make_room()
            self._sparing.warn(
                "no connection can be accepted: the service has no file descriptor left, raise its limit (ulimit -n)",
                error.strerror or "",
            )
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._pausing[listening] = loop.call_later(_PAUSE, self._listen_to, listening)

    def _room_for(self, peer: Any) -> bool:
        if not self._waiting.full:
            return True
        made = self._waiting.make_room()
        self._sparing.warn(
            "as many connections are open as the limit on file descriptors allows (ulimit -n): for a new one, the one"
            " that waited longest was closed"
            if made
            else "a connection was refused: as many are busy as the limit on file descriptors allows (ulimit -n)",
            most=self._bounds.most,
            peer=_shown(peer),
        )
        return made

    def _opened(self, task: asyncio.Task[None]) -> None:
        accepted = self._opening.pop(task)
        if task.cancelled():  # perhaps before it began
            accepted.close()
        self._waiting.remove(task)

    async def _open(self, accepted: socket.socket, peer: Any) -> None:
        tls = self._tls() if self._tls is not None else None
        patience = self._bounds.peer if tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection, accepted, ssl=tls, ssl_handshake_timeout=patience, ssl_shutdown_timeout=patience
            )
        except OSError as error:
            accepted.close()
            if tls is not None:
                self._sparing.warn("a TLS handshake failed", _handshake_trouble(error), peer=_shown(peer))

    def _connection(self) -> Connection:
        return Connection(self._server, self._waiting, self._bounds)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that the host has."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:  # a machine without this family, such as IPv6
                continue
            undo.callback(one.close)
            one.setblocking(False)  # noqa: FBT003 - it takes no keyword
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            sockets.append(one)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no such address on this machine")
        undo.pop_all()
    return sockets


def _handshake_trouble(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        if "HTTP_REQUEST" in (error.reason or ""):
            return "plain HTTP was sent to https"
        return (error.reason or type(error).__name__).replace("_", " ").lower()
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "it took too long"
    return "the other side closed the connection"


def _shown(peer: Any) -> str:
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
