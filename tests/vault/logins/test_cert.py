"""Logging in with the certificate of the connection, against a node that asks for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hvac.exceptions import InvalidRequest

from tests.servers import Admin
from tests.vault.conftest import SERVER_NAME, Tls
from tests.vault.logins import enabled, known, login_adapter, write
from tests.vault.raft import Raft
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.cert import Cert


@pytest.fixture
def operator(node: Raft, session: aiohttp.ClientSession) -> Admin:
    """The admin of that node."""
    return Admin(node.server, session)


@pytest.fixture
def authorities(tls: Tls) -> list[str]:
    """The one that signed our certificate, and another."""
    return [Path(tls.file(name)).read_text() for name in ("ca.pem", "other-ca.pem")]


@pytest.fixture
async def mount(operator: Admin, authorities: list[str], repo_id: int) -> AsyncIterator[str]:
    """An auth method with the role ``ci`` for our certificate, and ``other`` for those of another authority."""
    async with enabled(operator, "cert", f"cert-{repo_id}") as mount:
        for role, certificate in (("ci", authorities[0]), ("other", authorities[1])):
            path = f"auth/{mount}/certs/{role}"
            await write(operator, path, certificate=certificate, token_policies=[role], token_ttl="5m")
        yield mount


@pytest.fixture
def connection(tls: Tls) -> Connection:
    """With our certificate."""
    return Connection(
        tls.mutual_address,
        ca_cert=tls.file("ca.pem"),
        tls_server_name=SERVER_NAME,
        client_cert=tls.file("client.pem"),
        client_key=tls.file("client.key"),
    )


@pytest.mark.parametrize("role", ["ci", ""], ids=["a role", "any role"])
async def test_it_gives_a_token_of(operator: Admin, mount: str, connection: Connection, role: str) -> None:
    async with login_adapter(connection) as adapter:
        grant = await Cert(mount=mount, role=role).login(adapter)
    assert (grant.lease, grant.renewable, grant.ours) == (300, True, True)
    found = await known(operator, grant)
    assert set(found["policies"]) == {"default", "ci"}
    assert found["meta"]["cert_name"] == "ci"


@pytest.mark.parametrize("role", ["other", "none"])
async def test_a_role_that_the_certificate_does_not_match_is_refused(
    mount: str, connection: Connection, role: str
) -> None:
    async with login_adapter(connection) as adapter:
        with pytest.raises(InvalidRequest):
            await Cert(mount=mount, role=role).login(adapter)


async def test_without_a_certificate_there_is_no_login(tls: Tls, mount: str) -> None:
    connection = Connection(tls.address, ca_cert=tls.file("ca.pem"), tls_server_name=SERVER_NAME)
    async with login_adapter(connection) as adapter:
        with pytest.raises(InvalidRequest):
            await Cert(mount=mount).login(adapter)
