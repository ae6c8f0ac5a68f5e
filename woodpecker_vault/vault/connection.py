"""Where Vault is and how to talk to it: certificates, and the one connection pool."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from woodpecker_vault import exact_json


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
        """Every address, without a slash at the end."""
        return tuple(address.strip().rstrip("/") for address in self.address.split(","))


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
    tls = tls_context(connection) if "https:" in connection.address else False
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connection.max_connections, ssl=tls),
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
