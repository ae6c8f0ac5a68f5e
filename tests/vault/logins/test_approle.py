"""Logging in as a role, with a secret id that may be wrapped."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hvac.exceptions import InvalidRequest
from pydantic import SecretStr

from tests.servers import Admin
from tests.vault import rooms
from tests.vault.conftest import Tls
from tests.vault.logins import enabled, known, login_adapter, write
from tests.vault.raft import Raft
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.transport import ForeignAnswer


@dataclass(frozen=True, slots=True)
class Role:
    """A role in an auth method of its own."""

    admin: Admin
    mount: str
    role_id: str

    async def secret_id(self) -> str:
        """A new one."""
        data = await write(self.admin, f"auth/{self.mount}/role/ci/secret-id")
        return str(data["secret_id"])

    async def wrapped(self) -> str:
        """The wrapping token of a new one."""
        path = f"auth/{self.mount}/role/ci/secret-id"
        _, answer = await self.admin.call("POST", path, {}, **{"X-Vault-Wrap-TTL": "60"})
        return str(answer["wrap_info"]["token"])

    async def change(self, **settings: Any) -> None:
        """Other settings."""
        await write(self.admin, f"auth/{self.mount}/role/ci", **settings)

    async def revoke_secret_id(self, secret_id: str) -> None:
        """Vault knows it no longer."""
        await write(self.admin, f"auth/{self.mount}/role/ci/secret-id/destroy", secret_id=secret_id)

    def method(self, **settings: Any) -> AppRole:
        """A login as this role."""
        return AppRole(mount=self.mount, role_id=self.role_id, **settings)


@pytest.fixture
async def role(admin: Admin, repo_id: int) -> AsyncIterator[Role]:
    async with enabled(admin, "approle", f"approle-{repo_id}") as mount:
        await write(admin, f"auth/{mount}/role/ci", token_ttl="10m", token_policies=["ci"])
        _, answer = await admin.call("GET", f"auth/{mount}/role/ci/role-id")
        yield Role(admin, mount, answer["data"]["role_id"])


class TestSecretId:
    async def test_one_in_the_settings_gives_a_token_of_the_role(self, bao: OpenBao, admin: Admin, role: Role) -> None:
        async with login_adapter(bao) as adapter:
            grant = await role.method(secret_id=await role.secret_id()).login(adapter)
        assert (grant.lease, grant.renewable, grant.uses, grant.ours) == (600, True, 0, True)
        found = await known(admin, grant)
        assert found["path"] == f"auth/{role.mount}/login"
        assert "ci" in found["policies"]

    async def test_one_in_a_file_is_read_anew_at_each_login(self, bao: OpenBao, role: Role, tmp_path: Path) -> None:
        file, id_file = tmp_path / "secret-id", tmp_path / "role-id"
        id_file.write_text(f"{role.role_id}\n")
        first, second = await role.secret_id(), await role.secret_id()
        file.write_text(f"{first}\n")
        method = AppRole(mount=role.mount, role_id_file=str(id_file), secret_id_file=str(file))
        async with login_adapter(bao) as adapter:
            one = await method.login(adapter)
            await role.revoke_secret_id(first)
            with pytest.raises(InvalidRequest, match="invalid"):
                await method.login(adapter)
            file.write_text(second)
            other = await method.login(adapter)
        assert one.token != other.token

    async def test_there_may_be_none(self, bao: OpenBao, role: Role) -> None:
        await role.change(bind_secret_id=False, token_bound_cidrs=["127.0.0.0/8"])
        async with login_adapter(bao) as adapter:
            assert (await role.method().login(adapter)).token

    async def test_a_wrong_one_is_a_login_that_vault_refuses(self, bao: OpenBao, role: Role) -> None:
        async with rooms(Connection(bao.address), method=role.method(secret_id="no-such-secret-id")) as ours:
            with pytest.raises(LoginRefused) as caught:
                await ours.kv.read("any")
        assert "no-such-secret-id" not in f"{caught.value.detail} {caught.value.cause}"

    async def test_a_token_of_the_role_does_what_its_policy_says(
        self, bao: OpenBao, admin: Admin, role: Role, repo_id: int
    ) -> None:
        await admin.put(f"approle/{repo_id}", "x-value")
        await admin.token('path "secret/data/approle/*" { capabilities = ["read"] }', name=f"approle-{repo_id}")
        await role.change(token_policies=[f"approle-{repo_id}"])
        method = role.method(secret_id=await role.secret_id())
        async with rooms(Connection(bao.address), method=method) as ours:
            assert (await ours.kv.read(f"approle/{repo_id}")).data == {"value": "x-value"}


class TestTokens:
    async def test_a_batch_token_is_not_revoked_or_renewed(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_type="batch")
        async with login_adapter(bao) as adapter:
            grant = await role.method(secret_id=await role.secret_id()).login(adapter)
        assert (grant.lease, grant.renewable, grant.ours) == (600, False, False)

    async def test_it_is_known_for_how_many_requests_a_token_is_good(self, bao: OpenBao, role: Role) -> None:
        await role.change(token_num_uses=3)
        async with login_adapter(bao) as adapter:
            assert (await role.method(secret_id=await role.secret_id()).login(adapter)).uses == 3


class TestWrappedSecretId:
    async def test_it_is_unwrapped_once_and_kept_for_later_logins(self, bao: OpenBao, role: Role) -> None:
        method = role.method(secret_id=await role.wrapped(), secret_id_wrapped=True)
        async with login_adapter(bao) as adapter:
            one, other = await method.login(adapter), await method.login(adapter)
        assert one.token != other.token

    async def test_one_that_somebody_unwrapped_before_is_refused_with_what_that_means(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        wrapping = await role.wrapped()
        await write(admin, "sys/wrapping/unwrap", token=wrapping)
        async with login_adapter(bao) as adapter:
            with pytest.raises(LoginRefused, match="somebody else") as caught:
                await role.method(secret_id=wrapping, secret_id_wrapped=True).login(adapter)
        assert "A new one is needed" in caught.value.detail
        assert wrapping not in f"{caught.value.detail} {caught.value.cause}"
        assert caught.value.status == 503

    async def test_so_is_what_never_was_a_wrapping_token(self, bao: OpenBao, role: Role) -> None:
        async with login_adapter(bao) as adapter:
            with pytest.raises(LoginRefused, match="A new one is needed"):
                await role.method(secret_id="s.nosuchtoken", secret_id_wrapped=True).login(adapter)

    async def test_what_stands_before_vault_and_refuses_everything_is_not_taken_for_that(
        self, node: Raft, tls: Tls
    ) -> None:
        assert node.address
        method = AppRole(role_id="x", secret_id=SecretStr("s.x"), secret_id_wrapped=True)
        async with login_adapter(Connection(tls.address.replace("https", "http"))) as adapter:
            with pytest.raises(ForeignAnswer):
                await method.login(adapter)

    async def test_a_new_one_in_the_file_is_unwrapped_anew(self, bao: OpenBao, role: Role, tmp_path: Path) -> None:
        file = tmp_path / "wrapped"
        file.write_text(await role.wrapped())
        method = role.method(secret_id_file=str(file), secret_id_wrapped=True)
        async with login_adapter(bao) as adapter:
            await method.login(adapter)
            assert method._unwrapped is not None
            await role.revoke_secret_id(method._unwrapped[1].get_secret_value())
            with pytest.raises(InvalidRequest):
                await method.login(adapter)
            file.write_text(await role.wrapped())
            assert (await method.login(adapter)).token

    async def test_a_used_one_in_the_file_gives_way_to_a_new_one(
        self, bao: OpenBao, admin: Admin, role: Role, tmp_path: Path
    ) -> None:
        file = tmp_path / "wrapped"
        file.write_text(await role.wrapped())
        await write(admin, "sys/wrapping/unwrap", token=file.read_text())
        method = role.method(secret_id_file=str(file), secret_id_wrapped=True)
        async with login_adapter(bao) as adapter:
            with pytest.raises(LoginRefused):
                await method.login(adapter)
            file.write_text(await role.wrapped())
            assert (await method.login(adapter)).token

    async def test_something_else_in_the_wrapping_is_said_to_be_no_secret_id(
        self, bao: OpenBao, admin: Admin, role: Role
    ) -> None:
        _, answer = await admin.call("POST", "sys/wrapping/wrap", {"a": "b"}, **{"X-Vault-Wrap-TTL": "60"})
        method = role.method(secret_id=answer["wrap_info"]["token"], secret_id_wrapped=True)
        async with login_adapter(bao) as adapter:
            with pytest.raises(LoginRefused, match="not a secret id"):
                await method.login(adapter)

    async def test_what_was_unwrapped_is_in_no_text_of_the_settings(self, bao: OpenBao, role: Role) -> None:
        method = role.method(secret_id=await role.wrapped(), secret_id_wrapped=True)
        async with login_adapter(bao) as adapter:
            await method.login(adapter)
        assert method._unwrapped is not None
        for secret in method._unwrapped:
            for text in (repr(method), str(method), method.model_dump_json(), repr(method.__pydantic_private__)):
                assert secret.get_secret_value() not in text
