"""What a run directory says about a run, read back for tables, plots and reports.

Reading never fails for a part that is missing, half-written or spoilt: that part is left out and `problems` says so in
a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MODES = ("short", "long")
EVAL_FIELDS = ("n", "accuracy", "ci_low", "ci_high", "response_tokens")
"""What the comparison shows of an evaluation, per mode."""
_SHARES = ("accuracy", "ci_low", "ci_high", "pass_at_k", "truncated", "format")
"""Figures of an evaluation between 0 and 1."""
_TAIL_BYTES = 16 * 2**20
"""How much of the end of rollouts.jsonl is read to find the last step's responses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run, as far as its directory tells."""

    name: str
    path: Path
    mode: str
    """short, long or hybrid; `none` for a run without RL, such as a warm-up."""
    rl_tokens: int
    """Response tokens sampled for training, filtered ones included."""
    steps: int
    seconds: float
    """Wall-clock seconds of training."""
    finished: bool
    """Whether the run came to its end."""
    eval: Mapping[str, Mapping[str, Any]]
    """Final evaluation by mode; empty when there is none."""
    metrics: Sequence[Mapping[str, Any]]
    """One flat record per step."""
    evaluations: Sequence[Mapping[str, Any]]
    """Periodic evaluations, by step; the final one is not among them."""
    samples: Sequence[Mapping[str, Any]]
    """Responses of the final evaluation."""
    rollouts: Sequence[Mapping[str, Any]]
    """Responses of the last training step."""
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    problems: Sequence[str]
    """Sentences about what could not be read."""


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of several directories, with names that differ.

    Raises:
        ValueError: a directory holds no run, occurs twice, or has figures that cannot be.
    """
    places = [Path(path).resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"{path} is given twice, and a run is compared with others: leave one out.")
    runs = [load_run(path) for path in paths]
    for run in runs:
        check_figures(run)
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else _renamed(run) for run in runs]


def _renamed(run: Run) -> Run:
    from dataclasses import replace

    return replace(run, name=str(run.path))


def check_figures(run: Run) -> None:
    """Refuse figures that no run can have: a table would show them as if they were true. Raises ValueError."""
    counts = {"rl_tokens": run.rl_tokens, "steps": run.steps, "seconds": run.seconds}
    bad = [f"{key} {value:g}" for key, value in counts.items() if value < 0]
    evaluations = [*(record["eval"] for record in run.evaluations), run.eval]
    bad += [text for evaluation in evaluations for mode in MODES for text in _impossible(evaluation.get(mode), mode)]
    if bad:
        raise ValueError(
            f"{run.path} has figures that no run can have ({', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}): "
            "its files were changed or are not of this program; evaluate the run again, or leave it out."
        )


def _impossible(figures: Any, mode: str) -> list[str]:
    """The figures of an evaluation that are out of range, with their names."""
    if not isinstance(figures, Mapping):
        return []
    known = {key: value for key in figures if (value := number(figures, key)) is not None}
    bad = [key for key in _SHARES if not 0 <= known.get(key, 0) <= 1]
    bad += [key for key in ("n", "samples", "k", "response_tokens") if known.get(key, 0) < 0]
    if known.get("n", 0) % 1:
        bad.append("n")
    if known.get("ci_low", 0) > known.get("ci_high", 1):
        bad.append("ci_low")
    return [f"{mode} {key} {known[key]:g}" for key in dict.fromkeys(bad)]


def load_run(path: Path) -> Run:
    """Reads a run directory. Raises ValueError when there is none or it holds no run."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such run directory.")
    if not path.is_dir():
        raise ValueError(f"{path} is a file, and a run directory is needed.")
    if not any((path / name).exists() for name in ("config.yaml", "run.json", "metrics.jsonl")):
        raise ValueError(f"{path} holds no run: it has no config.yaml, run.json or metrics.jsonl.")
    problems: list[str] = []
    return _assemble(path, _Reader(path, problems), problems)


def read_evaluation(folder: Path) -> Run:
    """The evaluation in a folder, which may be a whole run or hold nothing else. Raises ValueError for impossible
    figures."""
    problems: list[str] = []
    run = _assemble(folder, _Reader(folder, problems), problems)
    check_figures(run)
    return run


def _assemble(path: Path, read: _Reader, problems: list[str]) -> Run:
    summary, config = read.json("run.json"), read.yaml("config.yaml")
    metrics = read.lines("metrics.jsonl")
    mode = _mode(summary, config)
    evaluation = read.json("evaluation.json").get("eval")
    finished = summary.get("finished") is True
    if not finished:
        problems.append("the run is unfinished: it was interrupted, or is still running.")
    last = metrics[-1] if metrics else {}
    return Run(
        name=path.resolve().name,
        path=path,
        mode=mode,
        rl_tokens=0 if mode == "none" else _rl_tokens(read.json("ledger.json"), last),
        steps=int(_number(summary.get("steps")) or _number(last.get("step")) or 0),
        seconds=_number(summary.get("seconds")) or sum(_number(record.get("time/step")) or 0.0 for record in metrics),
        finished=finished,
        eval=_by_mode(evaluation),
        metrics=metrics,
        evaluations=[record for record in read.lines("evaluations.jsonl") if _by_mode(record.get("eval"))],
        samples=read.lines("evaluation_samples.jsonl"),
        rollouts=read.last_step("rollouts.jsonl"),
        config=config,
        provenance=read.json("provenance.json"),
        problems=problems,
    )


def _mode(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    modes = config.get("modes")
    from_config = modes.get("mode") if isinstance(modes, Mapping) else None
    return str(summary.get("mode") or from_config or "none")


def _rl_tokens(ledger: Mapping[str, Any], last: Mapping[str, Any]) -> int:
    total = ledger.get("total")
    generated = total.get("generated") if isinstance(total, Mapping) else None
    return int(_number(generated) or _number(last.get("tokens/generated")) or 0)


def _by_mode(evaluation: Any) -> dict[str, Mapping[str, Any]]:
    """The figures of each mode that has an accuracy."""
    if not isinstance(evaluation, Mapping):
        return {}
    found = {mode: evaluation.get(mode) for mode in MODES}
    return {
        mode: value
        for mode, value in found.items()
        if isinstance(value, Mapping) and number(value, "accuracy") is not None
    }


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def number(record: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a record, or None."""
    return _number(record.get(key))


class _Reader:
    """Reads the files of one run directory; what cannot be read is empty, with a sentence in `problems`."""

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.folder = folder
        self.problems = problems

    def json(self, name: str) -> dict[str, Any]:
        return self._mapping(name, json.loads)

    def yaml(self, name: str) -> dict[str, Any]:
        return self._mapping(name, yaml.safe_load)

    def _mapping(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        text = self._text(name)
        if text is None:
            return {}
        try:
            value = parse(text)
        except (ValueError, yaml.YAMLError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.problems.append(f"{name} is spoilt (it does not hold one mapping) and is left out.")
            return {}
        return value

    def _text(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problems.append(f"{name} cannot be read ({error.strerror}) and is left out.")
            return None

    def lines(self, name: str) -> list[dict[str, Any]]:
        return self._records(name, (self._text(name) or "").split("\n"))

    def last_step(self, name: str) -> list[dict[str, Any]]:
        """The records of the last step, from the end of a file that may be large."""
        try:
            with (self.folder / name).open("rb") as file:
                size = file.seek(0, 2)
                start = max(0, size - _TAIL_BYTES)
                file.seek(start)
                lines = file.read().decode("utf-8", errors="replace").split("\n")
        except OSError:
            return []
        records = self._records(name, lines[1:] if start else lines)
        last = records[-1].get("step") if records else None
        return [record for record in records if record.get("step") == last]

    def _records(self, name: str, lines: Sequence[str]) -> list[dict[str, Any]]:
        """Records of JSON lines. The last line of a killed run may be half-written, which is no news."""
        records, spoilt = [], []
        for index, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                records.append(record)
            elif index < len(lines) - 1:
                spoilt.append(index + 1)
        if spoilt:
            self.problems.append(
                f"{name} has {len(spoilt)} spoilt lines (the first is line {spoilt[0]}), which are left out."
            )
        return records
