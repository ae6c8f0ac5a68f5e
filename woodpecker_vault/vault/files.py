"""Files that settings name: checked when they are named, read when they are needed."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from woodpecker_vault.errors import Unavailable

_LONGEST_PATH_SHOWN = 300


def readable(path: str) -> str:
    """The path of a file that can be read now, or an empty one.

    Raises:
        ValueError: it cannot.
    """
    try:
        if path:
            Path(path).open("rb").close()
    except (OSError, ValueError) as error:
        raise ValueError(f"{shown(path)}: {getattr(error, 'strerror', None) or 'not a path'}") from None
    return path


def shown(path: str) -> str:
    """A path in an error; not what was pasted in its place."""
    is_token = re.match(r"(hvs|hvb|hvr|s|b|r)\.", path)
    is_path = path.isprintable() and len(path) < _LONGEST_PATH_SHOWN and not is_token
    return path if is_path else "what is there is not a path"


File = Annotated[str, AfterValidator(readable)]
"""A setting that names a file, or is empty."""


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
