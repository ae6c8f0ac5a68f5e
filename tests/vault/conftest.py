"""One OpenBao for the tests of the rooms that may be sealed and stopped, and that listens with TLS too."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme

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
    """A CA, one that is not trusted, and what they signed. The server's certificate is for :data:`SERVER_NAME` only."""
    made = Tls(tmp_path_factory.mktemp("tls"), free_port(), free_port())
    for prefix in ("", "other-"):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made.file(f"{prefix}ca.pem"))
        client = authority.issue_cert("woodpecker-vault@example.com", common_name="woodpecker-vault")
        client.private_key_and_cert_chain_pem.write_to_path(made.file(f"{prefix}both.pem"))
        client.private_key_pem.write_to_path(made.file(f"{prefix}client.key"))
        client.cert_chain_pems[0].write_to_path(made.file(f"{prefix}client.pem"))
        if not prefix:
            server = authority.issue_cert(SERVER_NAME)
            server.private_key_pem.write_to_path(made.file("server.key"))
            server.cert_chain_pems[0].write_to_path(made.file("server.pem"))
    return made


@pytest.fixture(scope="session")
async def node(
    tmp_path_factory: pytest.TempPathFactory, session: aiohttp.ClientSession, tls: Tls
) -> AsyncIterator[Raft]:
    """Who seals or stops it unseals or starts it again."""
    async with raft(tmp_path_factory.mktemp("raft"), session, tls.listeners) as node:
        yield node
