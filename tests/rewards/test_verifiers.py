"""The verifiers beside their labelled cases: references, gold answers, refusals, properties, hostile text."""

import contextlib
import math as maths
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import RewardError, build
from rewards.accuracy import VERIFIERS, accuracy
from rewards.box import box
from rewards.count import count
from rewards.edit import MAX_CHARS, edit_distance_of, similarity
from rewards.edit_distance import edit_distance
from rewards.geometry import matching, overlap
from rewards.instruction_kinds import KINDS
from rewards.instructions import instructions
from rewards.items import items
from rewards.key_values import key_values
from rewards.math import math
from rewards.multi import multi
from rewards.number import number
from rewards.number_words import number_of_words
from rewards.point import point
from rewards.quantity import read_quantity
from rewards.sandbox import shared
from rewards.table import table
from rewards.units import read_unit
from rewards.yes_no import yes_no
from tests.rewards.math_cases import BOXED_RIGHT, BOXED_WRONG

REFERENCES = {
    "math": ["42", "\\frac{1}{2}", "$x^2$", "\\boxed{(1,2)}"],
    "number": ["42", "1.2 km", "3.0 \\times 10^8 m/s", "20%", "-5", "5 ft 3 in", "\\sqrt{2}", "€12", "tall", 7],
    "choice": ["B", "(C)"],
    "yes_no": ["yes", "No", True, False, "true", "1", "да"],
    "count": [3, "3", "three", 0, 12.0],
    "exact": ["Paris", "x + 1"],
    "normalised": ["Paris", "The Tower"],
    "anls": ["Paris", ["London", "Paris"]],
    "edit_distance": ["Some text, on\ntwo lines.", ["a", "b"]],
    "items": ["red, blue", ["red", "blue, or not"], [1, 2.5], "a; b; c", '["x", "y"]'],
    "multi": ["3; 4", ["(2)", "(1)"], ["\\frac12", "(1, 2)"], {"area": 5, "side": "x^2"}, "(a) 3 (b) 4"],
    "key_values": [{"a": 1, "b": {"c": [1, "x"]}}, '{"a": "one"}', [1, 2]],
    "table": [[{"a": 1, "b": "x"}], {"columns": ["a"], "rows": [[1]]}, "| a | b |\n|---|---|\n| 1 | 2 |", "a,b\n1,2"],
    "box": [[0, 0, 5, 5], [[0, 0, 5, 5], [6, 6, 9, 9]], "[1, 2, 3, 4]"],
    "point": [[0, 0, 5, 5], [[0, 0, 5, 5], [6, 6, 9, 9]]],
}
GOLD = [(name, reference) for name, found in REFERENCES.items() for reference in found]


@pytest.fixture(scope="module", autouse=True)
def _ready():
    shared().start()


def test_every_verifier_has_references():
    assert set(REFERENCES) == set(VERIFIERS)


@pytest.mark.parametrize(("name", "reference"), GOLD)
def test_the_gold_answer_scores_full_marks(name, reference):
    with build([name, {"name": "accuracy", "args": {"verifier": name}}]) as rewards:
        rewards.check_gold([{"reference": reference}])


def test_the_gold_answer_knows_the_arguments():
    row = {"reference": [10, 10, 50, 50], "image_width": 200, "image_height": 100}
    with build([{"name": "box", "args": {"answer_scale": 1000}}], columns=row) as rewards:
        rewards.check_gold([row])
    with build([{"name": "multi", "args": {"part_verifier": "yes_no", "separator": "|"}}]) as rewards:
        rewards.check_gold([{"reference": "yes | no"}])
    with build([{"name": "point", "args": {"radius": 1}}]) as rewards:
        rewards.check_gold([{"reference": [3, 4]}])


@pytest.mark.parametrize("name", VERIFIERS)
def test_without_a_reference_a_verifier_does_not_apply(name):
    assert VERIFIERS[name](answer="42", reference=None) is None
    assert VERIFIERS[name](answer="42", reference="") is None


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("answer", [None, 42, "", " ", "\x00", "\ud800", "<think>", "\\boxed{}"])
def test_answers_of_other_types(name, answer):
    value = VERIFIERS[name](answer=answer, reference=REFERENCES[name][0])
    assert value < 0.3 if name == "edit_distance" else value == 0.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "number", "args": {"rel_tol": -1}}, "`rel_tol` must be a number of at least 0"),
        ({"name": "number", "args": {"rel_tol": float("nan")}}, "rel_tol"),
        ({"name": "number", "args": {"unit_required": "yes"}}, "true or false"),
        ({"name": "count", "args": {"smooth": 1}}, "smooth"),
        ({"name": "items", "args": {"order": True}}, "Did you mean 'ordered'"),
        ({"name": "anls", "args": {"threshold": 2}}, "from 0 to 1"),
        ({"name": "box", "args": {"threshold": 0}}, "threshold"),
        ({"name": "box", "args": {"box_format": "xyx"}}, "xyxy or xywh"),
        ({"name": "point", "args": {"radius": "far"}}, "radius"),
        ({"name": "multi", "args": {"part_verifier": "box"}}, "part_verifier"),
        ({"name": "multi", "args": {"separator": ""}}, "separator"),
        ({"name": "accuracy", "args": {"verifier": "maths"}}, "verifier"),
        ({"name": "accuracy", "args": {"verifier": "number", "verifier_args": {"tol": 1}}}, "no argument 'tol'"),
        ({"name": "accuracy", "args": {"verifier": "number", "verifier_args": {"rel_tol": -1}}}, "rel_tol"),
        ({"name": "instructions", "args": {"constraints": [{"kind": "max_word", "value": 3}]}}, "unknown kind"),
        ({"name": "instructions", "args": {"constraints": [{"kind": "max_words", "value": -3}]}}, "whole number"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_scored(spec, message):
    with pytest.raises(RewardError, match=message):
        build([spec], columns=["constraints"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: yes_no(answer="yes", reference="perhaps"), "perhaps"),
        (lambda: count(answer="3", reference="a lot"), "a lot"),
        (lambda: box(answer="[1,2,3,4]", reference=[4, 4, 1, 1]), r"\[4, 4, 1, 1\]"),
        (lambda: box(answer="[1,2,3,4]", reference=[1, 2, 3, 4], answer_scale=1000), "image_width"),
        (lambda: point(answer="[1,2]", reference=[1, 2]), "radius"),
        (lambda: point(answer="[1,2]", reference="here"), "here"),
        (lambda: table(answer="", reference="no table"), "no table"),
        (lambda: key_values(answer="", reference="{}"), "{}"),
        (lambda: key_values(answer="", reference={"a": 1, "A": 2}), "'a': 1"),
        (lambda: items(answer="", reference=list(range(6000))), "6000"),
        (lambda: multi(answer="", reference=["1"] * 51), "51"),
        (lambda: multi(answer="(1) 3", reference=["3"], part_args={"x": 1}), "part_args"),
        (lambda: accuracy(answer="3", reference="3", verifier="nothing"), "nothing"),
        (lambda: instructions(answer="x", constraints=[{"kind": "max_words"}]), "needs `value`"),
        (lambda: instructions(answer="x", constraints=[{"kind": "json", "value": 3}]), "no value"),
        (lambda: instructions(answer="x", constraints="not json"), "not json"),
    ],
)
def test_a_bad_row_is_refused_with_its_content(call, message):
    with pytest.raises(RewardError, match=message):
        call()


# Notation ------------------------------------------------------------------------------------------------------------

NOTATIONS = ("{}", "${}$", "$${}$$", "\\({}\\)", "\\[{}\\]", "\\boxed{{{}}}", "$\\boxed{{{}}}$", " {} \n")


@settings(max_examples=150)
@given(st.sampled_from(BOXED_RIGHT + BOXED_WRONG), st.sampled_from(NOTATIONS))
def test_math_reads_every_notation_of_a_reference_alike(case, notation):
    reference, answer = case
    text = f"\\boxed{{{answer}}}"
    assert math(answer=text, reference=notation.format(reference)) == math(answer=text, reference=reference)


numbers = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.builds(lambda a, b: f"{a}.{b:02d}", st.integers(0, 999), st.integers(0, 99)),
    st.builds(lambda a, b: f"\\frac{{{a}}}{{{b}}}", st.integers(1, 99), st.integers(1, 99)),
    st.builds(lambda a, b: f"{a} \\times 10^{{{b}}}", st.integers(1, 99), st.integers(-9, 9)),
)
units = st.sampled_from(["", "\\text{ km}", "\\ \\mathrm{m/s^2}", "\\%", "^\\circ", " kg"])


@settings(max_examples=100)
@given(numbers, units, numbers, st.sampled_from(NOTATIONS))
def test_number_reads_every_notation_of_a_reference_alike(value, unit, other, notation):
    reference = notation.format(value + unit)
    assert number(answer=f"\\boxed{{{value}{unit}}}", reference=reference) == 1.0
    plain = number(answer=f"\\boxed{{{other}{unit}}}", reference=value + unit)
    assert number(answer=f"\\boxed{{{other}{unit}}}", reference=reference) == plain


# Properties ----------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 10**6), st.sampled_from([("km", "m", 1000), ("h", "min", 60), ("kg", "g", 1000), ("MJ", "kJ", 1000)])
)
def test_units_convert_exactly(value, pair):
    large, small, factor = pair
    assert number(answer=f"The answer is {value * factor} {small}.", reference=f"{value} {large}") == 1.0
    assert number(answer=f"The answer is {value * factor + 1} {small}.", reference=f"{value} {large}") == 0.0
    assert number(answer=f"The answer is {value} {small}.", reference=f"{value} {large}") == 0.0


@given(st.floats(1e-3, 1e6), st.floats(0, 0.5))
def test_the_tolerance_is_what_it_says(value, tolerance):
    inside, outside = value * (1 + 0.99 * tolerance), value * (1 + 1.01 * tolerance) + 1e-2
    args = {"reference": repr(value), "rel_tol": tolerance}
    assert number(answer=f"The answer is {inside!r}", **args, abs_tol=1e-9 * value) == 1.0
    assert number(answer=f"The answer is {outside!r}", **args) == 0.0


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("km/h on average", 5 / 18, "on average"), ("m s^{-2}", 1, ""), ("kg m^2/s^2", 1, ""), ("GB", 8e9, ""),
        ("square feet", 0.3048**2, ""),
        ("cubic centimetres", 1e-6, ""), ("mmol", 1e-3, ""), ("kWh", 3.6e6, ""), ("miles per hour", 0.44704, ""),
        ("apples", None, "apples"), ("in the box", None, "in the box"), ("pm", None, "pm"), ("µm", 1e-6, ""),
    ],
)  # fmt: skip
def test_units(text, value, rest):
    unit, left = read_unit(text)
    assert left == rest
    assert (unit is None) == (value is None)
    if unit is not None:
        assert maths.isclose(float(unit.factor), value)


@given(st.integers(0, 10**15 - 1))
def test_number_words(value):
    assert number_of_words(spelled(value)) == value
    assert number_of_words(f"{spelled(value)} apples") is None


def spelled(value: int) -> str:
    small = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    ]  # fmt: skip
    if value < 20:
        return small[value]
    if value < 100:
        tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"][value // 10 - 2]
        return f"{tens}-{small[value % 10]}" if value % 10 else tens
    for size, name in (
        (10**12, "trillion"),
        (10**9, "billion"),
        (10**6, "million"),
        (1000, "thousand"),
        (100, "hundred"),
    ):
        if value >= size:
            rest = f" and {spelled(value % size)}" if value % size else ""
            return f"{spelled(value // size)} {name}{rest}"
    raise AssertionError(value)


@given(st.text(alphabet="abc", max_size=14), st.text(alphabet="abc", max_size=14))
def test_the_edit_distance_is_the_textbook_one(first, second):
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, two in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != two))
    assert edit_distance_of(first, second) == row[-1]
    assert edit_distance_of(second, first) == row[-1]


def test_long_texts_have_a_lower_bound_of_their_likeness():
    text = "abcdefghij" * (MAX_CHARS // 5)
    assert similarity(text, text) == 1.0
    assert similarity(text, text + "x" * 100) == 1.0 - 100 / (len(text) + 100)
    assert 0.49 < similarity(text, text[:MAX_CHARS]) < 0.51
    start = time.process_time()
    assert edit_distance(answer="x" * 1_000_000, reference="y" * 1_000_000) == 0.0
    assert time.process_time() - start < 2.0


boxes = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes, boxes)
def test_the_overlap_is_that_of_the_cells(first, second):
    one, two = ({(x, y) for x in range(item[0], item[2]) for y in range(item[1], item[3])} for item in (first, second))
    assert maths.isclose(overlap(first, second), len(one & two) / len(one | two))
    assert overlap(first, second) == overlap(second, first)


@given(st.lists(st.lists(st.integers(0, 4), max_size=5, unique=True), max_size=5))
def test_the_matching_is_a_largest_one(edges):
    def best(left: int, used: frozenset[int]) -> int:
        if left == len(edges):
            return 0
        return max([best(left + 1, used), *(1 + best(left + 1, used | {r}) for r in edges[left] if r not in used)])

    assert matching(edges, 5) == best(0, frozenset())


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_items_in_another_order(values, random):
    shuffled = values.copy()
    random.shuffle(shuffled)
    text = "\n".join(f"- {value}" for value in shuffled)
    assert items(answer=text, reference=values) == 1.0
    assert (items(answer=text, reference=values, ordered=True) == 1.0) == (shuffled == values)
    assert items(answer=text + "\n- zebra", reference=values) < 1.0


def test_shares():
    assert count(answer="9", reference=10, smooth=True) == 0.9
    assert count(answer="2", reference=0, smooth=True) == 0.0
    assert multi(answer="(a) 1 (b) 2 (c) 9", reference=["1", "2", "3"]) == pytest.approx(2 / 3)
    assert box(answer="[0, 0, 2, 2]", reference=[1, 0, 3, 2], threshold=None) == pytest.approx(1 / 3)
    assert key_values(answer='{"a": 1, "b": 2}', reference={"a": 1, "b": 3}) == 0.5
    assert instructions(answer="a, b", constraints=[{"kind": "no_commas"}, {"kind": "lowercase"}]) == 0.5


def test_a_quantity_keeps_what_it_was_told():
    assert read_quantity("5 ft 3 in").value == read_quantity("63 in").value / 12
    assert read_quantity("5 or 6") is None
    assert read_quantity("x" * 10_000) is None


# Hostile input -------------------------------------------------------------------------------------------------------

HOSTILE = {
    "pipes": "|" * 150_000, "blanks": "a:" + " " * 150_000 + "b", "brackets": "[" * 150_000,
    "keys": '{"a":' * 40_000,
    "rows": "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 20_000, "labels": "(a) 1 " * 30_000,
    "numbered": "1. x\n" * 30_000,
    "boxes": "<box>1 2 3 4</box>" * 10_000, "fences": "```\n{}\n```\n" * 10_000, "ticks": "`" * 150_000,
    "words": "twenty " * 30_000, "dots": "e.g. " * 40_000, "stars": "*a*" * 50_000, "lines": "\n \n" * 60_000,
    "digits": "9" * 190_000, "tags": "<answer>" * 25_000, "bullets": "- a\n" * 50_000, "commas": "," * 190_000,
    "equals": "=" * 190_000, "units": "1 m " * 95, "ideographs": "不" * 100_000, "open": "(1," * 60_000,
    "bomb": "9^{9^{9^{9}}}", "exponent": "1e99999", "surrogates": "\ud800" * 1000, "nulls": "\x00" * 100_000,
}  # fmt: skip
CONSTRAINTS = [{"kind": name} for name, kind in KINDS.items() if not set(kind.values) - kind.optional]
CONSTRAINTS += [{"kind": name, "value": 3} for name in KINDS if name.startswith(("min_", "max_"))]
CONSTRAINTS += [
    {"kind": name, "value": 3} for name in ("bullets", "numbered_list", "highlights", "placeholders", "sections")
]
CONSTRAINTS += [
    {"kind": name, "value": "a"} for name in ("include_keywords", "keyword_count", "forbidden_words", "letter_count")
]
CONSTRAINTS += [
    {"kind": "starts_with", "value": "a"},
    {"kind": "ends_with", "value": "a"},
    {"kind": "language", "value": "en"},
]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", [*VERIFIERS, "instructions"])
def test_hostile_text_is_answered_in_time(name, hostile):
    text = HOSTILE[hostile]
    start = time.process_time()
    for answer in (text, f"The answer is {text}", f"\\boxed{{{text[:1900]}}}"):
        if name == "instructions":
            instructions(answer=answer, constraints=CONSTRAINTS)
        else:
            assert VERIFIERS[name](answer=answer, reference=REFERENCES[name][0]) < 1.0
    # In this process; the sandbox's share is bounded by its own limit, see test_sandbox.py.
    assert time.process_time() - start < 3 * 2.0


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize("hostile", ["brackets", "keys", "bomb", "exponent", "ideographs", "surrogates", "digits"])
def test_a_hostile_reference_is_answered_or_refused(name, hostile):
    start = time.process_time()
    with contextlib.suppress(RewardError):
        VERIFIERS[name](answer="The answer is 42", reference=HOSTILE[hostile])
    assert time.process_time() - start < 2.0


def test_several_parts_share_one_time_limit():
    shared().start()
    bomb = "\\boxed{\\prod_{k=1}^{10^7} k}"
    for call in (
        lambda: multi(answer="\n".join(f"({k}) {bomb}" for k in range(1, 6)), reference=["42"] * 5),
        lambda: multi(
            answer="\n".join(f"({k}) {bomb}" for k in range(1, 6)), reference=["42"] * 5, part_verifier="number"
        ),
        lambda: math(answer=bomb, reference=["42", "x", "43", "44"]),
        lambda: number(answer=bomb, reference=["42", "43", "44"]),
    ):
        start = time.perf_counter()
        assert call() == 0.0
        assert time.perf_counter() - start < 2.0 + 1.0  # and what a busy machine may add
    assert multi(answer="(1) \\boxed{x+1} (2) \\boxed{y+2}", reference=["1+x", "2+y"]) == 1.0
