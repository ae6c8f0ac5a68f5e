"""``method = "jwt"``: a JSON Web Token of an issuer that Vault trusts, in a file that somebody keeps fresh."""

from typing import Annotated, Literal

from hvac.api.auth_methods import JWT
from pydantic import AfterValidator, Field
from typing_extensions import override

from woodpecker_vault.vault.files import readable, text_in
from woodpecker_vault.vault.logins.method import Grant, Method, Mount
from woodpecker_vault.vault.transport import Adapter


class Jwt(Method):
    """A JWT out of a file; without a ``role``, for the default role of the mount."""

    method: Literal["jwt"] = "jwt"
    mount: Mount = "jwt"
    role: str = ""
    jwt_file: Annotated[str, Field(min_length=1), AfterValidator(readable)]

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in with what is in the file now."""
        jwt = text_in(self.jwt_file)
        return Grant.from_login(await JWT(adapter).jwt_login(self.role, jwt, use_token=False, path=self.mount))
