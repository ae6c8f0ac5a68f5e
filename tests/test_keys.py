"""The public keys: in files, and from a Woodpecker server that is played here by what it serves over HTTP."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.clock import Clock
from tests.servers import Client, pipeline_body, serving, settings
from woodpecker_vault import config, keys, tls
from woodpecker_vault.cli import wiring
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.cli.stand_in import public_pem
from woodpecker_vault.errors import NoKeyYet
from woodpecker_vault.keys import KeyFile, Keys, ServerKey

A, B, C = (Ed25519PrivateKey.generate() for _ in range(3))
PUBLIC_A, PUBLIC_B, PUBLIC_C = (key.public_key() for key in (A, B, C))


def rsa_pem() -> bytes:
    """A public key of a kind that Woodpecker does not use."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Woodpecker:
    """What stands at ``/api/signature/public-key``, and who asked for it."""

    body: bytes = b""
    status: int = 200
    answer: Callable[[web.Request], Any] | None = None
    url: str = ""
    asked: int = 0
    authorizations: list[str | None] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def serve(self, key: Ed25519PrivateKey) -> None:
        """Serve this key from now on."""
        self.body, self.status, self.answer = public_pem(key).encode(), 200, None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One answer, when the gate is open."""
        self.asked += 1
        self.was_asked.set()
        self.authorizations.append(request.headers.get("Authorization"))
        await self.open.wait()
        if self.answer is not None:
            response: web.StreamResponse = await self.answer(request)
            return response
        return web.Response(status=self.status, body=self.body)


@asynccontextmanager
async def playing(woodpecker: Woodpecker, port: int = 0) -> AsyncIterator[Woodpecker]:
    """Serve until the block ends."""
    app = web.Application()
    app.router.add_get("/api/signature/public-key", woodpecker.handle)
    app.router.add_get("/ci/api/signature/public-key", woodpecker.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        woodpecker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield woodpecker
    finally:
        woodpecker.open.set()
        await runner.cleanup()


@pytest.fixture
async def woodpecker() -> AsyncIterator[Woodpecker]:
    """A Woodpecker server whose key is A."""
    played = Woodpecker()
    played.serve(A)
    played.open.set()
    async with playing(played):
        yield played


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server_key(session: aiohttp.ClientSession, woodpecker: Woodpecker, clock: Clock) -> ServerKey:
    """The key of that server; nothing is fetched yet."""
    return ServerKey(session, woodpecker.url, str, clock)


def write(path: Path, content: str) -> None:
    """Replace a file as a careful tool does: whole, under its name at once."""
    new = path.with_name("new")
    new.write_text(content)
    new.replace(path)


class TestKeyFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "woodpecker.pem"
        path.write_text(public_pem(A))
        return path

    def test_the_key_in_it_is_read_at_start(self, path: Path) -> None:
        assert KeyFile(str(path)).key() == PUBLIC_A

    def test_a_file_that_is_replaced_is_read_again(self, path: Path) -> None:
        file = KeyFile(str(path))
        write(path, public_pem(B))
        assert file.key() == PUBLIC_B

    def test_a_file_that_is_written_over_is_read_again(self, path: Path) -> None:
        file = KeyFile(str(path))
        path.write_text(public_pem(B))
        later = path.stat().st_mtime_ns + 1
        os.utime(path, ns=(later, later))
        assert file.key() == PUBLIC_B

    def test_a_link_that_points_elsewhere_is_followed_as_kubernetes_swaps_them(self, tmp_path: Path) -> None:
        for name, key in (("v1", A), ("v2", B)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "key.pem").write_text(public_pem(key))
        (tmp_path / "data").symlink_to("v1")
        file = KeyFile(str(tmp_path / "data" / "key.pem"))
        (tmp_path / "data.new").symlink_to("v2")
        (tmp_path / "data.new").replace(tmp_path / "data")
        assert file.key() == PUBLIC_B

    def test_a_file_that_does_not_change_is_read_once(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = KeyFile(str(path))
        monkeypatch.setattr(Path, "read_text", lambda _: pytest.fail("it was read again"))
        assert [file.key() for _ in range(3)] == [PUBLIC_A] * 3

    @pytest.mark.parametrize("content", ["", "not a key", public_pem(B)[:40], rsa_pem().decode()])
    def test_a_file_that_turns_bad_keeps_its_last_key_and_is_read_when_good_again(
        self, path: Path, content: str
    ) -> None:
        file = KeyFile(str(path))
        write(path, content)
        assert file.key() == PUBLIC_A
        assert file.key() == PUBLIC_A
        write(path, public_pem(B))
        assert file.key() == PUBLIC_B

    def test_a_file_that_is_no_text_any_more_keeps_its_last_key(self, path: Path) -> None:
        file = KeyFile(str(path))
        path.write_bytes(b"\xff\xfe\x00")
        assert file.key() == PUBLIC_A

    def test_a_file_that_vanishes_keeps_its_last_key_and_is_read_when_it_is_back(self, path: Path) -> None:
        file = KeyFile(str(path))
        path.unlink()
        assert file.key() == PUBLIC_A
        assert file.key() == PUBLIC_A
        path.write_text(public_pem(B))
        assert file.key() == PUBLIC_B

    def test_a_folder_in_its_place_keeps_its_last_key(self, path: Path) -> None:
        file = KeyFile(str(path))
        path.unlink()
        path.mkdir()
        assert file.key() == PUBLIC_A

    def test_a_file_that_cannot_be_read_for_a_while_is_read_as_soon_as_it_can_be(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(_: Path) -> str:
            raise PermissionError(13, "Permission denied")

        file = KeyFile(str(path))
        write(path, public_pem(B))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", forbidden)  # root, who runs tests in CI, may read everything
            assert file.key() == PUBLIC_A
        # chmod changes neither time, size nor inode.
        assert file.key() == PUBLIC_B

    def test_a_missing_file_is_warned_of_once(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        file = KeyFile(str(path))
        path.unlink()
        for _ in range(5):
            file.key()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.records[0].__dict__["file"] == str(path)

    def test_a_bad_file_is_warned_of_once_and_not_with_every_request(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = KeyFile(str(path))
        write(path, "not a key")
        for _ in range(5):
            file.key()
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_a_change_is_logged(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        file = KeyFile(str(path))
        write(path, public_pem(B))
        with caplog.at_level(logging.INFO):
            file.key()
            file.key()
        assert [record.getMessage() for record in caplog.records] == ["a public key file changed"]

    def test_a_missing_file_is_an_error_at_start(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            KeyFile(str(tmp_path / "none.pem"))

    @pytest.mark.parametrize("content", ["", "not a key", rsa_pem().decode()])
    def test_a_file_without_a_key_is_an_error_at_start(self, path: Path, content: str) -> None:
        path.write_text(content)
        with pytest.raises(ValueError, match="public key"):
            KeyFile(str(path))


class TestFirst:
    async def test_it_fetches_the_key(self, server_key: ServerKey) -> None:
        assert server_key.keys() == ()
        assert await server_key.first() is True
        assert server_key.keys() == (PUBLIC_A,)

    @pytest.mark.parametrize("root", ["/", "/ci", "/ci/"])
    async def test_the_address_may_have_a_root_path_or_a_slash_behind_it(
        self, session: aiohttp.ClientSession, woodpecker: Woodpecker, clock: Clock, root: str
    ) -> None:
        server_key = ServerKey(session, woodpecker.url + root, str, clock)
        assert await server_key.first() is True

    async def test_it_says_that_there_is_none(self, server_key: ServerKey, woodpecker: Woodpecker) -> None:
        woodpecker.status = 500
        assert await server_key.first() is False

    async def test_it_asks_again_no_matter_how_short_ago_the_last_time_was(
        self, server_key: ServerKey, woodpecker: Woodpecker
    ) -> None:
        woodpecker.status = 500
        assert await server_key.first() is False
        woodpecker.serve(A)
        assert await server_key.first() is True


class TestRefresh:
    async def test_it_fetches_the_key_if_there_was_none(self, server_key: ServerKey) -> None:
        assert await server_key.refresh() is True
        assert server_key.keys() == (PUBLIC_A,)

    async def test_it_asks_at_most_every_five_seconds_however_many_signatures_fail(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        await server_key.first()
        start = clock.at
        for step in range(50):
            clock.at = start + step / 10
            assert await server_key.refresh() is False
        assert woodpecker.asked == 2
        clock.at = start + 5
        for _ in range(10):
            assert await server_key.refresh() is False
        assert woodpecker.asked == 3

    async def test_a_fetch_that_fails_counts_too(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        woodpecker.status = 500
        for _ in range(10):
            assert await server_key.refresh() is False
        assert woodpecker.asked == 1
        clock.at += 5
        woodpecker.serve(A)
        assert await server_key.refresh() is True

    async def test_a_key_that_changes_right_after_the_start_is_found_at_once(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        await server_key.first()
        woodpecker.serve(B)
        clock.at += 1
        assert await server_key.refresh() is True
        assert server_key.keys() == (PUBLIC_A, PUBLIC_B)

    async def test_a_key_that_changes_right_after_the_last_look_is_found_five_seconds_later(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        await server_key.refresh()
        woodpecker.serve(B)
        clock.at += 4.9
        assert await server_key.refresh() is False
        assert server_key.keys() == (PUBLIC_A,)
        clock.at += 0.1
        assert await server_key.refresh() is True
        assert server_key.keys() == (PUBLIC_A, PUBLIC_B)

    async def test_several_callers_share_one_fetch_and_all_learn_of_the_new_key(
        self, server_key: ServerKey, woodpecker: Woodpecker
    ) -> None:
        woodpecker.open.clear()
        callers = [asyncio.ensure_future(server_key.refresh()) for _ in range(20)]
        await woodpecker.was_asked.wait()
        woodpecker.open.set()
        assert await asyncio.gather(*callers) == [True] * 20
        assert woodpecker.asked == 1

    async def test_a_caller_that_gives_up_does_not_lock_the_others_out(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        woodpecker.open.clear()
        caller = asyncio.ensure_future(server_key.refresh())
        await woodpecker.was_asked.wait()
        caller.cancel()
        woodpecker.open.set()
        clock.at += 60
        assert await asyncio.wait_for(server_key.refresh(), 5) is True

    async def test_the_same_key_again_is_nothing_new(self, server_key: ServerKey, clock: Clock) -> None:
        await server_key.first()
        clock.at += 60
        assert await server_key.refresh() is False
        assert server_key.keys() == (PUBLIC_A,)

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, b"not found"),
            (500, public_pem(B).encode()),
            (401, public_pem(B).encode()),
            (200, b"<!doctype html><title>Woodpecker</title>"),
            (200, rsa_pem()),
            (200, b""),
            (200, b"\xff\xfe\xfd"),
            (204, b""),
        ],
        ids=["404", "500 with a key", "401 with a key", "HTML", "an RSA key", "nothing", "no text", "204"],
    )
    async def test_a_wrong_server_never_takes_the_key_away(
        self,
        *,
        server_key: ServerKey,
        woodpecker: Woodpecker,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
        status: int,
        body: bytes,
    ) -> None:
        await server_key.first()
        woodpecker.status, woodpecker.body = status, body
        clock.at += 60
        assert await server_key.refresh() is False
        assert woodpecker.asked == 2
        assert server_key.keys() == (PUBLIC_A,)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.__dict__["url"] == woodpecker.url + "/api/signature/public-key"
        assert record.__dict__["cause"]

    async def test_a_page_that_redirects_to_a_login_never_takes_the_key_away(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        async def to_login(request: web.Request) -> web.Response:
            if "login" in request.query:
                return web.Response(text="<html>log in</html>", content_type="text/html")
            raise web.HTTPFound(f"{request.path}?login")

        await server_key.first()
        woodpecker.answer = to_login
        clock.at += 60
        assert await server_key.refresh() is False
        assert server_key.keys() == (PUBLIC_A,)

    async def test_an_answer_without_end_is_not_waited_for(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(b"x" * 65536)
            return response

        await server_key.first()
        woodpecker.answer = endless
        clock.at += 60
        assert await asyncio.wait_for(server_key.refresh(), 2) is False
        assert server_key.keys() == (PUBLIC_A,)

    async def test_an_answer_that_arrives_in_two_pieces_is_read_whole(
        self, server_key: ServerKey, woodpecker: Woodpecker
    ) -> None:
        async def in_pieces(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            pem = public_pem(A).encode()
            await response.write(pem[:50])
            await asyncio.sleep(0.05)  # a slow network
            with contextlib.suppress(ConnectionError):  # the one who asked may be gone
                await response.write(pem[50:])
            return response

        woodpecker.answer = in_pieces
        assert await server_key.refresh() is True
        assert server_key.keys() == (PUBLIC_A,)

    async def test_a_server_that_hangs_is_given_up_and_the_key_stays(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await server_key.first()
        monkeypatch.setattr(keys, "_FETCH_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
        woodpecker.open.clear()
        clock.at += 60
        assert await asyncio.wait_for(server_key.refresh(), 2) is False
        assert server_key.keys() == (PUBLIC_A,)

    async def test_a_server_that_is_gone_never_takes_the_key_away(
        self, session: aiohttp.ClientSession, clock: Clock
    ) -> None:
        played = Woodpecker()
        played.serve(A)
        played.open.set()
        async with playing(played):
            server_key = ServerKey(session, played.url, str, clock)
            await server_key.first()
        clock.at += 60
        assert await server_key.refresh() is False
        assert server_key.keys() == (PUBLIC_A,)


class TestLive:
    async def test_it_asks_until_there_is_a_key_and_waits_longer_each_time_but_never_long(
        self, server_key: ServerKey, woodpecker: Woodpecker
    ) -> None:
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 6:
                woodpecker.serve(A)

        woodpecker.status = 503
        await server_key.live(sleep)
        assert server_key.keys() == (PUBLIC_A,)
        assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
        assert woodpecker.asked == 7

    async def test_with_a_key_it_does_nothing(self, server_key: ServerKey, woodpecker: Woodpecker) -> None:
        await server_key.first()
        await server_key.live(asyncio.sleep)
        assert woodpecker.asked == 1


class TestFailure:
    """What is said of a fetch that fails: what is so, once, and with what to do."""

    async def test_no_key_stays_where_there_is_none(
        self, server_key: ServerKey, woodpecker: Woodpecker, caplog: pytest.LogCaptureFixture
    ) -> None:
        woodpecker.status = 503
        for _ in range(3):
            await server_key.first()
        (message,) = [record.getMessage() for record in caplog.records]
        assert message == "Woodpecker's public key could not be fetched; it is tried again"

    async def test_the_one_that_was_fetched_stays(
        self, server_key: ServerKey, woodpecker: Woodpecker, caplog: pytest.LogCaptureFixture
    ) -> None:
        await server_key.first()
        woodpecker.status = 503
        await server_key.first()
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.endswith("the one that was fetched before stays")

    async def test_another_cause_is_said_and_the_same_one_again_after_it_went_well(
        self, server_key: ServerKey, woodpecker: Woodpecker, caplog: pytest.LogCaptureFixture
    ) -> None:
        for status in (503, 503, 404, 404, 200, 404):
            woodpecker.status = status
            await server_key.first()
        causes = [record.__dict__["cause"] for record in caplog.records if record.levelname == "WARNING"]
        assert causes == ["status 503", "status 404", "status 404"]

    @pytest.mark.parametrize(
        ("status", "body", "words"),
        [
            (401, b"", "woodpecker.token_file"),
            (403, b"", "woodpecker.token_file"),
            (404, b"", "404"),
            (200, b"<html>", "not an ed25519 public key"),
            (200, b"\xff\xfe", "not text"),
        ],
    )
    async def test_it_says_what_to_do(
        self, server_key: ServerKey, woodpecker: Woodpecker, status: int, body: bytes, words: str
    ) -> None:
        woodpecker.status, woodpecker.body = status, body
        await server_key.first()
        assert words in server_key.failure
        woodpecker.serve(A)
        await server_key.first()
        assert server_key.failure == ""

    async def test_a_server_that_is_gone_is_to_be_looked_at(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        server_key = ServerKey(session, f"http://127.0.0.1:{free_port()}", str, clock)
        await server_key.first()
        assert "cannot be reached" in server_key.failure

    async def test_a_password_in_the_address_is_not_logged(
        self, session: aiohttp.ClientSession, woodpecker: Woodpecker, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        woodpecker.status = 500
        address = woodpecker.url.replace("http://", "http://ci:hunter2@")
        await ServerKey(session, address, str, clock).first()
        assert "hunter2" not in str([record.__dict__ for record in caplog.records])


class TestOwnAuthority:
    """A Woodpecker server whose certificate a private authority signed."""

    @pytest.fixture
    async def https(self, tmp_path: Path) -> AsyncIterator[str]:
        """Its address; the authority is in ``ca.pem``, one that did not sign in ``other.pem``."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
        played = Woodpecker()
        played.serve(A)
        played.open.set()
        app = web.Application()
        app.router.add_get("/api/signature/public-key", played.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        both = str(tmp_path / "both.pem")
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.serving(both, both)).start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()

    @pytest.mark.parametrize("authority", ["ca.pem", "other.pem"])
    async def test_the_key_is_fetched_only_if_woodpecker_ca_cert_is_that_authority(
        self, *, https: str, tmp_path: Path, bao: OpenBao, session: aiohttp.ClientSession, authority: str
    ) -> None:
        given = TestServiceThatKnowsOnlyTheServersAddress.settings_in_process(
            bao, server_url=https, ca_cert=str(tmp_path / authority)
        )
        async with wiring.running(given) as url:
            reply = await asking(session, url, A).send("POST", "/secrets", pipeline_body())
            key = (await asking(session, url, A).raw("GET", "/readyz", None, {})).json["checks"]["key"]
        if authority == "ca.pem":
            assert (reply.status, key) == (200, {"ok": True})
        else:
            assert reply.status == 503
            assert "not trusted: set woodpecker.ca_cert" in key["detail"]


class TestConfirm:
    @pytest.fixture
    async def changed(self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock) -> ServerKey:
        """Fetched as A, then as B."""
        await server_key.first()
        woodpecker.serve(B)
        clock.at += 60
        assert await server_key.refresh() is True
        return server_key

    async def test_a_changed_key_stands_beside_the_old_one(self, changed: ServerKey) -> None:
        assert changed.keys() == (PUBLIC_A, PUBLIC_B)

    async def test_the_old_key_goes_when_a_request_verified_under_the_new_one(self, changed: ServerKey) -> None:
        changed.confirm(PUBLIC_B)
        assert changed.keys() == (PUBLIC_B,)

    async def test_the_old_key_in_use_keeps_its_place(self, changed: ServerKey) -> None:
        changed.confirm(PUBLIC_A)
        assert changed.keys()[0] == PUBLIC_A

    async def test_a_key_from_elsewhere_confirms_nothing(self, changed: ServerKey) -> None:
        changed.confirm(PUBLIC_C)
        assert changed.keys() == (PUBLIC_A, PUBLIC_B)

    async def test_of_several_changes_only_the_last_stands_beside_the_key_in_use(
        self, changed: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        woodpecker.serve(C)
        clock.at += 60
        assert await changed.refresh() is True
        assert changed.keys() == (PUBLIC_A, PUBLIC_C)

    async def test_a_wrong_servers_key_never_replaces_the_one_that_works(
        self, changed: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        for key in (C, B, C, A):
            woodpecker.serve(key)
            clock.at += 60
            await changed.refresh()
            changed.confirm(PUBLIC_A)
            assert changed.keys()[0] == PUBLIC_A

    async def test_after_the_change_the_next_one_works_alike(
        self, changed: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        changed.confirm(PUBLIC_B)
        woodpecker.serve(C)
        clock.at += 60
        assert await changed.refresh() is True
        assert changed.keys() == (PUBLIC_B, PUBLIC_C)
        changed.confirm(PUBLIC_C)
        assert changed.keys() == (PUBLIC_C,)


class TestAccessToken:
    async def test_without_one_there_is_no_authorization(self, server_key: ServerKey, woodpecker: Woodpecker) -> None:
        await server_key.first()
        assert woodpecker.authorizations == [None]

    async def test_it_is_sent_and_read_again_for_each_fetch(
        self, session: aiohttp.ClientSession, woodpecker: Woodpecker, clock: Clock, tmp_path: Path
    ) -> None:
        file = tmp_path / "token"
        file.write_text("personal-1\n")
        server_key = ServerKey(session, woodpecker.url, wiring._text_of(str(file)), clock)
        await server_key.first()
        file.write_text("personal-2\n")
        clock.at += 60
        await server_key.refresh()
        assert woodpecker.authorizations == ["Bearer personal-1", "Bearer personal-2"]

    @pytest.mark.parametrize("content", [None, b"two\nlines", b"\xff\xfe"], ids=["gone", "two lines", "no text"])
    async def test_a_token_file_that_turns_bad_is_a_failed_fetch_and_is_not_logged(
        self,
        *,
        session: aiohttp.ClientSession,
        woodpecker: Woodpecker,
        clock: Clock,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        content: bytes | None,
    ) -> None:
        file = tmp_path / "token"
        file.write_text("personal-1")
        server_key = ServerKey(session, woodpecker.url, wiring._text_of(str(file)), clock)
        await server_key.first()
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        clock.at += 60
        assert await server_key.refresh() is False
        assert server_key.keys() == (PUBLIC_A,)
        (record,) = caplog.records
        assert "lines" not in str(record.__dict__["cause"])

    async def test_a_refused_token_is_not_logged(
        self,
        session: aiohttp.ClientSession,
        woodpecker: Woodpecker,
        clock: Clock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        woodpecker.status = 403
        assert await ServerKey(session, woodpecker.url, lambda: "personal-token", clock).first() is False
        (record,) = caplog.records
        assert "403" in str(record.__dict__["cause"])
        assert "personal-token" not in str(record.__dict__)


class TestKeys:
    async def test_keys_from_everywhere_may_verify(self, server_key: ServerKey, tmp_path: Path) -> None:
        path = tmp_path / "b.pem"
        path.write_text(public_pem(B))
        await server_key.first()
        combined = Keys([PUBLIC_C], [KeyFile(str(path))], server_key)
        assert combined.current() == [PUBLIC_C, PUBLIC_B, PUBLIC_A]

    async def test_a_file_that_changes_counts_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        path.write_text(public_pem(A))
        combined = Keys(files=[KeyFile(str(path))])
        assert combined.current() == [PUBLIC_A]
        write(path, public_pem(B))
        assert combined.current() == [PUBLIC_B]

    async def test_without_a_server_there_is_nothing_to_look_for(self) -> None:
        combined = Keys([PUBLIC_A])
        combined.confirm(PUBLIC_A)
        assert await combined.refresh() is False
        assert combined.current() == [PUBLIC_A]

    async def test_with_a_key_nothing_is_missing(self) -> None:
        assert Keys([PUBLIC_A]).missing() == ""

    async def test_without_any_nobody_can_be_verified_and_what_is_missing_is_said(
        self, server_key: ServerKey, woodpecker: Woodpecker
    ) -> None:
        woodpecker.status = 401
        await server_key.first()
        combined = Keys(server=server_key)
        with pytest.raises(NoKeyYet, match="no public key"):
            combined.current()
        assert "woodpecker.token_file" in combined.missing()

    async def test_reload_reads_files_and_asks_the_server(
        self, server_key: ServerKey, woodpecker: Woodpecker, tmp_path: Path
    ) -> None:
        path = tmp_path / "key.pem"
        path.write_text(public_pem(C))
        combined = Keys(files=[KeyFile(str(path))], server=server_key)
        before = path.stat()
        path.write_text(public_pem(B))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had changed
        await combined.reload()
        assert combined.current() == [PUBLIC_B, PUBLIC_A]
        assert woodpecker.asked == 1

    async def test_refresh_and_confirm_reach_the_server(
        self, server_key: ServerKey, woodpecker: Woodpecker, clock: Clock
    ) -> None:
        combined = Keys([PUBLIC_C], server=server_key)
        assert await combined.refresh() is True
        woodpecker.serve(B)
        clock.at += 60
        assert await combined.refresh() is True
        assert combined.current() == [PUBLIC_C, PUBLIC_A, PUBLIC_B]
        combined.confirm(PUBLIC_B)
        assert combined.current() == [PUBLIC_C, PUBLIC_B]


def asking(session: aiohttp.ClientSession, url: str, key: Ed25519PrivateKey) -> Client:
    return Client(session, url, key)


class TestServiceThatKnowsOnlyTheServersAddress:
    async def test_it_verifies_under_the_servers_key_and_strangers_make_it_ask_no_more_than_once(
        self, folder: Path, bao: OpenBao, session: aiohttp.ClientSession, woodpecker: Woodpecker
    ) -> None:
        document = settings(A, bao, woodpecker={"public_keys": [], "server_url": woodpecker.url})
        async with serving(folder, document) as service:
            assert (await asking(session, service.url, A).send("POST", "/secrets", pipeline_body())).status == 200
            stranger = asking(session, service.url, B)
            replies = await asyncio.gather(*(stranger.send("POST", "/secrets", pipeline_body()) for _ in range(10)))
            assert {reply.status for reply in replies} == {401}
            assert (await asking(session, service.url, A).send("POST", "/secrets", pipeline_body())).status == 200
        assert woodpecker.asked == 2  # once at the start, once for all of the strangers

    async def test_a_key_that_changes_right_after_the_start_verifies(
        self, folder: Path, bao: OpenBao, session: aiohttp.ClientSession, woodpecker: Woodpecker
    ) -> None:
        document = settings(A, bao, woodpecker={"public_keys": [], "server_url": woodpecker.url})
        async with serving(folder, document) as service:
            assert (await asking(session, service.url, A).send("POST", "/secrets", pipeline_body())).status == 200
            woodpecker.serve(B)
            assert (await asking(session, service.url, B).send("POST", "/secrets", pipeline_body())).status == 200
            assert (await asking(session, service.url, A).send("POST", "/secrets", pipeline_body())).status == 401

    @staticmethod
    def settings_in_process(bao: OpenBao, **woodpecker: Any) -> config.Settings:
        return config.check(
            {
                "server": {"host": "127.0.0.1", "port": 0},
                "woodpecker": woodpecker,
                "vault": {"address": bao.address, "auth": {"token": bao.token}},
            },
            {},
        )

    async def test_a_new_key_of_the_server_verifies_and_then_the_old_one_does_not(
        self,
        bao: OpenBao,
        session: aiohttp.ClientSession,
        woodpecker: Woodpecker,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(keys, "_FETCH_INTERVAL", 0.0)  # nobody waits
        async with wiring.running(self.settings_in_process(bao, server_url=woodpecker.url)) as url:
            old, new = asking(session, url, A), asking(session, url, B)
            assert (await old.send("POST", "/secrets", pipeline_body())).status == 200
            assert (await new.send("POST", "/secrets", pipeline_body())).status == 401
            woodpecker.serve(B)
            assert (await old.send("POST", "/secrets", pipeline_body())).status == 200
            assert (await new.send("POST", "/secrets", pipeline_body())).status == 200
            assert (await old.send("POST", "/secrets", pipeline_body())).status == 401

    async def test_a_request_with_a_wrong_body_under_the_new_key_confirms_nothing(
        self,
        bao: OpenBao,
        session: aiohttp.ClientSession,
        woodpecker: Woodpecker,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(keys, "_FETCH_INTERVAL", 0.0)
        async with wiring.running(self.settings_in_process(bao, server_url=woodpecker.url)) as url:
            woodpecker.serve(B)
            digest = {"Content-Digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"}
            new = asking(session, url, B)
            assert (await new.send("POST", "/secrets", pipeline_body(), headers=digest)).status == 401
            assert (await asking(session, url, A).send("POST", "/secrets", pipeline_body())).status == 200

    async def test_it_starts_without_the_server_is_not_ready_and_answers_as_soon_as_there_is_a_key(
        self, bao: OpenBao, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "_PAUSES", (0.01, 0.01))
        port = free_port()
        async with wiring.running(self.settings_in_process(bao, server_url=f"http://127.0.0.1:{port}")) as url:
            client = asking(session, url, A)
            for asked in (client, asking(session, url, B)):
                reply = await asked.send("POST", "/secrets", pipeline_body())
                assert reply.status == 503
                assert reply.headers["Retry-After"]
                assert reply.json["title"] == "No public key yet"
            ready = await client.raw("GET", "/readyz", None, {})
            assert ready.status == 503
            assert ready.json["status"] == "not ready"
            assert not ready.json["checks"]["key"]["ok"]
            assert "woodpecker.server_url" in ready.json["checks"]["key"]["detail"]
            played = Woodpecker(status=503)
            played.open.set()
            async with playing(played, port):
                while played.asked < 3:  # noqa: ASYNC110 - it asks by itself
                    await asyncio.sleep(0.005)
                played.serve(A)
                async with asyncio.timeout(10):
                    while (await client.send("POST", "/secrets", pipeline_body())).status != 200:  # noqa: ASYNC110 - see above
                        await asyncio.sleep(0.005)
                assert (await asking(session, url, B).send("POST", "/secrets", pipeline_body())).status == 401
                ready = await client.raw("GET", "/readyz", None, {})
                assert (ready.status, ready.json["checks"]["key"]) == (200, {"ok": True})

    async def test_it_starts_without_the_server_if_it_has_another_key(
        self, bao: OpenBao, session: aiohttp.ClientSession
    ) -> None:
        gone = f"http://127.0.0.1:{free_port()}"
        given = self.settings_in_process(bao, server_url=gone, public_keys=[public_pem(A)])
        async with wiring.running(given) as url:
            assert (await asking(session, url, A).send("POST", "/secrets", pipeline_body())).status == 200

    async def test_an_older_server_gets_the_access_token(
        self, bao: OpenBao, session: aiohttp.ClientSession, woodpecker: Woodpecker, tmp_path: Path
    ) -> None:
        async def older(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") != "Bearer personal-token":
                return web.Response(status=401)
            return web.Response(text=public_pem(A))

        woodpecker.answer = older
        file = tmp_path / "token"
        file.write_text("personal-token\n")
        given = self.settings_in_process(bao, server_url=woodpecker.url, token_file=str(file))
        async with wiring.running(given) as url:
            assert (await asking(session, url, A).send("POST", "/secrets", pipeline_body())).status == 200
