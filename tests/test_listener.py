"""Connections: real sockets whose peers keep the service waiting, and times that are a fraction of the real ones."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from woodpecker_vault.listener import Bounds, Listener, Waiting
from woodpecker_vault.sparing import Sparing

SOON = Bounds(peer=0.2, idle=0.4)
"""Long enough for a busy machine to do what a test wants to see done before."""

LATE = Bounds(peer=60.0, idle=60.0)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
log = logging.getLogger(__name__)


@dataclass
class Site:
    """A server of two routes, and where it is."""

    port: int = 0
    asked: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def short(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(text="short")

    async def held(self, _request: web.Request) -> web.Response:
        self.asked += 1
        await self.let_go.wait()
        return web.Response(text="held")

    async def long(self, _request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 20_000_000)

    async def connect(self, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)

    async def open(self, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that sends this and nothing else."""
        reader, writer = await self.connect()
        writer.write(first)
        await writer.drain()
        return reader, writer


@asynccontextmanager
async def listening(bounds: Bounds, tls: Callable[[], ssl.SSLContext] | None = None) -> AsyncIterator[Site]:
    """It, until the block ends."""
    site = Site()
    app = web.Application()
    app.router.add_get("/", site.short)
    app.router.add_get("/held", site.held)
    app.router.add_get("/long", site.long)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    assert runner.server is not None
    listener = Listener(runner.server, tls, bounds, Sparing(log, time.monotonic))
    try:
        _, site.port = await listener.start("127.0.0.1", 0)
        yield site
    finally:
        site.let_go.set()
        await listener.stop()
        await runner.cleanup()


async def ends(reader: asyncio.StreamReader, within: float = 20.0) -> bytes:
    """What comes before the connection ends, which it must."""
    async with asyncio.timeout(within):
        got = b""
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(65536):
                got += more
        return got


async def answered(reader: asyncio.StreamReader, what: bytes) -> None:
    async with asyncio.timeout(20):
        await reader.readuntil(what)


NO_HEADS = [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"]
ODD = [
    REQUEST,
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n",
]


class TestHead:
    @pytest.mark.parametrize(
        "first", [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "a line", "half"]
    )
    async def test_a_connection_that_sends_no_whole_head_is_closed(self, first: bytes) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(first)
            assert await ends(reader) == b""
            writer.close()

    async def test_one_that_trickles_gains_nothing(self) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(b"GET / HTTP/1.1\r\n")
            over = asyncio.ensure_future(ends(reader))
            async with asyncio.timeout(20):
                while not over.done():
                    writer.write(b"X: y\r\n")
                    with contextlib.suppress(ConnectionError):
                        await writer.drain()
                    await asyncio.sleep(0.01)
            assert await over == b""
            writer.close()

    async def test_one_that_trickles_the_second_head_gains_nothing_either(self) -> None:
        async with listening(Bounds(peer=0.2, idle=60.0)) as site:
            reader, writer = await site.open(REQUEST)
            await answered(reader, b"short")
            writer.write(b"GET / HT")
            assert await ends(reader) == b""
            writer.close()

    async def test_one_that_asks_in_time_is_answered_however_long_the_answer_takes(self) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(2 * SOON.peer + SOON.idle)  # what is tried is that nothing happens meanwhile
            site.let_go.set()
            await answered(reader, b"held")
            writer.close()


class TestIdle:
    async def test_a_connection_that_asks_no_more_is_closed(self) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(REQUEST)
            await answered(reader, b"short")
            assert await ends(reader) == b""
            writer.close()

    async def test_one_that_asks_again_stays_open(self) -> None:
        async with listening(Bounds(peer=60.0, idle=0.5)) as site:
            reader, writer = await site.connect()
            for _ in range(8):
                writer.write(REQUEST)
                await answered(reader, b"short")
                await asyncio.sleep(0.1)  # in all, longer than a connection may be idle
            writer.close()

    async def test_requests_one_behind_the_other_are_all_answered(self) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(REQUEST * 20)
            for _ in range(20):
                await answered(reader, b"short")
            assert site.asked == 20
            writer.close()


class TestStalled:
    async def test_a_peer_that_does_not_take_its_answer_loses_it(self) -> None:
        async with listening(SOON) as site:
            _, writer = await site.connect()
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
            writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            # The system of the one that hung up says so to whoever writes.
            async with asyncio.timeout(20):
                with pytest.raises(ConnectionError):  # noqa: PT012 - one of these writes
                    while True:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.01)
            writer.transport.abort()

    async def test_one_that_takes_it_in_time_gets_all_of_it(self) -> None:
        async with listening(Bounds(peer=10.0, idle=0.2)) as site:
            reader, writer = await site.open(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await ends(reader)).count(b"x") == 20_000_000
            writer.close()


class TestServerHeader:
    @pytest.mark.parametrize("request_text", ODD, ids=["200", "404", "no HTTP", "a wrong header"])
    async def test_it_names_no_version_whatever_the_answer(self, request_text: bytes) -> None:
        async with listening(SOON) as site:
            reader, writer = await site.open(request_text)
            head = (await ends(reader)).partition(b"\r\n\r\n")[0]
            servers = [line for line in head.split(b"\r\n") if line.lower().startswith(b"server:")]
            assert servers == [b"Server: woodpecker-vault"]
            assert b"ython" not in head
            writer.close()


class TestRoom:
    async def test_for_a_new_connection_the_one_that_waited_longest_goes(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with listening(Bounds(peer=60.0, idle=60.0, most=10)) as site:
            silent = [await site.open() for _ in range(30)]
            for reader, _ in silent[:20]:
                assert await ends(reader) == b""
            reader, writer = await site.open(REQUEST)
            await answered(reader, b"short")
            for _, other in (*silent, (reader, writer)):
                other.close()
        (record,) = caplog.records
        assert "ulimit -n" in record.getMessage()
        assert record.__dict__["most"] == 10

    async def test_those_that_are_busy_stay_and_new_ones_are_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        async with listening(Bounds(peer=60.0, idle=60.0, most=3)) as site:
            busy = [await site.open(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(3)]
            async with asyncio.timeout(20):
                while site.asked < 3:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.005)
            reader, writer = await site.open()
            assert await ends(reader) == b""
            writer.close()
            site.let_go.set()
            for reader, writer in busy:
                await answered(reader, b"held")
                writer.close()
        assert ["refused" in record.getMessage() for record in caplog.records] == [True]

    def test_what_is_busy_does_not_wait_and_what_waits_again_is_last(self) -> None:
        waiting, closed = Waiting(3), []
        for name in "abc":
            waiting.add(name, lambda name=name: closed.append(name))  # type: ignore[misc]  # mypy: default in a lambda
        assert waiting.full
        waiting.busy("a")
        waiting.add("b", lambda: closed.append("b"))
        assert [waiting.make_room() for _ in range(3)] == [True, True, False]
        assert closed == ["c", "b"]
        assert not waiting.full


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def trusting(self, authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    @staticmethod
    def showing(authority: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    async def test_requests_are_answered_over_it(self, authority: trustme.CA, trusting: ssl.SSLContext) -> None:
        context = self.showing(authority)
        async with (
            listening(LATE, lambda: context) as site,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session,
            session.get(f"https://127.0.0.1:{site.port}/") as reply,
        ):
            assert await reply.text() == "short"

    async def test_many_at_once_are_answered_each(self, authority: trustme.CA, trusting: ssl.SSLContext) -> None:
        context = self.showing(authority)

        async def ask(session: aiohttp.ClientSession, url: str) -> str:
            async with session.get(url) as reply:
                return await reply.text()

        connector = aiohttp.TCPConnector(ssl=trusting, force_close=True, limit=0)
        async with listening(LATE, lambda: context) as site, aiohttp.ClientSession(connector=connector) as session:
            url = f"https://127.0.0.1:{site.port}/"
            assert await asyncio.gather(*(ask(session, url) for _ in range(100))) == ["short"] * 100

    async def test_each_connection_is_shown_the_certificate_of_its_moment(
        self, authority: trustme.CA, trusting: ssl.SSLContext
    ) -> None:
        contexts = [self.showing(authority), self.showing(authority)]
        shown = []
        async with listening(LATE, lambda: contexts[0]) as site:
            for _ in range(2):
                _, writer = await site.connect(trusting)
                shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                writer.close()
                contexts.pop(0) if len(contexts) > 1 else None
        assert shown[0] != shown[1]

    @pytest.mark.parametrize(
        ("sent", "cause"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "plain HTTP was sent to https"),
            (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", None),
            (b"", "it took too long"),
        ],
        ids=["HTTP", "SSH", "nothing"],
    )
    async def test_a_handshake_that_fails_is_logged_once_and_closed(
        self, authority: trustme.CA, caplog: pytest.LogCaptureFixture, sent: bytes, cause: str | None
    ) -> None:
        context = self.showing(authority)
        async with listening(SOON, lambda: context) as site:
            for _ in range(3):
                reader, writer = await site.open(sent)
                await ends(reader)
                writer.close()
            async with asyncio.timeout(20):
                while not caplog.records:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.005)
        (record,) = caplog.records
        assert record.getMessage() == "a TLS handshake failed"
        assert record.levelname == "WARNING"
        assert record.__dict__["peer"] == "127.0.0.1"
        assert record.__dict__["cause"] == cause or (cause is None and record.__dict__["cause"])

    async def test_a_client_that_does_not_trust_the_certificate_is_logged(
        self, authority: trustme.CA, caplog: pytest.LogCaptureFixture
    ) -> None:
        context = self.showing(authority)
        async with listening(LATE, lambda: context) as site:
            with pytest.raises(ssl.SSLCertVerificationError):
                await site.connect(ssl.create_default_context())
            async with asyncio.timeout(20):
                while not caplog.records:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.005)
        # Python's clients just hang up; others say why, as an alert.
        assert caplog.records[0].__dict__["cause"] in {"the other side closed the connection", "tlsv1 alert unknown ca"}

    async def test_one_that_hangs_up_in_the_handshake_is_logged(
        self, authority: trustme.CA, caplog: pytest.LogCaptureFixture
    ) -> None:
        context = self.showing(authority)
        async with listening(LATE, lambda: context) as site:
            _, writer = await site.open(b"\x16\x03\x01")
            writer.close()
            async with asyncio.timeout(20):
                while not caplog.records:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.005)
        assert caplog.records[0].__dict__["cause"]

    async def test_silent_ones_make_room_during_the_handshake_too(
        self, authority: trustme.CA, trusting: ssl.SSLContext
    ) -> None:
        context = self.showing(authority)
        async with listening(Bounds(peer=60.0, idle=60.0, most=5), lambda: context) as site:
            silent = [await site.open() for _ in range(20)]
            _, writer = await site.connect(trusting)
            for _, other in (*silent, (None, writer)):
                other.close()

    async def test_handshakes_that_are_under_way_do_not_keep_it_from_stopping(self, authority: trustme.CA) -> None:
        context = self.showing(authority)
        async with asyncio.timeout(20):
            async with listening(LATE, lambda: context) as site:
                silent = [await site.open() for _ in range(5)]
            for reader, writer in silent:
                await ends(reader)
                writer.close()


class TestAccepting:
    async def test_without_a_file_descriptor_it_says_so_and_goes_on_when_there_is_one(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = [OSError(24, "Too many open files")] * 3
        accept = socket.socket.accept

        def exhausted(listening: socket.socket) -> Any:
            if failures:
                raise failures.pop()
            return accept(listening)

        monkeypatch.setattr(socket.socket, "accept", exhausted)
        async with listening(LATE) as site:
            reader, writer = await site.open(REQUEST)
            await answered(reader, b"short")
            writer.close()
        (record,) = caplog.records
        assert "ulimit -n" in record.getMessage()
        assert record.__dict__["cause"] == "Too many open files"

    async def test_every_address_of_a_name_is_listened_at(self) -> None:
        app = web.Application()
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        listener = Listener(runner.server, None, LATE, Sparing(log, time.monotonic))
        host, port = await listener.start("", 0)
        assert host in {"0.0.0.0", "::"}  # noqa: S104 - any of this machine's
        assert port
        await listener.stop()
        await runner.cleanup()


class TestOnUvloop:
    """The same on the loop that the service runs on, where it is there."""

    @staticmethod
    async def there(trying: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Try it on such a loop, in a thread."""
        uvloop = pytest.importorskip("uvloop")

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(trying())

        await asyncio.to_thread(run)

    async def test_connections_that_keep_it_waiting_are_closed(self) -> None:
        await self.there(lambda: TestHead().test_a_connection_that_sends_no_whole_head_is_closed(b""))
        await self.there(TestHead().test_one_that_trickles_gains_nothing)
        await self.there(TestIdle().test_a_connection_that_asks_no_more_is_closed)
        await self.there(TestStalled().test_a_peer_that_does_not_take_its_answer_loses_it)

    async def test_one_that_does_not_is_served(self) -> None:
        await self.there(TestHead().test_one_that_asks_in_time_is_answered_however_long_the_answer_takes)
        await self.there(TestStalled().test_one_that_takes_it_in_time_gets_all_of_it)

    async def test_room_is_made(self, caplog: pytest.LogCaptureFixture) -> None:
        await self.there(lambda: TestRoom().test_for_a_new_connection_the_one_that_waited_longest_goes(caplog))

    async def test_handshakes_that_fail_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        authority = trustme.CA()
        for sent, cause in ((b"", "it took too long"), (b"GET / HTTP/1.1\r\n\r\n", "plain HTTP was sent to https")):
            caplog.clear()
            await self.there(
                lambda sent=sent, cause=cause: TestTls().test_a_handshake_that_fails_is_logged_once_and_closed(  # type: ignore[misc]
                    authority, caplog, sent, cause
                )
            )
        await self.there(lambda: TestTls().test_handshakes_that_are_under_way_do_not_keep_it_from_stopping(authority))

    async def test_many_over_tls_are_answered_each(self) -> None:
        authority = trustme.CA()
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        await self.there(lambda: TestTls().test_many_at_once_are_answered_each(authority, trusting))
