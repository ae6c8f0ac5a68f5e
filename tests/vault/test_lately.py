"""What is remembered of the pipelines that asked lately."""

from collections.abc import Callable

import pytest

from tests.clock import Clock
from woodpecker_vault.entries import Snapshot
from woodpecker_vault.errors import Denied, TokenRefused, Unavailable
from woodpecker_vault.vault.lately import Lately, Noted


class _Answers:
    """Gives, or raises, what it is told to."""

    def __init__(self) -> None:
        self.answer: Snapshot | Exception = Snapshot({})

    async def folder(self, _folder: str) -> Snapshot:
        """A folder."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def entry(self, path: str) -> Snapshot:
        """An entry."""
        return await self.folder(path)


async def test_what_was_answered_comes_first_and_the_latest_of_it_before_all() -> None:
    answers, lately = _Answers(), Lately(Clock())
    noted = Noted(answers, lately)
    await noted.folder("a/")
    await noted.entry("b")
    for problem in (Denied("x"), TokenRefused("x")):
        answers.answer = problem
        with pytest.raises(Denied):
            await noted.folder("c/")
    assert lately.paths() == ["b", "a/", "c/"]
    assert lately.denied() == ["c/"]


@pytest.mark.parametrize("answer", [Unavailable("x"), Snapshot({}, stale=True)])
async def test_what_vault_did_not_say_is_not_noted(answer: Snapshot | Exception) -> None:
    answers, lately = _Answers(), Lately(Clock())
    answers.answer = answer
    try:
        await Noted(answers, lately).folder("a/")
    except Unavailable as problem:
        assert problem is answer  # noqa: PT017 - one of the two raises
    assert lately.paths() == []


def test_only_the_last_word_counts() -> None:
    lately = Lately(Clock())
    for answered in (True, False, True, False):
        lately.note("a/", answered=answered)
    assert lately.denied() == ["a/"]
    lately.note("a/", answered=True)
    assert lately.denied() == []
    assert lately.paths() == ["a/"]


def test_a_denial_is_recent_for_a_minute() -> None:
    clock = Clock()
    lately = Lately(clock)
    lately.note("a/", answered=False)
    clock.at += 59
    assert lately.denied() == ["a/"]
    clock.at += 1
    assert lately.denied() == []
    assert lately.paths() == ["a/"]


@pytest.mark.parametrize("shown", [Lately.paths, Lately.denied])
def test_it_is_bounded(shown: Callable[[Lately], list[str]]) -> None:
    lately = Lately(Clock())
    for number in range(1000):
        lately.note(f"{number}/", answered=False)
    assert len(shown(lately)) == 16
    assert "999/" in shown(lately)
