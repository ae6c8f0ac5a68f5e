"""Logging in as a user of Vault's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hvac.exceptions import InvalidRequest
from pydantic import SecretStr

from tests.servers import Admin
from tests.vault import rooms
from tests.vault.logins import enabled, known, login_adapter, write
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.userpass import Userpass

PASSWORD = "correct horse & battery/staple ü"


@pytest.fixture
async def mount(admin: Admin, repo_id: int) -> AsyncIterator[str]:
    """An auth method with a user, below a path of two segments, one with a space."""
    async with enabled(admin, "userpass", f"people%20of/userpass-{repo_id}") as path:
        await write(admin, f"auth/{path}/users/ci-bot", password=PASSWORD, token_policies=["ci"], token_ttl="5m")
        yield path.replace("%20", " ")


async def test_a_password_in_the_settings_gives_a_token_of_the_user(bao: OpenBao, admin: Admin, mount: str) -> None:
    async with login_adapter(bao) as adapter:
        grant = await Userpass(mount=f"/{mount}/", username="ci-bot", password=SecretStr(PASSWORD)).login(adapter)
    assert (grant.lease, grant.renewable, grant.ours) == (300, True, True)
    found = await known(admin, grant)
    assert found["meta"] == {"username": "ci-bot"}
    assert "ci" in found["policies"]


async def test_one_in_a_file_is_read_anew_at_each_login(bao: OpenBao, admin: Admin, mount: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    method = Userpass(mount=mount, username="ci-bot", password_file=str(file))
    async with login_adapter(bao) as adapter:
        assert (await method.login(adapter)).token
        await write(admin, f"auth/{mount.replace(' ', '%20')}/users/ci-bot/password", password="another one")
        with pytest.raises(InvalidRequest, match="invalid username or password"):
            await method.login(adapter)
        file.write_text("another one")
        assert (await method.login(adapter)).token


@pytest.mark.parametrize("username", ["nobody", "ci?bot", "ci-bot#", "%63i-bot"])
async def test_another_user_is_refused_and_never_taken_for_this_one(bao: OpenBao, mount: str, username: str) -> None:
    method = Userpass(mount=mount, username=username, password=SecretStr(PASSWORD))
    async with rooms(Connection(bao.address), method=method) as ours:
        with pytest.raises(LoginRefused) as caught:
            await ours.kv.read("any")
    assert "vault.auth" in caught.value.detail
    assert PASSWORD not in f"{caught.value.detail} {caught.value.cause}"
