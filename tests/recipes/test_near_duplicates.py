"""Near duplicates: similarity against brute force, candidates against all pairs, numbers, scripts, bounds."""

import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.near_duplicates import SKETCH, NearIndex, normalised, similarity, sketch


def brute(first: str, second: str) -> float:
    """Jaccard similarity of the three-word runs themselves."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        width = min(3, max(len(words), 1))
        return {tuple(words[i : i + width]) for i in range(max(len(words) - width + 1, 1))}

    return len(runs(first) & runs(second)) / len(runs(first) | runs(second))


words = st.lists(st.sampled_from(["red", "green", "blue", "one", "two"]), min_size=3, max_size=14).map(" ".join)


@given(words, words)
def test_similarity_equals_that_of_the_word_runs(first: str, second: str) -> None:
    assert similarity(sketch(first), sketch(second)) == pytest.approx(brute(first, second))


def _sentence(rng: random.Random, count: int) -> list[str]:
    return [f"word{''.join(rng.choices('abcdefgh', k=3))}" for _ in range(count)]


def test_long_texts_are_estimated_closely() -> None:
    rng = random.Random(3)
    text = _sentence(rng, 4000)
    other = [word if rng.random() > 0.04 else "changed" for word in text]
    first, second = sketch(" ".join(text)), sketch(" ".join(other))
    assert len(first.shingles_S) == SKETCH
    assert similarity(first, second) == pytest.approx(brute(" ".join(text), " ".join(other)), abs=0.06)


def test_the_index_finds_what_all_pairs_find() -> None:
    rng = random.Random(4)
    originals = [_sentence(rng, 30) for _ in range(150)]
    changed = [[word if rng.random() > 0.015 else "changed" for word in text] for text in originals]
    index = NearIndex(0.8)
    for number, text in enumerate(originals):
        index.add(number, sketch(" ".join(text)))
    near = 0
    for number, text in enumerate(changed):
        exact = brute(" ".join(text), " ".join(originals[number]))
        found = index.find(sketch(" ".join(text)))
        assert (found is not None) == (exact >= 0.8), (number, exact)
        near += found is not None
        assert found is None or (found[0] == number and found[1] == pytest.approx(exact))
    assert 50 < near <= 150


def test_other_numbers_and_operators_are_another_question() -> None:
    frame = "state the final answer to the following arithmetic problem and nothing else, please: {} = ?"
    index = NearIndex(0.7)
    index.add(0, sketch(frame.format("12 + 7 - 2")))
    for other in ("12 + 8 - 2", "12 - 7 + 2", "12 + 7 * 2", "7 + 12 - 2"):
        assert index.find(sketch(frame.format(other))) is None, other
    found = index.find(sketch(frame.format("12 + 7 - 2").replace("please", "kindly")))
    assert found is not None
    assert found[0] == 0


def test_context_keeps_texts_apart() -> None:
    text = sketch("which of the shapes in the picture is the largest")
    index = NearIndex(0.85)
    index.add(0, text, context=1)
    assert index.find(text, context=2) is None
    assert index.find(text, context=1) == (0, 1.0)


def test_scripts_without_spaces() -> None:
    first = "小明有三个苹果他又买了五个苹果请问他现在一共有多少个苹果呢"
    index = NearIndex(0.7)
    index.add(0, sketch(first))
    assert index.find(sketch(first.replace("请问", ""))) is not None
    assert index.find(sketch("今天的天气非常好我们一起去公园散步然后回家吃晚饭好不好呢")) is None


def test_normalised_evens_out_case_and_blanks_alone() -> None:
    assert normalised("  What\n\tIS caf\u0065\u0301? ") == "what is caf\u00e9?"
    assert normalised("x² - 1") != normalised("x2 1")
    assert normalised("5-3") != normalised("5 3")


def test_odd_texts() -> None:
    for text in ("", " ", "a", "\ud800", "?!", "\x00\x00", "🙂" * 5):
        assert similarity(sketch(text), sketch(text)) == 1.0
    with pytest.raises(ValueError, match=r"between 0\.7 and 1"):
        NearIndex(0.5)


def test_templated_data_stays_bounded() -> None:
    """Three thousand texts of one template without digits: each is compared with a bounded number of others."""
    rng = random.Random(6)
    index = NearIndex(0.95)
    start = time.process_time()
    for number in range(3_000):
        text = sketch("please name the capital city of the country called " + " ".join(_sentence(rng, 2)))
        index.find(text)
        index.add(number, text)
    assert time.process_time() - start < 30
    assert max(map(len, index._bands.values())) <= 32
    assert np.mean([len(place) for place in index._bands.values()]) < 32
