"""Woodpecker's side of the wire."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from woodpecker_vault.errors import BadRequest, Invalid, SignatureRefused
from woodpecker_vault.woodpecker import (
    EVENTS,
    PULL_REQUEST_EVENTS,
    Page,
    Pipeline,
    PipelineRequest,
    Secret,
    SecretBody,
    check_events,
    check_images,
    check_made_for_alpha,
    repo_id_from_url,
    secret_answer,
    secret_id,
    secret_list_answer,
    secrets_answer,
)

bounded = settings(max_examples=100, deadline=None)

DIGEST = "sha256:" + "0a" * 32


def body(repo: Any = None, pipeline: Any = None, **more: Any) -> bytes:
    document = {"repo": {"id": 7} if repo is None else repo, "pipeline": pipeline or {"event": "push"}, **more}
    return json.dumps(document).encode()


def secret(name: str, **parts: Any) -> Secret:
    return Secret(name=name, value=SecretStr("s3cret"), **parts)


class TestPipelineRequest:
    def test_takes_what_is_needed_of_a_whole_request(self) -> None:
        request = PipelineRequest.from_json(
            b"""{
              "repo": {
                "id": 7, "org_id": 3, "forge_id": 1, "forge_remote_id": "4711", "owner": "acme", "name": "shop",
                "full_name": "acme/shop", "default_branch": "main", "visibility": "private", "private": true,
                "trusted": {"network": false, "volumes": false, "security": false}
              },
              "pipeline": {
                "id": 100, "number": 12, "event": "pull_request", "branch": "main", "ref": "refs/pull/1/head",
                "refspec": "fix:main",
                "commit": "2fff90f8d288a4640e90f05049fe30e61a14fd50", "author": "octocat", "from_fork": true
              },
              "netrc": {"machine": "forge.example", "login": "octocat", "password": "netrc-password", "type": "gitea"}
            }"""
        )
        assert request.repo.model_dump() == {
            "id": 7,
            "org_id": 3,
            "forge_id": 1,
            "forge_remote_id": "4711",
            "owner": "acme",
            "name": "shop",
            "full_name": "acme/shop",
        }
        assert request.pipeline.model_dump() == {
            "number": 12,
            "event": "pull_request",
            "branch": "main",
            "refspec": "fix:main",
            "from_fork": True,
        }

    def test_keeps_nothing_of_the_netrc(self) -> None:
        request = PipelineRequest.from_json(body(netrc={"login": "octocat", "password": "netrc-password"}))
        assert "netrc" not in repr(request) + request.model_dump_json()
        assert not hasattr(request, "netrc")

    def test_needs_only_a_repository_and_an_event(self) -> None:
        request = PipelineRequest.from_json(b'{"repo":{"id":7},"pipeline":{"event":"push"}}')
        assert (request.repo.id, request.repo.org_id, request.repo.full_name) == (7, 0, "")
        assert (request.pipeline.event, request.pipeline.branch, request.pipeline.from_fork) == ("push", "", False)

    def test_takes_an_event_that_is_not_known_yet(self) -> None:
        assert PipelineRequest.from_json(body(pipeline={"event": "comment"})).pipeline.event == "comment"

    @pytest.mark.parametrize("repo_id", [1, 2**31, 2**63 - 1])
    def test_takes_every_id_that_go_has(self, repo_id: int) -> None:
        assert PipelineRequest.from_json(body({"id": repo_id})).repo.id == repo_id

    @pytest.mark.parametrize("repo_id", [0, -1, 2**63, 10**400, "7", 7.0, 7.5, True, None, [7], {}])
    def test_refuses_an_id_that_is_no_positive_integer(self, repo_id: Any) -> None:
        with pytest.raises(BadRequest, match=r"The body is not as expected: repo\.id: "):
            PipelineRequest.from_json(body({"id": repo_id}))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"", "The body is not as expected: Invalid JSON"),
            (b"{", "Invalid JSON"),
            (b"null", "The body is not as expected"),
            (b"[]", "The body is not as expected"),
            (b"{}", "repo: Field required"),
            (b'{"repo":{"id":7}}', "pipeline: Field required"),
            (b'{"repo":{"id":7},"pipeline":{}}', r"pipeline\.event: Field required"),
            (b'{"repo":{"id":7},"pipeline":{"event":1}}', r"pipeline\.event: "),
            (b'{"repo":{"id":7},"pipeline":{"event":null}}', r"pipeline\.event: "),
            (b'{"repo":{"id":7},"pipeline":{"event":"push","from_fork":"false"}}', r"pipeline\.from_fork: "),
            (b'{"repo":{"id":7},"pipeline":{"event":"push","from_fork":0}}', r"pipeline\.from_fork: "),
            (b'{"repo":{"id":7,"name":1},"pipeline":{"event":"push"}}', r"repo\.name: "),
            (b'{"repo":{"id":7},"pipeline":{"event":"push"}} x', "Invalid JSON"),
            (b'{"repo":{"id":7},"pipeline":{"event":"\xff"}}', "not as expected"),
            (b'{"repo":{"id":7},"pipeline":{"event":"\\ud800"}}', "not as expected"),
            pytest.param(b'{"repo":' + b"[" * 100_000, "not as expected", id="deep"),
        ],
    )
    def test_refuses_another_document_and_says_where(self, text: bytes, words: str) -> None:
        with pytest.raises(BadRequest, match=words):
            PipelineRequest.from_json(text)

    def test_does_not_repeat_what_it_was_sent(self) -> None:
        with pytest.raises(BadRequest) as refused:
            PipelineRequest.from_json(body({"id": "netrc-password"}, netrc={"password": "netrc-password"}))
        assert "netrc-password" not in refused.value.detail + refused.value.cause + repr(refused.value)
        assert refused.value.__suppress_context__

    @given(
        st.binary(max_size=40).filter(lambda text: b"{" not in text)
        | st.recursive(st.none() | st.text(), st.lists).map(lambda document: json.dumps(document).encode())
    )
    @bounded
    def test_refuses_any_nonsense_in_the_same_words(self, text: bytes) -> None:
        for read in (PipelineRequest.from_json, SecretBody.from_json):
            with pytest.raises(BadRequest, match="The body is not as expected"):
                read(text)


class TestVouchedBranch:
    @pytest.mark.parametrize("event", ["push", "cron"])
    def test_is_the_branch_where_the_forge_vouches_for_it(self, event: str) -> None:
        assert Pipeline(event=event, branch="main", refspec="a:b").vouched_branch == "main"

    @pytest.mark.parametrize("event", sorted(PULL_REQUEST_EVENTS))
    def test_of_a_pull_request_is_its_target(self, event: str) -> None:
        assert Pipeline(event=event, branch="main", refspec="main:release/1").vouched_branch == "release/1"

    @pytest.mark.parametrize("refspec", ["", "main", ":main", "main:", ":", "a:b:main"])
    def test_of_a_pull_request_is_empty_where_no_target_is_named(self, refspec: str) -> None:
        assert not Pipeline(event="pull_request", branch="main", refspec=refspec).vouched_branch

    @pytest.mark.parametrize("event", ["tag", "release", "manual", "deployment", "comment", ""])
    def test_is_empty_elsewhere(self, event: str) -> None:
        assert not Pipeline(event=event, branch="main", refspec="main:main").vouched_branch


class TestCheckMadeForAlpha:
    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_takes_no_body_for_what_needs_none(self, method: str) -> None:
        check_made_for_alpha(method, b"")
        for sent in (body(), b"{}", b" ", b'{"name":"token"}'):
            with pytest.raises(SignatureRefused, match="takes no body"):
                check_made_for_alpha(method, sent)

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    @pytest.mark.parametrize("key", ["repo", "pipeline", "netrc", "configuration", "Repo"])
    def test_refuses_the_body_of_another_extension(self, method: str, key: str) -> None:
        with pytest.raises(SignatureRefused, match="made for something else"):
            check_made_for_alpha(method, json.dumps({"name": "token", "value": "x", key: None}).encode())

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    @pytest.mark.parametrize("sent", [b"", b"nonsense", b"[]", b"5", b"\xff", b"[" * 100_000])
    def test_understands_nothing_but_an_object(self, method: str, sent: bytes) -> None:
        with pytest.raises(BadRequest):
            check_made_for_alpha(method, sent)

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_takes_a_secret(self, method: str) -> None:
        check_made_for_alpha(method, b'{"id":0,"repo_id":7,"name":"repo","value":"pipeline","events":["push"]}')


class TestSecretBody:
    def test_reads_a_secret_as_the_alpha_client_sends_it(self) -> None:
        read = SecretBody.from_json(
            b'{"id":0,"org_id":0,"repo_id":7,"name":"token","value":"s3cret","images":["alpine"],"events":["push"]}'
        )
        assert read.value is not None
        assert read.value.get_secret_value() == "s3cret"
        assert (read.name, read.images, read.events, read.note) == ("token", ["alpine"], ["push"], None)

    def test_does_not_show_the_value(self) -> None:
        read = SecretBody.from_json(b'{"name":"token","value":"s3cret"}')
        assert "s3cret" not in repr(read) + str(read) + read.model_dump_json()

    def test_tells_absent_from_null(self) -> None:
        assert SecretBody.from_json(b"{}").model_fields_set == set()
        read = SecretBody.from_json(b'{"images":null,"events":null,"note":null,"value":null,"name":null}')
        assert read.model_fields_set == {"images", "events", "note", "value", "name"}

    @pytest.mark.parametrize(
        "text",
        [
            b'{"value":5}',
            b'{"value":["s3cret"]}',
            b'{"images":"alpine"}',
            b'{"images":[1]}',
            b'{"events":{"push":true}}',
            b'{"events":[null]}',
            b'{"name":1}',
            b'{"note":[]}',
            b'{"repo_id":"7"}',
            b'{"repo_id":7.0}',
            b"[]",
            b"s3cret",
            b'{"value":"\\ud800"}',
        ],
    )
    def test_refuses_wrong_types_without_repeating_them(self, text: bytes) -> None:
        with pytest.raises(BadRequest, match="not as expected") as refused:
            SecretBody.from_json(text)
        assert "s3cret" not in refused.value.detail

    @pytest.mark.parametrize(
        "text", [b"{}", b'{"repo_id":7}', b'{"name":""}', b'{"name":"token"}', b'{"name":null,"org_id":0}']
    )
    def test_may_be_about_the_secret_in_the_url(self, text: bytes) -> None:
        SecretBody.from_json(text).check_belongs_to(7, "token")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b'{"repo_id":8}', "another repository or organization"),
            (b'{"repo_id":-7}', "another repository or organization"),
            (b'{"org_id":1}', "another repository or organization"),
            (b'{"repo_id":7,"org_id":1}', "another repository or organization"),
            (b'{"name":"other"}', "cannot be renamed"),
            (b'{"name":"TOKEN"}', "cannot be renamed"),
        ],
    )
    def test_must_not_be_about_another(self, text: bytes, words: str) -> None:
        with pytest.raises(Invalid, match=words):
            SecretBody.from_json(text).check_belongs_to(7, "token")

    def test_may_have_any_name_where_the_url_has_none(self) -> None:
        SecretBody.from_json(b'{"name":"other","repo_id":7}').check_belongs_to(7)


class TestPage:
    @pytest.mark.parametrize(
        ("page", "per_page", "number", "size"),
        [
            (None, None, 1, 0),
            ("0", "0", 1, 0),
            ("1", None, 1, 50),
            ("2", None, 2, 50),
            ("2", "0", 2, 50),
            (None, "10", 1, 10),
            ("0", "10", 1, 10),
            ("3", "10", 3, 10),
            ("003", "999999999", 3, 999_999_999),
        ],
    )
    def test_is_read_from_the_query(self, page: str | None, per_page: str | None, number: int, size: int) -> None:
        assert Page.from_query(page, per_page) == Page(number, size)

    @pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "x", " 1", "1_0", "\u0661", "1\n", "1234567890"])
    def test_refuses_what_is_no_number(self, text: str) -> None:
        with pytest.raises(BadRequest, match="page must be a number"):
            Page.from_query(text, None)
        with pytest.raises(BadRequest, match="perPage must be a number"):
            Page.from_query(None, text)

    @pytest.mark.parametrize(
        ("number", "size", "names"),
        [
            (1, 0, ["a", "b", "c"]),
            (9, 0, ["a", "b", "c"]),
            (1, 2, ["a", "b"]),
            (2, 2, ["c"]),
            (3, 2, []),
            (1, 3, ["a", "b", "c"]),
        ],
    )
    def test_is_a_part_of_the_list(self, number: int, size: int, names: list[str]) -> None:
        secrets = [secret("a"), secret("b"), secret("c")]
        assert [one.name for one in Page(number, size).of(secrets)] == names

    @given(st.integers(0, 20), st.integers(1, 7))
    @bounded
    def test_all_pages_together_are_the_whole_list(self, count: int, size: int) -> None:
        secrets = [secret(str(number)) for number in range(count)]
        pages = [Page(number, size).of(secrets) for number in range(1, 23)]
        assert [one for page in pages for one in page] == secrets


class TestRepoIdFromUrl:
    @pytest.mark.parametrize(("text", "number"), [("1", 1), ("42", 42), ("9223372036854775807", 2**63 - 1)])
    def test_reads_a_positive_integer(self, text: str, number: int) -> None:
        assert repo_id_from_url(text) == number

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "1\n",
            "x",
            "%31",
            "\u0661",
            "9223372036854775808",
            "1_0",
        ],
    )
    def test_refuses_anything_else(self, text: str) -> None:
        with pytest.raises(BadRequest, match="must be a positive integer"):
            repo_id_from_url(text)


class TestCheckEvents:
    @pytest.mark.parametrize("event", EVENTS)
    def test_knows_every_event_of_woodpecker(self, event: str) -> None:
        assert check_events([event]) == (event,)

    def test_keeps_the_order_and_drops_repeats(self) -> None:
        assert check_events(["tag", "push", "tag"]) == ("tag", "push")
        assert check_events(iter(())) == ()

    @pytest.mark.parametrize("event", ["", "Push", "push ", "none", "pull", "s3cret\n"])
    def test_refuses_another(self, event: str) -> None:
        with pytest.raises(Invalid, match=r"Unknown event \".*\"; Woodpecker knows push, pull_request, "):
            check_events(["push", event])

    def test_shows_the_wrong_one_on_one_short_line(self) -> None:
        with pytest.raises(Invalid) as refused:
            check_events(["\n\u202e" + "x" * 500])
        assert refused.value.detail.startswith(f'Unknown event "\\n\\u202e{"x" * 78}"; Woodpecker knows ')


class TestCheckImages:
    @pytest.mark.parametrize(
        "image",
        [
            "alpine",
            "alpine:latest",
            "alpine:3.20",
            "plugins/docker",
            "woodpeckerci/plugin-git:2.1.0",
            "docker.io/library/alpine",
            "localhost:5000/alpine",
            "registry.example:443/a/b/c:v1",
            f"alpine@{DIGEST}",
            f"registry.example/a/alpine:3@{DIGEST}",
            "UPPER_case",
        ],
    )
    def test_takes_an_image(self, image: str) -> None:
        assert check_images([image]) == (image,)

    @pytest.mark.parametrize(
        "image",
        [
            "",
            " ",
            "alpine ",
            "al pine",
            "alpine,golang",
            "alpine\n",
            "alpine:",
            ":3",
            "alpine:3:4",
            "https://alpine",
            "/alpine",
            "alpine/",
            "alpine@sha256:abc",
            f"alpine@{DIGEST.upper()}",
            "alpine*",
            "[alpine",
            '"alpine"',
            "\u00e4lpine",
            "alpine:\u0663",
        ],
    )
    def test_refuses_what_is_none(self, image: str) -> None:
        with pytest.raises(Invalid, match="is no image"):
            check_images(["alpine", image])

    def test_keeps_the_order_and_drops_repeats(self) -> None:
        assert check_images(["b", "a", "b"]) == ("b", "a")

    def test_shows_the_wrong_one_on_one_short_line(self) -> None:
        with pytest.raises(Invalid) as refused:
            check_images(["a\n" + "x" * 500])
        assert refused.value.detail == f'"a\\n{"x" * 78}" is no image: [host[:port]/][path/]name[:tag][@sha256:digest].'

    @given(st.text("a/:.@-", max_size=3000))
    @settings(max_examples=30, deadline=1000)
    def test_decides_about_a_long_one_in_no_time(self, image: str) -> None:
        for text in (image, "a/" * 3000 + "!", "a" * 6000 + "!", "a:1" * 2000, "." * 6000 + "@"):
            try:
                check_images([text])
            except Invalid:
                continue


class TestSecretsAnswer:
    def test_is_an_object_even_for_no_secret(self) -> None:
        assert secrets_answer([]) == b'{"secrets":[]}'

    def test_spells_each_secret_out(self) -> None:
        one = Secret("token", SecretStr('s3"cret\n'), images=("alpine",), events=("push", "tag"), note="not sent")
        other = Secret("schl\u00fcssel", SecretStr("\u00fc"), events=("cron",))
        assert secrets_answer([one, other]) == (
            b'{"secrets":['
            b'{"name":"token","value":"s3\\"cret\\n","images":["alpine"],"events":["push","tag"]},'
            b'{"name":"schl\xc3\xbcssel","value":"\xc3\xbc","images":[],"events":["cron"]}'
            b"]}"
        )


class TestSecretAnswer:
    def test_spells_the_secret_out(self) -> None:
        one = Secret("deploy_key", SecretStr("s3cret"), images=("alpine",), events=("push",), note="for A")
        assert json.loads(secret_answer(1, one)) == {
            "id": 6_403_973_768_247_472,
            "org_id": 0,
            "repo_id": 1,
            "name": "deploy_key",
            "value": "s3cret",
            "images": ["alpine"],
            "events": ["push"],
            "note": "for A",
        }


class TestSecretListAnswer:
    def test_is_an_array_even_for_no_secret(self) -> None:
        assert secret_list_answer(1, []) == b"[]"

    def test_keeps_the_order(self) -> None:
        listed = json.loads(secret_list_answer(7, iter([secret("b"), secret("a")])))
        assert [(one["name"], one["repo_id"], one["value"]) for one in listed] == [
            ("b", 7, "s3cret"),
            ("a", 7, "s3cret"),
        ]


class TestSecret:
    def test_does_not_show_its_value(self) -> None:
        assert "s3cret" not in repr(secret("token")) + str(secret("token"))


class TestSecretId:
    @pytest.mark.parametrize(
        ("repo_id", "name", "number"),
        [(1, "deploy_key", 6_403_973_768_247_472), (2, "schl\u00fcssel", 2_081_433_870_814_639)],
    )
    def test_never_changes(self, repo_id: int, name: str, number: int) -> None:
        assert secret_id(repo_id, name) == number

    @given(st.integers(1, 2**63 - 1), st.text())
    @bounded
    def test_is_one_that_javascript_can_hold(self, repo_id: int, name: str) -> None:
        assert 0 < secret_id(repo_id, name) < 2**53

    def test_differs_between_repositories_and_names(self) -> None:
        numbers = {secret_id(repo_id, name) for repo_id in range(1, 20) for name in ("a", "b", "A")}
        assert len(numbers) == 57
