"""Which part of a response is its final answer."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.extract import MAX_BOXES, final_answer, visible


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("\\boxed{1} then \\boxed{2}", "box", "2"),
        ("\\boxed{1}, \\boxed{2}", "box", "1, 2"),
        ("$\\boxed{1}$ and $\\boxed{2}$", "box", "1, 2"),
        ("\\boxed{3} cats and \\boxed{4} dogs", "box", "3, 4"),
        ("\\boxed{5} \\boxed{5}", "box", "5"),
        ("\\boxed{\\frac{1}{2}}", "box", "\\frac{1}{2}"),
        ("\\boxed{\\boxed{7}}", "box", "7"),
        ("\\boxed{a\\}b}", "box", "a\\}b"),
        ("\\boxed{1} so \\boxed{}", "none", ""),
        ("\\boxed{1} so \\boxed{2", "none", ""),
        ("\\boxed{1} or 2", "none", ""),
        ("\\fbox{8}", "box", "8"),
        ("\\boxed 9", "box", "9"),
        ("The answer is 4. I hope it is correct.", "phrase", "4"),
        ("Answer: 4", "phrase", "4"),
        ("#### 4", "phrase", "4"),
        ("The answer is 3.5.", "phrase", "3.5"),
        ("the answer is 1. The answer is 2.", "phrase", "2"),
        ("Both. So x is 4", "sentence", "So x is 4"),
        ("perhaps", "sentence", "perhaps"),
        ("", "none", ""),
        ("  \n", "none", ""),
    ],
)
def test_order(text, kind, answer):
    found = final_answer(text)
    assert (found.kind, found.text) == (kind, answer)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("<think>a</think><think>b</think>c", "c"),
        ("a<|im_end|>b", "a"),
        ("<|im_start|>a", "<|im_start|>a"),
        ("a</s>", "a"),
    ],
)
def test_only_the_visible_part_counts(text, seen):
    assert visible(text) == seen


def test_spraying_boxes_is_no_answer():
    few = " then ".join(f"\\boxed{{{k}}}" for k in range(MAX_BOXES))
    assert final_answer(few).text == str(MAX_BOXES - 1)
    assert final_answer(few + " then \\boxed{99}").kind == "none"


def test_a_sentence_with_two_values_has_no_reading_of_one():
    for text in ("The answer is 4 or 5.", "So it is either 4 or 5.", "It is more than 4.", "The answer is not 4."):
        assert "4" not in final_answer(text).readings
        assert "5" not in final_answer(text).readings


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    found = final_answer(text)
    assert all(reading.strip() for reading in found.readings)
    assert (found.kind == "none") == (not found.text)


def test_linear_time():
    def seconds(size: int) -> float:
        text = "The answer is $x$ or \\boxed{1 and **bold** [2] = 3.5 \n" * size
        start = time.thread_time()
        final_answer(text)
        return time.thread_time() - start

    seconds(100)
    assert seconds(20_000) < 1.0
