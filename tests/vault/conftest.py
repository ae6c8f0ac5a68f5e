"""One OpenBao for the tests of the rooms that may be sealed and stopped, and that listens with TLS too."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from tests.certificates import leaf, plain_authority
from tests.vault.raft import Raft, raft
from woodpecker_vault.cli.openbao import free_port

SERVER_NAME = "vault.internal.example"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of certificates, and the addresses at which the server shows its own."""

    folder: Path
    port: int
    mutual_port: int

    @property
    def address(self) -> str:
        """Asks for no certificate of the client's."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def mutual_address(self) -> str:
        """Asks for one that the CA signed."""
        return f"https://127.0.0.1:{self.mutual_port}"

    def file(self, name: str) -> str:
        """``ca.pem``, ``other-ca.pem``, ``client.pem``, ``client.key``, ``other-client.pem``, ``other-client.key``."""
        return str(self.folder / name)

    @property
    def listeners(self) -> str:
        """The configuration of both."""
        shown = f"tls_cert_file = {json.dumps(self.file('server.pem'))}\n"
        shown += f"tls_key_file = {json.dumps(self.file('server.key'))}\n"
        asked = f"tls_require_and_verify_client_cert = true\ntls_client_ca_file = {json.dumps(self.file('ca.pem'))}\n"
        return "".join(
            f'listener "tcp" {{\naddress = "127.0.0.1:{port}"\ncluster_address = "127.0.0.1:{free_port()}"\n{more}}}\n'
            for port, more in ((self.port, shown), (self.mutual_port, shown + asked))
        )


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A private CA as Vault's own tools accept it, one that is not trusted, and what they signed.

    The server's certificate is for :data:`SERVER_NAME` only.
    """
    made = Tls(tmp_path_factory.mktemp("tls"), free_port(), free_port())
    for prefix in ("", "other-"):
        authority = plain_authority(f"{prefix}ca")
        authority.write(made.folder, f"{prefix}ca")
        client = leaf(authority, "woodpecker-vault", x509.RFC822Name("woodpecker-vault@example.com"))
        certificate, key = (Path(file) for file in client.write(made.folder, f"{prefix}client"))
        Path(made.file(f"{prefix}both.pem")).write_bytes(key.read_bytes() + certificate.read_bytes())
        if not prefix:
            leaf(authority, "vault", x509.DNSName(SERVER_NAME)).write(made.folder, "server")
    return made


@pytest.fixture(scope="session")
async def node(
    tmp_path_factory: pytest.TempPathFactory, session: aiohttp.ClientSession, tls: Tls
) -> AsyncIterator[Raft]:
    """Who seals or stops it unseals or starts it again."""
    async with raft(tmp_path_factory.mktemp("raft"), session, tls.listeners) as node:
        yield node
