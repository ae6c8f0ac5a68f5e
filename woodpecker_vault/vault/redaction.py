"""What others say about our requests, fit for a log: short, on one line, and without the secrets that we sent."""

import json
import re
from collections.abc import Iterator, Mapping

from woodpecker_vault import exact_json

LONGEST = 300
"""Characters that are kept of what somebody said."""

_MOST_READ = 4_000
_MOST_OF_A_SECRET = 100_000
_STRUCK = "[struck out]"
_SHORT = 4
"""A text shorter than this is struck out only where it stands alone: it occurs in too many words."""

_TOKEN_HEADERS = frozenset({"x-vault-token"})
_NOT_SECRET = frozenset({"role", "paths", "options"})
"""Keys of what we send that name things which an operator has to read about."""


class Redaction:
    """Strikes the secrets of one request out of what is said about it.

    Args:
        headers: of the request.
        document: that was sent as its JSON body, if one was.
    """

    def __init__(self, headers: Mapping[str, str], document: object = None) -> None:
        self._headers = headers
        self._document = document

    def of(self, text: str) -> str:
        """The text as it may be shown."""
        return shortened(self.struck(text))

    def struck(self, text: str) -> str:
        """The text without the secrets, else as it is, as far as it is read at all."""
        text = text[:_MOST_READ]
        try:
            quoted = {form for secret in self._secrets() for form in _forms(secret) if form in text}
        except RecursionError:
            return "(not shown: what was sent is nested too deep to be found in it)"
        for form in sorted(quoted, key=len, reverse=True):
            if len(form) >= _SHORT:
                text = text.replace(form, _STRUCK)
            else:
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", _STRUCK, text)
        return text

    def _secrets(self) -> Iterator[str]:
        yield from (value for name, value in self._headers.items() if name.lower() in _TOKEN_HEADERS)
        yield from _texts_in(self._document)


def shortened(text: str) -> str:
    """A text on one line, without what a terminal would obey, and no longer than :data:`LONGEST`."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:_MOST_READ]).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key not in _NOT_SECRET:
                yield from _texts_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts_in(one)
    elif value is not None and not isinstance(value, bool):
        yield exact_json.dumps(value)


def _forms(secret: str) -> Iterator[str]:
    """Every way in which a secret, or a line of it, may be quoted: as it is, and as JSON and Go's ``%q`` escape it."""
    secret = secret[:_MOST_OF_A_SECRET]
    for part in (secret, *secret.splitlines()):
        for form in (part, part.strip(), json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
            if form:
                yield form
