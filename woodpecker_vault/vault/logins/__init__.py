"""How to get a token: one room a method. :data:`Login` is the one place that names them all."""

from typing import Annotated, get_args

from pydantic import Field

from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.logins.aws import Aws
from woodpecker_vault.vault.logins.cert import Cert
from woodpecker_vault.vault.logins.jwt import Jwt
from woodpecker_vault.vault.logins.kubernetes import Kubernetes
from woodpecker_vault.vault.logins.ldap import Ldap
from woodpecker_vault.vault.logins.method import Grant, Method
from woodpecker_vault.vault.logins.none import NoLogin
from woodpecker_vault.vault.logins.token import Token
from woodpecker_vault.vault.logins.userpass import Userpass

__all__ = ["LOGINS", "Grant", "Login", "Method"]

Login = Annotated[
    Token | AppRole | Kubernetes | Jwt | Userpass | Ldap | Cert | Aws | NoLogin,
    Field(discriminator="method"),
]
"""``[vault.auth]``: the settings of the one method that it names."""

LOGINS: tuple[type[Method], ...] = get_args(get_args(Login)[0])
"""Every method that ``vault.auth.method`` may name."""
