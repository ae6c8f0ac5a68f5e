"""Whether an HTTP answer is Vault's word, or that of something that stands before Vault or in its place.

An ingress answers 404 for a host that it does not know, a gateway 403 for a path that it does not like, a load balancer
200 with a page that says sorry. None of that says anything about secrets, policies or tokens: it is an outage. What
tells Vault's answers apart is their shape:

===========  ==========================================================================================
status       Vault's body
===========  ==========================================================================================
2xx          a document with ``request_id``, ``data`` or ``auth``; nothing (204) where something was written
4xx, 5xx     ``errors``, a list of texts, possibly empty
404          for KV version 2 also ``data`` with ``metadata`` (a deleted version), or ``warnings`` (no such path);
             nothing at all for a patch of metadata that is not there
400          nothing at all for a path with characters that Vault does not print
any          for ``sys/health`` and ``sys/seal-status``, a document with ``sealed``
===========  ==========================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from woodpecker_vault import exact_json

SAFE = frozenset({"GET", "LIST", "HEAD"})
"""The methods that change nothing."""

_STATUS_PATHS = ("/v1/sys/health", "/v1/sys/seal-status")
_ENVELOPE = frozenset({"request_id", "data", "auth"})

_PASSING = ("from non-versioned to versioned data", "unavailable for a brief period")
"""What a 400 says that passes by itself: a mount is being upgraded to KV version 2, here or on the primary."""


class Word(Enum):
    """Whose word an answer is."""

    VAULT = "Vault's"
    NOBODY = "could be anybody's"
    """``{"errors": []}`` with a 404: all that Vault says where it has nothing, but also what its server says outside of
    ``/v1/``, as when ``vault.address`` has a path too many. It takes an address that has shown to be Vault."""
    FOREIGN = "not Vault's"


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, and a body that may hold secrets.

    Attributes:
        status: of HTTP.
        body: as it came.
        kind: its media type.
        location: where a redirect leads; ``?`` if that is not said, empty if it is not one.
        retry_after: seconds.
        document: the JSON object in the body; ``None`` if there is none.
        word: whose it is. A redirect is anybody's.
    """

    status: int
    body: bytes = field(repr=False)
    kind: str = ""
    location: str = ""
    retry_after: float = 0.0
    document: dict[str, Any] | None = field(default=None, repr=False)
    word: Word = Word.VAULT

    @property
    def is_foreign(self) -> bool:
        """Whether it is not Vault that answered."""
        return self.word is Word.FOREIGN

    @property
    def passes(self) -> bool:
        """Whether Vault refused something only because it is busy with its own data."""
        return self.status == HTTPStatus.BAD_REQUEST and any(
            words in error for error in errors_in(self.document) for words in _PASSING
        )


def document_in(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; ``None`` if there is none."""
    try:
        document = exact_json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def errors_in(document: Mapping[str, Any] | None) -> list[str]:
    """What an answer complains about; empty if it is not a list of texts."""
    errors = (document or {}).get("errors")
    return errors if isinstance(errors, list) and _are_texts(errors) else []


def word_of(method: str, url: str, status: int, body: bytes, document: Mapping[str, Any] | None) -> Word:
    """Whose word an answer is, by its shape.

    Args:
        method: of the request, in capitals.
        url: the encoded path of the request after an address, with its query.
        status: of the answer.
        body: of the answer.
        document: the JSON object in it, if there is one.
    """
    if document is None:
        return Word.VAULT if not body and _says_nothing(method, url, status) else Word.FOREIGN
    if url.startswith(_STATUS_PATHS) and "sealed" in document:
        return Word.VAULT
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return Word.VAULT if _ENVELOPE & document.keys() else Word.FOREIGN
    if status == HTTPStatus.NOT_FOUND:
        return _word_of_missing(document)
    return Word.VAULT if _are_texts(document.get("errors")) else Word.FOREIGN


def _word_of_missing(document: Mapping[str, Any]) -> Word:
    if _are_texts(document.get("errors")):
        return Word.VAULT if document["errors"] else Word.NOBODY
    data = document.get("data")
    if isinstance(data, dict) and isinstance(data.get("metadata"), dict):
        return Word.VAULT
    return Word.VAULT if document.get("warnings") and _are_texts(document["warnings"]) else Word.FOREIGN


def _says_nothing(method: str, url: str, status: int) -> bool:
    """Whether Vault has nothing to say with such a status."""
    if method == "HEAD":
        return True
    if status == HTTPStatus.BAD_REQUEST:
        return not unquote(url).isprintable()
    if status == HTTPStatus.NOT_FOUND:
        return method == "PATCH"  # what is not there is made next, and then it shows who answers
    return status == HTTPStatus.NO_CONTENT and method not in SAFE


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
