"""How groups are dealt to processes."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.packing import TokenGroup, divide_by_tokens
from rl.train_groups import Piece, TrainGroup, shares_of

SIZES = st.lists(st.integers(1, 5000), max_size=60)


@given(SIZES, st.integers(1, 9))
def test_every_item_is_dealt_once_and_no_part_is_ahead_by_more_than_one_item(sizes: list[int], parts: int) -> None:
    dealt = divide_by_tokens(sizes, parts)
    assert len(dealt) == parts
    assert sorted(index for part in dealt for index in part) == list(range(len(sizes)))
    assert all(part == sorted(part) for part in dealt)
    totals = [sum(sizes[index] for index in part) for part in dealt]
    assert max(totals) - min(totals) <= max(sizes, default=0)
    assert divide_by_tokens(sizes, parts) == dealt


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(2, 3))
@settings(max_examples=50)
def test_the_fullest_part_is_within_a_third_of_the_best(sizes: list[int], parts: int) -> None:
    """Graham's bound, against every possible division."""
    best = min(
        max(sum(s for s, owner in zip(sizes, owners, strict=True) if owner == part) for part in range(parts))
        for owners in product(range(parts), repeat=len(sizes))
    )
    totals = [sum(sizes[index] for index in part) for part in divide_by_tokens(sizes, parts)]
    assert max(totals) <= (4 / 3 - 1 / (3 * parts)) * best + 1e-9


def test_one_part_is_everything_in_order() -> None:
    assert divide_by_tokens([3, 9, 1], 1) == [[0, 1, 2]]
    assert divide_by_tokens([], 2) == [[], []]


@given(SIZES, st.integers(1, 5), st.integers(0, 6000))
def test_processes_have_equally_many_micro_batches_within_the_budget(
    sizes: list[int], processes: int, budget: int
) -> None:
    pieces = [
        Piece(
            number=number,
            group=TrainGroup(tokens=TokenGroup(prompt=range(size), responses=[]), advantages_G=(), engine_logprobs=()),
        )
        for number, size in enumerate(sizes)
    ]
    shares = shares_of([pieces], processes, budget)
    assert len({len(share.updates[0]) for share in shares}) == 1
    micro_batches = [micro for share in shares for micro in share.updates[0]]
    assert sorted(piece.number for micro in micro_batches for piece in micro) == list(range(len(sizes)))
    for micro in micro_batches:
        assert not budget or len(micro) <= 1 or sum(piece.group.tokens.packed_tokens for piece in micro) <= budget
    assert any(all(share.updates[0]) for share in shares)  # someone needs no padding
