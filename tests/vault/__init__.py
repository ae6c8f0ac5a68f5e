"""The rooms of ``woodpecker_vault.vault`` against a real OpenBao; here is what their tests share."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from pydantic import SecretStr
from typing_extensions import override

from tests.servers import Proxy
from woodpecker_vault.budget import Budget
from woodpecker_vault.vault.connection import Connection, open_session
from woodpecker_vault.vault.kv import KV
from woodpecker_vault.vault.logins.method import Method
from woodpecker_vault.vault.logins.token import Token
from woodpecker_vault.vault.sending import Patience, Sender
from woodpecker_vault.vault.tokens import Tokens
from woodpecker_vault.vault.transport import Adapter, AuthenticatedAdapter


class Gate(Proxy):
    """A proxy that knows one HTTP request from the next: it counts them, breaks one, or holds one back.

    ``requests`` is the method and path of every request that arrived since the last :meth:`heal`.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.requests: list[tuple[str, str]] = []
        self.fired = False
        self.arrived = asyncio.Event()
        self.let_go = asyncio.Event()
        self.answered = asyncio.Event()
        self._number = 0
        self._answered = False
        self._lasting = False
        self._cut_answer = False
        self._held: Callable[[str, str], bool] | None = None

    def heal(self) -> None:
        """Pass everything from now on, and count anew."""
        self.mode = "pass"
        self.requests.clear()
        self.fired = self._cut_answer = False
        self._number = 0

    def break_at(self, number: int, *, answered: bool, lasting: bool) -> None:
        """Cut the connection at the n-th request from now on, before it is passed on or before it is answered.

        Args:
            number: which one, from 1.
            answered: pass it on first, and cut when Vault has answered.
            lasting: refuse everything after it, as if the network (or the service) had died there.
        """
        self.heal()
        self._number, self._answered, self._lasting = number, answered, lasting

    def hold(self, wanted: Callable[[str, str], bool]) -> None:
        """Hold the first request with such a method and path back, until :attr:`let_go` is set.

        :attr:`arrived` says that it is here, :attr:`answered` that Vault has since answered it or another one.
        """
        self.heal()
        self.arrived.clear()
        self.let_go.clear()
        self.answered.clear()
        self._held = wanted

    @override
    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        if answers:
            while chunk := await source.read(65536):
                if self._cut_answer:
                    self._cut_answer = False
                    self._fire()
                if self.let_go.is_set():
                    self.answered.set()
                sink.write(chunk)
                await sink.drain()
        else:
            while message := await _request(source):
                held = await self._pass(message)
                sink.write(message)
                await sink.drain()
                if held:  # even if the client is gone by now, as a load balancer may
                    await self.answered.wait()
        sink.close()

    async def _pass(self, message: bytes) -> bool:
        """Count it, and break or hold it if it is the one; whether it was held."""
        method, path, _ = message.partition(b"\r\n")[0].decode().split(" ")
        self.requests.append((method, path))
        if self.mode == "refuse":
            raise ConnectionResetError
        if len(self.requests) == self._number:
            if not self._answered:
                self._fire()
            self._cut_answer = True
        if self._held is not None and self._held(method, path):
            self._held = None
            self.arrived.set()
            await self.let_go.wait()
            return True
        return False

    def _fire(self) -> None:
        self.fired = True
        if self._lasting:
            self.mode = "refuse"
        raise ConnectionResetError


async def _request(source: asyncio.StreamReader) -> bytes:
    """One whole request; empty at the end."""
    try:
        head = await source.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return head + await source.readexactly(int(fields.get(b"content-length", b"0")))


@dataclass(frozen=True, slots=True)
class Rooms:
    """What stands between the service and Vault, put together."""

    session: aiohttp.ClientSession
    sender: Sender
    adapter: Adapter
    tokens: Tokens
    authenticated: AuthenticatedAdapter
    kv: KV


@asynccontextmanager
async def rooms(
    connection: Connection,
    token: str = "",
    *,
    token_file: str = "",
    mount: str = "secret",
    method: Method | None = None,
    retries: int = 0,
    seconds: float = 8.0,
    now: Callable[[], float] = time.monotonic,
    sure_of_mount: bool = True,
) -> AsyncIterator[Rooms]:
    """The rooms on one connection, with a token or a file of one, and no patience unless asked for.

    ``sure_of_mount`` saves the one look at the mount that the first answer without an entry costs.
    """
    budget = Budget(seconds, now)
    patience = Patience(budget, retries, lambda: 0.5, asyncio.sleep)
    async with open_session(connection) as session:
        sender = Sender(session, connection, patience)
        adapter = Adapter(sender, connection.namespace)
        login = method or Token.model_construct(
            token=SecretStr("" if token_file else token or "none"), token_file=token_file
        )
        tokens = Tokens(adapter, login, budget=budget, now=now, sleep=asyncio.sleep, jitter=lambda: 0.5)
        authenticated = AuthenticatedAdapter(sender, connection.namespace, tokens)
        kv = KV(authenticated, mount, patience)
        yield Rooms(session, sender, adapter, tokens, authenticated, without_look_at_mount(kv) if sure_of_mount else kv)


def without_look_at_mount(kv: KV) -> KV:
    """The same, for tests that count requests: it takes the mount for right, as if it had looked."""
    kv._mounted._settled = True
    return kv
