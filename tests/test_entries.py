"""A KV v2 entry and the secrets it stands for, and how to change one without ever opening it too far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from woodpecker_vault import exact_json
from woodpecker_vault.entries import (
    Change,
    Entry,
    PatchMetadata,
    PutData,
    Restrictions,
    Step,
    StoredSecret,
    common,
    is_within,
    merged,
    metadata_patch,
    patched,
    restrictions_of,
    secret_of,
    secrets_by_key,
    secrets_in_bundle,
    steps_to_create,
    steps_to_update,
    stored_value,
)
from woodpecker_vault.errors import Invalid
from woodpecker_vault.woodpecker import Secret

bounded = settings(max_examples=100, deadline=None)

DEFAULT = ("push", "tag")
DIGEST = "sha256:" + "0a" * 32

EVENTS = ("push", "tag", "cron", "pull_request", "deployment")
IMAGES = (
    "alpine",
    "alpine:latest",
    "alpine:3",
    "alpine:3.20",
    f"alpine@{DIGEST}",
    f"alpine:3@{DIGEST}",
    "golang",
    "golang:1",
    "registry.example/team/alpine",
    "registry.example/team/alpine:3",
)


def live(data: Mapping[str, Any] | str, **metadata: str) -> Entry:
    return Entry(3, live=True, data={"value": data} if isinstance(data, str) else data, metadata=metadata)


def only(entry: Entry) -> StoredSecret:
    stored = secret_of(entry, "w/token", "token", DEFAULT)
    assert stored is not None
    return stored


def shown(stored: StoredSecret) -> tuple[str, str]:
    return stored.secret.name, stored.secret.value.get_secret_value()


def named(name: str, path: str = "") -> StoredSecret:
    return StoredSecret(Secret(name, SecretStr("s3cret"), events=DEFAULT), path)


# A model of what Woodpecker lets a secret be used for (``MatchImageDynamic``), apart from the code under test.

Use = tuple[str, str]
"""An event and a step's image; an empty one for a step that is no plugin."""


def lets_image_in(images: Sequence[str], image: str) -> bool:
    def name(image: str) -> str:
        return image.partition("@")[0].partition(":")[0]

    def full(image: str) -> str:
        return image if ":" in image else f"{image}:latest"

    return not images or any(
        full(image) == full(entry) if ":" in entry else name(image) == entry for entry in images if image
    )


def uses(events: Sequence[str], images: Sequence[str]) -> set[Use]:
    return {
        (event, image) for event in EVENTS if event in events for image in ("", *IMAGES) if lets_image_in(images, image)
    }


def visible(metadata: Mapping[str, str]) -> set[Use]:
    """What a secret with this custom metadata may be used for."""
    stored = only(live("s3cret", **metadata))
    return set() if stored.unreadable else uses(stored.secret.events, stored.secret.images)


event_lists = st.lists(st.sampled_from(EVENTS), max_size=3, unique=True).map(tuple)
image_lists = st.lists(st.sampled_from(IMAGES), max_size=4, unique=True).map(tuple)
restrictions = st.builds(Restrictions, event_lists.map(lambda events: events or ("none",)), image_lists)


class TestIsWithin:
    @pytest.mark.parametrize(
        ("narrow", "wide"),
        [
            ((("push",), ()), (("push", "tag"), ())),
            ((("push",), ("alpine",)), (("push",), ())),
            ((("push",), ("alpine:3",)), (("push",), ("alpine",))),
            ((("push",), (f"alpine:3@{DIGEST}",)), (("push",), ("golang", "alpine"))),
            ((("none",), ()), (("push",), ())),
            ((("none",), ()), (("push",), ("alpine",))),
        ],
    )
    def test_says_so(self, narrow: tuple[Any, Any], wide: tuple[Any, Any]) -> None:
        assert is_within(Restrictions(*narrow), Restrictions(*wide))

    @pytest.mark.parametrize(
        ("narrow", "wide"),
        [
            ((("push", "tag"), ()), (("push",), ())),
            ((("push",), ()), (("push",), ("alpine",))),
            ((("push",), ("alpine",)), (("push",), ("alpine:3",))),
            ((("push",), ("alpine:3",)), (("push",), ("alpine:3.20",))),
            ((("push",), ("alpine", "golang")), (("push",), ("alpine",))),
            ((("push",), ("team/alpine",)), (("push",), ("alpine",))),
            ((("push",), ("alpine",)), (("none",), ("alpine",))),
            # Woodpecker takes the port for a tag: this entry is for ``:latest`` only.
            ((("push",), ("localhost:5000/alpine:3",)), (("push",), ("localhost:5000/alpine",))),
        ],
    )
    def test_denies_it(self, narrow: tuple[Any, Any], wide: tuple[Any, Any]) -> None:
        assert not is_within(Restrictions(*narrow), Restrictions(*wide))

    @given(restrictions, restrictions, restrictions)
    @bounded
    def test_is_an_order(self, a: Restrictions, b: Restrictions, c: Restrictions) -> None:
        assert is_within(a, a)
        if is_within(a, b) and is_within(b, c):
            assert is_within(a, c)

    @given(restrictions, restrictions)
    @bounded
    def test_is_never_said_of_what_allows_more(self, narrow: Restrictions, wide: Restrictions) -> None:
        if is_within(narrow, wide):
            assert uses(narrow.events, narrow.images) <= uses(wide.events, wide.images)


class TestCommon:
    @pytest.mark.parametrize(
        ("one", "other", "both"),
        [
            ((("push", "tag"), ()), (("tag", "cron"), ()), (("tag",), ())),
            ((("push",), ("alpine",)), (("push", "tag"), ()), (("push",), ("alpine",))),
            ((("push",), ("alpine", "golang:1")), (("push",), ("golang", "node")), (("push",), ("golang:1",))),
        ],
    )
    def test_is_what_both_allow(self, one: tuple[Any, Any], other: tuple[Any, Any], both: tuple[Any, Any]) -> None:
        assert common(Restrictions(*one), Restrictions(*other)) == Restrictions(*both)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ((("push",), ()), (("tag",), ())),
            ((("push",), ("alpine",)), (("push",), ("golang",))),
            ((("push",), ("alpine:3",)), (("tag",), ("alpine",))),
            ((("push",), ("localhost:5000/alpine:3",)), (("push",), ("localhost:5000/alpine",))),
        ],
    )
    def test_is_for_no_event_where_there_is_nothing(self, one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
        assert common(Restrictions(*one), Restrictions(*other)).events == ("none",)

    @given(restrictions, restrictions)
    @bounded
    def test_allows_what_each_of_both_does_and_nothing_else(self, one: Restrictions, other: Restrictions) -> None:
        both = common(one, other)
        assert uses(both.events, both.images) == uses(one.events, one.images) & uses(other.events, other.images)
        assert both.events

    @given(restrictions, restrictions)
    @bounded
    def test_is_within_both(self, one: Restrictions, other: Restrictions) -> None:
        both = common(one, other)
        assert is_within(both, one)
        assert is_within(both, other)


class TestSecretOf:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("s3cret", "s3cret"),
            ("", ""),
            ("[1, 2]", "[1, 2]"),
            (5, "5"),
            (-1, "-1"),
            (2**70, "1180591620717411303424"),
            (True, "true"),
            (False, "false"),
            ([], "[]"),
            ({"a": 1}, '{"a":1}'),
            (
                {"\u00fc": ["x", None, True, 1, {"b": "\u00e4\n"}]},
                '{"\u00fc":["x",null,true,1,{"b":"\u00e4\\n"}]}',
            ),
        ],
    )
    def test_hands_a_value_on_as_text(self, value: Any, text: str) -> None:
        assert shown(only(live({"value": value, "note": "an admin's own"}))) == ("token", text)

    @pytest.mark.parametrize(
        "text", ["1.10", "0.000001", "1e-7", "1.2345678901234568e+22", "-0.0", '{"a":[1.0,2.50,1e5]}', "[3.10]"]
    )
    def test_hands_numbers_on_digit_for_digit(self, text: str) -> None:
        assert shown(only(live({"value": exact_json.loads(text)}))) == ("token", text)

    @pytest.mark.parametrize(
        "entry",
        [
            Entry(),
            Entry(3, live=False, data={"value": "s3cret"}),
            live({}),
            live({"value": None}),
            live({"Value": "s3cret"}),
        ],
    )
    def test_finds_none_where_there_is_no_value(self, entry: Entry) -> None:
        assert not entry.has_value
        assert secret_of(entry, "w/token", "token", DEFAULT) is None

    def test_reads_all_restrictions(self) -> None:
        entry = live(
            "s3cret", events="push, tag", images="alpine", note="for A", branches="main,release/*", forks=" Allow "
        )
        assert only(entry) == StoredSecret(
            Secret("token", SecretStr("s3cret"), images=("alpine",), events=("push", "tag"), note="for A"),
            path="w/token",
            branches=("main", "release/*"),
            forks="allow",
        )

    @pytest.mark.parametrize("metadata", [{}, {"events": ""}, {"events": " , "}, {"events": "[]"}, {"owner": "team"}])
    def test_is_for_the_default_events_where_none_are_given(self, metadata: dict[str, str]) -> None:
        assert only(live("s3cret", **metadata)).secret.events == ("push", "tag")

    @pytest.mark.parametrize(
        ("metadata", "words"),
        [
            ({"events": "[push"}, "events looks like a JSON array, but is none"),
            ({"images": '["alpine"'}, "images looks like a JSON array"),
            ({"images": "alpine", "images.2": "[1]"}, r"images\.2 is a JSON array, but not of strings"),
            ({"branches": '[["main"]]'}, "branches is a JSON array, but not of strings"),
            ({"branches": "[" * 100_000}, "branches looks like a JSON array"),
            ({"forks": "yes"}, 'forks must be "allow" or "deny"'),
        ],
    )
    def test_is_for_nobody_if_its_restrictions_make_no_sense(self, metadata: dict[str, str], words: str) -> None:
        stored = only(live("s3cret", **metadata))
        assert stored.secret.events == ("none",)
        assert pytest.raises(ValueError, match=words).matches(ValueError(stored.unreadable))

    def test_does_not_show_the_value(self) -> None:
        entry = live("s3cret")
        assert "s3cret" not in repr(entry) + repr(only(entry))


class TestStoredValue:
    def test_is_the_value_and_its_restrictions(self) -> None:
        stored = stored_value(live("s3cret", events="tag"), "w/token", "token", DEFAULT)
        assert (shown(stored), stored.secret.events, stored.path) == (("token", "s3cret"), ("tag",), "w/token")


class TestSecretsInBundle:
    def test_names_each_after_the_entry_and_its_key(self) -> None:
        entry = live({"username": "bot", "password": "s3cret", "port": 5, "gone": None}, events="tag", images="alpine")
        found = list(secrets_in_bundle(entry, "w/docker", "docker", DEFAULT))
        assert [shown(one) for one in found] == [
            ("docker_username", "bot"),
            ("docker_password", "s3cret"),
            ("docker_port", "5"),
        ]
        assert {(one.path, one.secret.events, one.secret.images) for one in found} == {
            ("w/docker", ("tag",), ("alpine",))
        }

    def test_takes_a_value_that_is_null_for_none(self) -> None:
        found = secrets_in_bundle(live({"value": None, "username": "bot"}), "w/docker", "docker", DEFAULT)
        assert [shown(one) for one in found] == [("docker_username", "bot")]

    @pytest.mark.parametrize(
        "entry",
        [
            Entry(),
            Entry(3, live=False, data={"username": "bot"}),
            live({}),
            live({"gone": None}),
            live({"value": "s3cret", "username": "bot"}),
        ],
    )
    def test_finds_none_where_there_is_no_bundle(self, entry: Entry) -> None:
        assert not entry.is_bundle
        assert list(secrets_in_bundle(entry, "w/docker", "docker", DEFAULT)) == []


class TestSecretsByKey:
    def test_names_each_as_its_key(self) -> None:
        entry = live({"value": "a", "token": "b", "gone": None}, forks="deny")
        found = list(secrets_by_key(entry, "w/all", DEFAULT))
        assert [(*shown(one), one.path, one.forks) for one in found] == [
            ("value", "a", "w/all", "deny"),
            ("token", "b", "w/all", "deny"),
        ]

    def test_finds_none_in_what_was_deleted(self) -> None:
        assert list(secrets_by_key(Entry(3, live=False, data={"token": "b"}), "w/all", DEFAULT)) == []


class TestMerged:
    def test_later_layers_win_by_name_without_regard_to_case(self) -> None:
        layers = [[named("TOKEN", "global"), named("b", "global")], [named("token", "repo"), named("a", "repo")]]
        assert [(one.secret.name, one.path) for one in merged(layers)] == [
            ("a", "repo"),
            ("b", "global"),
            ("token", "repo"),
        ]

    def test_of_nothing_is_nothing(self) -> None:
        assert merged([]) == merged([[], []]) == []

    @given(st.lists(st.lists(st.text("aAbB_", min_size=1, max_size=2), max_size=4), max_size=4))
    @bounded
    def test_has_every_name_once_sorted_from_the_last_layer_that_has_it(self, names: list[list[str]]) -> None:
        layers = [[named(name, str(number)) for name in layer] for number, layer in enumerate(names)]
        result = merged(iter(layers))
        assert {one.secret.name.lower() for one in result} == {name.lower() for layer in names for name in layer}
        assert len({one.secret.name.lower() for one in result}) == len(result)
        assert [one.secret.name for one in result] == sorted(one.secret.name for one in result)
        for one in result:
            later = names[int(one.path) + 1 :]
            assert one.secret.name.lower() not in {name.lower() for layer in later for name in layer}


class TestRestrictionsOf:
    @pytest.mark.parametrize(
        ("metadata", "images"),
        [
            ({}, ()),
            ({"images": "alpine"}, ("alpine",)),
            ({"images": " alpine , golang,, alpine "}, ("alpine", "golang")),
            ({"images": '["alpine", " golang ", ""]'}, ("alpine", "golang")),
            ({"images": ' ["alpine"] '}, ("alpine",)),
            ({"images": "a", "images.2": "b", "images.10": "d", "images.3": '["c"]'}, ("a", "b", "c", "d")),
            ({"images.2": "b"}, ("b",)),
            ({"images": "a", "images.3": "c"}, ("a", "c")),
            (
                {"images": "a", "images.1": "x", "images.02": "x", "images2": "x", "images.x": "x", "Images": "x"},
                ("a",),
            ),
        ],
    )
    def test_reads_a_list_however_it_is_written(self, metadata: dict[str, str], images: tuple[str, ...]) -> None:
        assert restrictions_of(live("s3cret", **metadata), DEFAULT).images == images

    @pytest.mark.parametrize(
        ("metadata", "note"),
        [
            ({}, ""),
            ({"note": "for A, and B"}, "for A, and B"),
            ({"note": "for ", "note.2": "A"}, "for A"),
            ({"note": '"two\\nlines"'}, "two\nlines"),
            ({"note": '"two\\n', "note.2": 'lines"'}, "two\nlines"),
            ({"note": '"Quoted" by an admin'}, '"Quoted" by an admin'),
            ({"note": '["x"]'}, '["x"]'),
        ],
    )
    def test_reads_a_note_however_it_is_written(self, metadata: dict[str, str], note: str) -> None:
        assert restrictions_of(live("s3cret", **metadata), DEFAULT).note == note


our_keys = st.sampled_from(
    ["events", "events.2", "events.3", "images", "images.2", "images.3", "images.17", "note", "note.2", "note.5"]
)
admins_keys = st.sampled_from(["owner", "images.1", "images.02", "images2", "note.x", "branches", "forks", "Events"])
metadata_values = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
any_metadata = st.dictionaries(our_keys | admins_keys, metadata_values, max_size=12)
items = st.text('ab1/.:@-_,[]" ', max_size=8).map(str.strip).filter(bool) | st.integers(1, 512).map(
    lambda size: "x" * size
)
notes = st.text(max_size=30) | st.builds(
    lambda text, times: text * times, st.text("a\u00fc\U0001f511\n\" '\\", max_size=4), st.integers(1, 600)
)


class TestMetadataPatch:
    @given(
        any_metadata,
        st.none() | st.lists(items, max_size=8),
        st.none() | st.lists(items, max_size=8),
        st.none() | notes,
    )
    @bounded
    def test_makes_the_metadata_say_this_whatever_it_said_before(
        self, current: dict[str, str], events: list[str] | None, images: list[str] | None, note: str | None
    ) -> None:
        after = patched(current, metadata_patch(current, events=events, images=images, note=note))
        assert all(1 <= len(value.encode()) <= 512 and value.isprintable() for value in after.values())
        assert len(after) <= 64
        untouched = {"owner", "images.1", "images.02", "images2", "note.x", "branches", "forks", "Events"}
        untouched |= {
            key for key in current if {"events": events, "images": images, "note": note}.get(key.split(".")[0]) is None
        }
        assert {key: after.get(key) for key in untouched} == {key: current.get(key) for key in untouched}
        for key, asked in (("events", events), ("images", images)):
            if asked is not None:
                alone = {name: value for name, value in after.items() if name.split(".")[0] == key}
                read = restrictions_of(live("s3cret", **alone), ("the default",))
                expected = tuple(dict.fromkeys(asked))
                assert (read.images if key == "images" else read.events) == (
                    expected or (() if key == "images" else ("the default",))
                )
        if note is not None:
            alone = {name: value for name, value in after.items() if name.split(".")[0] == "note"}
            assert restrictions_of(live("s3cret", **alone), DEFAULT).note == note

    @given(any_metadata, st.lists(items, max_size=8), notes)
    @bounded
    def test_names_only_what_changes_so_doing_it_twice_does_nothing(
        self, current: dict[str, str], images: list[str], note: str
    ) -> None:
        patch = metadata_patch(current, images=images, note=note)
        assert all(current.get(key) != value for key, value in patch.items())
        assert metadata_patch(patched(current, patch), images=images, note=note) == {}

    def test_leaves_everything_that_is_not_asked_for(self) -> None:
        assert metadata_patch({"events": "push", "images": "[odd", "note": "x", "owner": "team"}) == {}

    @pytest.mark.parametrize(
        ("current", "images", "patch"),
        [
            ({}, [], {}),
            ({}, ["alpine", "golang:1"], {"images": "alpine,golang:1"}),
            ({"images": "alpine"}, ["alpine"], {}),
            ({"images": '["alpine"]'}, ["alpine"], {"images": "alpine"}),
            ({"images": "a", "images.2": "b"}, ["c"], {"images": "c", "images.2": None}),
            (
                {"images": "a", "images.2": "b", "images.7": "c"},
                [],
                {"images": None, "images.2": None, "images.7": None},
            ),
            ({"images.2": "b"}, ["a"], {"images": "a", "images.2": None}),
            ({}, ["x" * 512, "y"], {"images": "x" * 512, "images.2": "y"}),
            ({}, ["x" * 510, "y"], {"images": "x" * 510 + ",y"}),
            ({}, ["x" * 511, "y"], {"images": "x" * 511, "images.2": "y"}),
        ],
    )
    def test_writes_a_list_as_an_admin_would(
        self, current: dict[str, str], images: list[str], patch: dict[str, str | None]
    ) -> None:
        assert metadata_patch(current, images=images) == patch

    @pytest.mark.parametrize(
        ("note", "patch"),
        [
            ("", {}),
            ("for A", {"note": "for A"}),
            ("two\nlines", {"note": '"two\\nlines"'}),
            ('"', {"note": '"\\""'}),
            ("\u00fc" * 257, {"note": "\u00fc" * 256, "note.2": "\u00fc"}),
        ],
    )
    def test_writes_a_note_as_an_admin_would(self, note: str, patch: dict[str, str | None]) -> None:
        assert metadata_patch({}, note=note) == patch

    def test_refuses_an_image_that_does_not_fit_into_one_value(self) -> None:
        with pytest.raises(Invalid, match="longer than the 512 bytes"):
            metadata_patch({}, images=["alpine", "x" * 513])

    def test_takes_as_many_keys_as_there_may_be_and_refuses_one_more(self) -> None:
        current = {f"admin.{number}": "x" for number in range(4)}
        images = [f"{number}".rjust(500, "x") for number in range(60)]
        assert len(patched(current, metadata_patch(current, images=images))) == 64
        with pytest.raises(Invalid, match="do not fit into the 64 keys"):
            metadata_patch(current | {"one": "more"}, images=images)
        assert metadata_patch(current | {"images.2": "x", "one": "more"}, images=["a"]) == {
            "images": "a",
            "images.2": None,
        }


class TestPatched:
    def test_is_the_metadata_after_a_patch(self) -> None:
        before = {"events": "push", "owner": "team", "note": "x"}
        assert patched(before, {"events": "tag", "note": None, "images": "alpine", "gone": None}) == {
            "events": "tag",
            "owner": "team",
            "images": "alpine",
        }
        assert before == {"events": "push", "owner": "team", "note": "x"}


@dataclass(frozen=True)
class Stored:
    """What is in Vault between two steps."""

    data: Mapping[str, Any]
    metadata: Mapping[str, str]


def states(entry: Entry, steps: Sequence[Step]) -> list[Stored]:
    """What is in Vault before the first step and after each."""
    result = [Stored(entry.data, entry.metadata)]
    for step in steps:
        last = result[-1]
        if isinstance(step, PutData):
            result.append(Stored(step.data, last.metadata))
        else:
            result.append(Stored(last.data, patched(last.metadata, step.patch)))
    return result


def written(key: str, values: Sequence[str]) -> st.SearchStrategy[dict[str, str]]:
    """The ways in which an admin may have written a list."""
    if not values:
        return st.just({})
    return st.sampled_from(
        [
            {key: ", ".join(values)},
            {key: json.dumps(list(values))},
            {key: values[0], **{f"{key}.{number}": value for number, value in enumerate(values[1:], 2)}},
        ]
    )


@dataclass(frozen=True)
class Update:
    """An entry, a change to it, and what it is for before and after, ``None`` where that cannot be read."""

    entry: Entry
    change: Change
    old: tuple[tuple[str, ...], tuple[str, ...]] | None
    new: tuple[tuple[str, ...], tuple[str, ...]] | None


@st.composite
def updates(draw: st.DrawFn) -> Update:
    events, images = draw(event_lists), draw(image_lists)
    metadata = draw(written("events", events)) | draw(written("images", images))
    metadata |= draw(st.sampled_from([{}, {"owner": "team", "branches": "main", "forks": "deny"}, {"note": "old"}]))
    unreadable = draw(st.sampled_from([None, None, None, "events", "images"]))
    if unreadable:
        metadata[unreadable] = "[odd"
    change = Change(
        value=draw(st.sampled_from([None, SecretStr("old"), SecretStr("new"), SecretStr("new")])),
        events=draw(st.none() | event_lists),
        images=draw(st.none() | image_lists),
        note=draw(st.sampled_from([None, "", "other\nnote"])),
    )
    stays_unreadable = unreadable is not None and getattr(change, unreadable) is None
    new = (
        (events if change.events is None else change.events) or DEFAULT,
        images if change.images is None else change.images,
    )
    return Update(
        entry=Entry(3, live=True, data={"value": "old", "extra": 1}, metadata=metadata),
        change=change,
        old=None if unreadable else (events or DEFAULT, images),
        new=None if stays_unreadable else new,
    )


class TestStepsToUpdate:
    @given(updates())
    @settings(max_examples=300, deadline=None)
    def test_no_value_is_ever_open_to_more_than_it_may(self, update: Update) -> None:
        old = uses(*update.old) if update.old else set()
        new = uses(*update.new) if update.new else set()
        between = states(update.entry, steps_to_update(update.entry, update.change, DEFAULT))
        before, after = between.pop(0), between.pop() if between else None
        assert visible(before.metadata) == old
        assert after is None or visible(after.metadata) == new
        for state in between:
            assert visible(state.metadata) <= old & new

    @given(updates())
    @bounded
    def test_all_steps_together_do_what_is_asked_and_nothing_else(self, update: Update) -> None:
        entry, change = update.entry, update.change
        after = states(entry, steps_to_update(entry, change, DEFAULT))[-1]
        assert after.data == {"value": "old" if change.value is None else change.value.get_secret_value(), "extra": 1}
        for key in ("owner", "branches", "forks"):
            assert after.metadata.get(key) == entry.metadata.get(key)
        if update.new is None:
            assert only(live("s3cret", **after.metadata)).unreadable
            return
        note = entry.metadata.get("note", "") if change.note is None else change.note
        assert restrictions_of(live("s3cret", **after.metadata), DEFAULT) == Restrictions(*update.new, note)
        assert ("events" in after.metadata) is bool(
            change.events if change.events is not None else "events" in entry.metadata
        )

    @given(updates())
    @bounded
    def test_every_patch_can_be_taken_back(self, update: Update) -> None:
        steps = steps_to_update(update.entry, update.change, DEFAULT)
        for before, step in zip(states(update.entry, steps), steps, strict=False):
            if isinstance(step, PatchMetadata):
                assert patched(patched(before.metadata, step.patch), step.undo) == before.metadata

    @given(updates())
    @bounded
    def test_writes_the_data_at_most_once_and_only_for_a_new_value(self, update: Update) -> None:
        steps = steps_to_update(update.entry, update.change, DEFAULT)
        puts = [step for step in steps if isinstance(step, PutData)]
        is_new = update.change.value is not None and update.change.value.get_secret_value() == "new"
        assert len(puts) == int(is_new)
        assert all(step.patch for step in steps if isinstance(step, PatchMetadata))

    @pytest.mark.parametrize(
        ("events", "kinds"),
        [
            (("push",), [PatchMetadata, PutData]),
            (("push", "tag", "cron"), [PutData, PatchMetadata]),
            (("push", "cron"), [PatchMetadata, PutData, PatchMetadata]),
            (("push", "tag"), [PutData]),
            (None, [PutData]),
        ],
    )
    def test_narrower_goes_first_and_wider_last(self, events: tuple[str, ...] | None, kinds: list[type[Step]]) -> None:
        change = Change(value=SecretStr("new"), events=events)
        steps = steps_to_update(live("old", events="push,tag"), change, DEFAULT)
        assert [type(step) for step in steps] == kinds

    def test_what_both_allow_comes_first_where_neither_is_narrower(self) -> None:
        entry = live("old", events="push,tag", images="alpine", note="x")
        change = Change(value=SecretStr("new"), events=("tag", "cron"), images=("alpine:3", "golang"), note="y")
        assert steps_to_update(entry, change, DEFAULT) == [
            PatchMetadata({"events": "tag", "images": "alpine:3"}, {"events": "push,tag", "images": "alpine"}),
            PutData({"value": "new"}),
            PatchMetadata(
                {"events": "tag,cron", "images": "alpine:3,golang", "note": "y"},
                {"events": "tag", "images": "alpine:3", "note": "x"},
            ),
        ]

    def test_nobody_gets_it_for_a_moment_where_nothing_is_common(self) -> None:
        change = Change(value=SecretStr("new"), events=("cron",))
        first, _, last = steps_to_update(live("old", events="tag"), change, DEFAULT)
        assert [first, last] == [
            PatchMetadata({"events": "none"}, {"events": "tag"}),
            PatchMetadata({"events": "cron"}, {"events": "none"}),
        ]

    def test_a_value_that_is_no_text_is_replaced_by_the_text_that_it_reads_as(self) -> None:
        steps = steps_to_update(live({"value": 5}), Change(value=SecretStr("5")), DEFAULT)
        assert steps == [PutData({"value": "5"})]

    def test_does_nothing_where_nothing_changes(self) -> None:
        entry = live("old", events="push", images="alpine", note="x")
        change = Change(value=SecretStr("old"), events=("push",), images=("alpine",), note="x")
        assert steps_to_update(entry, change, DEFAULT) == []
        assert steps_to_update(entry, Change(), DEFAULT) == []

    @pytest.mark.parametrize("images", ["alpine , golang", '["alpine", "golang"]', '["alpine,golang"]'])
    def test_what_the_change_does_not_name_never_changes(self, images: str) -> None:
        entry = live("old", events="push,tag", images=images)
        change = Change(value=SecretStr("new"), events=("tag", "cron"))
        for state in states(entry, steps_to_update(entry, change, DEFAULT)):
            assert only(live("s3cret", **state.metadata)).secret.images == only(entry).secret.images

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("localhost:5000/alpine:3", "localhost:5000/alpine"),
            ("localhost:5000/alpine", "localhost:5000/alpine:3"),
        ],
    )
    def test_takes_a_port_for_a_tag_as_woodpecker_does(self, old: str, new: str) -> None:
        # To Woodpecker, one is for ``:latest`` only and the other for ``:3`` only: nothing in between is for either.
        entry = live("old", images=old)
        _, *between, _ = states(entry, steps_to_update(entry, Change(value=SecretStr("new"), images=(new,)), DEFAULT))
        assert between
        assert all(only(live("s3cret", **state.metadata)).secret.events == ("none",) for state in between)

    def test_does_not_show_the_value(self) -> None:
        steps = steps_to_update(live("old"), Change(value=SecretStr("s3cret"), note="x"), DEFAULT)
        assert "s3cret" not in repr(steps)


class TestStepsToCreate:
    @given(updates(), st.sampled_from(["", "allow", " ALLOW", "deny", "odd"]))
    @bounded
    def test_nothing_is_there_before_all_of_it_is(self, update: Update, forks: str) -> None:
        metadata = {**update.entry.metadata, **({"forks": forks} if forks else {})}
        entry = Entry(3, live=False, metadata=metadata)
        change = Change(
            SecretStr("new"), update.change.events or (), update.change.images or (), update.change.note or ""
        )
        steps = steps_to_create(entry, change)
        assert [type(step) for step in steps if isinstance(step, PutData)] == [PutData]
        assert isinstance(steps[-1], PutData)
        after = states(entry, steps)[-1]
        assert after.data == {"value": "new"}
        read = restrictions_of(live("s3cret", **after.metadata), DEFAULT)
        assert read == Restrictions(change.events or DEFAULT, change.images or (), change.note or "")
        for key in ("owner", "branches"):
            assert after.metadata.get(key) == metadata.get(key)
        assert after.metadata.get("forks") == (None if "allow" in forks.lower() else metadata.get("forks"))

    def test_is_one_step_where_nothing_is_restricted(self) -> None:
        change = Change(SecretStr("new"), (), (), "")
        assert steps_to_create(Entry(), change) == [PutData({"value": "new"})]

    def test_leaves_an_admins_other_keys_beside_a_value_that_is_null(self) -> None:
        steps = steps_to_create(live({"value": None, "extra": None}), Change(SecretStr("new"), ("push",), (), ""))
        assert steps == [
            PatchMetadata({"events": "push"}, {"events": None}),
            PutData({"value": "new", "extra": None}),
        ]

    def test_does_not_bring_back_the_data_of_a_deleted_version(self) -> None:
        entry = Entry(3, live=False, data={"value": "gone", "extra": 1})
        assert steps_to_create(entry, Change(SecretStr("new"))) == [PutData({"value": "new"})]

    def test_does_not_bring_back_a_deleted_secrets_permission_for_forks(self) -> None:
        entry = Entry(3, live=False, metadata={"forks": "allow", "branches": "main"})
        assert steps_to_create(entry, Change(SecretStr("new"))) == [
            PatchMetadata({"forks": None}, {"forks": "allow"}),
            PutData({"value": "new"}),
        ]
