"""``method = "userpass"``: a user that Vault itself knows."""

from typing import Any, Literal
from urllib.parse import quote

from hvac.api.auth_methods import Userpass as UserpassApi
from typing_extensions import override

from woodpecker_vault.vault.logins.method import Mount
from woodpecker_vault.vault.logins.password import PasswordMethod
from woodpecker_vault.vault.transport import Adapter


class Userpass(PasswordMethod):
    """A user of Vault's own."""

    method: Literal["userpass"] = "userpass"
    mount: Mount = "userpass"

    @override
    async def _answer(self, adapter: Adapter, password: str) -> dict[str, Any]:
        # hvac encodes neither of the two in this method's path, as it does in all others.
        answer: dict[str, Any] = await UserpassApi(adapter).login(
            quote(self.username), password, use_token=False, mount_point=quote(self.mount)
        )
        return answer
