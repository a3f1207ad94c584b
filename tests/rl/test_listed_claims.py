"""Listings of objects after their places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.claim_splitter import split_claims
from rl.claims import ClaimKind
from rl.listed_claims import listed_claims


def told(text):
    return [(claim.kind.value, claim.text, claim.question) for claim in split_claims(text).claims]


def test_a_grid():
    assert told("I see: top left red circle, top right blue square.") == [
        ("presence", "There is an object at the top left.", "Is there an object at the top left?"),
        ("colour", "The top left object is red.", "Is the top left object red?"),
        ("presence", "There is an object at the top right.", "Is there an object at the top right?"),
        ("colour", "The top right object is blue.", "Is the top right object blue?"),
    ]
    dropped = split_claims("I see: top left red circle, top right blue square.").dropped
    assert [part.text for part in dropped] == ["top left red circle", "top right blue square"]


def test_a_grid_without_shapes_or_colours():
    assert told("I see: top left red, middle and bottom right star") == [
        ("presence", "There is an object at the top left.", "Is there an object at the top left?"),
        ("colour", "The top left object is red.", "Is the top left object red?"),
        ("presence", "There is an object in the middle.", "Is there an object in the middle?"),
        ("presence", "There is a star at the bottom right.", "Is there a star at the bottom right?"),
    ]
    assert split_claims("I see: top left red, middle").dropped == ()


def test_one_after_another_claims_the_order():
    assert told("One after another: bottom red star, top left blue star.")[4] == (
        "action",
        "The bottom object appears before the top left object.",
        "Does the bottom object appear before the top left object?",
    )


def test_the_same_claim_twice_is_one_and_two_colours_are_two():
    assert len(told("I see: left red ring, left red ring, left blue ring.")) == 3


def test_the_total_before_a_list_is_a_claim_of_its_own():
    texts = [
        text for _, text, _ in told("The picture shows 2 objects: a small star at the top and a ring at the left.")
    ]
    assert texts == [
        "The picture shows 2 objects.",
        "The picture shows a small star at the top.",
        "The picture shows a ring at the left.",
    ]
    assert split_claims("The picture shows 2 objects: a star and a ring").claims[0].kind is ClaimKind.COUNT


@pytest.mark.parametrize("text", ["I see a cat.", "The list: a, b", "I see the sea: it is blue"])
def test_other_sentences_are_no_listings(text):
    assert listed_claims(text) is None


@given(st.text(max_size=200))
def test_any_listing_has_claims_or_nothing(text):
    for item in listed_claims("I see: " + text) or ():
        assert item.text
        assert "\n" not in item.text
