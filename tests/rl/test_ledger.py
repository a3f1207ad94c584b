"""Token counts by hand."""

import json

import pytest

from rl.ledger import TokenLedger


def make_ledger() -> TokenLedger:
    ledger = TokenLedger()
    ledger.add_group("long", prompt_tokens=40, generated_lengths=[90, 120], trained_lengths=[90, 120])
    ledger.add_group("short", prompt_tokens=30, generated_lengths=[5, 0, 7])  # no signal: generated, not trained
    ledger.add_group("long", prompt_tokens=10, generated_lengths=[100])
    return ledger


def test_counts_by_hand() -> None:
    assert make_ledger().to_dict() == {
        "modes": {
            "long": {"prompt": 50, "generated": 310, "trained": 210, "responses": 3},
            "short": {"prompt": 30, "generated": 12, "trained": 0, "responses": 3},
        },
        "total": {"prompt": 80, "generated": 322, "trained": 210, "responses": 6},
    }


def test_rl_tokens_are_the_generated_tokens_of_all_modes() -> None:
    ledger = make_ledger()
    assert ledger.rl_tokens == 322
    assert ledger.metrics() == {
        "tokens/generated": 322,
        "tokens/trained": 210,
        "tokens/long/generated": 310,
        "tokens/short/generated": 12,
    }


def test_a_resumed_ledger_counts_on() -> None:
    first, second = make_ledger(), TokenLedger()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for ledger in (first, second):
        ledger.add_group("short", prompt_tokens=1, generated_lengths=[2], trained_lengths=[2])
    assert second.to_dict() == first.to_dict()
    assert second.modes["short"].trained == 2


def test_ledger_json_can_be_read_back() -> None:
    ledger = TokenLedger()
    ledger.load_state_dict(make_ledger().to_dict())
    assert ledger.to_dict() == make_ledger().to_dict()


def test_an_empty_ledger() -> None:
    assert TokenLedger().to_dict() == {
        "modes": {},
        "total": {"prompt": 0, "generated": 0, "trained": 0, "responses": 0},
    }


def test_more_trained_than_generated_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="3 tokens trained of 2 generated"):
        TokenLedger().add_group("long", prompt_tokens=1, generated_lengths=[2], trained_lengths=[3])
