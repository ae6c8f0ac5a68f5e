"""What the methods with a name and a password have in common."""

from abc import abstractmethod
from typing import Annotated, Any, Self

from pydantic import AfterValidator, SecretStr, model_validator
from typing_extensions import override

from woodpecker_vault.vault.files import File, Password, text_in
from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.transport import Adapter


def _user(text: str) -> str:
    # It becomes a segment of a path, and Vault splits after it decodes.
    if text in {"", ".", ".."} or "/" in text or not text.isprintable():
        raise ValueError("must be a user's name, without slashes")
    return text


class PasswordMethod(Method):
    """A user and a password, given as it is or in a file."""

    username: Annotated[str, AfterValidator(_user)]
    password: Password = SecretStr("")
    password_file: File = ""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if bool(self.password.get_secret_value()) == bool(self.password_file):
            raise ValueError("set either password or password_file")
        return self

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in with the password there is now."""
        password = text_in(self.password_file) if self.password_file else self.password.get_secret_value()
        return Grant.from_login(await self._answer(adapter, password))

    @abstractmethod
    async def _answer(self, adapter: Adapter, password: str) -> dict[str, Any]:
        """Send it to the method's own endpoint."""
