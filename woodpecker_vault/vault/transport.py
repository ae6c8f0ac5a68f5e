"""hvac's requests over one shared aiohttp session.

hvac builds URLs and payloads and hands them to an *adapter* (``hvac.adapters.Adapter``, its own extension point). With
an adapter whose ``request`` is a coroutine, hvac's API methods return awaitables: one connection pool, many reads at
once, no thread.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import hvac.adapters
import hvac.exceptions
from typing_extensions import override
from yarl import URL

from woodpecker_vault import exact_json


@dataclass(frozen=True, slots=True)
class Connection:
    """Where Vault is and how to talk to it. Times in seconds, certificates as paths of PEM files."""

    address: str
    namespace: str = ""
    ca_cert: str = ""
    ca_path: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_server_name: str = ""
    skip_verify: bool = False
    timeout: float = 3.0
    max_connections: int = 32


class TokenSource(Protocol):
    """Where requests get their token from."""

    async def current(self) -> str:
        """The token to use now, logging in first if there is none."""

    async def after_refusal(self, refused: str) -> str | None:
        """A different token than the one Vault just answered 403 to, if there is one."""


def authority_files(ca_cert: str, ca_path: str) -> list[Path]:
    """The files with the certificate authorities to trust: the one file, and those in the folder."""
    files = [Path(ca_cert)] if ca_cert else []
    if ca_path:
        # Where Kubernetes mounts it, the folder holds others, hidden, with the files themselves.
        files += sorted(file for file in Path(ca_path).iterdir() if not file.is_dir())
    return files


def tls_context(connection: Connection) -> ssl.SSLContext:
    """TLS as the settings ask for it.

    Raises:
        OSError: a certificate or key cannot be read (``ssl.SSLError`` is one, too).
    """
    authorities = authority_files(connection.ca_cert, connection.ca_path)
    context = ssl.create_default_context(cafile=authorities[0] if authorities else None)  # or else the system's
    for file in authorities[1:]:
        context.load_verify_locations(file)
    if connection.client_cert:
        context.load_cert_chain(connection.client_cert, connection.client_key or None)
    if connection.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def open_session(connection: Connection) -> aiohttp.ClientSession:
    """The one connection pool. Close it when done; must be called in a running event loop."""
    tls = tls_context(connection) if connection.address.startswith("https:") else False
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connection.max_connections, ssl=tls),
        # Not the total: that would include the wait for a connection out of the pool.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connection.timeout, sock_read=connection.timeout),
        headers={"X-Vault-Request": "true"},
        cookie_jar=aiohttp.DummyCookieJar(),
        json_serialize=exact_json.dumps,
    )


class Adapter(hvac.adapters.Adapter):  # type: ignore[misc]  # hvac has no types
    """One request of hvac's, as a coroutine, without a token of its own.

    ``request`` returns the JSON document of an answer, an empty one where the answer has none, and raises hvac's
    own exceptions.
    """

    def __init__(self, session: aiohttp.ClientSession, connection: Connection) -> None:
        self._session = session
        self._connection = connection

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        """The token that a login's answer holds."""
        token: str = response["auth"]["client_token"]
        return token

    async def login(self, url: str, **kwargs: Any) -> dict[str, Any]:
        """Send a login; the token in its answer is the caller's to keep."""
        kwargs.pop("use_token", None)
        return await self.request("post", url, **kwargs)

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Send one request; ``kwargs`` are ``json`` and ``params``, as requests takes them."""
        fields = dict(headers or {})
        if self._connection.namespace and not url.startswith("/v1/sys/health"):
            fields["X-Vault-Namespace"] = self._connection.namespace
        async with self._session.request(
            method.upper(),
            URL(self._connection.address.rstrip("/") + url, encoded=True),
            headers=fields,
            server_hostname=self._connection.tls_server_name or None,
            allow_redirects=False,
            **kwargs,
        ) as response:
            body = await response.read()
            status = response.status
        document = _document(body)
        if status < HTTPStatus.MULTIPLE_CHOICES or not raise_exception:
            if document is None and status == HTTPStatus.OK:
                raise hvac.exceptions.UnexpectedError(
                    "the answer is not JSON: this is no Vault", method=method, url=url
                )
            return document or {}
        raise hvac.exceptions.VaultError.from_status(
            status,
            f"status {status}",
            errors=[str(error) for error in _list_of((document or {}).get("errors"))],
            method=method,
            url=url,
            text=body[:200].decode(errors="replace"),
            json=document,
        )


class AuthenticatedAdapter(Adapter):
    """The same, with a token; when Vault refuses it and there is another, the request is repeated once."""

    def __init__(self, session: aiohttp.ClientSession, connection: Connection, tokens: TokenSource) -> None:
        super().__init__(session, connection)
        self._tokens = tokens

    @override
    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Send one request with the current token."""
        token = await self._tokens.current()
        try:
            return await super().request(method, url, {**(headers or {}), "X-Vault-Token": token}, **kwargs)
        except hvac.exceptions.Forbidden:
            other = await self._tokens.after_refusal(token)
            if other is None:
                raise
            return await super().request(method, url, {**(headers or {}), "X-Vault-Token": other}, **kwargs)


def _list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _document(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; ``None`` if there is none."""
    try:
        document = exact_json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
