"""Audit a reward against labelled cases: how often it is right, what it wrongly accepts, and how long it takes.

    python -m recipes.audit_reward --reward math --cases cases.jsonl --json audit.json --min-accuracy 0.95
    python -m recipes.audit_reward --rewards-file my_rewards.yaml --reward concise --cases cases.jsonl

Each line of the cases is a JSON object with `response` and `reference`, `expected` (true: should be accepted) where it
is labelled, `convention` where the label depends on one, and any further column that the reward asks for. A response
is accepted if the reward gives at least 0.5. Think blocks are split off as in training; a case's `mode`, where its tags
do not show it, is a column too. With a reward file, the reward is one of its labels, with the file's constants.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards import RewardSpec
    from rewards.samples import ModeTags

ACCEPT = 0.5
SHOWN_CHARS = 60


@dataclass(frozen=True, kw_only=True)
class Result:
    """One case: what the reward gave and what it cost."""

    row: dict[str, Any]
    score: float | None
    accepted: bool
    seconds: float
    error: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit; return the exit status: 0, 1 if a threshold is missed, 2 for a bad call."""
    options = _parser().parse_args(argv)
    try:
        rows = read_cases(options.cases)
        spec, modes = find_spec(options.reward, _read_args(options.args), options.rewards_file)
        results, timeouts = audit(spec, rows, modes=modes, quiet=options.quiet)
        report = summarise(results, timeouts)
        report["disagreements"] = disagreements(results)
        if options.json is not None:
            write_json(options.json, report)
    except (ValueError, OSError) as error:
        print(f"audit_reward: {error}", file=sys.stderr)
        return 2
    show(report, options.reward, options.show)
    return _missed(report, options)


def read_cases(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file.

    Raises:
        ValueError: no such file, no rows, or a line that is not a JSON object with a `response`, with its number.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogatepass")
    except FileNotFoundError:
        raise ValueError(f"the cases file {path} does not exist.") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise ValueError(f"the cases file {path} cannot be read as JSON lines: {error}.") from error
    rows = []
    # Not splitlines: U+2028 and its like are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}).") from error
        if not isinstance(row, dict) or "response" not in row:
            raise ValueError(f"{path}, line {number}: a case must be an object with a `response` key.")
        if not isinstance(row.get("expected"), bool | None):
            raise ValueError(f"{path}, line {number}: `expected` must be true or false, got {row['expected']!r}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"the cases file {path} has no cases.")
    return rows


def find_spec(
    name: str, args: dict[str, Any], reward_file: Path | None
) -> tuple[RewardSpec, Mapping[str, ModeTags] | None]:
    """Return the reward to audit, and the modes of its reward file (None without one).

    Raises:
        RewardError: the file cannot be used, or has no reward of this label.
    """
    from rewards import RewardError, RewardSpec
    from rewards.loader import nearest
    from rewards.reward_file import read_reward_file

    if reward_file is None:
        return RewardSpec(name=name, args=args), None
    if args:
        raise ValueError("--args and --rewards-file exclude each other: the constants are those of the file.")
    found = read_reward_file(reward_file)
    names = found.build().names
    if name not in names:
        hint = nearest(name, names)
        raise RewardError(f"{reward_file} has no reward {name!r}.{hint} It has {', '.join(names)}.")
    return found.rewards[names.index(name)], found.modes


def audit(
    spec: RewardSpec,
    rows: Sequence[dict[str, Any]],
    *,
    modes: Mapping[str, ModeTags] | None = None,
    quiet: bool = False,
) -> tuple[list[Result], int]:
    """Score every case, one at a time so that each answer's own time is measured.

    Args:
        spec: the reward and its constants.
        rows: cases, see read_cases.
        modes: how responses are split; None = Tandem's tags.
        quiet: no progress bar.

    Returns:
        One result per row, and how many answers were cut off by the verifier's time or memory limit.

    Raises:
        RewardError: the reward cannot be found, or asks for a column that the cases lack.
    """
    from rewards import RewardError, build
    from rewards.registry import POLICY_FIELDS
    from rewards.sandbox import shared

    columns = set.intersection(*(set(row) for row in rows))
    rewards = build([spec], columns=columns, base_dir=Path.cwd())
    if rewards.deferred and columns.isdisjoint(POLICY_FIELDS):
        raise RewardError(
            f"reward {spec.name!r} asks for what only the policy can give: give the cases the column that it names "
            f"({' or '.join(POLICY_FIELDS)}), or watch it in a run."
        )
    if rewards.is_verifier:
        shared().start()  # a worker's start is not part of the first answer's time
    before = shared().counts.copy()
    results = []
    for row in _progress(rows, quiet):
        start = time.perf_counter()
        score, error = None, ""
        try:
            score = rewards.score([[sample_of(row, modes)]])[0][0].value(rewards.names[0])
        except RewardError as failure:
            error = str(failure)
        seconds = time.perf_counter() - start
        accepted = score is not None and score >= ACCEPT
        results.append(Result(row=row, score=score, accepted=accepted, seconds=seconds, error=error))
    cut = shared().counts - before
    return results, cut["timeout"] + cut["memory"] + cut["crash"]


def sample_of(row: dict[str, Any], modes: Mapping[str, ModeTags] | None = None) -> dict[str, Any]:
    """Return the sample that training would make of a response: thinking and answer apart."""
    from rewards.samples import DEFAULT_MODES, make_sample

    response = row["response"] if isinstance(row["response"], str) else ""
    columns = {"prompt": "", "reference": None, "response_ids": [], **row}
    return make_sample(response, mode=row.get("mode"), modes=modes or DEFAULT_MODES, columns=columns, truncated=False)


def summarise(results: Sequence[Result], timeouts: int) -> dict[str, Any]:
    """Return the figures; those about labels are None where no row has one."""
    labelled = [item for item in results if item.row.get("expected") is not None]
    plain = [item for item in labelled if not item.row.get("convention")]
    right = [item for item in labelled if item.accepted == item.row["expected"]]
    accepted = [item for item in labelled if item.accepted]
    positive = [item for item in labelled if item.row["expected"]]
    hits = sum(item.row["expected"] for item in accepted)
    seconds = sum(item.seconds for item in results)
    return {
        "n": len(results),
        "labelled": len(labelled),
        "accepted": sum(item.accepted for item in results),
        "accuracy": _share(len(right), len(labelled)),
        "accuracy_without_convention": _share(sum(item in right for item in plain), len(plain)),
        "n_without_convention": len(plain),
        "precision": _share(hits, len(accepted)),
        "recall": _share(hits, len(positive)),
        "false_accepts": len(accepted) - hits,
        "crashes": sum(bool(item.error) for item in results),
        "timeouts": timeouts,
        "max_seconds": round(max(item.seconds for item in results), 4),
        "cases_per_second": round(len(results) / max(seconds, 1e-9), 2),
    }


def disagreements(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the cases on which reward and label differ, and those that made the reward fail."""
    found = []
    for index, item in enumerate(results):
        expected = item.row.get("expected")
        if item.error or (expected is not None and item.accepted != expected):
            kept = {key: value for key, value in item.row.items() if key in ("id", "name", "convention", "response")}
            reference = item.row.get("reference")
            found.append(
                {
                    "row": index,
                    **kept,
                    "reference": reference,
                    "expected": expected,
                    "score": item.score,
                    "error": item.error,
                }
            )
    return found


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # ASCII: a response may hold lone surrogates, which no file encoding takes.
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="ascii")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def show(report: dict[str, Any], name: str, limit: int) -> None:
    """Print the figures and the first disagreements."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=f"reward {escape(name)}")
    for header in ("row", "expected", "score", "reference", "end of the response"):
        table.add_column(header, overflow="fold")
    for item in report["disagreements"][:limit]:
        last = item["error"] or _short(str(item["response"]), tail=True)
        expected = "" if item["expected"] is None else str(item["expected"]).lower()
        mark = f"{item['row']} {item.get('convention') or ''}".strip()
        cells = (mark, expected, str(item["score"]), _short(str(item["reference"])), last)
        table.add_row(*(escape(cell) for cell in cells))
    if report["disagreements"]:
        console.print(table)
    hidden = len(report["disagreements"]) - limit
    if hidden > 0:
        console.print(f"... and {hidden} more disagreements (all are in the JSON; --show N prints more)")
    for key, value in report.items():
        if key != "disagreements":
            console.print(f"{key:>28}  {round(value, 4) if isinstance(value, float) else value}", highlight=False)


def _short(text: str, *, tail: bool = False) -> str:
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(text) <= SHOWN_CHARS:
        return text
    return "..." + text[-SHOWN_CHARS:] if tail else text[:SHOWN_CHARS] + "..."


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _progress(rows: Sequence[dict[str, Any]], quiet: bool) -> Any:
    if quiet:
        return rows
    from rich.progress import track

    return track(rows, description="auditing")


def _read_args(text: str) -> dict[str, Any]:
    try:
        args = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--args must be a JSON object, got {text!r} ({error.msg}).") from error
    if not isinstance(args, dict):
        raise ValueError(f"--args must be a JSON object, got {text!r}.")
    return args


_THRESHOLDS: dict[str, tuple[str, Callable[[float, float], bool], str]] = {
    "min_accuracy": ("accuracy", lambda value, limit: value >= limit, "at least"),
    "min_accuracy_without_convention": ("accuracy_without_convention", lambda value, limit: value >= limit, "at least"),
    "min_precision": ("precision", lambda value, limit: value >= limit, "at least"),
    "min_recall": ("recall", lambda value, limit: value >= limit, "at least"),
    "max_false_accepts": ("false_accepts", lambda value, limit: value <= limit, "at most"),
    "max_crashes": ("crashes", lambda value, limit: value <= limit, "at most"),
    "max_seconds": ("max_seconds", lambda value, limit: value <= limit, "at most"),
}


def _missed(report: dict[str, Any], options: argparse.Namespace) -> int:
    """Return 1 and say so if a threshold is missed, or cannot be measured."""
    status = 0
    for option, (key, holds, word) in _THRESHOLDS.items():
        limit = getattr(options, option)
        if limit is None:
            continue
        value = report[key]
        if value is None or not holds(value, limit):
            reason = "no row is labelled" if value is None else f"it is {value:g}"
            print(f"audit_reward: {key} must be {word} {limit:g}, but {reason}.", file=sys.stderr)
            status = 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.audit_reward", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--reward", required=True, help="registered name, package.module:function or path/file.py:function"
    )
    parser.add_argument("--rewards-file", type=Path, help="reward file (YAML); --reward is then one of its labels")
    parser.add_argument("--cases", required=True, type=Path, help="JSONL file of cases: response, reference, expected")
    parser.add_argument("--json", type=Path, help="write the figures and all disagreements here")
    parser.add_argument("--args", default="{}", help="constants for the reward, as a JSON object")
    parser.add_argument("--show", type=int, default=20, help="disagreements to print (default 20)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for option, (key, _, word) in _THRESHOLDS.items():
        flag = "--" + option.replace("_", "-")
        parser.add_argument(flag, type=float, help=f"exit with status 1 unless {key} is {word} this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
