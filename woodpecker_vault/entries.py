"""A KV v2 entry and the secrets it stands for: the only place that knows how restrictions are written down.

The data's key ``value`` is the secret. ``custom_metadata`` (strings of 1 to 512 printable bytes, at most 64 of them)
holds ``events``, ``images`` and ``branches`` as comma-separated lists, continued in ``images.2``, ``images.3``, …;
``note``; and ``forks``. Everything else in it belongs to the Vault admins and is left alone.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from woodpecker_vault import exact_json
from woodpecker_vault.errors import Invalid
from woodpecker_vault.woodpecker import Secret

VALUE = "value"
"""The key of the data that is the secret."""

NO_EVENT = "none"
"""No event's name: an ``events`` list of only this gives the secret to no pipeline."""

MetadataPatch = Mapping[str, str | None]
"""Changes to custom metadata: ``None`` takes a key away, a key that is not named stays (RFC 7396)."""

_CONTINUED = re.compile(r"\.([2-9]|[1-9][0-9]+)")
_MAX_KEYS = 64
_MAX_VALUE_BYTES = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """What one read of a KV v2 path gives.

    ``version`` is what a check-and-set must name: 0 where nothing was ever written. ``live`` is false where there
    is no version, or the current one is deleted or destroyed.
    """

    version: int = 0
    live: bool = False
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def has_value(self) -> bool:
        """Whether the entry is one secret; ``null`` is no value."""
        return self.live and self.data.get(VALUE) is not None

    @property
    def is_bundle(self) -> bool:
        """Whether the entry's keys are secrets of their own."""
        return self.live and not self.has_value and any(value is not None for value in self.data.values())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Entries by their segments, as they were at one moment.

    ``stale`` says that Vault could not be asked, and that this is what it said before.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    stale: bool = False


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is in Vault: what Woodpecker is told, and the restrictions that are ours to enforce.

    ``forks`` is ``"allow"``, ``"deny"`` or, where the entry does not say, empty. ``unreadable`` says what of the
    restrictions makes no sense; such a secret is for nobody.
    """

    secret: Secret
    path: str
    branches: tuple[str, ...] = ()
    forks: str = ""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Restrictions:
    """What a writer may set: the events and images that a secret is for, and its note."""

    events: tuple[str, ...]
    images: tuple[str, ...]
    note: str = ""


def secret_of(entry: Entry, path: str, name: str, default_events: tuple[str, ...]) -> StoredSecret | None:
    """The one secret that an entry is, or ``None`` if it has no ``value``."""
    return stored_value(entry, path, name, default_events) if entry.has_value else None


def stored_value(entry: Entry, path: str, name: str, default_events: tuple[str, ...]) -> StoredSecret:
    """The one secret of an entry that is known to have a ``value``."""
    return _stored(entry, path, name, entry.data[VALUE], default_events)


def secrets_in_bundle(entry: Entry, path: str, name: str, default_events: tuple[str, ...]) -> Iterator[StoredSecret]:
    """The secrets of a bundle: ``docker`` with ``username`` gives ``docker_username``. None if it is no bundle."""
    if entry.is_bundle:
        for key, value in entry.data.items():
            if value is not None:
                yield _stored(entry, path, f"{name}_{key}", value, default_events)


def secrets_by_key(entry: Entry, path: str, default_events: tuple[str, ...]) -> Iterator[StoredSecret]:
    """The secrets of an entry whose every key is one, named as the key is."""
    if entry.live:
        for key, value in entry.data.items():
            if value is not None:
                yield _stored(entry, path, key, value, default_events)


def merged(layers: Iterable[Iterable[StoredSecret]]) -> list[StoredSecret]:
    """All secrets by name, later ones instead of earlier ones of the same name without regard to case."""
    by_name = {stored.secret.name.lower(): stored for layer in layers for stored in layer}
    return sorted(by_name.values(), key=lambda stored: stored.secret.name)


def restrictions_of(entry: Entry, default_events: tuple[str, ...]) -> Restrictions:
    """The restrictions that an entry has now.

    Raises:
        ValueError: they cannot be read.
    """
    return Restrictions(
        events=_list(entry.metadata, "events") or default_events,
        images=_list(entry.metadata, "images"),
        note=_read_note(entry.metadata),
    )


def metadata_patch(
    current: Mapping[str, str],
    *,
    events: Sequence[str] | None = None,
    images: Sequence[str] | None = None,
    note: str | None = None,
) -> MetadataPatch:
    """What to change in an entry's custom metadata so that it says this; ``None`` is left as it is.

    An empty list or note takes its keys away, and so does a shorter one with the continuations it no longer needs.

    Raises:
        Invalid: it does not fit into custom metadata.
    """
    patch: dict[str, str | None] = {}
    for key, chunks in (
        ("events", None if events is None else _list_chunks(events)),
        ("images", None if images is None else _list_chunks(images)),
        ("note", None if note is None else _note_chunks(note)),
    ):
        if chunks is None:
            continue
        keys = [key if index == 0 else f"{key}.{index + 1}" for index in range(len(chunks))]
        patch |= dict.fromkeys(_keys_of(current, key))
        patch |= dict(zip(keys, chunks, strict=True))
    changed = {key: value for key, value in patch.items() if current.get(key) != value}
    kept = {key for key in {*current, *changed} if changed.get(key, current.get(key)) is not None}
    if len(kept) > _MAX_KEYS:
        raise Invalid(f"The images and the note do not fit into the {_MAX_KEYS} keys of Vault's custom metadata.")
    return changed


def _with_value(data: Mapping[str, Any], value: SecretStr) -> dict[str, Any]:
    """The entry's data with another value; an admin's other keys stay."""
    return {**data, VALUE: value.get_secret_value()}


def is_within(narrow: Restrictions, wide: Restrictions) -> bool:
    """Whether every use that ``narrow`` allows is one that ``wide`` allows."""
    events = set(narrow.events) - {NO_EVENT}
    if not events or not wide.images:
        return events <= set(wide.events)
    images_within = bool(narrow.images) and all(_covered(image, wide.images) for image in narrow.images)
    return events <= set(wide.events) and images_within


def common(one: Restrictions, other: Restrictions) -> Restrictions:
    """Restrictions that allow no use that only one of the two allows."""
    events = tuple(event for event in one.events if event in other.events)
    if not one.images or not other.images:
        return Restrictions(events or (NO_EVENT,), one.images or other.images)
    images = [image for image in one.images if _covered(image, other.images)]
    images += [image for image in other.images if _covered(image, one.images)]
    if not events or not images:
        return Restrictions((NO_EVENT,), one.images)
    return Restrictions(events, tuple(dict.fromkeys(images)))


@dataclass(frozen=True, slots=True)
class Change:
    """What a writer asks for; ``None`` leaves that part as it is, an empty list or note takes it away."""

    value: SecretStr | None = None
    events: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class PutData:
    """A step: write the data, as a new version."""

    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PatchMetadata:
    """A step: change the custom metadata; ``undo`` is the patch that takes it back."""

    patch: MetadataPatch
    undo: MetadataPatch


Step = PutData | PatchMetadata


def steps_to_create(entry: Entry, change: Change) -> list[Step]:
    """How to make a secret where there is none: its restrictions first, as without data nobody takes it for one.

    The branches that a deleted secret of that name was for stay, but not its permission for forks.
    """
    patch = dict(metadata_patch(entry.metadata, events=change.events, images=change.images, note=change.note))
    if entry.metadata.get("forks", "").strip().lower() == "allow":
        patch["forks"] = None
    data = entry.data if entry.live else {}
    return [*_patches(entry.metadata, patch), PutData(_with_value(data, change.value or SecretStr("")))]


def steps_to_update(entry: Entry, change: Change, default_events: tuple[str, ...]) -> list[Step]:
    """How to change a secret so that, whichever step is the last that happens, no value is open to more than it may.

    Data and metadata cannot be written at once. Narrower restrictions go first, wider ones last; where the old and
    the new allow different things, what both allow comes first.
    """
    patch = metadata_patch(entry.metadata, events=change.events, images=change.images, note=change.note)
    if change.value is None or change.value.get_secret_value() == entry.data.get(VALUE):
        return _patches(entry.metadata, patch)
    put = PutData(_with_value(entry.data, change.value))
    if not patch:
        return [put]
    old = _restrictions_or_none(entry.metadata, default_events)
    new = _restrictions_or_none(patched(entry.metadata, patch), default_events)
    if is_within(new, old):
        return [*_patches(entry.metadata, patch), put]
    if is_within(old, new):
        return [put, *_patches(entry.metadata, patch)]
    both = common(old, new)
    first = metadata_patch(entry.metadata, events=both.events, images=both.images)
    between, after = patched(entry.metadata, first), patched(entry.metadata, patch)
    last = {key: after.get(key) for key in {*between, *after} if between.get(key) != after.get(key)}
    return [*_patches(entry.metadata, first), put, *_patches(between, last)]


def patched(metadata: Mapping[str, str], patch: MetadataPatch) -> dict[str, str]:
    """Custom metadata as it is after a patch."""
    return {key: value for key, value in {**metadata, **patch}.items() if value is not None}


def _patches(metadata: Mapping[str, str], patch: MetadataPatch) -> list[Step]:
    return [PatchMetadata(patch, {key: metadata.get(key) for key in patch})] if patch else []


def _restrictions_or_none(metadata: Mapping[str, str], default_events: tuple[str, ...]) -> Restrictions:
    """The restrictions, or, where they cannot be read, those that let nobody in: so readers take them too."""
    try:
        return restrictions_of(Entry(metadata=metadata), default_events)
    except ValueError:
        return Restrictions((NO_EVENT,), ())


def _stored(entry: Entry, path: str, name: str, value: object, default_events: tuple[str, ...]) -> StoredSecret:
    text = SecretStr(_text(value))
    try:
        restrictions = restrictions_of(entry, default_events)
        branches = _list(entry.metadata, "branches")
        forks = entry.metadata.get("forks", "").strip().lower()
        if forks not in {"", "allow", "deny"}:
            raise ValueError('forks must be "allow" or "deny"')
    except ValueError as error:
        return StoredSecret(Secret(name, text, events=(NO_EVENT,)), path, unreadable=str(error))
    secret = Secret(name, text, restrictions.images, restrictions.events, restrictions.note)
    return StoredSecret(secret, path, branches, forks)


def _text(value: object) -> str:
    """A value as text: a string is itself, anything else its JSON text."""
    return value if isinstance(value, str) else exact_json.dumps(value)


def _keys_of(metadata: Mapping[str, str], key: str) -> list[str]:
    """``images``, ``images.2``, … as far as they are there, in order."""
    names = [name for name in metadata if name.startswith(key)]
    numbered = [(1, name) for name in names if name == key]
    numbered += [(int(match[1]), name) for name in names if (match := _CONTINUED.fullmatch(name.removeprefix(key)))]
    return [name for _, name in sorted(numbered)]


def _list(metadata: Mapping[str, str], key: str) -> tuple[str, ...]:
    items: list[str] = []
    for name in _keys_of(metadata, key) if metadata else ():
        items += _list_items(name, metadata[name].strip())
    return tuple(dict.fromkeys(items))


def _list_items(name: str, text: str) -> list[str]:
    if not text.startswith("["):
        return [item for item in map(str.strip, text.split(",")) if item]
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} looks like a JSON array, but is none") from None
    if not all(isinstance(item, str) for item in items):
        raise ValueError(f"{name} is a JSON array, but not of strings")
    return [item for item in map(str.strip, items) if item]


def _list_chunks(items: Sequence[str]) -> list[str]:
    chunks: list[list[str]] = []
    for item in items:
        if chunks and len(_list_text([*chunks[-1], item]).encode()) <= _MAX_VALUE_BYTES:
            chunks[-1].append(item)
        else:
            chunks.append([item])
    texts = list(map(_list_text, chunks))
    if any(len(text.encode()) > _MAX_VALUE_BYTES for text in texts):
        raise Invalid(
            f"One image or event is longer than the {_MAX_VALUE_BYTES} bytes that Vault's custom metadata takes."
        )
    return texts


def _list_text(items: list[str]) -> str:
    """A list as an admin would type it, or as a JSON array where an item of it could not be read back otherwise."""
    text = ",".join(items)
    return json.dumps(items) if text.startswith("[") or _list_items("", text) != items else text


def _read_note(metadata: Mapping[str, str]) -> str:
    text = "".join(metadata[name] for name in _keys_of(metadata, "note")) if metadata else ""
    if text.startswith('"'):
        try:
            decoded = json.loads(text)
        except ValueError:
            return text
        return decoded if isinstance(decoded, str) else text
    return text


def _note_chunks(note: str) -> list[str]:
    """A note in pieces that Vault takes: what it would refuse, line breaks above all, as one JSON string."""
    if not note:
        return []
    text = note if note.isprintable() and not note.startswith('"') else json.dumps(note)
    chunks = [""]
    for character in text:
        if len((chunks[-1] + character).encode()) > _MAX_VALUE_BYTES:
            chunks.append("")
        chunks[-1] += character
    return chunks


def _covered(image: str, images: Iterable[str]) -> bool:
    """Whether a list lets this image in: an entry with a tag must match exactly, one without ignores the tag.

    As in Woodpecker (``pipeline/frontend/yaml/utils/image.go``), any colon makes a tag, that of a port too.
    """
    return any(image == other or (":" not in other and image.removesuffix(_tag(image)) == other) for other in images)


def _tag(image: str) -> str:
    """The tag and digest at the end of an image's name, if any."""
    name = image.rpartition("/")[2]
    start = min((index for index in (name.find(":"), name.find("@")) if index >= 0), default=len(name))
    return name[start:]
