"""A token that somebody else made: what Vault knows of it, and what it does not tell."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.servers import Admin
from tests.vault.logins import login_adapter
from woodpecker_vault.cli.openbao import OpenBao, free_port
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins import Grant
from woodpecker_vault.vault.logins.token import Token


async def made(admin: Admin, **settings: Any) -> str:
    """``bao token create``."""
    status, answer = await admin.call("POST", "auth/token/create", settings)
    assert status == 200, answer
    return str(answer["auth"]["client_token"])


class TestLogin:
    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"ttl": "10m"}, {"renewable": True}),
            ({"ttl": "10m", "renewable": False}, {"renewable": False}),
            ({"ttl": "10m", "num_uses": 5}, {"renewable": True, "uses": 4}),
            ({"ttl": "10m", "type": "batch"}, {"renewable": False}),
            ({"period": "10m"}, {"renewable": True}),
        ],
        ids=["an ordinary one", "not renewable", "for some requests", "batch", "periodic"],
    )
    async def test_what_vault_knows_of_it_is_known_then(
        self, bao: OpenBao, admin: Admin, *, settings: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        token = await made(admin, policies=["default"], **settings)
        async with login_adapter(bao) as adapter:
            grant = await Token(token=SecretStr(token)).login(adapter)
        assert 590 < grant.lease <= 600
        assert grant == Grant(token, lease=grant.lease, **expected)

    async def test_a_root_token_never_ends(self, bao: OpenBao) -> None:
        async with login_adapter(bao) as adapter:
            grant = await Token(token=SecretStr(bao.token)).login(adapter)
        assert grant == Grant(bao.token)

    async def test_one_that_may_not_ask_about_itself_is_used_as_it_is(self, bao: OpenBao, admin: Admin) -> None:
        token = await made(admin, no_default_policy=True, policies=["ci"], ttl="10m")
        async with login_adapter(bao) as adapter:
            grant = await Token(token=SecretStr(token)).login(adapter)
        assert "look itself up" in grant.refused
        assert replace(grant, refused="") == Grant(token)

    async def test_so_is_one_where_there_is_no_such_namespace(self, bao: OpenBao) -> None:
        async with login_adapter(Connection(bao.address, namespace="no-such-team")) as adapter:
            grant = await Token(token=SecretStr(bao.token)).login(adapter)
        assert "namespace" in grant.refused
        assert replace(grant, refused="") == Grant(bao.token)

    async def test_so_is_one_that_vault_cannot_be_asked_about_now(self) -> None:
        async with login_adapter(Connection(f"http://127.0.0.1:{free_port()}")) as adapter:
            grant = await Token(token=SecretStr("hvs.x")).login(adapter)
        assert grant == Grant("hvs.x", known=False)

    async def test_one_in_a_file_is_read_anew(self, bao: OpenBao, admin: Admin, tmp_path: Path) -> None:
        file = tmp_path / "token"
        one, other = await made(admin), await made(admin)
        file.write_text(f"{one}\n")
        method = Token(token_file=str(file))
        async with login_adapter(bao) as adapter:
            assert (await method.login(adapter)).token == one
            file.write_text(f"  {other}\n")
            assert (await method.login(adapter)).token == other


class TestVersion:
    def test_one_in_the_settings_has_one_only(self) -> None:
        assert Token(token=SecretStr("hvs.x")).version() is None

    def test_it_stays_as_long_as_the_file_does(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("hvs.one")
        method = Token(token_file=str(file))
        assert method.version() == method.version()

    def test_it_differs_once_the_file_is_written_or_replaced_or_gone(self, tmp_path: Path) -> None:
        file, other = tmp_path / "token", tmp_path / "other"
        file.write_text("hvs.one")
        method = Token(token_file=str(file))
        versions = [method.version()]
        file.write_text("hvs.one.two")
        versions.append(method.version())
        stat = file.stat()
        other.write_text("hvs.thr.two")
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(file)
        versions.append(method.version())
        file.unlink()
        versions.append(method.version())
        assert len(set(versions)) == 4
