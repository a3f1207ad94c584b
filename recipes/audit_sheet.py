"""Disagreements of an audit, to be read by a person: one self-contained HTML page, and the same as Markdown.

Responses are hostile text: in the page they are escaped and their control characters made visible, in Markdown they
stand in fences that they cannot close.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.audit_cases import sample_of
from recipes.audit_report import Result, as_text
from recipes.html_page import render_page
from recipes.report import clipped, printable

SHOWN_END = 1500
"""Characters of a response's end that are shown; the rest is in the cases file."""
REASONS = ("wrongly accepted", "wrongly refused", "the reward failed", "accepted by one only")
"""Why a case is in the sheet; the worst first, since what a reward wrongly accepts is what the policy learns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetCase:
    """One case as the sheet shows it; every text is printable."""

    row: int
    """Position among the cases, from 0."""
    reason: str
    """One of REASONS."""
    notes: Sequence[str]
    """What the rewards noted, their errors among it."""
    reference: str
    label: str
    scores: Sequence[str]
    """One per reward."""
    route: str
    thinking: str
    answer: str
    """The end of the response after its thinking."""
    cut: int
    """Characters left out before it."""


def find_cases(first: Sequence[Result], second: Sequence[Result] | None = None) -> list[SheetCase]:
    """The cases on which the first reward differs from the label or from the second reward, or fails."""
    found = []
    for index, result in enumerate(first):
        other = None if second is None else second[index]
        reason = _reason(result, other)
        if reason is not None:
            found.append(_case(index, reason, [result] if other is None else [result, other]))
    return found


def _reason(first: Result, second: Result | None) -> str | None:
    expected = first.row.get("expected")
    if first.error or (second is not None and second.error):
        return "the reward failed"
    if expected is not None and first.accepted != expected:
        return "wrongly accepted" if first.accepted else "wrongly refused"
    if second is None or first.score is None or second.score is None:
        return None
    return "accepted by one only" if first.accepted != second.accepted else None


def _case(index: int, reason: str, results: Sequence[Result]) -> SheetCase:
    row = results[0].row
    sample = sample_of(row)
    answer = sample["answer"]
    expected = row.get("expected")
    return SheetCase(
        row=index,
        reason=reason,
        notes=[printable(note) for result in results for note in _notes(result)],
        reference=clipped(as_text(row.get("reference")))[0],
        label={True: "right", False: "wrong", None: "none"}[expected],
        scores=["n/a" if result.score is None else f"{result.score:.4g}" for result in results],
        route=printable(", ".join(dict.fromkeys(result.route for result in results if result.route is not None))),
        thinking=clipped(sample["thinking"] or "")[0],
        answer=printable(answer[-SHOWN_END:]),
        cut=max(0, len(answer) - SHOWN_END),
    )


def _notes(result: Result) -> list[str]:
    notes = [f"{key}: {value}" for key, value in result.info.items()]
    return [*notes, result.error] if result.error else notes


def write_sheet(path: Path, cases: Sequence[SheetCase], names: Sequence[str], *, limit: int = 100) -> None:
    """Writes `path` with the endings .html and .md.

    Args:
        path: One of the two files; its folder is made if need be.
        cases: The disagreements.
        names: The rewards, in the order of each case's scores.
        limit: Most cases shown: of more, an even draw from each reason, the same for the same cases.
    """
    from rl.files import atomic_write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = sample_cases(cases, limit)
    shown = [printable(name) for name in names]
    counts = {reason: sum(case.reason == reason for case in cases) for reason in REASONS}
    atomic_write_text(path.with_suffix(".html"), to_html(chosen, shown, counts))
    atomic_write_text(path.with_suffix(".md"), to_markdown(chosen, shown, counts))


def sample_cases(cases: Sequence[SheetCase], limit: int) -> list[SheetCase]:
    """At most `limit` cases, drawn in turn from each reason; those of one reason in the order of the rows."""
    rng = random.Random(0)
    queues = [[case for case in cases if case.reason == reason] for reason in REASONS]
    for queue in queues:
        rng.shuffle(queue)
    turns = [case for rank in range(max(map(len, queues))) for queue in queues for case in queue[rank : rank + 1]]
    return sorted(turns[:limit], key=lambda case: (REASONS.index(case.reason), case.row))


def to_html(cases: Sequence[SheetCase], names: Sequence[str], counts: Mapping[str, int]) -> str:
    """The page's text."""
    return render_page("audit_sheet.html", title=_title(names), facts=_facts(cases, counts), names=names, cases=cases)


def to_markdown(cases: Sequence[SheetCase], names: Sequence[str], counts: Mapping[str, int]) -> str:
    """The same as Markdown."""
    parts = ["# Disagreements of " + " and ".join(map(_inline, names)), _facts(cases, counts)]
    for case in cases:
        scores = ", ".join(f"{_inline(name)} {score}" for name, score in zip(names, case.scores, strict=True))
        parts.append(f"## Row {case.row}: {case.reason}")
        parts.append(f"Label {case.label}; {scores}" + (f"; route {_inline(case.route)}" if case.route else ""))
        parts += [_fenced("Note", note) for note in case.notes]
        parts.append(_fenced("Reference", case.reference))
        if case.thinking:
            parts.append("<details><summary>Thinking</summary>\n\n" + _fenced("", case.thinking) + "\n\n</details>")
        cut = f" (after {case.cut:,} characters that are left out)" if case.cut else ""
        parts.append(_fenced(f"End of the response{cut}", case.answer or "(empty)"))
    return "\n\n".join(parts) + "\n"


def _title(names: Sequence[str]) -> str:
    return "Disagreements of " + " and ".join(names)


def _facts(cases: Sequence[SheetCase], counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    found = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    if not total:
        return "No disagreements."
    return f"{found}." + ("" if len(cases) == total else f" {len(cases)} of {total} are shown, drawn evenly.")


def _inline(text: str) -> str:
    """A short text as code that it cannot close."""
    line = " ".join(text.split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}"


def _fenced(title: str, text: str) -> str:
    """A text in a fence longer than any in it, so that nothing in it is read as Markdown or HTML."""
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    head = f"{title}:\n\n" if title else ""
    return f"{head}{ticks}text\n{text}\n{ticks}"
