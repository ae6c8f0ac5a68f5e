"""``method = "ldap"``: a user of the directory that Vault asks."""

from typing import Any, Literal

from hvac.api.auth_methods import Ldap as LdapApi
from typing_extensions import override

from woodpecker_vault.vault.logins.method import Mount
from woodpecker_vault.vault.logins.password import PasswordMethod
from woodpecker_vault.vault.transport import Adapter


class Ldap(PasswordMethod):
    """A user of an LDAP directory."""

    method: Literal["ldap"] = "ldap"
    mount: Mount = "ldap"

    @override
    async def _answer(self, adapter: Adapter, password: str) -> dict[str, Any]:
        answer: dict[str, Any] = await LdapApi(adapter).login(
            self.username, password, use_token=False, mount_point=self.mount
        )
        return answer
