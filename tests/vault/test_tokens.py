"""The token's life against a real OpenBao."""

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.servers import Admin
from tests.vault import Gate, Rooms, rooms
from woodpecker_vault.cli.openbao import OpenBao
from woodpecker_vault.errors import Denied, Problem, Unavailable
from woodpecker_vault.vault.logins import LOGINS, Credentials
from woodpecker_vault.vault.tokens import Tokens
from woodpecker_vault.vault.transport import Adapter, Connection, open_session

POLICY = 'path "secret/data/tokens/*" { capabilities = ["create", "read", "update"] }'


@asynccontextmanager
async def gated(bao: OpenBao, *, token: str = "", token_file: Path | None = None) -> AsyncIterator[tuple[Gate, Rooms]]:
    """The rooms behind a gate that counts."""
    gate = Gate(bao.address)
    async with (
        gate.listening(),
        rooms(Connection(gate.address), token, token_file=str(token_file) if token_file else "") as ours,
    ):
        yield gate, ours


async def revoke(admin: Admin, token: str) -> None:
    status, _ = await admin.call("POST", "auth/token/revoke", {"token": token})
    assert status == 204


async def test_a_token_file_is_read_again_when_its_token_is_refused(bao: OpenBao, admin: Admin, folder: Path) -> None:
    file = folder / "token"
    first = await admin.token(POLICY, name="tokens")
    file.write_text(f"{first}\n")
    async with gated(bao, token_file=file) as (gate, ours):
        await ours.kv.read("tokens/none")
        await revoke(admin, first)
        second = await admin.token(POLICY, name="tokens")
        file.write_text(f"  {second}\r\n")
        gate.heal()
        await ours.kv.read("tokens/none")
        assert len(gate.requests) == 2
        gate.heal()
        await ours.kv.read("tokens/none")
        assert len(gate.requests) == 1
        assert await ours.tokens.current() == second


async def test_a_write_that_was_refused_is_done_once_with_the_new_token(
    bao: OpenBao, admin: Admin, folder: Path, repo_id: int
) -> None:
    file = folder / "token"
    file.write_text("wrong")
    async with gated(bao, token_file=file) as (_, ours):
        await ours.tokens.current()
        file.write_text(await admin.token(POLICY, name="tokens"))
        await ours.kv.put(f"tokens/{repo_id}", {"value": "x"}, cas=0)
    assert await admin.version(f"tokens/{repo_id}") == 1


async def test_many_refusals_at_once_all_end_well(bao: OpenBao, admin: Admin, folder: Path) -> None:
    file = folder / "token"
    file.write_text("wrong")
    async with gated(bao, token_file=file) as (gate, ours):
        await ours.tokens.current()
        file.write_text(await admin.token(POLICY, name="tokens"))
        await asyncio.gather(*(ours.kv.read("tokens/none") for _ in range(20)))
        assert len(gate.requests) <= 40


@pytest.mark.parametrize("source", ["token", "file"])
async def test_a_denied_path_is_asked_for_no_more_than_once(
    bao: OpenBao, admin: Admin, folder: Path, source: str
) -> None:
    token = await admin.token(POLICY, name="tokens")
    file = folder / "token"
    file.write_text(token)
    given = gated(bao, token_file=file) if source == "file" else gated(bao, token=token)
    async with given as (gate, ours):
        for _ in range(3):
            gate.heal()
            with pytest.raises(Denied):
                await ours.kv.read("elsewhere/token")
            assert gate.requests == [("GET", "/v1/secret/data/elsewhere/token")]
        await ours.kv.read("tokens/none")


async def test_two_wrong_tokens_in_a_row_are_denied(bao: OpenBao, folder: Path) -> None:
    file = folder / "token"
    file.write_text("wrong")
    async with gated(bao, token_file=file) as (gate, ours):
        await ours.tokens.current()
        file.write_text("wrong too")
        with pytest.raises(Denied):
            await ours.kv.read("tokens/none")
        assert len(gate.requests) == 2


async def test_a_token_file_that_is_gone_is_unavailable_and_comes_back(
    bao: OpenBao, admin: Admin, folder: Path
) -> None:
    file = folder / "token"
    async with gated(bao, token_file=file) as (_, ours):
        with pytest.raises(Unavailable) as caught:
            await ours.kv.read("tokens/none")
        assert str(file) in caught.value.cause
        file.write_text(await admin.token(POLICY, name="tokens"))
        await ours.kv.read("tokens/none")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hvs.one-sesame\nhvs.two-sesame\n", b"\xff\xfesesame", b"sesame\0", "sésame-ключ".encode()]
)
async def test_a_token_file_with_something_else_in_it_is_a_problem_that_does_not_show_it(
    bao: OpenBao, folder: Path, content: bytes
) -> None:
    file = folder / "token"
    file.write_bytes(content)
    async with gated(bao, token_file=file) as (_, ours):
        with pytest.raises(Problem) as caught:
            await ours.kv.read("tokens/none")
    whole = "".join(traceback.format_exception(caught.value)) + caught.value.cause + caught.value.detail
    assert "same" not in whole.replace("the same", "")


async def test_no_refusal_is_needed_to_keep_a_token(bao: OpenBao) -> None:
    async with open_session(Connection(bao.address)) as session:
        adapter = Adapter(session, Connection(bao.address))
        tokens = Tokens(adapter, Credentials(token="one"))
        assert await tokens.current() == "one"
        assert await tokens.after_refusal("one") is None
        assert await tokens.after_refusal("an older one") == "one"
        assert await tokens.current() == "one"


def test_credentials_do_not_show_their_token() -> None:
    assert "sesame" not in repr(Credentials(token="sesame"))
    assert "token" in LOGINS
