"""Logging in with a JWT whose issuer's key Vault knows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hvac.exceptions import InvalidRequest

from tests.servers import Admin
from tests.vault.logins import enabled, known, login_adapter, signed_jwt, write
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.vault.logins.jwt import Jwt

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def mount(admin: Admin, repo_id: int) -> AsyncIterator[str]:
    """An auth method that trusts :data:`KEY`, with the roles ``ci`` and ``other``, the former being the default."""
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    mount = f"jwt-{repo_id}"
    async with enabled(admin, "jwt", mount, jwt_validation_pubkeys=[pem], default_role="ci"):
        for role in ("ci", "other"):
            await write(
                admin,
                f"auth/{mount}/role/{role}",
                role_type="jwt",
                user_claim="sub",
                bound_audiences=["vault"],
                bound_subject="woodpecker-vault",
                token_policies=[role],
                token_ttl="5m",
            )
        yield mount


@pytest.mark.parametrize(("role", "policy"), [("other", "other"), ("", "ci")], ids=["a role", "the default role"])
async def test_it_gives_a_token_of(
    bao: OpenBao, admin: Admin, mount: str, tmp_path: Path, *, role: str, policy: str
) -> None:
    file = tmp_path / "jwt"
    file.write_text(signed_jwt(KEY, sub="woodpecker-vault", aud="vault") + "\n")
    async with login_adapter(bao) as adapter:
        grant = await Jwt(mount=mount, role=role, jwt_file=str(file)).login(adapter)
    assert (grant.lease, grant.renewable, grant.ours) == (300, True, True)
    assert set((await known(admin, grant))["policies"]) == {"default", policy}


async def test_the_file_is_read_anew_at_each_login(bao: OpenBao, mount: str, tmp_path: Path) -> None:
    file = tmp_path / "jwt"
    file.write_text(expired := signed_jwt(KEY, sub="woodpecker-vault", aud="vault", iat=1, exp=2))
    method = Jwt(mount=mount, jwt_file=str(file))
    async with login_adapter(bao) as adapter:
        with pytest.raises(InvalidRequest) as caught:
            await method.login(adapter)
        assert expired not in str(caught.value)
        file.write_text(signed_jwt(KEY, sub="woodpecker-vault", aud="vault"))
        assert (await method.login(adapter)).token
