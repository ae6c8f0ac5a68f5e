"""What stands before Vault in many houses: a proxy that passes requests on, and now and then answers itself."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

_OWN = {"transfer-encoding", "content-length", "connection", "host", "content-encoding"}


@dataclass(frozen=True, slots=True)
class Page:
    """An answer that is not Vault's."""

    status: int
    kind: str
    body: bytes


INGRESS_404 = Page(404, "text/html", b"<html><head><title>404 Not Found</title></head></html>")
EMPTY_404 = Page(404, "application/json", b"")
GATEWAY_403 = Page(403, "application/json", b'{"message":"You cannot consume this service"}')
GATEWAY_404 = Page(404, "application/json", b'{"message":"no Route matched with those values"}')
GATEWAY_400 = Page(400, "application/json", b'{"error":"bad request"}')
SPEC_404 = Page(404, "application/json", b'{"code":404,"data":null,"message":"not found"}')
CODED_403 = Page(403, "application/json", b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}')
METHOD_405 = Page(405, "text/plain", b"Method Not Allowed")
LOGIN_401 = Page(401, "text/html", b"<html>Please sign in</html>")
WELCOME_200 = Page(200, "text/html", b"<html>Welcome</html>")
STATUS_200 = Page(200, "application/json", b'{"status":"ok"}')
EMPTY_200 = Page(200, "application/json", b"")
NOTHING_204 = Page(204, "text/plain", b"")
CDN_521 = Page(521, "text/html", b"<html>Web server is down</html>")

FOREIGN = {
    name: page
    for name, page in globals().items()
    if isinstance(page, Page) and page is not NOTHING_204  # which for a write is just what Vault says
}


@dataclass
class Front:
    """It answers itself what ``answer`` says, given method and path with query; the rest comes from ``target``.

    ``strips`` is the beginning of each path that ``target`` does not see.
    """

    target: str
    answer: Callable[[str, str], Page | None] = lambda _method, _path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    strips: str = ""
    address: str = ""

    def says(self, page: Page | None, *, to: str = "", times: float = float("inf")) -> None:
        """Answer so many requests whose path holds ``to`` with this page, and then pass them on."""
        left = times

        def answer(_method: str, path: str) -> Page | None:
            nonlocal left
            if page is None or to not in path or left <= 0:
                return None
            left -= 1
            return page

        self.answer = answer
        self.requests.clear()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Front"]:
        """Serve until the block ends."""
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            runner = web.ServerRunner(web.Server(lambda request: self._handle(request, session)), shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                await runner.cleanup()

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.Response:
        self.requests.append((request.method, request.raw_path))
        body = await request.read()
        page = self.answer(request.method, request.raw_path)
        if page is not None:
            return web.Response(status=page.status, body=page.body, content_type=page.kind)
        async with session.request(
            request.method,
            URL(self.target + request.raw_path.removeprefix(self.strips), encoded=True),
            headers={name: value for name, value in request.headers.items() if name.lower() not in _OWN},
            data=body,
            allow_redirects=False,
        ) as reply:
            return web.Response(
                status=reply.status,
                body=await reply.read(),
                headers={name: value for name, value in reply.headers.items() if name.lower() not in _OWN},
            )
