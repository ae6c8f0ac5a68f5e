"""``method = "token"``: a token that somebody else made, given as it is or in a file."""

from pathlib import Path
from typing import Literal, Self

import aiohttp
from hvac.api.auth_methods import Token as TokenApi
from hvac.exceptions import Forbidden, InvalidPath, VaultError
from pydantic import SecretStr, model_validator
from typing_extensions import override

from woodpecker_vault.vault.files import File, SecretLine, text_in
from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.transport import Adapter, WithToken


class Token(Method):
    """A token in the settings, or in a file that is read again when it changes."""

    method: Literal["token"] = "token"
    mount: Literal["token"] = "token"
    token: SecretLine = SecretStr("")
    token_file: File = ""

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if bool(self.token.get_secret_value()) == bool(self.token_file):
            raise ValueError("set either token or token_file, or VAULT_TOKEN in the environment")
        return self

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Ask Vault what it knows of the token; where it does not say, the token is used as it is."""
        token = text_in(self.token_file) if self.token_file else self.token.get_secret_value()
        try:
            found = (await TokenApi(WithToken(adapter, token)).lookup_self())["data"]
        except Forbidden:
            return Grant(token, refused="it is not valid, or its policies do not let it look itself up")
        except InvalidPath:
            return Grant(token, refused="there is no such namespace, or what answers is not Vault")
        except (VaultError, aiohttp.ClientError, OSError):
            return Grant(token, known=False)
        return Grant(
            token,
            lease=float(found["ttl"]),
            renewable=bool(found.get("renewable")),
            uses=max(0, int(found.get("num_uses") or 0)),
        )

    @override
    def version(self) -> object:
        """The file's date, size and number."""
        if not self.token_file:
            return None
        try:
            stat = Path(self.token_file).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
