"""Audit a reward against labelled cases: how often it is right, what it wrongly accepts, and how long it takes.

    python -m recipes.audit_reward --reward math --cases cases.jsonl --json audit.json --min-accuracy 0.95
    python -m recipes.audit_reward --rewards-file my_rewards.yaml --reward concise --cases cases.jsonl
    python -m recipes.audit_reward --reward math --against-column p_answer --cases cases.jsonl --sheet differences.html

Each line of the cases is a JSON object with `response` and `reference`, `expected` (true: should be accepted) where it
is labelled, `convention` where the label depends on one, `source` (which dataset), and any further column that the
reward asks for. Think blocks are split off as in training; a case's `mode`, where its tags do not show it, is a column
too. With a reward file, the reward is one of its labels, with the file's constants. With --score-column the scores
stand in the cases already: a probability reward computed on a GPU is audited without its model. A run's rollouts.jsonl
will do as cases: --score-column rewards.accuracy takes what was recorded there.

This is the quality control of rewards in arXiv 2509.18154, s2.4.2: an audited subset of each dataset.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from recipes.audit_cases import read_cases, ready_score, sample_of
from recipes.audit_report import Result, Second, as_text, build_report, summarise, write_json

if TYPE_CHECKING:
    from rewards import RewardSet, RewardSpec
    from rewards.samples import ModeTags

ACCEPT = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit; return the exit status: 0, 1 if a threshold is missed, 2 for a bad call."""
    try:
        options = _parser().parse_args(argv)
        _check(options)
        rows = read_cases(options.cases, _columns(options))
        columns = _group_columns(rows, options.by)
        if options.policy is not None:
            from recipes.audit_policy import with_reference_probs

            rows = with_reference_probs(rows, options.policy, answer_open=options.answer_open, quiet=options.quiet)
        results, second, timeouts = _score(rows, options)
        report = build_report(results, timeouts, second, columns)
        if options.json is not None:
            write_json(options.json, report)
        if options.sheet is not None:
            _write_sheet(options, results, second)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    from recipes.audit_show import show

    show(report, _name(options), options.show)
    return _missed(report, options)


def _check(options: argparse.Namespace) -> None:
    """Refuse what would fail only after everything has been scored. Raises ValueError."""
    if (options.reward is None) == (options.score_column is None):
        raise ValueError(
            "name what is audited: either --reward NAME, or --score-column NAME for scores that stand in the cases "
            "(to compare a reward with such scores, write --reward NAME --against-column NAME)."
        )
    if options.against is not None and options.against_column is not None:
        raise ValueError("--against and --against-column exclude each other: one second opinion at a time.")
    if options.show < 0 or options.sheet_rows < 1:
        raise ValueError("--show must be at least 0 and --sheet-rows at least 1.")
    for option, text in (("--args", options.args), ("--against-args", options.against_args)):
        _check_args(text, option)
    outputs = [("--json", options.json)]
    if options.sheet is not None:
        if options.sheet.suffix not in (".html", ".md"):
            raise ValueError(f"--sheet {options.sheet}: the name must end in .html (a .md is written beside it).")
        outputs += [("--sheet", options.sheet.with_suffix(ending)) for ending in (".html", ".md")]
    for option, path in outputs:
        if path is not None and path.is_dir():
            raise ValueError(f"{option} {path} is a directory, and a file is needed: add its name to the path.")
        if path is not None and not _in_folder(path):
            raise ValueError(f"{option} {path}: one of the folders in it is a file; choose another name.")
        if path is not None and path.exists() and options.cases.exists() and path.samefile(options.cases):
            raise ValueError(f"{option} {path} is the cases file itself, which would be lost: choose another name.")


def _in_folder(path: Path) -> bool:
    """Whether the nearest thing above a path that exists is a folder."""
    return next(folder for folder in path.absolute().parents if folder.exists()).is_dir()


def _columns(options: argparse.Namespace) -> list[str]:
    """The columns that hold ready scores."""
    return [name for name in (options.score_column, options.against_column) if name is not None]


def _name(options: argparse.Namespace) -> str:
    return options.reward if options.reward is not None else f"column {options.score_column}"


def _second_name(options: argparse.Namespace) -> str | None:
    return options.against if options.against_column is None else f"column {options.against_column}"


def _score(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> tuple[list[Result], Second | None, int]:
    """Return the results, the second opinion, and how many answers of the first were cut off."""
    first = _scorer(
        rows,
        reward=options.reward,
        column=options.score_column,
        args=options.args,
        accept_at=options.accept_at,
        quiet=options.quiet,
        reward_file=options.rewards_file,
    )
    name = _second_name(options)
    if name is None:
        results, timeouts = first()
        return results, None, timeouts
    second = _scorer(
        rows,
        reward=options.against,
        column=options.against_column,
        args=options.against_args,
        accept_at=options.against_accept_at,
        quiet=options.quiet,
        reward_file=None,
    )
    results, timeouts = first()
    other, cut = second()
    return results, Second(name=name, results=other, timeouts=cut), timeouts


def _scorer(
    rows: Sequence[dict[str, Any]],
    *,
    reward: str | None,
    column: str | None,
    args: str,
    accept_at: float,
    quiet: bool,
    reward_file: Path | None,
) -> Callable[[], tuple[list[Result], int]]:
    """Return what scores the cases; a reward is loaded at once, so that both are before either scores."""
    if reward is None:
        assert column is not None
        return lambda: (ready_scores(rows, column, accept_at), 0)
    spec, modes = find_spec(reward, json.loads(args), reward_file)
    loaded = load_reward(spec, rows)
    return lambda: audit(loaded, rows, modes=modes, quiet=quiet, accept_at=accept_at)


def ready_scores(rows: Sequence[dict[str, Any]], column: str, accept_at: float = ACCEPT) -> list[Result]:
    """Return the results of scores that were made elsewhere and stand in a column (checked by read_cases)."""
    values = [ready_score(row, column) for row in rows]
    scores = [None if value is None else float(value) for value in values]
    return [
        Result(
            row=row,
            score=score,
            accepted=score is not None and score >= accept_at,
            seconds=0.0,
            route=_route(row.get("reward_info") or {}, column.removeprefix("rewards."), row),
        )
        for row, score in zip(rows, scores, strict=True)
    ]


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


def load_reward(spec: RewardSpec, rows: Sequence[dict[str, Any]]) -> RewardSet:
    """Return a reward that can score these cases.

    Args:
        spec: the reward and its constants.
        rows: cases, see read_cases.

    Raises:
        RewardError: the reward cannot be found, or asks for a column that the cases lack.
    """
    from rewards import RewardError, build
    from rewards.registry import POLICY_FIELDS

    columns = set.intersection(*(set(row) for row in rows))
    rewards = build([spec], columns=columns, base_dir=Path.cwd())
    if rewards.deferred and columns.isdisjoint(POLICY_FIELDS):
        raise RewardError(
            f"reward {spec.name!r} asks for what only the policy can give: give the cases the column that it names "
            f"({' or '.join(POLICY_FIELDS)}), or name a checkpoint with --policy."
        )
    return rewards


def audit(
    rewards: RewardSet,
    rows: Sequence[dict[str, Any]],
    *,
    modes: Mapping[str, ModeTags] | None = None,
    quiet: bool = False,
    accept_at: float = ACCEPT,
) -> tuple[list[Result], int]:
    """Score every case, one at a time so that each answer's own time is measured.

    Args:
        rewards: one reward, see load_reward.
        rows: cases, see read_cases.
        modes: how responses are split; None = Tandem's tags.
        quiet: no progress bar.
        accept_at: the score from which on a response counts as accepted.

    Returns:
        One result per row, and how many answers were cut off by the verifier's time or memory limit.
    """
    from rewards import RewardError
    from rewards.sandbox import shared

    if rewards.is_verifier:
        shared().start()  # a worker's start is not part of the first answer's time
    before = shared().counts.copy()
    results = []
    for row in _progress(rows, quiet):
        start = time.perf_counter()
        score, error = None, ""
        info: Mapping[str, str] = {}
        try:
            scored = rewards.score([[sample_of(row, modes)]])[0][0]
            score, info = scored.value(rewards.names[0]), scored.info
        except RewardError as failure:
            error = str(failure)
        seconds = time.perf_counter() - start
        accepted = score is not None and score >= accept_at
        route = _route(info, rewards.names[0], row)
        results.append(
            Result(row=row, score=score, accepted=accepted, seconds=seconds, error=error, route=route, info=info)
        )
    cut = shared().counts - before
    return results, cut["timeout"] + cut["memory"] + cut["crash"]


def _route(info: Mapping[str, str], label: str, row: Mapping[str, Any]) -> str | None:
    """What the reward says about its route, else the row's `verifier` column."""
    route = info.get(f"{label}/route", row.get("verifier"))
    return None if route is None else as_text(route)


def _write_sheet(options: argparse.Namespace, results: Sequence[Result], second: Second | None) -> None:
    from recipes.audit_sheet import find_cases, write_sheet

    names = [_name(options)] + ([second.name] if second is not None else [])
    cases = find_cases(results, None if second is None else second.results)
    write_sheet(options.sheet, cases, names, limit=options.sheet_rows)


def _progress(rows: Sequence[dict[str, Any]], quiet: bool) -> Any:
    if quiet:
        return rows
    from rich.progress import track

    return track(rows, description="auditing")


def _group_columns(rows: Sequence[dict[str, Any]], asked: Sequence[str] | None) -> list[str]:
    """Return the columns to group by: those asked for, else `source` where a row has it. Raises ValueError."""
    present = dict.fromkeys(key for row in rows for key in row)
    if asked is None:
        return [key for key in ("source",) if key in present]
    for column in asked:
        if column not in present:
            raise ValueError(f"--by {column}: no case has such a column; there are {', '.join(present)}.")
    return list(dict.fromkeys(asked))


def _check_args(text: str, option: str) -> None:
    try:
        args = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{option} must be a JSON object, got {text!r} ({error}).") from error
    if not isinstance(args, dict):
        raise ValueError(f"{option} must be a JSON object, got {text!r}.")


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
            print(f"error: {key} must be {word} {limit:g}, but {reason}.", file=sys.stderr)
            status = 1
    return status


_EPILOG = """\
columns of a case:
  response    the text to score (null = empty); what stands before </think> is thinking
  reference   the right answer, as the reward takes it
  expected    true or false: the label; cases without one count for no accuracy
  convention  why the label depends on a convention; such cases are also left out of accuracy_without_convention
  source      dataset of the case, for the figures by source
  verifier    route of the case, for the figures by route, where the reward does not record one itself
  question    (or prompt, or messages) what was asked, for --policy
  any other   an argument of the reward, or a ready score

exit status: 0 done, 1 a threshold is missed or cannot be measured, 2 a bad call"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as the other recipes do."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists every option).")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m recipes.audit_reward",
        description=__doc__.partition("\n\n")[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = "registered name, package.module:function or path/file.py:function"
    parser.add_argument("--reward", metavar="NAME", help=f"reward to audit: {names}")
    parser.add_argument("--rewards-file", type=Path, metavar="FILE", help="reward file in which --reward is a label")
    parser.add_argument("--score-column", metavar="NAME", help="audit the ready scores in this column (a.b: inside a)")
    parser.add_argument("--cases", required=True, type=Path, metavar="FILE", help="JSONL file of cases, see below")
    parser.add_argument(
        "--policy", metavar="MODEL", help="checkpoint that gives the probabilities which `probability` asks for"
    )
    parser.add_argument("--answer-open", default="", metavar="TEXT", help="text that opens an answer, for --policy")
    parser.add_argument("--args", default="{}", metavar="JSON", help="constants for the reward, as a JSON object")
    parser.add_argument(
        "--accept-at", type=_number, default=ACCEPT, metavar="SCORE", help="lowest score accepted (default 0.5)"
    )
    second = parser.add_argument_group("a second opinion: agreement, Cohen's kappa, AUC")
    second.add_argument("--against", metavar="NAME", help="score the same cases with this reward too")
    second.add_argument("--against-column", metavar="NAME", help="compare with the ready scores in this column")
    second.add_argument("--against-args", default="{}", metavar="JSON", help="constants for the second reward")
    second.add_argument(
        "--against-accept-at", type=_number, default=ACCEPT, metavar="SCORE", help="its lowest score (default 0.5)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="write the figures and all disagreements here")
    output.add_argument(
        "--sheet", type=Path, metavar="FILE", help="write disagreements to read here: FILE.html, and FILE.md beside it"
    )
    output.add_argument("--sheet-rows", type=int, default=100, metavar="N", help="most cases there (default 100)")
    output.add_argument(
        "--by",
        action="append",
        metavar="COLUMN",
        help="figures for each value of a column (default: source); repeatable",
    )
    output.add_argument("--show", type=int, default=20, metavar="N", help="disagreements to print (default 20)")
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    limits = parser.add_argument_group("thresholds")
    for option, (key, _, word) in _THRESHOLDS.items():
        flag = "--" + option.replace("_", "-")
        limits.add_argument(flag, type=_number, metavar="X", help=f"exit with status 1 unless {key} is {word} this")
    return parser


__all__ = ["audit", "load_reward", "main", "read_cases", "ready_scores", "sample_of", "summarise"]

if __name__ == "__main__":
    sys.exit(main())
