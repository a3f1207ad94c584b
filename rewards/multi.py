"""`multi`: questions of several parts, each checked by a named verifier.

- The reference is a list of parts, a mapping label -> part, or a text: `(a) 3 (b) 5` where it is labelled in order,
  else split at `separator` (`;` by default).
- The answer's parts are found by their labels, `(a)`, `a)`, `1.`, `(ii)` or the mapping's own names with a colon, the
  last complete run of them counting; or as a JSON list or object; or else its final answer is split at `separator`, at
  commas outside brackets, or at `and`, and must then have exactly as many parts.
- Each part goes to `part_verifier` (math by default) with `part_args`. Score: the share of parts that are right, or 1.0
  only if all are (`partial: false`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards import arguments
from rewards.extract import final_answer, visible
from rewards.registry import Reward, RewardError, reward
from rewards.sandbox import cut_calls
from rewards.structured import find_json

PART_VERIFIERS = (
    "math",
    "choice",
    "exact",
    "normalised",
    "number",
    "yes_no",
    "count",
    "items",
    "anls",
    "edit_distance",
)
MAX_PARTS = 50
MAX_CHARS = 50_000
"""Labels are looked for in the end of a response, as far as this."""
MAX_RUNS = 8
"""One label given more often than this, each time with another text, is spraying."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
_OPEN = "([{"
Labels = Sequence[str]


def _verifier_name(name: str, value: Any) -> str:
    return arguments.one_of(name, value, PART_VERIFIERS)


def _separator(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > 20:
        raise RewardError(f"`{name}` must be a short text such as ';', got {value!r}.")
    return value


def _part_args(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RewardError(f"`{name}` must be a mapping of arguments of the part's verifier, got {value!r}.")
    return {key: item for key, item in value.items() if item is not None}


def gold_answer(
    reference: Any, separator: str | None = ";", part_verifier: str | None = "math", part_args: Any = None
) -> str:
    """Return the response that states the reference itself."""
    parts = reference_parts(reference, separator or ";")
    gold = _verifier(part_verifier or "math").gold
    assert gold is not None
    return "\n".join(f"({index}) {gold(part)}" for index, part in enumerate(parts.values(), start=1))


@reward(
    "multi",
    parallel=True,
    gold=gold_answer,
    validate=arguments.validator(
        part_verifier=_verifier_name, partial=arguments.flag, separator=_separator, part_args=_part_args
    ),
)
def multi(
    *,
    answer: str | None,
    reference: Any,
    part_verifier: str | None = "math",
    partial: bool | None = True,
    separator: str | None = ";",
    part_args: Mapping[str, Any] | None = None,
) -> float | None:
    """Return the share of parts that are right (or whether all are); None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right parts: a list, a mapping label -> part, or a text with labels or separators.
        part_verifier: what checks each part.
        partial: the share of right parts; otherwise all or nothing.
        separator: what separates the parts of a text.
        part_args: arguments of the part's verifier, such as {rel_tol: 0.01}.

    Raises:
        RewardError: an unknown verifier, arguments it does not take, more than 50 parts.

    Example:
        >>> multi(answer="(a) x = 3\\n(b) y = 5", reference="3; 4")
        0.5
    """
    wanted = reference_parts(reference, _separator("separator", separator or ";"))
    if not wanted:
        return None
    check = _checker(part_verifier or "math", part_args)
    given = answer_parts(answer, list(wanted), separator or ";") if isinstance(answer, str) else {}
    before = cut_calls()
    # After a part that a worker was killed over, the rest count as wrong: one time limit for all of them.
    right = [
        check(given[label], part) if label in given and cut_calls() == before else 0.0 for label, part in wanted.items()
    ]
    if not arguments.flag("partial", partial, True):
        return float(all(value >= 1.0 for value in right))
    return sum(right) / len(right)


def _verifier(name: str) -> Reward:
    from rewards.loader import load

    return load(_verifier_name("part_verifier", name), {})[0]


def _checker(name: str, extra: Any) -> Callable[[str, Any], float]:
    function = _verifier(name).function
    options = _part_args("part_args", extra) if extra is not None else {}

    def check(text: str, part: Any) -> float:
        try:
            return float(function(answer=text, reference=part, **options) or 0.0)
        except TypeError as error:
            raise RewardError(f"`multi`: {name} does not take these `part_args`: {error}.") from error

    return check


# The reference -------------------------------------------------------------------------------------------------------


def reference_parts(reference: Any, separator: str) -> dict[str, Any]:
    """Return the parts of a reference by label; unlabelled ones by number, from 1.

    Raises:
        RewardError: more than MAX_PARTS parts.
    """
    if isinstance(reference, Mapping):
        parts = {str(key): item for key, item in reference.items() if item is not None}
    elif isinstance(reference, list | tuple):
        parts = {str(index): item for index, item in enumerate(reference, start=1)}
    else:
        parts = _text_parts("" if reference is None else str(reference).strip(), separator)
    parts = {label: part for label, part in parts.items() if str(part).strip()}
    if len(parts) > MAX_PARTS:
        raise RewardError(f"`multi` takes references of at most {MAX_PARTS} parts, got {len(parts)}.")
    return parts


def _text_parts(text: str, separator: str) -> dict[str, Any]:
    for labels in _schemes(2, 12):
        found = _sections(text, labels)
        if found and text.lstrip("( ").startswith(labels[0]):
            return {label: part.strip(" ;,.\n") for label, part in found.items()}
    return {str(index): part for index, part in enumerate(_outside_brackets(text, separator), start=1)} if text else {}


# The answer ----------------------------------------------------------------------------------------------------------


def answer_parts(answer: str, labels: Labels, separator: str) -> dict[str, str]:
    """Return the answer's part for each of the reference's labels, as far as there is one."""
    text = visible(answer)[-MAX_CHARS:]
    value = find_json(answer)
    if isinstance(value, Mapping):
        plain = {str(key).strip("() .:").casefold(): str(item) for key, item in value.items()}
        return {
            label: plain[label.strip("() .:").casefold()]
            for label in labels
            if label.strip("() .:").casefold() in plain
        }
    boxed = final_answer(answer)
    for scheme in _candidates(labels):
        found = (_sections(boxed.text, scheme) if boxed.kind == "box" else None) or _sections(text, scheme)
        if found:
            return {label: found[name] for label, name in zip(labels, scheme, strict=True) if name in found}
    if isinstance(value, list) and len(value) == len(labels) > 1:
        return dict(zip(labels, map(str, value), strict=True))
    parts = _final_parts(answer, len(labels), separator)
    return dict(zip(labels, parts, strict=True)) if len(parts) == len(labels) else {}


def _candidates(labels: Labels) -> list[list[str]]:
    """Return the ways to label this many parts, the reference's own first."""
    own = [label.strip("() .:") for label in labels]
    size = len(labels)
    return [own, *(scheme[:size] for scheme in _schemes(size, size) if len(scheme) >= size and scheme[:size] != own)]


def _schemes(least: int, most: int) -> list[list[str]]:
    schemes = [list(_LETTERS), [str(number) for number in range(1, MAX_PARTS + 1)], _ROMAN, list(_LETTERS.upper())]
    return [scheme[: max(least, most)] for scheme in schemes]


def _sections(text: str, labels: Labels) -> dict[str, str] | None:
    """Return what follows each label up to the next, from the last run that starts with the first label.

    None where the first two labels do not both appear in order, or one label is given again and again.
    """
    marks = _marks(text, labels)
    starts = [index for index, (label, _, _) in enumerate(marks) if label == labels[0]]
    if not starts or len(starts) > MAX_RUNS:
        return None
    run = marks[starts[-1] :]
    found: dict[str, str] = {}
    for index, (label, _, end) in enumerate(run):
        if label in found:
            return None
        stop = run[index + 1][1] if index + 1 < len(run) else len(text)
        found[label] = text[end:stop].strip(" \t\n;,:*")
    in_order = list(found) == [label for label in labels if label in found]
    return found if in_order and (len(found) > 1 or len(labels) == 1) else None


def _marks(text: str, labels: Labels) -> list[tuple[str, int, int]]:
    """Return (label, start, end) of each label in the text."""
    names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    short = all(len(label) <= 4 for label in labels)
    after = r"\)\*{0,3}[\s:.]{0,4}|\*{0,3}[ \t]{0,4}[:=][ \t]{0,4}" + (r"|\.[ \t]" if short else "")
    bare = r"(?:(?<=^)|(?<=[\n;, ]))" if short else r"(?<![\w])"
    pattern = re.compile(
        rf"{bare}[*#_ \t]{{0,6}}(?:(?:part|question)[ \t]{{1,4}})?\(?({names})(?:{after})", re.IGNORECASE
    )
    exact = {label.casefold(): label for label in labels}
    return [(exact[match[1].casefold()], match.start(), match.end()) for match in pattern.finditer(text)]


def _final_parts(answer: str, size: int, separator: str) -> list[str]:
    """Return the final answer in parts; none where it cannot be split into exactly `size`."""
    final = final_answer(answer)
    text = final.text.strip(" $")
    if final.kind == "none" or not text:
        return []
    if size == 1:
        return [answer]
    for mark in (separator, ",", " and "):
        parts = _outside_brackets(text, mark)
        if mark == ",":
            parts = [part.removeprefix("and ").strip() for part in parts]
        if len(parts) == size:
            return [f"\\boxed{{{part}}}" if _balanced(part) else part for part in parts]
    return []


def _balanced(text: str) -> bool:
    return "\\boxed" not in text and text.count("{") == text.count("}")


def _outside_brackets(text: str, mark: str) -> list[str]:
    """Split at a mark where no bracket is open."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(rf"({re.escape(mark)})|[(\[{{]|[)\]}}]", text):
        if match[1] is None:
            depth = max(0, depth + (1 if match[0] in _OPEN else -1))
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [part.strip(" $\n") for part in [*parts, text[start:]] if part.strip(" $\n.")]
