"""Where Vault is and how to talk to it: addresses, certificates, and the one connection pool."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from woodpecker_vault import exact_json
from woodpecker_vault.pool import Connector
from woodpecker_vault.tls import Peer, authority_files, load_pair, trusting
from woodpecker_vault.watched import Watched

PEER = Peer("Vault", "vault.address", "vault.ca_cert", "vault.tls_server_name", "vault.client_cert")

_SOCKET = "unix://"


@dataclass(frozen=True, slots=True)
class Connection:
    """``[vault]``. Times in seconds, certificates as paths of PEM files, several addresses with commas between."""

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
    max_retries: int = 8
    follow_redirects: bool = True
    proxy: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address as a URL without a slash at the end. A host that cannot exist stands for a Unix socket."""
        return tuple(url for url, _ in self._numbered())

    @property
    def sockets(self) -> dict[str, str]:
        """The path of each Unix socket, by the host that stands for it."""
        return {url.removeprefix("http://"): path for url, path in self._numbered() if path}

    @property
    def uses_tls(self) -> bool:
        """Whether any connection, be it to a proxy, is made over TLS."""
        return any(url.startswith("https:") for url in (*self.addresses, self.proxy))

    def _numbered(self) -> Iterator[tuple[str, str]]:
        for number, address in enumerate(map(str.strip, self.address.split(","))):
            if address.startswith(_SOCKET):
                yield f"http://{number}.socket.invalid", address.removeprefix(_SOCKET)
            else:
                yield address.rstrip("/"), ""


def tls_context(connection: Connection) -> ssl.SSLContext:
    """TLS as the settings ask for it.

    Raises:
        OSError, ValueError: a certificate or key cannot be read (``ssl.SSLError`` is an OSError).
    """
    context = trusting(authority_files(connection.ca_cert, connection.ca_path))
    if connection.client_cert:
        load_pair(context, connection.client_cert, connection.client_key)
    if connection.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def watched_tls(connection: Connection) -> Watched[ssl.SSLContext]:
    """The same, made anew when one of its files changes.

    Raises:
        OSError, ValueError: as :func:`tls_context`.
    """

    def files() -> list[Path]:
        own = [Path(file) for file in (connection.client_cert, connection.client_key) if file]
        return authority_files(connection.ca_cert, connection.ca_path) + own

    return Watched("vault.ca_cert, ca_path, client_cert or client_key", files, lambda: tls_context(connection))


def open_session(connection: Connection, tls: Callable[[], ssl.SSLContext] | None = None) -> aiohttp.ClientSession:
    """The one connection pool. Close it when done; must be called in a running event loop.

    Args:
        connection: where Vault is.
        tls: asked for each request; if it is not given, the certificates are watched here.
    """
    if tls is None and connection.uses_tls:
        tls = watched_tls(connection).current
    session = aiohttp.ClientSession(
        connector=Connector(tls, connection.sockets, limit=connection.max_connections),
        # Not the total: that would include the wait for a connection out of the pool.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connection.timeout, sock_read=connection.timeout),
        headers={"X-Vault-Request": "true"},
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=connection.proxy or None,
        json_serialize=exact_json.dumps,
    )
    # aiohttp would send a DELETE again when a connection breaks, and has no setting against it; whether that may be is
    # for `sending` to say.
    session._retry_connection = False  # noqa: SLF001
    return session
