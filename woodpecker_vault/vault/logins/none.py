"""``method = "none"``: no login here. A Vault agent or proxy at ``vault.address`` adds its own token."""

from typing import Literal

from typing_extensions import override

from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.transport import Adapter


class NoLogin(Method):
    """Nothing to log in with: how the agent or proxy logs in, and how its token lives, is its own business."""

    method: Literal["none"] = "none"
    mount: Literal["none"] = "none"

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """An empty token, which is not sent: it neither ends nor has to be renewed or revoked."""
        return Grant("")
