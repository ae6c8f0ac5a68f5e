"""What all logins have in common: their settings, their files, their secrecy, and what comes of an answer."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.vault.logins import login_adapter
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import Unavailable
from woodpecker_vault.vault.files import text_in
from woodpecker_vault.vault.logins import LOGINS, Grant, Method

SECRET = "the-very-secret-one"

GIVEN: dict[str, list[dict[str, str]]] = {
    "token": [{"token": SECRET}],
    "approle": [{"role_id": "role", "secret_id": SECRET}],
    "kubernetes": [],
    "jwt": [],
    "userpass": [{"username": "ci-bot", "password": SECRET}],
    "ldap": [{"username": "ci-bot", "password": SECRET}],
    "cert": [{"role": "ci"}],
    "aws": [{"role": "ci"}],
    "none": [],
}
"""Settings with all that is secret in them."""

IN_FILES: dict[str, list[tuple[dict[str, str], str]]] = {
    "token": [({}, "token_file")],
    "approle": [({}, "role_id_file"), ({"role_id": "role"}, "secret_id_file")],
    "kubernetes": [({"role": "ci"}, "jwt_file")],
    "jwt": [({}, "jwt_file")],
    "userpass": [({"username": "ci-bot"}, "password_file")],
    "ldap": [({"username": "ci-bot"}, "password_file")],
    "cert": [],
    "aws": [],
    "none": [],
}
"""Settings that are whole with a file of this name."""

BY_NAME: dict[str, type[Method]] = {login.model_fields["method"].default: login for login in LOGINS}


def pairs(table: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, one) for name, many in table.items() for one in many]


def test_every_method_is_tried_here() -> None:
    assert set(BY_NAME) == set(GIVEN) == set(IN_FILES)
    for name, login in BY_NAME.items():
        assert {key for key in login.model_fields if key.endswith("_file")} == {key for _, key in IN_FILES[name]}


@pytest.mark.parametrize(("name", "settings"), pairs(GIVEN))
def test_no_text_of_a_login_shows_a_secret(name: str, settings: dict[str, str]) -> None:
    method = BY_NAME[name].model_validate(settings)
    for text in (repr(method), str(method), f"{method}", method.model_dump_json(), str(method.model_dump())):
        assert SECRET not in text


@pytest.mark.parametrize(("name", "settings"), pairs(GIVEN))
def test_neither_does_what_is_said_about_wrong_settings(name: str, settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        BY_NAME[name].model_validate({**settings, "mount": "..", "nonsense": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content", [None, "", " \n", f"{SECRET}\nand more", f"{SECRET}\x00", b"\xff" + SECRET.encode()]
)
@pytest.mark.parametrize(("name", "settings_and_key"), pairs(IN_FILES))
async def test_a_file_that_is_gone_or_holds_no_line_of_text_is_named_but_not_shown(
    bao: OpenBao,
    tmp_path: Path,
    *,
    name: str,
    settings_and_key: tuple[dict[str, str], str],
    content: str | bytes | None,
) -> None:
    settings, key = settings_and_key
    file = tmp_path / "named"
    file.write_bytes(content.encode() if isinstance(content, str) else content or b"")
    method = BY_NAME[name].model_validate({**settings, key: str(file)})
    if content is None:
        file.unlink()
    async with login_adapter(bao) as adapter:
        with pytest.raises(Unavailable) as caught:
            await method.login(adapter)
    assert str(file) in caught.value.cause
    assert SECRET not in f"{caught.value.detail} {caught.value.cause} {caught.value.__cause__}"


@pytest.mark.parametrize(("name", "settings_and_key"), pairs(IN_FILES))
def test_a_file_that_is_not_there_at_the_start_stops_it(
    tmp_path: Path, name: str, settings_and_key: tuple[dict[str, str], str]
) -> None:
    settings, key = settings_and_key
    with pytest.raises(ValidationError, match="No such file or directory"):
        BY_NAME[name].model_validate({**settings, key: str(tmp_path / "absent")})


@pytest.mark.parametrize("mount", ["", "/", "..", "a/../b", "a//b", "./a", "a\nb"])
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in {"token", "none"}])
def test_a_mount_that_is_no_path_is_refused(name: str, mount: str) -> None:
    with pytest.raises(ValidationError, match="vault auth list"):
        BY_NAME[name].model_validate({"mount": mount})


def test_slashes_around_a_mount_are_none_of_it() -> None:
    assert BY_NAME["cert"].model_validate({"mount": "/team/cert/"}).mount == "team/cert"


@pytest.mark.parametrize("username", ["", ".", "..", "a/b", "../users/a", "a\tb"])
@pytest.mark.parametrize("name", ["userpass", "ldap"])
def test_a_username_that_is_no_segment_of_a_path_is_refused(name: str, username: str) -> None:
    with pytest.raises(ValidationError, match="without slashes"):
        BY_NAME[name].model_validate({"username": username, "password": SECRET})


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("token", {}, "either token or token_file"),
        ("token", {"token": "x", "token_file": __file__}, "either token or token_file"),
        ("token", {"token": "x", "mount": "other"}, "'token'"),
        ("approle", {}, "either role_id or role_id_file"),
        ("approle", {"role_id": "x", "role_id_file": __file__}, "either role_id or role_id_file"),
        ("approle", {"role_id": "x", "secret_id": "x", "secret_id_file": __file__}, "not both"),
        ("approle", {"role_id": "x", "secret_id_wrapped": True}, "secret_id_wrapped needs"),
        ("kubernetes", {"role": "", "jwt_file": __file__}, "at least 1 character"),
        ("jwt", {"jwt_file": ""}, "at least 1 character"),
        ("userpass", {"username": "x"}, "either password or password_file"),
        ("ldap", {"username": "x", "password": "x", "password_file": __file__}, "either password or password_file"),
        ("aws", {"region": ""}, "at least 1 character"),
    ],
)
def test_settings_that_are_not_whole_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BY_NAME[name].model_validate(settings)


def test_settings_cannot_be_changed_afterwards() -> None:
    for name, settings in pairs(GIVEN):
        with pytest.raises(ValidationError, match="frozen"):
            BY_NAME[name].model_validate(settings).namespace = "other"


class TestTextIn:
    @pytest.mark.parametrize("text", ["x", "two words", "  spaces around\t\n", "ü & ß", "a\n"])
    def test_it_is_the_line_without_the_spaces_around_it(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "file"
        file.write_text(text)
        assert text_in(str(file)) == text.strip()


AUTH = {"client_token": SECRET, "lease_duration": 60, "renewable": True, "token_type": "service", "num_uses": 0}


class TestGrant:
    @pytest.mark.parametrize(
        ("auth", "expected"),
        [
            ({}, Grant(SECRET, 60.0, renewable=True, ours=True)),
            ({"num_uses": 3}, Grant(SECRET, 60.0, renewable=True, uses=3, ours=True)),
            ({"num_uses": None}, Grant(SECRET, 60.0, renewable=True, ours=True)),
            ({"renewable": False, "token_type": "batch"}, Grant(SECRET, 60.0)),
            ({"lease_duration": 0}, Grant(SECRET, 0.0, renewable=True, ours=True)),
        ],
    )
    def test_it_says_what_the_answer_says(self, auth: dict[str, Any], expected: Grant) -> None:
        assert Grant.from_login({"auth": {**AUTH, **auth}}) == expected

    @pytest.mark.parametrize("answer", [{}, {"auth": None}, {"auth": {}}, {"auth": {**AUTH, "lease_duration": "x"}}])
    def test_what_is_no_answer_of_a_login_is_an_error_as_announced(self, answer: dict[str, Any]) -> None:
        with pytest.raises((LookupError, TypeError, ValueError)):
            Grant.from_login(answer)

    def test_it_does_not_show_its_token(self) -> None:
        assert SECRET not in repr(Grant.from_login({"auth": AUTH}))
