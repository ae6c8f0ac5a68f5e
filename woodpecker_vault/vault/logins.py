"""How to get a token: one function a method, and :data:`LOGINS`, the one place that names them all."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.transport import Adapter


@dataclass(frozen=True, slots=True)
class Credentials:
    """What ``[vault.auth]`` says; each method takes from it what it needs."""

    method: str = "token"
    token: str = field(default="", repr=False)
    token_file: str = ""


Login = Callable[[Adapter, Credentials], Awaitable[str]]


async def token(_adapter: Adapter, credentials: Credentials) -> str:
    """A token given as it is, or in a file that is read again each time."""
    return _secret_in(credentials.token_file) if credentials.token_file else credentials.token


LOGINS: Mapping[str, Login] = {"token": token}
"""Every value that ``vault.auth.method`` may have."""


def _secret_in(file: str) -> str:
    try:
        text = Path(file).read_text().strip()
        if not text.isprintable():
            raise ValueError("more than one line")
    except (OSError, ValueError) as error:
        raise Unavailable(
            "The service cannot log in to Vault: a file named in vault.auth cannot be read.",
            cause=f"{file}: {getattr(error, 'strerror', None) or 'not one line of text'}",
        ) from error
    return text
