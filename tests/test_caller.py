"""For whom Vault is asked, as headers say it."""

import asyncio
import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker_vault import __version__
from woodpecker_vault.budget import Budget
from woodpecker_vault.caller import Caller, described
from woodpecker_vault.vault.shared import SharedReads

AGENT = {"User-Agent": f"woodpecker-vault/{__version__}"}


@pytest.mark.parametrize(
    ("repository", "branch", "said"),
    [
        ("acme/widgets", "main", "acme/widgets#17 push main"),
        ("acme/widgets", "", "acme/widgets#17 push"),
        ("acme/widgets", "feature/a+b_(c)", "acme/widgets#17 push feature/a+b_(c)"),
        ("acme/widgets", "ключ", "acme/widgets#17 push %D0%BA%D0%BB%D1%8E%D1%87"),
        ("acme/widgets", "100%", "acme/widgets#17 push 100%25"),
        ("acme/widgets", "a b", "acme/widgets#17 push a%20b"),
        ("acme/widgets", "a\r\nX-Vault-Token: b", "acme/widgets#17 push a%0D%0AX-Vault-Token:%20b"),
        ("a b/c", "main", "a%20b/c#17 push main"),
    ],
)
def test_a_pipeline_is_described_as_a_header_can_hold_it(repository: str, branch: str, said: str) -> None:
    assert described(repository, 17, "push", branch) == said


@given(st.text(max_size=300), st.integers(0, 10**9), st.text(max_size=60), st.text(max_size=1000))
def test_whatever_it_is_a_header_can_hold_it(repository: str, number: int, event: str, branch: str) -> None:
    said = described(repository, number, event, branch)
    assert set(said) <= set(string.printable) - set("\t\n\r\x0b\x0c")
    assert len(said) < 3000
    assert said == said.strip()


@given(*(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) for _ in range(3)))
def test_it_can_be_read_back_part_by_part(repository: str, event: str, branch: str) -> None:
    parts = described(repository, 1, event, branch).split(" ")
    assert [unquote(part) for part in parts] == [f"{repository}#1", event, branch]


def test_where_nobody_asks_there_is_only_the_program() -> None:
    caller = Caller()
    assert caller.headers() == AGENT
    caller.is_pipeline("acme/widgets", 17, "push", "main")
    assert caller.headers() == AGENT


def test_a_request_is_named_and_then_its_pipeline_until_it_is_over() -> None:
    caller = Caller()
    with caller.begun("one"):
        assert caller.headers() == {**AGENT, "X-Request-Id": "one"}
        caller.is_pipeline("acme/widgets", 17, "push", "main")
        named = {**AGENT, "X-Request-Id": "one", "X-Woodpecker-Pipeline": "acme/widgets#17 push main"}
        assert caller.headers() == named
        with caller.begun("two"):
            assert caller.headers() == {**AGENT, "X-Request-Id": "two"}
        assert caller.headers() == named
    assert caller.headers() == AGENT


async def test_a_shared_read_is_the_first_ones() -> None:
    caller, shared = Caller(), SharedReads(Budget(8, lambda: 0.0))
    let_go = asyncio.Event()

    async def read() -> str:
        await let_go.wait()
        return caller.headers()["X-Request-Id"]

    async def ask(name: str) -> str:
        with caller.begun(name):
            return await shared.read("folder", read)

    asking = [asyncio.ensure_future(ask(name)) for name in ("one", "two", "three")]
    await asyncio.sleep(0)
    let_go.set()
    assert await asyncio.gather(*asking) == ["one"] * 3
