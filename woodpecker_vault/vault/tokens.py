"""The token's life: got when it is first needed, got anew when Vault refuses it."""

from woodpecker_vault.vault.logins import LOGINS, Credentials
from woodpecker_vault.vault.transport import Adapter


class Tokens:
    """The service's own token.

    Args:
        adapter: sends the login.
        credentials: which login, and what it needs.
    """

    def __init__(self, adapter: Adapter, credentials: Credentials) -> None:
        self._adapter = adapter
        self._credentials = credentials
        self._token = ""

    async def current(self) -> str:
        """The token to use now, logging in first if there is none."""
        if not self._token:
            self._token = await self._login()
        return self._token

    async def after_refusal(self, refused: str) -> str | None:
        """A different token than the refused one, if a login gives one."""
        if self._token == refused:
            self._token = await self._login()
        return self._token if self._token != refused else None

    async def _login(self) -> str:
        return await LOGINS[self._credentials.method](self._adapter, self._credentials)
