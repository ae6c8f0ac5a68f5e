"""``method = "cert"``: the client certificate of the connection itself."""

from typing import Literal

from hvac.utils import format_url
from typing_extensions import override

from woodpecker_vault.vault.logins.method import Grant, Method, Mount
from woodpecker_vault.vault.transport import Adapter


class Cert(Method):
    """``vault.client_cert``, which Vault sees when the connection is made; without a ``role``, for any that matches."""

    method: Literal["cert"] = "cert"
    mount: Mount = "cert"
    role: str = ""

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in with the certificate."""
        # Not by hvac's Cert.login: it looks for files of certificates, and in its own adapter for those of its session.
        url = format_url("/v1/auth/{mount}/login", mount=self.mount)
        return Grant.from_login(await adapter.login(url, json={"name": self.role} if self.role else {}))
