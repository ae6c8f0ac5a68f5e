"""The one shape of every login: its settings, and from them a token with what is known of its life."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from woodpecker_vault.paths import mount_path
from woodpecker_vault.vault.transport import Adapter


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and how long it is good for.

    Attributes:
        token: what Vault is shown; empty if nothing is, because an agent or proxy on the way adds a token.
        lease: seconds from now; 0 if it does not expire, or if that is not known.
        renewable: whether the lease can be renewed.
        uses: how many requests it is good for; 0 for any number.
        ours: whether a login of ours made it, and it can be revoked.
        known: whether Vault could be asked about it.
        refused: why Vault, when it was asked about it, did not confirm it; empty if it did.
    """

    token: str = field(repr=False)
    lease: float = 0.0
    renewable: bool = False
    uses: int = 0
    ours: bool = False
    known: bool = True
    refused: str = ""

    @classmethod
    def from_login(cls, answer: Mapping[str, Any]) -> "Grant":
        """What a login was answered; a batch token is renewable as little as it can be revoked.

        Raises:
            LookupError, TypeError, ValueError: that was no login's answer.
        """
        auth = answer["auth"]
        return cls(
            token=str(auth["client_token"]),
            lease=float(auth["lease_duration"]),
            renewable=bool(auth["renewable"]),
            uses=int(auth.get("num_uses") or 0),
            ours=auth.get("token_type") != "batch",
        )


def _mount(text: str) -> str:
    return mount_path(text, "an auth method, as `vault auth list` shows it")


Mount = Annotated[str, AfterValidator(_mount)]
"""Where an auth method is, below ``auth/``."""


class Method(BaseModel, ABC):
    """``[vault.auth]`` for one method, and how to log in with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    method: Any
    mount: str
    namespace: str = ""

    @abstractmethod
    async def login(self, adapter: Adapter) -> Grant:
        """Log in; what is in files is read anew.

        Args:
            adapter: sends requests without a token, in the login's own namespace.

        Raises:
            Problem, hvac's and aiohttp's own errors: it did not work.
            LookupError, TypeError, ValueError: what came back is no login's answer.
        """

    def version(self) -> object:
        """Something that differs once a new login would give another token though the old one is still good."""
        return None
