"""What each run cost and what it reached, as one table in four formats.

The table is that of arXiv 2509.18154, section 2.4: score in each mode against RL training tokens.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from recipes.plots import short_count
from recipes.run_records import EVAL_FIELDS, MODES, Run, number

HEADERS = (
    "run",
    "mode",
    "RL tokens",
    "of long-only",
    "steps",
    "time",
    "short: accuracy % [95 %]",
    "long: accuracy % [95 %]",
    "short: tokens",
    "long: tokens",
)
NOTHING = "-"


def long_only_tokens(runs: Sequence[Run]) -> int | None:
    """RL tokens of the long-only run that the others are measured against; None unless just one has finished."""
    found = [run.rl_tokens for run in runs if run.mode == "long" and run.finished and run.rl_tokens > 0]
    return found[0] if len(found) == 1 else None


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """The cells of each run, in the order of `HEADERS`."""
    base = long_only_tokens(runs)
    return [
        [
            run.name + ("" if run.finished else " (unfinished)"),
            run.mode,
            short_count(run.rl_tokens),
            percent(share) if (share := share_of_long(run, base)) is not None else NOTHING,
            str(run.steps),
            duration(run.seconds),
            *(accuracy_cell(run, mode) for mode in MODES),
            *(tokens_cell(run, mode) for mode in MODES),
        ]
        for run in runs
    ]


def share_of_long(run: Run, base: int | None) -> float | None:
    """RL tokens as a share of the long-only run's; None where that says nothing."""
    return None if base is None or run.mode == "none" else run.rl_tokens / base


def percent(share: float) -> str:
    """A share as `55 %`."""
    return f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `12:05` (minutes) or `3:12:05` (hours)."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def accuracy_cell(run: Run, mode: str) -> str:
    """`41.0 [36.2, 46.0]`, in per cent."""
    figures = run.eval.get(mode)
    if not figures:
        return NOTHING
    low, high = number(figures, "ci_low"), number(figures, "ci_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * figures['accuracy']:.1f}{interval}"


def tokens_cell(run: Run, mode: str) -> str:
    """Mean response length in tokens."""
    tokens = number(run.eval.get(mode, {}), "response_tokens")
    return NOTHING if tokens is None else f"{tokens:.1f}" if tokens < 100 else f"{tokens:.0f}"


def to_markdown(runs: Sequence[Run]) -> str:
    """A Markdown table; figures to the right."""
    lines = [HEADERS, *rows(runs)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    rule = ["---", "---", *["---:"] * (len(HEADERS) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (cells[0], rule, *cells[1:])) + "\n"


def to_csv(runs: Sequence[Run]) -> str:
    """Plain figures, one line a run; empty where there is none."""
    base = long_only_tokens(runs)
    names = [f"{mode}_{field}" for mode in MODES for field in EVAL_FIELDS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "mode", "finished", "rl_tokens", "share_of_long_only", "steps", "seconds", *names])
    for run in runs:
        share = share_of_long(run, base)
        figures = [_blank(number(run.eval.get(mode, {}), field)) for mode in MODES for field in EVAL_FIELDS]
        finished = "true" if run.finished else "false"
        writer.writerow(
            [run.name, run.mode, finished, run.rl_tokens, _blank(share), run.steps, round(run.seconds, 3), *figures]
        )
    return text.getvalue()


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def to_json(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of compare.json. A mode that was not evaluated is absent."""
    return {
        "runs": [
            {
                "name": run.name,
                "mode": run.mode,
                "rl_tokens": run.rl_tokens,
                "steps": run.steps,
                "seconds": run.seconds if math.isfinite(run.seconds) else None,
                "eval": {
                    mode: {field: number(run.eval[mode], field) for field in EVAL_FIELDS}
                    for mode in MODES
                    if mode in run.eval
                },
            }
            for run in runs
        ]
    }
