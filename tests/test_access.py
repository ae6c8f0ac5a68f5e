"""May this pipeline have this secret?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from woodpecker_vault.access import Verdict, branch_matches, decide, event_matches
from woodpecker_vault.entries import StoredSecret
from woodpecker_vault.woodpecker import EVENTS, Pipeline, Secret


def stored(
    *events: str, branches: tuple[str, ...] = (), forks: str = "", unreadable: str = "", images: tuple[str, ...] = ()
) -> StoredSecret:
    secret = Secret(name="token", value=SecretStr("s3cret"), events=events or ("push",), images=images)
    return StoredSecret(secret, "woodpecker/global/token", branches=branches, forks=forks, unreadable=unreadable)


ALLOWED = Verdict("allowed", given=True)


class TestDecide:
    def test_gives_a_secret_that_is_for_this_event(self) -> None:
        assert decide(stored("tag", "push"), Pipeline(event="push"), forks_allowed=False) == ALLOWED

    def test_withholds_a_secret_that_is_for_others(self) -> None:
        verdict = decide(stored("tag", "cron"), Pipeline(event="push"), forks_allowed=False)
        assert verdict == Verdict("event push is not among tag, cron", given=False)

    def test_withholds_a_secret_without_events(self) -> None:
        secret = Secret(name="token", value=SecretStr("s3cret"))
        assert not decide(StoredSecret(secret, "x"), Pipeline(event="push"), forks_allowed=True).given

    def test_leaves_images_to_woodpecker(self) -> None:
        assert decide(stored("push", images=("alpine",)), Pipeline(event="push"), forks_allowed=False) == ALLOWED

    @pytest.mark.parametrize(
        ("forks", "setting", "given"),
        [
            ("", "deny", False),
            ("", "allow", True),
            ("allow", "deny", True),
            ("allow", "allow", True),
            ("deny", "deny", False),
            ("deny", "allow", False),
        ],
    )
    def test_asks_the_entry_before_the_setting_about_forks(self, forks: str, setting: str, *, given: bool) -> None:
        pipeline = Pipeline(event="pull_request", from_fork=True)
        verdict = decide(stored("pull_request", forks=forks), pipeline, forks_allowed=setting == "allow")
        assert verdict == (ALLOWED if given else Verdict("the pipeline comes from a fork"))

    @pytest.mark.parametrize("forks", ["", "allow", "deny"])
    def test_does_not_ask_about_forks_where_there_is_none(self, forks: str) -> None:
        pipeline = Pipeline(event="pull_request")
        assert decide(stored("pull_request", forks=forks), pipeline, forks_allowed=False) == ALLOWED

    def test_a_fork_that_is_allowed_still_needs_the_event(self) -> None:
        pipeline = Pipeline(event="pull_request", from_fork=True)
        assert not decide(stored("push", forks="allow"), pipeline, forks_allowed=True).given

    @pytest.mark.parametrize("event", ["push", "cron", "pull_request", "pull_request_closed"])
    def test_gives_a_secret_for_a_branch_that_the_forge_vouches_for(self, event: str) -> None:
        pipeline = Pipeline(event=event, branch="release/1", refspec="fix:release/1")
        secret = stored(event, "pull_request", branches=("main", "release/*"))
        assert decide(secret, pipeline, forks_allowed=False) == ALLOWED

    def test_withholds_it_on_another_branch(self) -> None:
        pipeline = Pipeline(event="push", branch="feature")
        verdict = decide(stored("push", branches=("main", "release/*")), pipeline, forks_allowed=False)
        assert verdict == Verdict("branch feature is not among main, release/*")

    @pytest.mark.parametrize("event", ["manual", "deployment", "tag", "release"])
    def test_withholds_it_where_the_branch_is_the_callers_choice(self, event: str) -> None:
        pipeline = Pipeline(event=event, branch="main")
        verdict = decide(stored(event, branches=("main", "**")), pipeline, forks_allowed=False)
        assert verdict == Verdict(f"it is for certain branches, and event {event} has none to rely on")

    def test_withholds_it_where_there_is_no_branch(self) -> None:
        verdict = decide(stored("push", branches=("**",)), Pipeline(event="push"), forks_allowed=False)
        assert verdict == Verdict("it is for certain branches, and event push has none to rely on")

    @pytest.mark.parametrize("event", [*EVENTS, "none"])
    def test_withholds_what_cannot_be_read_from_everybody(self, event: str) -> None:
        secret = stored(*EVENTS, "none", unreadable="images looks odd", forks="allow")
        verdict = decide(secret, Pipeline(event=event), forks_allowed=True)
        assert verdict == Verdict("its restrictions cannot be read: images looks odd")

    @given(
        st.builds(Pipeline, event=st.sampled_from(EVENTS), branch=st.text(max_size=5), from_fork=st.booleans()),
        st.lists(st.sampled_from(EVENTS), min_size=1).map(tuple),
        st.lists(st.sampled_from(["main", "*", "**"])).map(tuple),
        st.sampled_from(["", "allow", "deny"]),
    )
    @settings(max_examples=100, deadline=None)
    def test_another_restriction_never_gives_more(
        self, pipeline: Pipeline, events: tuple[str, ...], branches: tuple[str, ...], forks: str
    ) -> None:
        def given_to(secret: StoredSecret, *, forks_allowed: bool = False) -> bool:
            return decide(secret, pipeline, forks_allowed=forks_allowed).given

        if given_to(stored(*events, branches=branches, forks=forks)):
            assert given_to(stored(*events, branches=branches, forks=forks), forks_allowed=True)
            assert given_to(stored(*events, branches=branches, forks="allow"))
            assert given_to(stored(*events, forks=forks))
            assert given_to(stored(*EVENTS, branches=branches, forks=forks))


class TestEventMatches:
    @pytest.mark.parametrize("event", EVENTS)
    def test_matches_itself_unless_it_is_a_kind_of_pull_request(self, event: str) -> None:
        assert event_matches(event, (event,)) is not event.startswith("pull_request_")

    @pytest.mark.parametrize("event", ["pull_request", "pull_request_closed", "pull_request_metadata"])
    def test_counts_every_kind_of_pull_request_as_one(self, event: str) -> None:
        assert event_matches(event, ("push", "pull_request"))
        assert not event_matches(event, ("pull_request_closed", "pull_request_metadata", "push"))

    def test_no_event_is_in_an_empty_list(self) -> None:
        assert not any(event_matches(event, ()) for event in EVENTS)

    def test_not_even_a_pipeline_that_says_so_has_no_event(self) -> None:
        assert not event_matches("none", ("none",))


class TestBranchMatches:
    @pytest.mark.parametrize(
        ("pattern", "branch"),
        [
            ("main", "main"),
            ("*", "main"),
            ("release/*", "release/1.2"),
            ("release/*/x", "release/1/x"),
            ("v?", "v1"),
            ("**", "a/b/c"),
            ("feature/**", "feature/a/b"),
            ("*-stable", "12-stable"),
            ("a.b", "a.b"),
            ("a+(b)", "a+(b)"),
            ("*", "line\nbreak"),
            ("sch*", "sch\u00f6n"),
        ],
    )
    def test_means_this_branch(self, pattern: str, branch: str) -> None:
        assert branch_matches(branch, pattern)

    @pytest.mark.parametrize(
        ("pattern", "branch"),
        [
            ("main", "Main"),
            ("main", "main2"),
            ("main", "xmain"),
            ("main", "main\n"),
            ("*", "a/b"),
            ("release/*", "release/1/2"),
            ("release/*", "release"),
            ("v?", "v12"),
            ("v?", "v"),
            ("v?", "v/"),
            ("a.b", "axb"),
            ("[ab]", "a"),
            ("", "main"),
        ],
    )
    def test_means_another(self, pattern: str, branch: str) -> None:
        assert not branch_matches(branch, pattern)

    @given(st.text().filter(lambda text: not set(text) & set("*?")), st.text())
    @settings(max_examples=100, deadline=None)
    def test_without_wildcards_a_pattern_means_exactly_itself(self, pattern: str, branch: str) -> None:
        assert branch_matches(pattern, pattern)
        assert branch_matches(branch, pattern) is (branch == pattern)
