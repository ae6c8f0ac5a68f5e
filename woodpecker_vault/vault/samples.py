"""Which paths to ask Vault about, to find out whether the token may read the layers of some repository.

Nobody knows the repositories beforehand. So there are candidates: made-up values for the placeholders, which policies
with ``*`` and ``+`` allow; the values that the rules of the token's policies name; those of pipelines that asked
before; and the names of what is there. A candidate names some placeholders; the others are made up.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from woodpecker_vault.paths import PLACEHOLDERS, Template

Texts = Mapping[str, str]
"""What stands in a path for each placeholder, as it is in Vault; under :data:`ENTRY`, the name of an entry."""

ENTRY = "/"
"""Stands for the name of an entry in a folder, as if that were a placeholder; none is called that."""

MADE_UP: Texts = dict.fromkeys(PLACEHOLDERS, "1") | {
    "event": "push",
    "branch": "main",
    ENTRY: "woodpecker-vault-readiness",
}
"""What no policy for certain repositories names."""

_MOST = 500
"""Candidates, of which each costs some paths in one question to Vault."""

_SEGMENT = re.compile(r"(.*)\{(\w+)\}(.*)")


@dataclass(frozen=True, slots=True)
class Question:
    """May the token do this, ``list`` or ``read``, at this path below the mount's ``metadata/`` or ``data/``?"""

    capability: str
    path: str

    @property
    def api_path(self) -> str:
        """The path below the mount. A folder ends with a slash, as policies name it and Vault judges a list."""
        return f"{'metadata' if self.capability == 'list' else 'data'}/{self.path}"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy says about a path below the mount's ``metadata/`` or ``data/``; ``glob`` if it ended in ``*``."""

    path: str
    glob: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's template, as something to ask about."""

    template: Template

    @property
    def is_folder(self) -> bool:
        """Whether it is to be listed, too."""
        return self.template.is_folder

    @property
    def fixed(self) -> bool:
        """Whether its path is the same for every repository."""
        return not self.template.names

    def path(self, texts: Texts) -> str:
        """Where it is for these texts; what they do not name is made up."""
        return "".join(
            literal + (texts.get(name) or MADE_UP.get(name, "1") if name else "")
            for literal, name in self.template.parts
        )

    def list_question(self, texts: Texts) -> Question:
        """May it be listed?"""
        return Question("list", self.path(texts))

    def read_question(self, texts: Texts) -> Question:
        """May an entry of it be read, or the one that it is?"""
        entry = (texts.get(ENTRY) or MADE_UP[ENTRY]) if self.is_folder else ""
        return Question("read", self.path(texts) + entry)

    def questions(self, texts: Texts) -> list[Question]:
        """All that must be allowed."""
        return [self.list_question(texts), self.read_question(texts)] if self.is_folder else [self.read_question(texts)]

    def texts_in(self, path: str) -> dict[str, str] | None:
        """The texts for which this is the layer's path; ``None`` if it is not for any."""
        return _texts(self._segments(), path.removesuffix("/").split("/"), whole=True)

    def texts_of(self, rule: Rule) -> dict[str, str] | None:
        """What the rule asks of the texts; ``None`` if it is about something else."""
        segments = self._segments()
        if self.is_folder:
            segments.append("{" + ENTRY + "}")
        if not rule.glob:
            return _texts(segments, rule.path.removesuffix("/").split("/"), whole=False)
        *parts, begun = rule.path.split("/")
        texts = _texts(segments, parts, whole=False)
        if texts is None or not begun:
            return texts
        if len(parts) == len(segments):
            return None
        return _begun(texts, segments[len(parts)], begun)

    def parent(self) -> tuple[str, str] | None:
        """The folder that holds a folder for each value of the first placeholder, and the placeholder.

        ``None`` if there is none, or it stands at the mount's root or for a part of a name only.
        """
        segments = self._segments()
        for index, segment in enumerate(segments):
            if found := _SEGMENT.fullmatch(segment):
                whole = segment == "{" + found[2] + "}"
                return ("/".join(segments[:index]) + "/", found[2]) if whole and index else None
        return None

    def _segments(self) -> list[str]:
        return self.template.text.removesuffix("/").split("/")


def _texts(segments: Sequence[str], parts: Sequence[str], *, whole: bool) -> dict[str, str] | None:
    """The texts for which the segments begin with (or, if ``whole``, are) these parts; ``+`` fits any."""
    if len(parts) > len(segments) or (whole and len(parts) < len(segments)):
        return None
    texts: dict[str, str] = {}
    for segment, part in zip(segments, parts, strict=False):
        found = _placeholder(segment)
        if found is None:
            if part not in {segment, "+"}:
                return None
        elif part != "+":
            before, name, after = found
            text = part[len(before) : len(part) - len(after)]
            if not (text and part == before + text + after) or texts.setdefault(name, text) != text:
                return None
    return texts


def _begun(texts: dict[str, str], segment: str, begun: str) -> dict[str, str] | None:
    """The texts for which, besides, a segment begins like this."""
    found = _placeholder(segment)
    before = segment if found is None else found[0]
    if before.startswith(begun):
        return texts
    if found is None or not begun.startswith(before):
        return None
    _, name, _ = found
    text = begun.removeprefix(before)
    return texts if texts.setdefault(name, text) == text else None


def _placeholder(segment: str) -> tuple[str, str, str] | None:
    if segment == "{" + ENTRY + "}":
        return "", ENTRY, ""
    found = _SEGMENT.fullmatch(segment)
    return (found[1], found[2], found[3]) if found else None


def candidates(layers: Iterable[Layer], rules: Iterable[Rule]) -> list[Texts]:
    """What the rules name: each by itself, and two together where they do not contradict each other."""
    layers = list(layers)
    single = _distinct(texts for rule in rules for layer in layers if (texts := layer.texts_of(rule)))
    pairs = (
        {**one, **other}
        for index, one in enumerate(single)
        for other in single[:index]
        if all(one.get(name, text) == text for name, text in other.items())
    )
    return _distinct([*single, *pairs])


def _distinct(found: Iterable[Texts]) -> list[Texts]:
    known: dict[tuple[tuple[str, str], ...], Texts] = {}
    for texts in found:
        known.setdefault(tuple(sorted(texts.items())), texts)
        if len(known) == _MOST:
            break
    return list(known.values())


def repository(layers: Sequence[Layer], found: Sequence[Texts], allowed: Mapping[Question, bool]) -> list[Texts] | None:
    """For each layer, texts for which it may be read, all of them of one repository; ``None`` if none were found."""
    joined: list[Texts] = [{}]
    entries: list[dict[tuple[tuple[str, str], ...], str]] = []
    for layer in layers:
        fitting: dict[tuple[tuple[str, str], ...], str] = {}
        for texts in found:
            if all(allowed.get(question, False) for question in layer.questions(texts)):
                fitting.setdefault(_of(layer, texts), texts.get(ENTRY) or MADE_UP[ENTRY])
        entries.append(fitting)
        joined = _distinct(
            {**one, **dict(other)}
            for one in joined
            for other in fitting
            if all(one.get(name, text) == text for name, text in other)
        )
    if not joined:
        return None
    return [
        {**joined[0], ENTRY: fitting[_of(layer, joined[0])]} for layer, fitting in zip(layers, entries, strict=True)
    ]


def _of(layer: Layer, texts: Texts) -> tuple[tuple[str, str], ...]:
    """The texts of the layer's own placeholders, as far as they decide where it is."""
    return tuple((name, texts.get(name) or MADE_UP.get(name, "1")) for name in sorted(layer.template.names))
