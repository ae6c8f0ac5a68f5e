"""Warnings that strangers can cause."""

import logging

import pytest

from tests.clock import Clock
from woodpecker_vault.sparing import Sparing

log = logging.getLogger(__name__)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sparing(clock: Clock) -> Sparing:
    return Sparing(log, clock, interval=60.0)


def test_the_first_of_a_kind_is_logged_and_the_next_after_a_while(
    sparing: Sparing, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        sparing.warn("it broke", "cause", peer="192.0.2.1")
    (record,) = caplog.records
    assert (record.__dict__["cause"], record.__dict__["peer"]) == ("cause", "192.0.2.1")
    clock.at += 60
    sparing.warn("it broke", "cause")
    assert caplog.records[1].__dict__["left_out_before"] == 99


def test_another_cause_is_another_kind(sparing: Sparing, caplog: pytest.LogCaptureFixture) -> None:
    for cause in ("one", "other", "one"):
        sparing.warn("it broke", cause)
    assert [record.__dict__["cause"] for record in caplog.records] == ["one", "other"]


def test_many_kinds_take_no_more_room(sparing: Sparing, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        sparing.warn("it broke", str(number))
    assert len(caplog.records) == 1000
    assert len(sparing._kinds) <= 200
