"""First-fit over a window: what is in a batch, and that nothing is lost or waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from base_model.sample_packer import Budget, Packer, Sized


def test_a_batch_begins_with_the_oldest_and_takes_what_fits() -> None:
    packer: Packer[str] = Packer(Budget(10), window=4)
    for name, tokens in (("a", 6), ("b", 5), ("c", 3), ("d", 1)):
        assert not packer.ready
        assert packer.add(Sized(name, tokens))
    assert packer.ready
    assert [each.item for each in packer.batch()] == ["a", "c", "d"]  # b does not fit beside a
    assert [each.item for each in packer.batch()] == ["b"]
    assert packer.batch() == []


def test_views_are_a_budget_of_their_own() -> None:
    packer: Packer[str] = Packer(Budget(100, views=5), window=1)
    assert not packer.add(Sized("too many", 1, 6))
    assert not packer.add(Sized("too long", 101, 0))
    for name, views in (("a", 3), ("b", 3), ("c", 2)):
        packer.add(Sized(name, 1, views))
    assert [[each.item for each in batch] for batch in packer.rest()] == [["a", "c"], ["b"]]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12)), max_size=60), st.integers(1, 20))
def test_every_item_comes_once_within_the_budget_and_soon(sizes: list[tuple[int, int]], window: int) -> None:
    budget = Budget(50, views=10)
    packer: Packer[int] = Packer(budget, window)
    batches, kept = [], []
    for number, (tokens, views) in enumerate(sizes):
        if packer.add(Sized(number, tokens, views)):
            kept.append(number)
        if packer.ready:
            oldest = packer.waiting[0].item
            batches.append(packer.batch())
            assert batches[-1][0].item == oldest
    batches += packer.rest()
    assert sorted(each.item for batch in batches for each in batch) == kept
    for batch in batches:
        assert budget.fits(sum(each.tokens for each in batch), sum(each.views for each in batch))
