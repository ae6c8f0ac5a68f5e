"""``method = "approle"``: the id of a role, and a secret id that somebody handed over."""

from typing import Annotated, Literal, Self

from hvac.api.auth_methods import AppRole as AppRoleApi
from hvac.api.system_backend import Wrapping
from hvac.exceptions import Forbidden, InvalidRequest
from pydantic import AfterValidator, PrivateAttr, SecretStr, model_validator
from typing_extensions import override

from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.files import File, SecretLine, text_in
from woodpecker_vault.vault.logins.method import Grant, Method, Mount
from woodpecker_vault.vault.transport import Adapter, WithToken


class AppRole(Method):
    """A role, with a secret id unless it has ``bind_secret_id=false``.

    The secret id may be response-wrapped: what is given is then a token that can be unwrapped once. The secret id out
    of it is kept for later logins, until another such token is given.
    """

    method: Literal["approle"] = "approle"
    mount: Mount = "approle"
    role_id: Annotated[str, AfterValidator(str.strip)] = ""
    role_id_file: File = ""
    secret_id: SecretLine = SecretStr("")
    secret_id_file: File = ""
    secret_id_wrapped: bool = False
    _unwrapped: tuple[SecretStr, SecretStr] | None = PrivateAttr(None)
    """A token that was unwrapped, and the secret id that was in it."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if bool(self.role_id) == bool(self.role_id_file):
            raise ValueError("set either role_id or role_id_file")
        given = bool(self.secret_id.get_secret_value()), bool(self.secret_id_file)
        if all(given):
            raise ValueError("set secret_id or secret_id_file, not both")
        if self.secret_id_wrapped and not any(given):
            raise ValueError("secret_id_wrapped needs a secret_id or secret_id_file")
        return self

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in, after unwrapping the secret id if that is yet to be done."""
        role_id = text_in(self.role_id_file) if self.role_id_file else self.role_id
        secret_id = text_in(self.secret_id_file) if self.secret_id_file else self.secret_id.get_secret_value()
        if self.secret_id_wrapped:
            secret_id = await self._secret_id_in(secret_id, adapter)
        return Grant.from_login(
            await AppRoleApi(adapter).login(role_id, secret_id or None, use_token=False, mount_point=self.mount)
        )

    async def _secret_id_in(self, wrapping: str, adapter: Adapter) -> str:
        if self._unwrapped is None or self._unwrapped[0].get_secret_value() != wrapping:
            try:
                answer = await Wrapping(WithToken(adapter, wrapping)).unwrap()
            except (InvalidRequest, Forbidden) as error:
                raise LoginRefused(
                    "Vault does not unwrap the secret id: its wrapping token has expired or was used before. If not by"
                    " an earlier start of this service, then somebody else has the secret id. A new one is needed.",
                    cause=f"unwrap the secret id: {type(error).__name__}",
                ) from error
            secret_id = (answer.get("data") or {}).get("secret_id")
            if not secret_id:
                raise LoginRefused("What is wrapped is not a secret id: give a wrapped secret id of an AppRole.")
            self._unwrapped = SecretStr(wrapping), SecretStr(str(secret_id))
        return self._unwrapped[1].get_secret_value()
