"""Where in Vault: path templates, and secrets' names as single path segments.

Vault decodes a path before it splits it, refuses unprintable characters anywhere in it (Go's ``unicode.IsPrint``), and
tools on the way may collapse ``..`` or ``//``. So nothing that is not one whole segment ever becomes part of a path.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from urllib.parse import quote, unquote_to_bytes

from woodpecker_vault.errors import Invalid

PLACEHOLDERS = frozenset(
    {"repo_id", "org_id", "owner", "repo", "forge_id", "forge_remote_id", "event", "branch"},
)
"""What a template may name."""

_MAX_NAME_BYTES = 255
_ESCAPES = re.compile(r"(?:%[0-9A-F]{2})+")


@dataclass(frozen=True, slots=True)
class Template:
    """A path in the mount with placeholders: ``woodpecker/org/{org_id}/``.

    One that ends in ``/`` is a folder of entries; one that does not is a single entry.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def compile(cls, text: str, placeholders: frozenset[str] = PLACEHOLDERS) -> "Template":
        """Read a template, and try it on dummy values.

        Raises:
            ValueError: unknown placeholder, two in one segment (their values could run into each other), or a
                path that is not made of whole segments.
        """
        try:
            parts = tuple((literal, name) for literal, name, _, _ in _fields(text))
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        template = cls(text, parts)
        if unknown := sorted(template.names - placeholders):
            known = ", ".join(sorted(placeholders))
            raise ValueError(f"{text!r}: unknown placeholder {{{unknown[0]}}}; there are {known}")
        for segment in text.split("/"):
            if segment.count("{") > 1:
                raise ValueError(f"{text!r}: two placeholders in one segment could make two paths the same")
        dummy = template.render(dict.fromkeys(placeholders, "x"))
        for segment in (dummy or "").removesuffix("/").split("/"):
            if segment in {"", ".", ".."} or not segment.isprintable():
                raise ValueError(f"{text!r}: every segment between two slashes must be a plain name")
        return template

    @property
    def names(self) -> frozenset[str]:
        """The placeholders that the template uses."""
        return frozenset(name for _, name in self.parts if name is not None)

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder of entries, and not a single one."""
        return self.text.endswith("/")

    def render(self, values: Mapping[str, str]) -> str | None:
        """The path for these values, each encoded into one segment; ``None`` where one of them is empty."""
        path = []
        for literal, name in self.parts:
            path.append(literal)
            if name is not None:
                value = values.get(name, "")
                if not value:
                    return None
                path.append(encode_value(value))
        return "".join(path)


def encode_value(value: str) -> str:
    """A placeholder's value as (part of) one segment. Different values never give the same text.

    Percent-encodes ``/``, ``%``, what Vault would refuse, and a value that is all dots.
    """
    if not value.strip("."):
        return "%2E" * len(value)
    return "".join(
        character if character.isprintable() and character not in "/%" else _escaped(character) for character in value
    )


def segment_of(name: str) -> str:
    """A secret's name as the one segment that its entry has in Vault: the name itself wherever Vault can take it.

    Characters that Vault refuses in a path (a zero-width joiner, a no-break space) are percent-encoded.

    Raises:
        Invalid: the name is empty, ``.`` or ``..``, longer than 255 bytes, or holds ``/`` or a control character.
    """
    if name in {"", ".", ".."} or "/" in name:
        raise Invalid("A secret's name must be one path segment: not empty, not . or .., and without a slash.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Invalid("A secret's name must be valid unicode.") from None
    if size > _MAX_NAME_BYTES:
        raise Invalid(f"A secret's name may have at most {_MAX_NAME_BYTES} bytes; this one has {size}.")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise Invalid("A secret's name must not hold control characters.")
    segment = "".join(character if character.isprintable() else _escaped(character) for character in name)
    if name_of(segment) != name:
        raise Invalid("This name cannot be told from another one in Vault: avoid percent-encoded characters in it.")
    return segment


def name_of(segment: str) -> str:
    """The name of the secret whose entry has this segment: the inverse of :func:`segment_of`."""
    return _ESCAPES.sub(_unescaped, segment)


def name_from_url(segment: str) -> str:
    """A secret's name from one raw segment of a request's path.

    Raises:
        Invalid: it does not decode to unicode.
    """
    try:
        return unquote_to_bytes(segment.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise Invalid("The secret's name in the URL must be percent-encoded UTF-8.") from None


def _fields(text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    for literal, name, spec, conversion in Formatter().parse(text):
        if "{" in literal or "}" in literal or spec or conversion:
            raise ValueError("a placeholder is written {name}, nothing more")
        yield literal, name, spec, conversion


def _escaped(character: str) -> str:
    return quote(character, safe="", errors="surrogatepass")


def _unescaped(escapes: re.Match[str]) -> str:
    """What :func:`segment_of` would have escaped, decoded; anything else stays as an admin wrote it."""
    try:
        text = unquote_to_bytes(escapes[0]).decode()
    except UnicodeDecodeError:
        return escapes[0]
    if any(character.isprintable() or unicodedata.category(character) == "Cc" for character in text):
        return escapes[0]
    return text


def mount_path(text: str, what: str) -> str:
    """Where something is mounted in Vault, without slashes around it.

    Raises:
        ValueError: that is no such path; ``what`` should be there, the error says.
    """
    mount = text.strip("/")
    if any(segment in {"", ".", ".."} or not segment.isprintable() for segment in mount.split("/")):
        raise ValueError(f"must be the path of {what}")
    return mount
