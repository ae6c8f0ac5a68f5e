"""Whose word an answer is, by its shape alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vault.front import FOREIGN, NOTHING_204, Page
from woodpecker_vault.vault.replies import Reply, Word, document_in, errors_in, word_of

PATH = "/v1/secret/data/woodpecker/global/token"
ENVELOPE: dict[str, Any] = {"request_id": "x", "lease_id": "", "data": None, "warnings": None, "auth": None}
INVALID_PATH = ["Invalid path for a versioned K/V secrets engine."]


def whose(method: str, status: int, body: bytes | dict[str, Any], url: str = PATH) -> Word:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return word_of(method, url, status, raw, document_in(raw))


@pytest.mark.parametrize(
    ("method", "status", "body"),
    [
        ("GET", 200, {**ENVELOPE, "data": {"keys": ["a"]}}),
        ("POST", 200, {**ENVELOPE, "auth": {"client_token": "s.x"}}),
        ("POST", 204, b""),
        ("DELETE", 204, b""),
        ("PATCH", 404, b""),
        ("GET", 400, {"errors": []}),
        ("GET", 400, {"errors": ["relative paths not supported"]}),
        ("GET", 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}),
        ("GET", 404, {"errors": ['no handler for route "x"']}),
        ("GET", 404, {**ENVELOPE, "data": {"data": None, "metadata": {"version": 1}}}),
        ("GET", 404, {**ENVELOPE, "warnings": INVALID_PATH}),
        ("GET", 405, {"errors": ["unsupported operation"]}),
        ("GET", 503, {"errors": ["Vault is sealed"]}),
    ],
)
def test_what_vault_says_is_its_word(method: str, status: int, body: bytes | dict[str, Any]) -> None:
    assert whose(method, status, body) is Word.VAULT


@pytest.mark.parametrize("status", [200, 429, 472, 473, 501, 503])
@pytest.mark.parametrize("url", ["/v1/sys/health", "/v1/sys/seal-status"])
def test_the_state_of_a_node_is_its_word_whatever_the_status(url: str, status: int) -> None:
    assert whose("GET", status, {"initialized": True, "sealed": status == 503}, url) is Word.VAULT
    assert whose("GET", status, {"status": "ok"}, url) is Word.FOREIGN


def test_that_nothing_is_there_could_be_anybodys_word() -> None:
    assert whose("GET", 404, {"errors": []}) is Word.NOBODY


@pytest.mark.parametrize("page", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_others_say_is_not(page: Page, method: str) -> None:
    assert whose(method, page.status, page.body) is Word.FOREIGN


def test_no_content_is_vaults_word_on_a_write_only() -> None:
    assert whose("PUT", 204, NOTHING_204.body) is Word.VAULT
    assert whose("GET", 204, NOTHING_204.body) is Word.FOREIGN


def test_an_empty_400_is_vaults_word_on_a_path_that_it_does_not_print() -> None:
    assert whose("GET", 400, b"", "/v1/secret/data/a%E2%80%8Db") is Word.VAULT
    assert whose("GET", 400, b"") is Word.FOREIGN


@pytest.mark.parametrize(
    "document",
    [
        {"errors": None},
        {"errors": "no"},
        {"errors": {"a": 1}},
        {"errors": [1]},
        {"errors": ["no", {"code": 7}]},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"metadata": None}},
        {"warnings": None},
        {"warnings": []},
        {"warnings": [{"text": "no"}]},
        {**ENVELOPE},
    ],
)
def test_what_only_resembles_vaults_404_is_not(document: dict[str, Any]) -> None:
    assert whose("GET", 404, document) is Word.FOREIGN


@given(st.sampled_from(["GET", "POST", "PATCH"]), st.integers(200, 599), st.binary(max_size=200))
def test_whatever_comes_is_told_apart_without_a_crash(method: str, status: int, body: bytes) -> None:
    assert whose(method, status, body) in Word


@given(
    st.integers(400, 599),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["errors", "data", "warnings", "x"]), inner),
        max_leaves=8,
    ),
)
def test_a_refusal_is_vaults_only_with_texts_for_errors(status: int, value: Any) -> None:
    document = {"message": value, "errors": value}
    texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    assert (whose("GET", status, document) is Word.FOREIGN) == (not texts)
    assert errors_in(document) == (value if texts else [])


@pytest.mark.parametrize(
    "error",
    [
        "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period.",
        "Waiting for the primary to upgrade from non-versioned to versioned data. This backend will be unavailable.",
    ],
)
def test_a_mount_that_is_being_upgraded_passes(error: str) -> None:
    assert Reply(400, b"", document={"errors": [error]}).passes
    assert not Reply(400, b"", document={"errors": ["no data provided"]}).passes
    assert not Reply(403, b"", document={"errors": [error]}).passes


def test_a_reply_does_not_show_what_is_in_it() -> None:
    assert "sesame" not in repr(Reply(200, b"sesame", document={"data": "sesame"}))
