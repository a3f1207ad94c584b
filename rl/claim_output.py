"""Claims out of a language model: what it is asked, and a reader of its answer that never loses a part of it silently.

The answer is JSON lines, one claim with its question each, so the two cannot come apart (the released RLAIF-V code asks
for claims and questions in two calls and pairs them by position). Code fences, an introduction that ends in a colon,
and one JSON list in place of the lines are understood as well. Anything else is a failure with a reason: the caller
asks again, and records the response when its attempts are used up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rl.claims import Claim, Division
from rl.clauses import claim_kind

MAX_CHARACTERS = 100_000
MAX_CLAIMS = 200
MAX_TEXT = 2_000
"""Characters of one claim or question."""

INSTRUCTION = """\
Divide the text below into atomic factual claims about what it describes, and turn each claim into a yes/no question.

- A claim states one fact and can be understood without the others: write names instead of pronouns.
- Leave out opinions, guesses, advice and questions.
- The question is answered with yes if the claim is true. Keep the claim's tense and negation.
- Answer with one JSON object per line and nothing else: {"claim": "...", "question": "..."}
- If there is no factual claim, answer with [].

Example. Text: There are two cats on the lovely old sofa, and the left one does not sleep.
{"claim": "There are two cats on the sofa.", "question": "Are there two cats on the sofa?"}
{"claim": "The sofa is old.", "question": "Is the sofa old?"}
{"claim": "The left cat does not sleep.", "question": "Does the left cat not sleep?"}

Text: """

_FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})\s*\w*\s*$")


def division_messages(response: str) -> list[dict[str, str]]:
    """What a language model is asked for one response."""
    return [{"role": "user", "content": INSTRUCTION + response}]


def read_division(answer: str, *, truncated: bool = False, attempts: int = 1) -> Division:
    """The claims in a model's answer, or the reason why they cannot be read.

    Args:
        answer: What the model wrote.
        truncated: Whether it was cut off at its budget; it is then a failure, since claims may be missing.
        attempts: Answers read for this response so far, for the record.

    Example::

        read_division('{"claim": "It rains.", "question": "Does it rain?"}').claims[0].question  # "Does it rain?"
    """
    try:
        if truncated:
            raise ValueError("the answer was cut off at its budget, so claims may be missing")
        claims = [_claim(item, number) for number, item in enumerate(_items(answer), start=1)]
    except ValueError as error:
        return Division(problem=str(error), attempts=attempts)
    distinct: dict[str, Claim] = {}
    for claim in claims:
        distinct.setdefault(claim.text.lower(), claim)
    return Division(claims=tuple(distinct.values()), attempts=attempts)


def _items(answer: str) -> list[Any]:
    """The JSON values of an answer. Raises ValueError."""
    if len(answer) > MAX_CHARACTERS:
        raise ValueError(f"the answer has {len(answer)} characters, more than {MAX_CHARACTERS}")
    lines = [line.strip() for line in answer.split("\n") if line.strip() and not _FENCE.match(line)]
    while lines and lines[0][0] not in "[{" and lines[0].endswith(":"):
        lines.pop(0)
    if not lines:
        raise ValueError("the answer is empty, and [] says that there is no claim")
    if lines[0].startswith("["):
        items = _json("\n".join(lines), "the list")
    else:
        items = [_json(line.rstrip(","), f"line {number}") for number, line in enumerate(lines, start=1)]
    if len(items) > MAX_CLAIMS:
        raise ValueError(f"the answer has {len(items)} claims, more than {MAX_CLAIMS}")
    return items


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ValueError(f"{place} of the answer is not JSON: {shown!r}") from None


def _claim(item: Any, number: int) -> Claim:
    if not isinstance(item, Mapping):
        raise ValueError(f"claim {number} is a {type(item).__name__}, and must be an object with claim and question")
    text, question = (_text(item, key, number) for key in ("claim", "question"))
    return Claim(text=text, question=question, kind=claim_kind(text))


def _text(item: Mapping[str, Any], key: str, number: int) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"claim {number} has no {key}")
    if len(value) > MAX_TEXT:
        raise ValueError(f"the {key} of claim {number} has {len(value)} characters, more than {MAX_TEXT}")
    return " ".join(value.split())
