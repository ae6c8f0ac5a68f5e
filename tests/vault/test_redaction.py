"""What Vault says in an error: short, on one line, and without what we sent."""

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.servers import speaking
from tests.vault import rooms
from woodpecker_vault.errors import Problem
from woodpecker_vault.exact_json import Digits
from woodpecker_vault.vault.connection import Connection
from woodpecker_vault.vault.logins.approle import AppRole
from woodpecker_vault.vault.redaction import LONGEST, Redaction, shortened

TOKEN = {"X-Vault-Token": "s.opensesame"}


class TestStriking:
    """What is taken out of a text."""

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            ({"data": {"value": "hunter2"}}, "cannot use 'hunter2' here"),
            ({"data": {"docker": {"password": "hunter2"}}}, 'invalid "hunter2"'),
            ({"data": {"value": ["a", "hunter2"]}}, "hunter2hunter2"),
            ({"data": {"value": "hunter2\nhunter2"}}, r"near hunter2\nhunter2"),
            ({"data": {"value": "xx\nhunter2\n"}}, "near line: hunter2"),
            ({"secret_id": "hunter2"}, "invalid secret id hunter2"),
            ({"password": "hunter2"}, "<hunter2>"),
            ({"jwt": "hunter2"}, "token hunter2 is malformed"),
            (None, "bad token s.opensesame"),
        ],
    )
    def test_whatever_was_sent_is(self, document: object, said: str) -> None:
        shown = Redaction(TOKEN, document).of(said)
        assert "hunter2" not in shown
        assert "opensesame" not in shown
        assert "struck out" in shown

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ('say "hunter2"', r'value "say \"hunter2\"" is wrong'),
            ("tab\thunter2", r"tab\thunter2 is wrong"),
            ("clé-hunter2", "cl\\u00e9-hunter2 is wrong"),
            (Digits("12345.678"), "cannot use 12345.678"),
            (12345678, "cannot use 12345678"),
        ],
    )
    def test_so_it_is_where_it_is_quoted_or_no_text(self, value: object, said: str) -> None:
        shown = Redaction({}, {"data": {"value": value}}).of(said)
        assert "hunter2" not in shown
        assert "12345" not in shown

    def test_a_short_one_is_where_it_stands_alone(self) -> None:
        assert Redaction({}, {"value": "err"}).of("error: err") == "error: [struck out]"

    def test_what_an_operator_has_to_read_stays(self) -> None:
        document = {"role": "woodpecker", "jwt": "hunter2", "options": {"cas": 3}, "flag": True, "none": None}
        said = 'role "woodpecker" could not be found, 3 errors occurred, True None'
        assert Redaction(TOKEN, document).of(said) == said

    @given(
        st.text(st.characters(categories=["Lu", "Nd"]), min_size=4, max_size=80),
        st.text(st.characters(categories=["Ll", "Po", "Zs"]), max_size=80),
        st.text(st.characters(categories=["Ll", "Po", "Zs"]), max_size=80),
    )
    def test_whatever_is_around_it_it_is_gone(self, secret: str, before: str, after: str) -> None:
        for said in (before + secret + after, before + json.dumps(secret) + after):
            assert secret not in Redaction({}, {"data": {"value": secret}}).of(said)

    @given(st.text(max_size=400), st.text(max_size=40))
    def test_whatever_comes_it_is_short_and_on_one_line(self, said: str, secret: str) -> None:
        shown = Redaction({"X-Vault-Token": secret}).of(said)
        assert len(shown) <= LONGEST
        assert shown.isprintable()

    def test_what_is_nested_without_end_is_not_searched_for(self) -> None:
        deep: list[Any] = ["hunter2"]
        for _ in range(5000):
            deep = [deep]
        assert "hunter2" not in Redaction({}, {"data": deep}).of("hunter2")

    def test_a_large_value_costs_little(self) -> None:
        value = "\n".join(map(str, range(1_000_000)))
        started = time.monotonic()
        Redaction({}, {"data": {"value": value}}).of("x" * 1_000_000)
        assert time.monotonic() - started < 2


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=1000))
def test_a_shortened_text_begins_as_the_text_does(text: str) -> None:
    assert shortened(text) == (text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


@asynccontextmanager
async def echoing(head: str, *, as_json: bool) -> AsyncIterator[str]:
    """Something that gives back what it is sent: as an error that Vault could raise, or as it is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            sent = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in sent.split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            if as_json:
                errors = [(sent + body).decode(), *body.decode().split('"')] * 30
                said = json.dumps({"errors": errors}).encode()
                writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(said)}\r\n\r\n".encode() + said)
            else:
                writer.write(sent + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with speaking(answer) as address:
        yield address


@pytest.mark.parametrize(
    "head", ["400 Bad Request", "403 Forbidden", "500 Internal Server Error", "503 Unavailable", ""]
)
async def test_an_echo_of_what_we_sent_goes_nowhere(head: str) -> None:
    async with echoing(head, as_json=bool(head)) as address, rooms(Connection(address), "open-sesame") as ours:
        for call in (
            ours.kv.put("folder/token", {"value": "hunter2", "pin": "4711"}, cas=0),
            ours.kv.patch_metadata("folder/token", {"note": "hunter2"}),
            ours.kv.read("folder/token"),
        ):
            with pytest.raises(Problem) as caught:
                await call
            whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.cause
            for secret in ("hunter2", "4711", "sesame"):
                assert secret not in whole
            assert len(caught.value.cause) < LONGEST + 200


async def test_neither_does_one_of_a_login() -> None:
    method = AppRole(role_id="x", secret_id=SecretStr("hunter2"))
    async with echoing("400 Bad Request", as_json=True) as address, rooms(Connection(address), method=method) as ours:
        with pytest.raises(Problem) as caught:
            await ours.tokens.current()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caught.value.cause
