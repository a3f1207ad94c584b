"""Every worked solution arrives at an answer its dataset accepts, by lines that are true."""

import re
import warnings
from fractions import Fraction

import pytest

from recipes.solutions import make_solution, solution, solvable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import reasoning_gym

CONFIGS = {
    "chain_sum": [{}, {"min_terms": 2, "max_terms": 4, "max_digits": 2, "allow_negation": True}],
    "decimal_chain_sum": [{}, {"allow_negation": True}],
    "basic_arithmetic": [
        {},
        {"allow_parentheses": False, "max_digits": 1},
        {"operators": ("+", "*", "/"), "max_digits": 2},
    ],
    "products": [{"max_digits": 2}, {"max_terms": 3, "max_digits": 3, "allow_negation": True}],
    "gcd": [{}, {"max_numbers": 4}],
    "lcm": [{}, {"max_numbers": 4}],
}


def _entries(name: str, count: int = 150):
    for config in CONFIGS.get(name, [{}]):
        dataset = reasoning_gym.create_dataset(name, size=count, seed=11, **config)
        for index in range(count):
            yield dataset, dataset[index]


@pytest.mark.parametrize("name", sorted({*solvable()} - {"basic_arithmetic"}))
def test_dataset_accepts_the_answer(name: str) -> None:
    for dataset, entry in _entries(name):
        made = make_solution(name, {key: value for key, value in entry.items() if key != "answer"})
        assert made is not None
        assert dataset.score_answer(made.answer, entry) == 1.0, (entry, made)
        assert made.steps.strip()


def test_expressions_are_worked_out_right() -> None:
    """Some of basic_arithmetic's own answers are wrong (`3 + 2 - 3 * 2 + 10`: 14), so Python says what is right."""
    solved = agreed = total = 0
    for dataset, entry in _entries("basic_arithmetic"):
        total += 1
        made = make_solution("basic_arithmetic", entry)
        if made is not None:
            expression = entry["metadata"]["expression"].strip()
            assert re.fullmatch(r"[-+*/() \d]+", expression)
            assert int(made.answer) == eval(expression)
            solved += 1
            agreed += dataset.score_answer(made.answer, entry) == 1.0
    assert solved > 0.8 * total
    assert 0.9 * solved < agreed < solved


EQUATION = re.compile(r"(-?[\d./]+) ([-+*/]|mod) (-?[\d./]+) = (-?[\d./]+)")


@pytest.mark.parametrize(
    "name", ["basic_arithmetic", "chain_sum", "decimal_chain_sum", "gcd", "lcm", "leg_counting", "products"]
)
def test_every_line_of_arithmetic_is_true(name: str) -> None:
    operations = {"+": "__add__", "-": "__sub__", "*": "__mul__", "/": "__truediv__", "mod": "__mod__"}
    seen = 0
    for _, entry in _entries(name):
        made = make_solution(name, entry)
        for left, sign, right, result in EQUATION.findall(made.steps if made else ""):
            assert getattr(Fraction(left), operations[sign])(Fraction(right)) == Fraction(result)
            seen += 1
    assert seen > 100


def test_written_out() -> None:
    assert make_solution("chain_sum", {"metadata": {"expression": "4 - 1 - 7"}}).steps == "4 - 1 = 3\n3 - 7 = -4"
    assert make_solution("chain_sum", {"metadata": {"expression": "-4 - -1"}}).steps == "-4 - -1 = -3"
    nested = make_solution("basic_arithmetic", {"metadata": {"expression": "2 * (3 + 4) - -5"}})
    assert (nested.steps, nested.answer) == ("3 + 4 = 7\n2 * 7 = 14\n14 - -5 = 19", "19")
    product = make_solution("products", {"metadata": {"expression": "203 * 4"}})
    assert product.steps == "200 * 4 = 800\n3 * 4 = 12\n800 + 12 = 812"
    letters = {"metadata": {"target_letter": "h", "span": ["Hush", "now"]}}
    assert make_solution("letter_counting", letters).steps == "h u s h: 2, total 2\nn o w: 0, total 2"


def test_unknown_and_duplicate() -> None:
    assert make_solution("sudoku", {}) is None
    with pytest.raises(ValueError, match="'gcd' exists already"):
        solution("gcd")(lambda entry: None)
