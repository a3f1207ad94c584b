"""The outer shape of a mathematical answer: list, set, tuple or interval, relation, union, matrix, text, expression.

Works on tokens only (see math_text) and evaluates nothing. Nesting is bounded, so that hostile text cannot exhaust the
stack.
"""

from dataclasses import dataclass, field

OPEN = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\langle": "\\rangle"}
CLOSE = {")", "]", "}", "\\}", "\\rangle"}
SEPARATORS = {",", ";", "and", "or", "\\text{or}", "\\text{and}"}
RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\approx", "\\equiv", "\\sim", "\\propto", "\\notin"}
SET_OPERATIONS = {"\\cup", "\\cap", "\\setminus", "U", "\\backslash"}
MAX_TOKENS = 1500
MAX_DEPTH = 40


class Unreadable(ValueError):
    """The text is not mathematics that this reader knows, or too large to be an answer."""


@dataclass(frozen=True)
class Node:
    """A node of the outer shape.

    Example:
        `[0, 1)` is Node("bracket", "[)", children=(expression 0, expression 1)).
    """

    kind: str
    """expression | list | bracket | set | union | relation | matrix"""
    mark: str = ""
    """The two brackets; the relation or set operations, joined by spaces; `or` for a list with that word."""
    children: tuple["Node", ...] = ()
    tokens: tuple[str, ...] = field(default=())


def read(tokens: list[str] | tuple[str, ...], depth: int = 0) -> Node:
    """Return the outer shape of the tokens.

    Raises:
        Unreadable: too many tokens, too deep, or brackets that do not match.
    """
    tokens = tuple(tokens)
    if len(tokens) > MAX_TOKENS or depth > MAX_DEPTH:
        raise Unreadable("too large for an answer")
    tokens = _strip_braces(tokens)
    parts, marks = split(tokens, SEPARATORS)
    parts = [part for part in parts if part]
    if len(parts) > 1:
        mark = "or" if any("or" in mark for mark in marks) else ""
        return Node("list", mark, tuple(read(part, depth + 1) for part in parts))
    if not parts:
        raise Unreadable("empty")
    return _read_one(parts[0], depth)


def _read_one(tokens: tuple[str, ...], depth: int) -> Node:
    parts, marks = split(tokens, RELATIONS)
    if marks:
        if not all(parts):
            raise Unreadable("a relation with an empty side")
        return Node("relation", " ".join(marks), tuple(read(part, depth + 1) for part in parts))
    parts, marks = split(tokens, SET_OPERATIONS)
    if marks and all(parts) and all(_is_set(part) for part in parts):
        return Node("union", " ".join(marks), tuple(read(part, depth + 1) for part in parts))
    if tokens[0].startswith("\\begin{") and tokens[-1].startswith("\\end{"):
        return _read_matrix(tokens, depth)
    if wraps(tokens):
        return _read_wrapped(tokens, depth)
    return Node("expression", tokens=tokens)


def _read_wrapped(tokens: tuple[str, ...], depth: int) -> Node:
    inner, first, last = tokens[1:-1], tokens[0], tokens[-1]
    if not inner:
        return Node("set") if first == "\\{" else Node("expression", tokens=tokens)
    condition, marks = split(inner, {"|", ":"})
    if first == "\\{" and len(marks) == 1 and all(condition) and (len(condition[0]) <= 3 or _is_real(condition[0])):
        return read(condition[1], depth + 1)  # {x | x > 3} is x > 3
    parts, marks = split(inner, SEPARATORS)
    if first in ("\\{", "{") and (marks or first == "\\{"):
        return Node("set", children=tuple(read(part, depth + 1) for part in parts if part))
    if marks:
        bracket = "()" if first == "\\langle" else first + last
        return Node("bracket", bracket, tuple(read(part, depth + 1) for part in parts if part))
    return read(inner, depth + 1)


def _is_real(tokens: tuple[str, ...]) -> bool:
    """Return whether the tokens say `x \\in \\mathbb{R}`."""
    return tokens[1:] == ("\\in", "\\mathbb", "{", "R", "}")


def _read_matrix(tokens: tuple[str, ...], depth: int) -> Node:
    name = tokens[0][len("\\begin{") : -1]
    if name.strip("*") not in ("pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix", "array"):
        return Node("expression", tokens=tokens)
    inner = tokens[1:-1]
    if name == "array" and inner and inner[0] == "{":
        inner = inner[inner.index("}") + 1 :] if "}" in inner else inner
    if any(token.startswith("\\begin{") for token in inner):
        return Node("expression", tokens=tokens)
    rows = [row for row in split(inner, {"\\\\"})[0] if row]
    children = tuple(
        Node("list", children=tuple(read(cell, depth + 1) for cell in split(row, {"&"})[0] if cell)) for row in rows
    )
    return Node("matrix", children=children)


def split(tokens: tuple[str, ...], at: set[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Split at the tokens of `at` that stand outside all brackets; return the parts and the separators found."""
    parts: list[tuple[str, ...]] = []
    marks: list[str] = []
    depth = start = 0
    for index, token in enumerate(tokens):
        if token in OPEN or token.startswith("\\begin{"):
            depth += 1
        elif token in CLOSE or token.startswith("\\end{"):
            depth -= 1
            if depth < 0:
                raise Unreadable("a bracket closes that was not opened")
        elif depth == 0 and token in at:
            parts.append(tokens[start:index])
            marks.append(token)
            start = index + 1
    if depth:
        raise Unreadable("a bracket is not closed")
    return [*parts, tokens[start:]], marks


def wraps(tokens: tuple[str, ...]) -> bool:
    """Return whether the first bracket closes at the last token."""
    if len(tokens) < 2 or tokens[0] not in OPEN or tokens[-1] not in CLOSE:
        return False
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token in OPEN) - (token in CLOSE)
        if depth == 0:
            return index == len(tokens) - 1
    return False


def _strip_braces(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Drop LaTeX braces around the whole; `{1, 2}` stays, being a set written without backslashes."""
    while wraps(tokens) and tokens[0] == "{" and tokens[-1] == "}" and not split(tokens[1:-1], SEPARATORS)[1]:
        tokens = tokens[1:-1]
    return tokens


def _is_set(tokens: tuple[str, ...]) -> bool:
    if tokens[0] in ("\\mathbb", "\\emptyset"):
        return True
    if len(tokens) > 1 and wraps(tokens):
        return tokens[0] == "\\{" or bool(split(tokens[1:-1], SEPARATORS)[1])
    return bool(split(tokens, SET_OPERATIONS)[1])
