"""Whether an answer and a reference are the same mathematics. Runs in a worker process (see sandbox.py).

Rules, in the order of a reader's questions:
- A list is an unordered multiset (`1, 2` = `2, 1` = `\\{1, 2\\}`); a tuple, interval or matrix is ordered, and its
  brackets count: `[0,1)` is not `(0,1)`. `a \\pm b` is two elements.
- A label is not part of the value: `x = 3`, `f(x) = 3`, `(x, y) = (1, 2)` match their right sides. Of a chain such as
  `\\binom{5}{2} = 10` every part must agree; then its value is the last.
- Two equations match if one is a non-zero multiple of the other; inequalities if the multiple has the right sign, or if
  both describe the same set: `x < 3` is `(-\\infty, 3)`.
- Decimals are exact, up to the rounding visible in a long decimal (math_text.REFERENCE_DIGITS, ANSWER_DIGITS).
- `20%` is 20 per cent, 0.2, or 20 where the reference says so. Degrees and units are dropped, unless both are given and
  differ.
- Words are compared as words. Anything unreadable matches only itself.
"""

import re
from collections.abc import Sequence
from typing import Any

import sympy as sp

from rewards.math_expression import expression
from rewards.math_text import (
    ANSWER_DIGITS,
    FUNCTION_WORDS,
    MAX_CHARS,
    REFERENCE_DIGITS,
    clean,
    same_number,
    significant_digits,
    squeeze,
    tokenise,
    without_thousands,
)
from rewards.math_tree import Node, Unreadable, read
from rewards.math_units import split_unit, units_differ
from rewards.math_value import DIGITS, EXACT, ROUNDED, ratio, same_value
from rewards.text import normalise, same_words

_ORDER = {"<": "<", "\\le": "<=", ">": ">", "\\ge": ">="}
_FLIP = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LABELS = re.compile(
    r"\\?[A-Za-z]+'*(?:_(?:\{[\w,]+\}|\w))?(?:\^\{?-1\}?(?=\())?(?:\((?:[A-Za-z\d,+\-<>=| ]|\\[a-z]++)+\))?"
)
_NAMED = {"\\angle", "\\triangle", "\\overline", "\\vec", "\\overrightarrow", "\\mathbf", "\\hat"}
_OPTIONS = re.compile(r"[A-J]{2,10}")
_WORDED = {
    **dict.fromkeys(
        ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "null set"), r"\emptyset"
    ),
    **dict.fromkeys(
        ("all real numbers", "all reals", "any real number", "real numbers", "all real values", "set of real numbers"),
        r"\mathbb{R}",
    ),
    **dict.fromkeys(("infinity", "positive infinity"), r"\infty"),
    "negative infinity": r"-\infty",
    **dict.fromkeys(("dne", "does not exist", "limit does not exist"), r"\text{does not exist}"),
}
MAX_ELEMENTS = 40
FALLBACK = ("\\int", "\\sum", "\\prod", "\\lim", "\\begin", "\\frac{d", "\\partial", "\\iint", "\\oint", "\\det")
"""Notation left to latex2sympy2_extended."""


def warm_up() -> None:
    """Import and run what the first answer would otherwise wait for."""
    assert equivalent("x = \\frac{1}{2}\\sqrt{x+1}", "x = \\sqrt{x+1}/2")
    assert equivalent("x < -1 \\text{ or } 0 \\le x", "(-\\infty, -1) \\cup [0, \\infty)")
    assert equivalent("\\sec^2(y) + e^{2\\ln 3} + \\cosh 0", "\\tan^2(y) + 11")
    assert equivalent(
        "2\\begin{pmatrix} 1 & 0 \\\\ 0 & 1 \\end{pmatrix}", "\\begin{pmatrix} 2 & 0 \\\\ 0 & 2 \\end{pmatrix}"
    )
    _latex2sympy("\\int_0^1 x^2 dx + \\sum_{k=1}^{3} k")


def equivalent(answer: str, reference: str) -> bool:
    """Return whether the answer says what the reference says.

    Args:
        answer: the final answer alone (see extract.py), in LaTeX or plain notation.
        reference: the same for the reference.

    Example:
        >>> equivalent("\\\\frac{1}{2}", "x = 0.5")
        True
    """
    one, two = clean(answer), clean(reference)
    if not one or not two:
        return False
    if squeeze(one) == squeeze(two):
        return True
    if max(len(one), len(two)) > MAX_CHARS:
        return False
    readings = [(one, two)]
    merged = (without_thousands(one), without_thousands(two))
    if merged != readings[0]:
        # `1,234` is a thousand or a pair: either reading may hold, but the same one on both sides.
        readings.append(merged)
    return any(_same_text(first, second) for first, second in readings)


def any_equivalent(answers: Sequence[str], reference: str) -> bool:
    """Return whether one of several readings of the same answer says what the reference says."""
    return any(equivalent(answer, reference) for answer in answers)


def _same_text(one: str, two: str) -> bool:
    first, second = _plain_words(one), _plain_words(two)
    if same_words(first, second) or _same_wording(first, second) or _same_letters(first, second):
        return True
    try:
        answer, reference = read(tokenise(_in_symbols(one, first))), read(tokenise(_in_symbols(two, second)))
        return same(answer, reference)
    except (Unreadable, RecursionError):
        return False


def _plain_words(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)


def _same_wording(first: str, second: str) -> bool:
    """Return whether two texts are the same but for text boxes, and for `and` between words: `3 hours 20 minutes`."""
    one, two = (re.sub(r" +", " ", text).strip(" .;,:") for text in (first, second))
    if squeeze(one) == squeeze(two):
        return True
    if re.search(r"[\\^=<>{}()\[\]]", first + second):
        return False
    if _same_listing(one, two):
        return True
    words, others = (re.sub(r"\band\b", " ", normalise(text)).split() for text in (one, two))
    return words == others and any(word.isalpha() and len(word) > 2 for word in words)


def _same_listing(first: str, second: str) -> bool:
    """Return whether two texts list the same words in the same order: `I and III` is `I, III`."""
    one, two = (re.split(r"\s*(?:,|;|\band\b)\s*(?:and\b\s*)?", text) for text in (first, second))
    return len(one) == len(two) > 1 and all(
        left and (left == right or same_words(left, right)) for left, right in zip(one, two, strict=True)
    )


def _same_letters(first: str, second: str) -> bool:
    """Return whether one is option letters in order (`ABD`) and the other lists the same (`B, A and D`)."""
    for run, listed in ((first.strip(), second), (second.strip(), first)):
        letters = re.split(r"[\s,;]+(?:and\s+)?", listed.strip())
        if _OPTIONS.fullmatch(run) and sorted(set(run)) == list(run) and sorted(letters) == list(run):
            return True
    return False


def _in_symbols(text: str, words: str) -> str:
    """Return the one spelling of what may be named in words: `no solution`, `all real numbers`, `infinity`."""
    return _WORDED.get(normalise(words), text)


def same(answer: Node, reference: Node) -> bool:
    """Compare two shapes by the rules above."""
    if "union" in (answer.kind, reference.kind) and not (_is_relational(answer) or _is_relational(reference)):
        return _same_set(answer, reference)
    answer, reference = _singleton(_without_repeats(answer)), _singleton(_without_repeats(reference))
    if _is_relational(answer) or _is_relational(reference):
        return _same_relation(answer, reference)
    if "matrix" in (answer.kind, reference.kind):
        return _same_matrix(answer, reference)
    if _names_set(answer) or _names_set(reference):
        return answer.tokens == reference.tokens != () or _same_set(answer, reference)
    answer, reference = _written_out(answer), _written_out(reference)
    left, right = _elements(answer), _elements(reference)
    if left is not None or right is not None:
        return _same_elements(answer, reference, left or (answer,), right or (reference,))
    return same_scalar(answer.tokens, reference.tokens)


def _without_repeats(node: Node) -> Node:
    """Return `\\frac{1}{2} or 0.5` as the one value that it is; other lists may hold a value twice."""
    if node.kind != "list" or node.mark != "or" or len(node.children) > MAX_ELEMENTS:
        return node
    kept: list[Node] = []
    for item in node.children:
        if not any(item.kind == other.kind == "expression" and same(item, other) for other in kept):
            kept.append(item)
    return Node(node.kind, node.mark, tuple(kept))


def _singleton(node: Node) -> Node:
    while node.kind in ("list", "set", "bracket") and len(node.children) == 1:
        node = node.children[0]
    return node


def _is_relational(node: Node) -> bool:
    if node.kind == "relation":
        return True
    return node.kind == "list" and any(item.kind == "relation" for item in node.children)


def _names_set(node: Node) -> bool:
    return (node.kind == "expression" and node.tokens[0] in ("\\mathbb", "\\emptyset")) or node == Node("set")


def _elements(node: Node) -> tuple[Node, ...] | None:
    """Return the elements of a collection, with `\\pm` written out; None for a single value."""
    if node.kind == "expression" and "\\pm" in node.tokens:
        return _both_signs(node)
    if node.kind not in ("list", "set", "bracket"):
        return None
    if node.kind == "bracket":
        return node.children
    found: list[Node] = []
    for item in node.children:
        found.extend(_both_signs(item) if _has_signs(item) else (item,))
    return tuple(found)


def _written_out(node: Node) -> Node:
    """Return `(\\pm 1, 0)` as the list of the two points that it is."""
    return Node("list", children=_both_signs(node)) if node.kind == "bracket" and _has_signs(node) else node


def _has_signs(node: Node) -> bool:
    return "\\pm" in node.tokens or (node.kind == "bracket" and any("\\pm" in item.tokens for item in node.children))


def _both_signs(node: Node) -> tuple[Node, ...]:
    """Return the node with the upper and with the lower signs of `\\pm` and `\\mp`."""
    return tuple(_with_signs(node, {"\\pm": plus, "\\mp": minus}) for plus, minus in (("+", "-"), ("-", "+")))


def _with_signs(node: Node, signs: dict[str, str]) -> Node:
    children = tuple(_with_signs(item, signs) for item in node.children)
    return Node(node.kind, node.mark, children, tuple(signs.get(token, token) for token in node.tokens))


def _same_elements(answer: Node, reference: Node, left: Sequence[Node], right: Sequence[Node]) -> bool:
    ordered = "bracket" in (answer.kind, reference.kind)
    if answer.kind == reference.kind == "bracket" and answer.mark != reference.mark:
        return False
    if len(left) != len(right) or len(left) > MAX_ELEMENTS:
        return False
    if ordered:
        # A set has no order to compare with, and the ends of an interval are not elements of a list.
        other = reference if answer.kind == "bracket" else answer
        bracket = answer if answer.kind == "bracket" else reference
        if other.kind == "set" or (other.kind != "bracket" and bracket.mark != "()"):
            return False
        return all(same(one, two) for one, two in zip(left, right, strict=True))
    return _match(list(left), list(right))


def _match(left: list[Node], right: list[Node]) -> bool:
    """Match each element with one of the other side."""
    for item in left:
        index = next((index for index, other in enumerate(right) if same(item, other)), None)
        if index is None:
            return False
        del right[index]
    return not right


def same_scalar(answer: Sequence[str], reference: Sequence[str]) -> bool:
    """Compare two single values: numbers, expressions, quantities with units, words."""
    one, two = _spell(answer), _spell(reference)
    if squeeze(one) == squeeze(two):
        return True
    (left, left_unit), (right, right_unit) = split_unit(answer), split_unit(reference)
    if units_differ(left_unit, right_unit) or not left or not right:
        return False
    plain = same_number(_spell(left), _spell(right))
    if plain is not None:
        return plain or _same_percent(left, right, left_unit, right_unit)
    if ":" in left or ":" in right:
        return False
    return _same_expression(left, right) or _same_percent(left, right, left_unit, right_unit)


def _same_percent(left: Sequence[str], right: Sequence[str], left_unit: str, right_unit: str) -> bool:
    """Compare `20%` with 0.2: the sign is a factor where only one side has it."""
    if (left_unit == "%") == (right_unit == "%"):
        return False
    try:
        one, two = value_of(left), value_of(right)
    except Unreadable:
        return False
    if not isinstance(one, sp.Rational) or not isinstance(two, sp.Rational):
        return False
    return one / 100 == two if left_unit == "%" else two / 100 == one


def _same_expression(left: Sequence[str], right: Sequence[str]) -> bool:
    first, second = value_of(left), value_of(right)
    if not isinstance(first, sp.MatrixBase):
        first = _same_constant(first, second)
    if isinstance(first, sp.MatrixBase) or isinstance(second, sp.MatrixBase):
        return bool(
            isinstance(first, sp.MatrixBase) and isinstance(second, sp.MatrixBase) and _equal_cells(first, second)
        )
    return same_value(first, second, _tolerance(left, right))


def _same_constant(first: Any, second: Any) -> Any:
    """Return the first value with its constant of integration called as in the second: `x^2 + c` is `x^2 + C`."""
    big, small = sp.Symbol("C"), sp.Symbol("c")
    for own, other in ((big, small), (small, big)):
        if (
            own in getattr(first, "args", ())
            and other in getattr(second, "args", ())
            and first.is_Add
            and second.is_Add
        ):
            renamed = first - own + other
            if not renamed.has(own) and not second.has(own):
                return renamed
    return first


def _tolerance(left: Sequence[str], right: Sequence[str]) -> float:
    """Return the relative difference that the written digits allow."""
    if max((significant_digits(token) for token in right), default=0) >= REFERENCE_DIGITS:
        return ROUNDED
    if max((significant_digits(token) for token in left), default=0) >= ANSWER_DIGITS:
        return 10.0**-ANSWER_DIGITS
    return EXACT


def value_of(tokens: Sequence[str]) -> Any:
    """Return the sympy value of an expression.

    Raises:
        Unreadable: neither this reader nor latex2sympy2_extended knows the notation.
    """
    try:
        return expression(tokens)
    except Unreadable:
        if not any(mark in "".join(tokens) for mark in FALLBACK) or any(map(_is_word, tokens)):
            raise
    value = _latex2sympy(_spell(_braced(tokens)))
    # A matrix times a matrix, an integral, a sum: worked out here, under the worker's limits.
    return value.doit() if hasattr(value, "doit") else value


def _is_word(token: str) -> bool:
    """Return whether a token is a word of a sentence, which no parser of formulas should be asked to read."""
    return len(token) > 3 and token.isalpha() and token not in FUNCTION_WORDS


def _braced(tokens: Sequence[str]) -> list[str]:
    """Return the tokens with `\\frac12` and `\\sqrt2` written with braces, which latex2sympy asks for."""
    result: list[str] = []
    missing = 0
    for token in tokens:
        if missing and token not in ("{", "["):
            digits = list(token) if token.isdigit() and missing > 1 else [token]
            for part in digits[:missing]:
                result += ["{", part, "}"]
            result += digits[missing:]
            missing -= len(digits[:missing])
            continue
        missing = 0 if token in ("{", "[") else missing
        result.append(token)
        missing = {"\\frac": 2, "\\sqrt": 1}.get(token, missing)
    return result


def _latex2sympy(text: str) -> Any:
    from latex2sympy2_extended import latex2sympy

    try:
        value = latex2sympy(text)
    except MemoryError:
        raise
    except Exception as error:
        raise Unreadable(str(error)[:100]) from error
    if not isinstance(value, sp.Basic | sp.MatrixBase):
        raise Unreadable("not a value")
    return value


def _spell(tokens: Sequence[str]) -> str:
    return " ".join(tokens)


def _same_matrix(answer: Node, reference: Node) -> bool:
    if answer.kind == reference.kind:
        if len(answer.children) != len(reference.children):
            return False
        rows = list(zip(answer.children, reference.children, strict=True))
        return all(
            len(one.children) == len(two.children)
            and all(same(left, right) for left, right in zip(one.children, two.children, strict=True))
            for one, two in rows
        )
    other, matrix = (reference, answer) if answer.kind == "matrix" else (answer, reference)
    if other.kind == "bracket":
        return _same_vector(other, matrix)
    if other.kind != "expression":
        return False
    value = value_of(other.tokens)
    return isinstance(value, sp.MatrixBase) and _equal_cells(value, _matrix_value(matrix))


def _same_vector(bracket: Node, matrix: Node) -> bool:
    """Compare `(1, 2)` with one row or one column, and `[[1, 2], [3, 4]]` with the rows that it lists."""
    rows = [row.children for row in matrix.children]
    if bracket.mark == "[]":
        nested = [item.children for item in bracket.children if item.kind == "bracket" and item.mark == "[]"]
        return [len(row) for row in nested] == [len(row) for row in rows] and all(
            same(one, two)
            for left, right in zip(nested, rows, strict=True)
            for one, two in zip(left, right, strict=True)
        )
    cells = rows[0] if len(rows) == 1 else [row[0] for row in rows if len(row) == 1]
    flat = bracket.mark == "()" and (len(rows) == 1 or len(cells) == len(rows))
    return flat and len(cells) == len(bracket.children) and all(map(same, bracket.children, cells))


def _matrix_value(node: Node) -> Any:
    rows = [[value_of(cell.tokens) for cell in row.children] for row in node.children]
    if len({len(row) for row in rows}) != 1:
        raise Unreadable("rows of different length")
    return sp.Matrix(rows)


def _equal_cells(first: Any, second: Any) -> bool:
    return first.shape == second.shape and all(same_value(one, two) for one, two in zip(first, second, strict=True))


# Relations -----------------------------------------------------------------------------------------------------------


def _same_relation(answer: Node, reference: Node) -> bool:
    answer, reference = _drop_approximation(answer), _drop_approximation(reference)
    if not _is_relational(answer) and not _is_relational(reference):
        return same(answer, reference)
    left, left_label = _unlabel(answer)
    right, right_label = _unlabel(reference)
    if left_label and right_label and left_label != right_label and not _same_function(left_label, right_label):
        return _same_equation(answer, reference)
    if (left, right) != (answer, reference) and not _is_relational(left) and not _is_relational(right):
        # One of them was `label = value`: compare the values, or else the equations as they stand.
        return same(left, right) or _same_equation(answer, reference)
    if answer.kind == reference.kind == "list":
        return _same_relation_lists(answer, reference)
    return _same_equation(answer, reference) or _same_set(answer, reference)


def _same_function(first: str, second: str) -> bool:
    """Return whether one label is `y` and the other a function of x: `y = x^2` and `f(x) = x^2` say the same.

    Likewise `y'` and `\\frac{dy}{dx}`.
    """
    if {first, second} == {"y'", "\\frac{dy}{dx}"}:
        return True
    return any(one == "y" and re.fullmatch(r"[a-z]\(x\)", two) for one, two in ((first, second), (second, first)))


def _same_relation_lists(answer: Node, reference: Node) -> bool:
    if len(answer.children) != len(reference.children):
        return _same_set(answer, reference)
    try:
        if _match(list(answer.children), list(reference.children)):
            return True
    except Unreadable:
        return False
    return _same_set(answer, reference)


def _drop_approximation(node: Node) -> Node:
    """Return the exact side of `exact \\approx decimal`, if the decimal is one of it."""
    if node.kind != "relation" or "\\approx" not in node.mark.split():
        return node
    marks = node.mark.split()
    at = marks.index("\\approx")
    exact, rough = node.children[at], node.children[at + 1]
    if len(marks) > at + 1 or exact.kind != "expression" or rough.kind != "expression":
        raise Unreadable("an approximation of something else than one value")
    try:
        near = same_value(value_of(split_unit(exact.tokens)[0]), value_of(split_unit(rough.tokens)[0]), 0.02)
    except Unreadable:
        near = False
    if not near:
        raise Unreadable("an approximation that does not hold")
    if at == 0:
        return exact
    return Node("relation", " ".join(marks[:at]), node.children[: at + 1])


def _unlabel(node: Node) -> tuple[Node, str]:
    """Return the value of `label = value` and the label; a chain gives its last part if all parts agree."""
    if node.kind == "list":
        return _unlabel_list(node)
    if node.kind != "relation":
        return node, ""
    marks = set(node.mark.split())
    if marks == {"\\in"} and len(node.children) == 2 and _label(node.children[0]):
        return node.children[1], _label(node.children[0])
    if marks != {"="}:
        return node, ""
    label = _label(node.children[0])
    parts = node.children[1:] if label else node.children
    if len(parts) == 1:
        return parts[0], label
    if label and len(parts) == 2 and _label(parts[0]):
        return parts[1], label  # f(x) = y = 3
    if all(item.kind == "expression" for item in parts) and _chain_holds(parts):
        return parts[-1], label
    return node, ""


def _chain_holds(parts: Sequence[Node]) -> bool:
    values = [value_of(split_unit(item.tokens)[0]) for item in parts]
    if any(getattr(value, "free_symbols", None) for value in values[:-1]) and len(parts) == 2:
        return False  # an equation between expressions, not a computation
    return all(same_value(value, values[-1]) for value in values[:-1])


def _unlabel_list(node: Node) -> tuple[Node, str]:
    """Return the values of `x = 1, x = 2`, of `n = 1, 2, 3`, and of `x = 1, y = 2` as a tuple."""
    pairs = [_unlabel(item) if item.kind == "relation" else (item, "") for item in node.children]
    if any(value.kind == "relation" for value, _ in pairs) or not pairs[0][1]:
        return node, ""
    labels = [label for _, label in pairs]
    bases = {re.sub(r"_.*|'+$", "", label) for label in labels if label}
    values = tuple(value for value, _ in pairs)
    if len(bases) == 1 and len({label for label in labels if label}) in (1, len(labels)):
        return Node("list", node.mark, values), bases.pop()
    if all(labels) and labels == sorted(set(labels)):
        return Node("bracket", "()", values), "(" + ",".join(labels) + ")"
    return node, ""


def _label(node: Node) -> str:
    """Return the text of a name: `x`, `x_1`, `f(x)`, `A`, `(x, y)`, `\\angle ABC`, words; empty for anything else."""
    if node.kind == "bracket" and node.mark == "()":
        names = [_label(item) for item in node.children]
        return "(" + ",".join(names) + ")" if all(names) else ""
    if node.kind != "expression":
        return ""
    tokens = node.tokens
    if all(token.startswith("\\text{") or (token.isalpha() and len(token) > 3) for token in tokens):
        return "text"
    text = "".join(tokens).replace("\\text{Pr}", "P")
    if text in ("e", "i", "\\pi", "\\infty", "pi"):
        return ""
    if tokens[0] in _NAMED or (len(tokens) > 1 and tokens[0] == "m" and tokens[1] in _NAMED):
        return text
    if re.fullmatch(r"\\frac\{d[a-z]?\}\{d[a-z]\}[a-zA-Z]?|d[a-z]/d[a-z]", text):
        return text
    return text if _LABELS.fullmatch(text) else ""


def _same_equation(answer: Node, reference: Node) -> bool:
    """Compare `f = g` with `p = q` (and <, <=, != likewise) by the ratio of the differences of their sides."""
    if not answer.kind == reference.kind == "relation" or len(answer.children) != 2 or len(reference.children) != 2:
        return False
    left_mark, right_mark = _ORDER.get(answer.mark, answer.mark), _ORDER.get(reference.mark, reference.mark)
    if any(item.kind != "expression" for item in (*answer.children, *reference.children)):
        return left_mark == right_mark and all(map(same, answer.children, reference.children))
    if left_mark not in ("=", "\\ne", *_FLIP) or right_mark not in ("=", "\\ne", *_FLIP):
        return left_mark == right_mark and all(
            squeeze(_spell(one.tokens)) == squeeze(_spell(two.tokens))
            for one, two in zip(answer.children, reference.children, strict=True)
        )
    constant = ratio(_difference(answer), _difference(reference))
    if constant is None:
        return False
    if left_mark in _FLIP and constant < 0:
        left_mark = _FLIP[left_mark]
    return left_mark == right_mark


def _difference(node: Node) -> Any:
    first, second = (value_of(item.tokens) for item in node.children)
    if isinstance(first, sp.MatrixBase) or isinstance(second, sp.MatrixBase):
        raise Unreadable("an equation of matrices")
    return first - second


# Sets of reals -------------------------------------------------------------------------------------------------------


def _same_set(answer: Node, reference: Node) -> bool:
    first, second = real_set(answer), real_set(reference)
    if first == second:
        return True
    if first.has(sp.Symbol) or second.has(sp.Symbol):
        return False
    return bool(sp.SymmetricDifference(first, second).doit() == sp.S.EmptySet)


def real_set(node: Node) -> Any:
    """Return the sympy set of an interval, a union, a finite set or an inequality in one unknown.

    Raises:
        Unreadable: the node describes no set of real numbers.
    """
    if node.kind == "union":
        return _union(node)
    if node.kind == "set":
        return sp.FiniteSet(*(value_of(item.tokens) for item in _elements(node) or ()))
    if node.kind == "bracket" and len(node.children) == 2 and node.mark in ("()", "[]", "(]", "[)"):
        low, high = (value_of(item.tokens) for item in node.children)
        return _interval(low, high, node.mark[0] == "(", node.mark[1] == ")")
    if node.kind == "relation":
        return _inequality(node)
    if node.kind == "list" and node.children:
        sets = [real_set(item) for item in node.children]
        return sp.Union(*sets) if node.mark == "or" else sp.Intersection(*sets)
    return _named_set(node)


def _named_set(node: Node) -> Any:
    text = squeeze(_spell(node.tokens))
    names = {"\\mathbb{R}": sp.S.Reals, "\\mathbbR": sp.S.Reals, "\\emptyset": sp.S.EmptySet}
    if text in names:
        return names[text]
    raise Unreadable("not a set of real numbers")


def _union(node: Node) -> Any:
    result = real_set(node.children[0])
    for mark, item in zip(node.mark.split(), node.children[1:], strict=True):
        other = real_set(item)
        if mark in ("\\cup", "U"):
            result = sp.Union(result, other)
        else:
            result = sp.Intersection(result, other) if mark == "\\cap" else sp.Complement(result, other)
    return result


def _interval(low: Any, high: Any, low_open: bool, high_open: bool) -> Any:
    if not (low.is_extended_real and high.is_extended_real and low.is_number and high.is_number):
        raise Unreadable("an interval with symbols")
    if not bool(low <= high):
        raise Unreadable("an interval upside down")
    return sp.Interval(low, high, low_open, high_open)


def _inequality(node: Node) -> Any:
    marks = [_ORDER.get(mark, mark) for mark in node.mark.split()]
    sides = node.children
    if marks == ["\\in"]:
        return real_set(sides[1])
    if marks == ["\\ne"]:
        return sp.Complement(sp.S.Reals, sp.FiniteSet(value_of(sides[1].tokens)))
    if len(marks) == 2 and ({*marks} <= {"<", "<="} or {*marks} <= {">", ">="}):
        return _between(marks, sides)
    if len(marks) == 1 and marks[0] in _FLIP:
        return _half_line(marks[0], _difference(node))
    raise Unreadable("not an inequality in one unknown")


def _between(marks: list[str], sides: Sequence[Node]) -> Any:
    low, middle, high = (value_of(item.tokens) for item in sides)
    opens = [mark in ("<", ">") for mark in marks]
    if marks[0] in (">", ">="):
        low, high, opens = high, low, opens[::-1]
    if not (middle.is_Symbol or isinstance(middle, sp.core.function.AppliedUndef)):
        raise Unreadable("an unknown in disguise")
    # sympy's intervals have no closed end at infinity, and need none
    return _interval(low, high, opens[0], opens[1])


def _half_line(mark: str, difference: Any) -> Any:
    unknowns = difference.atoms(sp.core.function.AppliedUndef) or difference.free_symbols
    if len(unknowns) != 1:
        raise Unreadable("not one unknown")
    unknown = unknowns.pop()
    plain = difference.xreplace({unknown: sp.Symbol("x")})
    slope = plain.diff(sp.Symbol("x"))
    if not slope.is_number or slope == 0 or not slope.is_real:
        raise Unreadable("not linear")
    bound = sp.simplify(-plain.subs(sp.Symbol("x"), 0) / slope)
    if slope < 0:
        mark = _FLIP[mark]
    if mark in ("<", "<="):
        return _interval(-sp.oo, bound, True, mark == "<")
    return _interval(bound, sp.oo, mark == ">", True)


# Values --------------------------------------------------------------------------------------------------------------


def numbers_of(texts: Sequence[str]) -> list[tuple[str, str] | None]:
    """Return per text the real value of an expression without unknowns, as digits, and its unit; None for another."""
    return [_number_of(text) for text in texts]


def _number_of(text: str) -> tuple[str, str] | None:
    value, unit = split_unit(tokenise(clean(text)))
    try:
        node = read(value)
        number = value_of(node.tokens) if node.kind == "expression" else None
    except (Unreadable, RecursionError):
        return None
    if number is None or isinstance(number, sp.MatrixBase) or not number.is_number or not number.is_finite:
        return None
    result = sp.N(number, DIGITS)
    return (str(result), unit) if result.is_Float or result.is_Rational else None
