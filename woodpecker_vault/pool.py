"""The connections of a client: over TCP with certificates that may change, or over Unix sockets."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from typing_extensions import override


class Connector(aiohttp.TCPConnector):
    """A pool over TCP, in which some hosts are Unix sockets.

    aiohttp has a connector for one socket; here there may be several, beside addresses.

    Args:
        tls: asked for each request. A request goes out over a connection made with this very context, so that a
            certificate that was replaced is not used any more. ``None`` for aiohttp's own default.
        sockets: the paths of the sockets, by the host that stands for each in URLs.
        options: as :class:`aiohttp.TCPConnector` takes them.
    """

    def __init__(
        self, tls: Callable[[], ssl.SSLContext] | None, sockets: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._tls = tls
        self._sockets = sockets or {}

    @override
    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """A connection out of the pool, or a new one."""
        if req.host in self._sockets:
            req.proxy = None
        elif self._tls is not None:
            # A session takes a context for each request as well, but its caller should not have to know about it.
            req._ssl = self._tls()  # noqa: SLF001
        return await super().connect(req, traces, timeout)

    @override
    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        path = self._sockets.get(req.host)
        if path is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            async with asyncio.timeout(timeout.sock_connect):
                _, protocol = await self._loop.create_unix_connection(self._factory, path)
        except OSError as error:  # TimeoutError is one, too
            raise UnixClientConnectorError(path, req.connection_key, error) from error
        return protocol
