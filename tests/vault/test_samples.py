"""Candidates for the placeholders, out of rules and paths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker_vault.paths import Template
from woodpecker_vault.vault.samples import ENTRY, MADE_UP, Layer, Question, Rule, candidates, repository


def layer(text: str) -> Layer:
    return Layer(Template.compile(text))


class TestQuestions:
    def test_a_folder_is_listed_with_its_slash_and_something_in_it_is_read(self) -> None:
        listing, reading = layer("repo/{repo_id}/").questions({"repo_id": "7"})
        assert listing.api_path == "metadata/repo/7/"
        assert reading.api_path == f"data/repo/7/{MADE_UP[ENTRY]}"

    def test_an_entry_is_read_itself(self) -> None:
        assert [question.api_path for question in layer("one/{owner}").questions({ENTRY: "x"})] == ["data/one/1"]


class TestTextsOf:
    @pytest.mark.parametrize(
        ("template", "rule", "texts"),
        [
            ("ci/{owner}/{repo}/", Rule("ci/acme/shop/", glob=False), {"owner": "acme", "repo": "shop"}),
            ("ci/{owner}/{repo}/", Rule("ci/acme/shop", glob=False), {"owner": "acme", "repo": "shop"}),
            ("ci/{owner}/{repo}/", Rule("ci/acme/+/x", glob=False), {"owner": "acme", ENTRY: "x"}),
            ("ci/{owner}/{repo}/", Rule("ci/acme/", glob=True), {"owner": "acme"}),
            ("ci/{owner}/{repo}/", Rule("ci/acme/sh", glob=True), {"owner": "acme", "repo": "sh"}),
            ("ci/{owner}/{repo}/", Rule("ci/acme/shop/t", glob=True), {"owner": "acme", "repo": "shop", ENTRY: "t"}),
            ("ci/{owner}/{repo}/", Rule("ci", glob=True), {}),
            ("ci/{owner}/{repo}/", Rule("c", glob=True), {}),
            ("ci/{owner}/{repo}/", Rule("", glob=True), {}),
            ("ci/{owner}/{repo}/", Rule("d", glob=True), None),
            ("ci/{owner}/{repo}/", Rule("other/acme/", glob=True), None),
            ("ci/{owner}/{repo}/", Rule("ci/acme/shop/x/y", glob=False), None),
            ("ci/{owner}/{repo}/", Rule("ci/acme/shop/x/y", glob=True), None),
            ("o-{owner}.x/", Rule("o-acme.x/", glob=False), {"owner": "acme"}),
            ("o-{owner}.x/", Rule("o-.x/", glob=False), None),
            ("o-{owner}.x/", Rule("p-acme.x/", glob=False), None),
            ("o-{owner}/", Rule("o", glob=True), {}),
            ("o-{owner}/", Rule("o-a", glob=True), {"owner": "a"}),
            ("o-{owner}/", Rule("p-a", glob=True), None),
            ("{owner}/x/{owner}/", Rule("acme/x/acme/", glob=False), {"owner": "acme"}),
            ("{owner}/x/{owner}/", Rule("acme/x/other/", glob=False), None),
            ("{owner}/x/{owner}/", Rule("acme/x/o", glob=True), None),
            ("one/{owner}", Rule("one/acme", glob=False), {"owner": "acme"}),
            ("one/{owner}", Rule("one/acme/x", glob=False), None),
        ],
    )
    def test_a_rule_names_them(self, template: str, rule: Rule, texts: dict[str, str] | None) -> None:
        assert layer(template).texts_of(rule) == texts

    @given(st.lists(st.sampled_from(["ci", "acme", "shop", "+", "", "a{b", "é"]), max_size=6), st.booleans())
    def test_whatever_a_rule_looks_like_a_path_for_its_texts_fits_it(self, parts: list[str], glob: bool) -> None:  # noqa: FBT001 - given
        path = "/".join(parts)
        one = layer("ci/{owner}/{repo}/")
        texts = one.texts_of(Rule(path, glob=glob))
        if texts is None or not path:
            return
        paths = one.path(texts), one.read_question(texts).path
        begun = path.removesuffix("/").split("/")
        assert any(
            all(
                part in {"+", there} or (glob and there.startswith(part))
                for part, there in zip(begun, there_path.split("/"), strict=False)
            )
            for there_path in paths
        )


class TestTextsIn:
    def test_a_path_of_the_layer_has_them_and_another_has_none(self) -> None:
        one = layer("ci/{owner}/{repo}/")
        assert one.texts_in("ci/acme/shop/") == {"owner": "acme", "repo": "shop"}
        for path in ("ci/acme/", "ci/acme/shop/x/", "cd/acme/shop/"):
            assert one.texts_in(path) is None


class TestParent:
    @pytest.mark.parametrize(
        ("template", "parent"),
        [
            ("ci/{owner}/{repo}/", ("ci/", "owner")),
            ("{owner}/x/", None),
            ("ci/o-{owner}/", None),
            ("global/", None),
        ],
    )
    def test_it_holds_a_folder_for_each(self, template: str, parent: tuple[str, str] | None) -> None:
        assert layer(template).parent() == parent


class TestCandidates:
    def test_they_are_each_rules_and_those_of_two_that_agree(self) -> None:
        layers = [layer("{owner}/{repo}/")]
        rules = [Rule("acme/+/", glob=False), Rule("+/shop/", glob=False), Rule("other/+/", glob=False)]
        assert candidates(layers, rules) == [
            {"owner": "acme"},
            {"repo": "shop"},
            {"owner": "other"},
            {"owner": "acme", "repo": "shop"},
            {"owner": "other", "repo": "shop"},
        ]

    def test_they_are_bounded(self) -> None:
        rules = [Rule(f"owner-{number}/", glob=True) for number in range(5000)]
        assert len(candidates([layer("{owner}/{repo}/")], rules)) == 500


class TestRepository:
    def test_it_is_the_same_in_all_layers(self) -> None:
        layers = [layer("a/{owner}/"), layer("b/{owner}/{repo}/"), layer("one/entry")]
        found = [{"owner": "x"}, {"owner": "y"}, {"owner": "y", "repo": "shop", ENTRY: "z"}]
        allowed = {
            question: True
            for texts in found
            for one in layers
            for question in one.questions(texts)
            if not question.path.startswith("b/") or "/shop/" in question.path
        }
        assert repository(layers, found, allowed) == [
            {"owner": "y", "repo": "shop", ENTRY: MADE_UP[ENTRY]},
            {"owner": "y", "repo": "shop", ENTRY: "z"},
            {"owner": "y", "repo": "shop", ENTRY: MADE_UP[ENTRY]},
        ]

    def test_without_one_there_is_none(self) -> None:
        layers = [layer("a/{owner}/"), layer("b/{owner}/")]
        allowed = {
            question: True
            for one, owner in zip(layers, "xy", strict=True)
            for question in one.questions({"owner": owner})
        }
        assert repository(layers, [{"owner": "x"}, {"owner": "y"}], allowed) is None
        assert repository(layers, [], {Question("list", "a/1/"): True}) is None

    def test_many_layers_and_many_candidates_take_no_time_to_speak_of(self) -> None:
        layers = [layer(f"{number}/{{owner}}/{{repo}}/") for number in range(6)]
        found = [{"owner": f"o{number}"} for number in range(500)]
        allowed: dict[Question, bool] = {}
        for index, one in enumerate(layers):
            for texts in found[index::6]:  # no owner has all of them
                allowed |= dict.fromkeys(one.questions(texts), True)
        assert repository(layers, found, allowed) is None
