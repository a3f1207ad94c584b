"""Multiple choice: letter, text, both, neither, several."""

import pytest

from rewards.choice import choice, chosen_letters

CITIES = ["Rome", "Paris", "Berlin", "Madrid"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("**B**", "B"), ("\\boxed{B}", "B"), ("\\boxed{\\text{(B)}}", "B"),
        ("Answer: B.", "B"), ("The answer is (B) Paris.", "B"), ("The correct option is B", "B"),
        ("The answer is option B.", "B"), ("It is not A, so it is B.", "B"), ("B, not A", "B"),
        ("A is wrong. So B", "B"), ("I pick B for it is a city", "B"), ("\\boxed{B. Paris}", "B"),
        ("\\boxed{B) 12}", "B"), ("答案是B", "B"), ("<think>A</think>B", "B"), ("$B$", "B"), ("A or B", ""),
        ("The answer is A or B.", ""), ("\\boxed{A} or \\boxed{B}", ""), ("A, B, C, D", ""), ("\\boxed{AB}", ""),
        ("A B", ""), ("", ""), ("A man walks home.", ""), ("\\boxed{B+1}", ""), ("\\boxed{Bx}", ""), ("<think>B", ""),
        ("Both A and B", ""), ("I do not know.", ""), ("\\boxed{}", ""),
    ],
)  # fmt: skip
def test_letters(answer, letter):
    assert chosen_letters(answer) == letter


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The answer is B.", "B", 1.0),
        ("The answer is Paris.", "B", 1.0),
        ("The answer is paris", "Paris", 1.0),
        ("The answer is B", "Paris", 1.0),
        ("\\boxed{B}", "B. Paris", 1.0),
        ("\\boxed{\\text{Paris}}", "B. Paris", 1.0),
        ("The answer is B", 1, 1.0),
        ("The capital is Paris, so the answer is Paris in France", "B", 1.0),
        ("The answer is Paris or Rome", "B", 0.0),
        ("The answer is C", "B", 0.0),
        ("The answer is Rome", "B", 0.0),
        ("The answer is C", 1, 0.0),
        (None, "B", 0.0),
        ("B", None, None),
        ("B", " ", None),
    ],
)
def test_with_options(answer, reference, expected):
    assert choice(answer=answer, reference=reference, choices=CITIES) == expected
    by_letter = dict(zip("ABCD", CITIES, strict=True))
    assert choice(answer=answer, reference=reference, choices=by_letter) == expected


def test_without_options_the_answer_must_show_what_the_reference_shows():
    assert choice(answer="The answer is B", reference="B") == 1.0
    assert choice(answer="The answer is Paris", reference="B") == 0.0
    assert choice(answer="The answer is Paris", reference="Paris") == 1.0
    assert choice(answer="The answer is B", reference="Paris") == 0.0


def test_letters_beyond_the_options_are_not_the_text_of_one():
    assert choice(answer="The answer is D", reference="Rome", choices=["Rome", "Paris"]) == 0.0
