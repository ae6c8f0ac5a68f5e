"""Secrets as settings give them: in files, checked when named and read when needed, or as they are."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from woodpecker_vault.errors import Unavailable


def readable(path: str) -> str:
    """The path of a file that can be read now, or an empty one.

    Raises:
        ValueError: it cannot.
    """
    try:
        if path:
            Path(path).open("rb").close()
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(path)}{getattr(error, 'strerror', None) or 'not a path'}") from None
    return path


def shown(path: str) -> str:
    """How an error about a file begins: with its path and a colon, but only if there is something at that path.

    Anything else may be a password or a key that was pasted in its place, and nothing about a text tells the two apart
    (a password can begin with a slash). The setting, which the error names, says where to look.
    """
    try:
        return f"{path}: " if Path(path).exists() else ""
    except (OSError, ValueError):  # too long for a path, or a NUL in it
        return ""


File = Annotated[str, AfterValidator(readable)]
"""A setting that names a file, or is empty."""


def without_line_break(text: str) -> str:
    """The text without the line break that editors, ``echo`` and secrets in environments put behind it."""
    return text.rstrip("\r\n")


def _without_line_break(secret: SecretStr) -> SecretStr:
    return SecretStr(without_line_break(secret.get_secret_value()))


def _one_line(secret: SecretStr) -> SecretStr:
    # It becomes a header, in which a line break would begin another one.
    text = secret.get_secret_value().strip()
    if not text.isprintable():
        raise ValueError("must be one line of text")
    return SecretStr(text)


Password = Annotated[SecretStr, AfterValidator(_without_line_break)]
"""A setting that is a secret. A line break behind it does not count."""

SecretLine = Annotated[SecretStr, AfterValidator(_one_line)]
"""A setting that is a token or the like, which holds no blanks: those around it do not count."""


def text_in(file: str) -> str:
    """The one line of text in a file, without the spaces around it.

    Raises:
        Unavailable: there is none. It may be there next time.
    """
    try:
        text = Path(file).read_text().strip()
        if not text or not text.isprintable():
            raise ValueError("not one line")
    except (OSError, ValueError) as error:
        raise Unavailable(
            "The service cannot log in to Vault: a file named in vault.auth cannot be read.",
            cause=f"{file}: {getattr(error, 'strerror', None) or 'not one line of text'}",
        ) from error
    return text
