"""Where in Vault: path templates, and secrets' names as single path segments."""

import string
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from woodpecker_vault.errors import Invalid
from woodpecker_vault.paths import (
    PLACEHOLDERS,
    Template,
    encode_value,
    name_from_url,
    name_of,
    segment_of,
)

bounded = settings(max_examples=100, deadline=None)

# Unicode as it is, and the characters that matter here more often than chance would have it.
texts = st.text(max_size=12) | st.text("./%{}~2EFC80Bab\u200b\u00a0\u200d\ufeff \n\u00fc", max_size=12)


class TestCompile:
    @pytest.mark.parametrize(
        ("text", "names", "folder"),
        [
            ("woodpecker/global/", set(), True),
            ("woodpecker/org/{org_id}/", {"org_id"}, True),
            ("ci/{owner}/{repo}", {"owner", "repo"}, False),
            ("{event}", {"event"}, False),
            ("a-{branch}.b/c d/", {"branch"}, True),
            ("..a/b..", set(), False),
        ],
    )
    def test_reads_a_template(self, text: str, names: set[str], *, folder: bool) -> None:
        template = Template.compile(text)
        assert template.text == text
        assert template.names == names
        assert template.is_folder is folder

    @pytest.mark.parametrize("placeholder", sorted(PLACEHOLDERS))
    def test_knows_every_placeholder(self, placeholder: str) -> None:
        assert Template.compile(f"x/{{{placeholder}}}/").render({placeholder: "v"}) == "x/v/"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("ci/{secret}/", r"unknown placeholder \{secret\}; there are branch, event, .*, repo_id"),
            ("ci/{}/", "unknown placeholder"),
            ("ci/{0}/", "unknown placeholder"),
            ("ci/{repo_id.real}/", "unknown placeholder"),
            ("ci/{repo_id[0]}/", "unknown placeholder"),
            ("ci/{Repo_ID}/", "unknown placeholder"),
            ("ci/{repo_id!r}/", "nothing more"),
            ("ci/{repo_id:>9}/", "nothing more"),
            ("ci/{repo_id:{org_id}}/", "nothing more"),
            ("ci/{{repo_id}}/", "nothing more"),
            ("ci/{repo_id", "'ci/\\{repo_id'"),
            ("ci/repo_id}", "'ci/repo_id\\}'"),
            ("ci/{owner}-{repo}/", "two placeholders in one segment"),
            ("ci/{owner}{owner}/", "two placeholders in one segment"),
            ("", "plain name"),
            ("/", "plain name"),
            ("/ci/", "plain name"),
            ("ci//x", "plain name"),
            ("ci/x//", "plain name"),
            ("../x/", "plain name"),
            ("ci/./x", "plain name"),
            ("ci/..", "plain name"),
            ("ci/a\nb/", "plain name"),
            ("ci/a\u200bb/", "plain name"),
        ],
    )
    def test_refuses_what_cannot_be_a_path_and_names_it(self, text: str, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            Template.compile(text)

    def test_refuses_a_placeholder_that_is_known_only_elsewhere(self) -> None:
        with pytest.raises(ValueError, match=r"unknown placeholder \{branch\}; there are repo_id$"):
            Template.compile("ci/{repo_id}/{branch}/", frozenset({"repo_id"}))

    @given(texts)
    @bounded
    def test_reads_or_refuses_any_text(self, text: str) -> None:
        try:
            template = Template.compile(text)
        except ValueError:
            return
        path = template.render(dict.fromkeys(PLACEHOLDERS, "..")) or ""
        assert not {"", ".", ".."} & set(path.removesuffix("/").split("/"))


class TestRender:
    def test_puts_values_in_their_places(self) -> None:
        template = Template.compile("ci/{owner}/{repo}/{branch}/")
        values = {"owner": "acme", "repo": "shop", "branch": "feature/a", "event": "push"}
        assert template.render(values) == "ci/acme/shop/feature%2Fa/"

    @pytest.mark.parametrize("values", [{}, {"owner": ""}, {"repo": "x"}])
    def test_leaves_out_a_path_for_which_there_is_no_value(self, values: dict[str, str]) -> None:
        assert Template.compile("ci/{owner}/").render(values) is None

    def test_needs_no_value_where_there_is_no_placeholder(self) -> None:
        assert Template.compile("ci/global/").render({}) == "ci/global/"

    @given(st.tuples(texts, texts), st.tuples(texts, texts))
    @bounded
    def test_never_gives_two_pipelines_the_same_path(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        template = Template.compile("ci/x-{owner}.y/{repo}/")
        paths = [template.render({"owner": owner, "repo": repo}) for owner, repo in (one, other)]
        assert (paths[0] == paths[1] is not None) is (one == other and all(one))

    @given(texts, texts)
    @bounded
    def test_never_gives_a_path_with_other_segments(self, owner: str, repo: str) -> None:
        path = Template.compile("ci/{owner}/{repo}/").render({"owner": owner, "repo": repo})
        if owner and repo:
            assert path is not None
            segments = path.split("/")
            assert len(segments) == 4
            assert [segments[0], segments[3]] == ["ci", ""]
            assert not {"", ".", ".."} & set(segments[:3])
            assert path.isprintable()
        else:
            assert path is None


class TestEncodeValue:
    @pytest.mark.parametrize(
        ("value", "segment"),
        [
            ("main", "main"),
            ("feature/a", "feature%2Fa"),
            ("100%", "100%25"),
            ("a%2Fb", "a%252Fb"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "%2E%2E%2E"),
            ("..a", "..a"),
            ("%2E", "%252E"),
            ("a b", "a b"),
            ("sch\u00f6n", "sch\u00f6n"),
            ("a\nb", "a%0Ab"),
            ("a\x00b", "a%00b"),
            ("a\u200bb", "a%E2%80%8Bb"),
            ("a\u00a0b", "a%C2%A0b"),
            ("\ud800", "%ED%A0%80"),
            ("*+?#", "*+?#"),
        ],
    )
    def test_spells_a_value_as_one_segment(self, value: str, segment: str) -> None:
        assert encode_value(value) == segment

    @given(texts.filter(bool))
    @bounded
    def test_gives_one_safe_segment(self, value: str) -> None:
        segment = encode_value(value)
        assert "/" not in segment
        assert segment not in {"", ".", ".."}
        assert segment.isprintable()

    @given(texts)
    @bounded
    @example("..")
    @example("%2E")
    @example("a\u200b%E2%80%8B")
    def test_can_be_undone_so_no_two_values_give_the_same(self, value: str) -> None:
        assert unquote(encode_value(value), errors="strict") == value


class TestSegmentOf:
    @pytest.mark.parametrize(
        "name",
        [
            "token",
            "DEPLOY_KEY",
            "a b",
            "a.b",
            "...",
            "..a",
            "100%",
            "a%2Fb",
            "%2E",
            "sch\u00f6n",
            "\U0001f511",
            "*?#+&",
        ],
    )
    def test_is_the_name_itself_wherever_vault_takes_it(self, name: str) -> None:
        assert segment_of(name) == name

    @pytest.mark.parametrize(
        ("name", "segment"),
        [
            ("a\u200bb", "a%E2%80%8Bb"),
            ("a\u00a0b", "a%C2%A0b"),
            ("\u2028", "%E2%80%A8"),
            ("\U0001f468\u200d\U0001f4bb", "\U0001f468%E2%80%8D\U0001f4bb"),
            ("\ufeff\u200b", "%EF%BB%BF%E2%80%8B"),
        ],
    )
    def test_escapes_what_vault_refuses(self, name: str, segment: str) -> None:
        assert segment_of(name) == segment

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("", "one path segment"),
            (".", "one path segment"),
            ("..", "one path segment"),
            ("a/b", "one path segment"),
            ("/", "one path segment"),
            ("a\nb", "control characters"),
            ("a\x00b", "control characters"),
            ("a\x7f", "control characters"),
            ("a\x85", "control characters"),
            ("\ud800", "valid unicode"),
            ("%E2%80%8B", "cannot be told from another"),
            ("a%C2%A0", "cannot be told from another"),
            ("%41\u200b", "cannot be told from another"),
        ],
    )
    def test_refuses_a_name_that_cannot_be_one(self, name: str, words: str) -> None:
        with pytest.raises(Invalid, match=words):
            segment_of(name)

    @pytest.mark.parametrize("name", ["x" * 255, "\u00fc" * 127])
    def test_takes_a_long_name(self, name: str) -> None:
        assert segment_of(name) == name

    @pytest.mark.parametrize(("name", "size"), [("x" * 256, 256), ("\u00fc" * 128, 256), ("x" * 9999, 9999)])
    def test_refuses_one_that_is_too_long(self, name: str, size: int) -> None:
        with pytest.raises(Invalid, match=f"at most 255 bytes; this one has {size}"):
            segment_of(name)

    @given(texts)
    @bounded
    def test_gives_one_safe_segment_that_leads_back_to_the_name(self, name: str) -> None:
        try:
            segment = segment_of(name)
        except Invalid:
            return
        assert "/" not in segment
        assert segment not in {"", ".", ".."}
        assert segment.isprintable()
        assert name_of(segment) == name

    @given(st.text(string.ascii_letters + string.digits + "_-. \u00fc\u200b\u00a0", min_size=1, max_size=12))
    @bounded
    def test_takes_every_ordinary_name(self, name: str) -> None:
        if name in {".", ".."}:
            return
        assert name_of(segment_of(name)) == name


class TestNameOf:
    @pytest.mark.parametrize(
        ("segment", "name"),
        [
            ("token", "token"),
            ("a%E2%80%8Bb", "a\u200bb"),
            ("%EF%BB%BF%E2%80%8B", "\ufeff\u200b"),
            ("a%2Fb", "a%2Fb"),
            ("%2E%2E", "%2E%2E"),
            ("a%0Ab", "a%0Ab"),
            ("a%e2%80%8bb", "a%e2%80%8bb"),
            ("%E2%80", "%E2%80"),
            ("%ED%A0%80", "%ED%A0%80"),
            ("%41%E2%80%8B", "%41%E2%80%8B"),
            ("100%", "100%"),
            ("%%E2%80%8B%4", "%\u200b%4"),
        ],
    )
    def test_decodes_only_what_had_to_be_escaped(self, segment: str, name: str) -> None:
        assert name_of(segment) == name

    @given(st.text("%E280BCA9F41ab.\u00fc", min_size=1, max_size=12) | st.text(max_size=12).filter(str.isprintable))
    @bounded
    @example("%E2%80%8B")
    @example("%41%E2%80%8B")
    def test_every_segment_that_vault_lists_is_reached_again_by_its_name(self, segment: str) -> None:
        if segment not in {"", ".", ".."} and "/" not in segment:
            assert segment_of(name_of(segment)) == segment


class TestNameFromUrl:
    @pytest.mark.parametrize(
        ("segment", "name"),
        [
            ("token", "token"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("a%2Fb", "a/b"),
            ("%252F", "%2F"),
            ("sch%C3%B6n", "sch\u00f6n"),
            ("sch\u00f6n", "sch\u00f6n"),
            ("%", "%"),
            ("%zz", "%zz"),
            ("", ""),
        ],
    )
    def test_decodes_once(self, segment: str, name: str) -> None:
        assert name_from_url(segment) == name

    @pytest.mark.parametrize("segment", ["%FF", "a%C3", "%ED%A0%80"])
    def test_refuses_what_is_no_utf8(self, segment: str) -> None:
        with pytest.raises(Invalid, match="percent-encoded UTF-8"):
            name_from_url(segment)

    @given(st.text(max_size=12))
    @bounded
    def test_is_the_inverse_of_encoding(self, name: str) -> None:
        assert name_from_url(quote(name, safe="")) == name

    def test_raw_bytes_that_are_no_utf8_are_refused_too(self) -> None:
        with pytest.raises(Invalid):
            name_from_url("a\udcff")
