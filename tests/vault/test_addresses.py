"""Which of Vault's addresses comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker_vault.vault.addresses import Addresses

ADDRESSES = ["https://a.example:8200", "https://b.example", "http://c.example:8200/prefix"]


def test_addresses_are_tried_in_the_order_they_are_given_in() -> None:
    assert Addresses(ADDRESSES).in_turn() == ADDRESSES


def test_the_one_that_answered_is_first_and_the_others_follow_in_turn() -> None:
    addresses = Addresses(ADDRESSES)
    addresses.prefer(ADDRESSES[1])
    assert addresses.in_turn() == [ADDRESSES[1], ADDRESSES[2], ADDRESSES[0]]
    addresses.prefer(ADDRESSES[0])
    assert addresses.in_turn() == ADDRESSES


@given(st.lists(st.sampled_from(ADDRESSES)))
def test_whatever_answered_each_is_tried_once(answered: list[str]) -> None:
    addresses = Addresses(ADDRESSES)
    for address in answered:
        addresses.prefer(address)
    assert sorted(addresses.in_turn()) == sorted(ADDRESSES)
    assert addresses.in_turn()[0] == (answered or ADDRESSES)[-1 if answered else 0]


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("https://a.example:8200/v1/secret/data/x?version=1", ADDRESSES[0]),
        ("https://A.EXAMPLE:8200/", ADDRESSES[0]),
        ("https://b.example:443/v1/x", ADDRESSES[1]),
        ("http://c.example:8200/v1/x", ADDRESSES[2]),
    ],
)
def test_a_redirect_to_one_of_them_is_known_by_its_origin(location: str, address: str) -> None:
    assert Addresses(ADDRESSES).at(location) == address


@pytest.mark.parametrize(
    "location",
    [
        "http://a.example:8200/v1/x",
        "https://a.example/v1/x",
        "https://b.example.evil/v1/x",
        "https://b.example@evil.example/v1/x",
        "//a.example:8200/v1/x",
        "/v1/x",
        "?",
        "",
        "https://",
        "https://[",
        "https://a.example:99999/",
        "data:,x",
    ],
)
def test_a_redirect_to_anywhere_else_leads_nowhere(location: str) -> None:
    assert Addresses(ADDRESSES).at(location) is None


@given(st.text() | st.text().map("https://".__add__))
def test_no_redirect_is_too_odd_to_look_at(location: str) -> None:
    assert Addresses(ADDRESSES).at(location) in {None, *ADDRESSES}
