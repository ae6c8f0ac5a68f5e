"""``method = "kubernetes"``: the service account of the pod, by the token that Kubernetes keeps fresh in a file."""

import json
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Annotated, Literal

from hvac.api.auth_methods import Kubernetes as KubernetesApi
from pydantic import AfterValidator, Field
from typing_extensions import override

from woodpecker_vault.errors import LoginRefused
from woodpecker_vault.vault.files import readable, text_in
from woodpecker_vault.vault.logins.method import Grant, Method, Mount
from woodpecker_vault.vault.transport import Adapter

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def _jwt_file(path: str) -> str:
    if path == _SERVICE_ACCOUNT and not Path(path).exists():
        raise ValueError(f"not set, and there is no {path}: this is not a pod with a service account's token")
    return readable(path)


class Kubernetes(Method):
    """A service account's token out of a file; with ``audience`` set, none but one that is meant for it."""

    method: Literal["kubernetes"] = "kubernetes"
    mount: Mount = "kubernetes"
    role: Annotated[str, Field(min_length=1)]
    jwt_file: Annotated[str, Field(min_length=1, validate_default=True), AfterValidator(_jwt_file)] = _SERVICE_ACCOUNT
    audience: str = ""

    @override
    async def login(self, adapter: Adapter) -> Grant:
        """Log in with what is in the file now."""
        jwt = text_in(self.jwt_file)
        if self.audience:
            self._check_audience(jwt)
        return Grant.from_login(
            await KubernetesApi(adapter).login(self.role, jwt, use_token=False, mount_point=self.mount)
        )

    def _check_audience(self, jwt: str) -> None:
        # Vault refuses a wrong one too, but does not say that this is why. A stolen token for the API server is worth
        # more than one for Vault only; so it is not even sent.
        try:
            found = audiences(jwt)
        except ValueError as error:
            raise LoginRefused(
                "The service cannot log in to Vault: what is in vault.auth.jwt_file is no JWT.", cause=self.jwt_file
            ) from error
        if self.audience not in found:
            raise LoginRefused(
                f"The service account's token in vault.auth.jwt_file is for {_listed(found)}, not for the audience"
                f" {self.audience!r}: project one for it (a serviceAccountToken volume with this audience).",
                cause=self.jwt_file,
            )


def audiences(jwt: str) -> list[str]:
    """Whom a JWT is meant for (RFC 7519, section 4.1.3), by its own account: nothing is verified.

    Raises:
        ValueError: that is no JWT. The error does not show it.
    """
    try:
        _, payload, _ = jwt.split(".")
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        found = claims.get("aud", [])
    except (ValueError, AttributeError, RecursionError):
        raise ValueError("not a JWT") from None
    named = found if isinstance(found, list) else [found]
    return [name for name in named if isinstance(name, str)]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "no audience"
