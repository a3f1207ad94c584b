"""One self-contained page about a DPO run: figures before and after, curves, and held-out pairs with their rewards.

What stands in the pairs is hostile text: it is escaped, and its control characters are made visible.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recipes.comparison_table import duration
from recipes.dpo_data import LEFT_OUT
from recipes.html_page import render_page
from recipes.report import clipped, data_uri, printable
from recipes.run_records import Run, load_run, number
from recipes.thumbnails import is_thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sample = TypeVar("Sample", bound=Mapping[str, Any])
SHOWN_PAIRS = 8
FIGURES = (
    ("accuracy", "accuracy of the implicit reward", "%"),
    ("margin", "mean margin of the implicit rewards", ""),
    ("reward_chosen", "mean implicit reward, chosen", ""),
    ("reward_rejected", "mean implicit reward, rejected", ""),
    ("loss", "mean loss", ""),
)
"""(key, label, unit) of the table."""
CURVES: tuple[tuple[str, dict[str, str], str | None], ...] = (
    ("loss", {"loss": "loss"}, "loss"),
    ("accuracy of the implicit reward", {"reward/accuracy": "training pairs"}, "accuracy"),
    ("implicit rewards", {"reward/chosen": "chosen", "reward/rejected": "rejected", "reward/margin": "margin"}, None),
    ("log-prob of a response (nats)", {"logp/chosen": "chosen", "logp/rejected": "rejected"}, None),
)
"""(axis, {metric: label}, figure of the evaluations drawn beside it)."""


def write_dpo_report(run_dir: Path) -> Path:
    """Writes report.html and plots/dpo.png of a run into its directory. Raises ValueError when it holds no run."""
    from rl.files import atomic_write_text

    run = load_run(Path(run_dir))
    evaluations = _evaluations(run.path)
    page = render_page(
        "dpo_report.html",
        title=printable(run.name),
        problems=[printable(problem) for problem in run.problems],
        facts=[("steps", str(run.steps)), ("time", duration(run.seconds)), *_left_out(run.path)],
        figures=_table(evaluations),
        evaluated=int(number(evaluations[-1]["eval"], "n") or 0) if evaluations else 0,
        plot=data_uri(_draw(run, evaluations)) if run.metrics else None,
        pairs=[_shown(sample) for sample in chosen_samples(run.samples)],
        config=printable(_yaml(run.config)),
        provenance=printable(_yaml(run.provenance)),
    )
    atomic_write_text(run.path / "report.html", page)
    return run.path / "report.html"


def _left_out(path: Path) -> list[tuple[str, str]]:
    """The pairs that were not used, counted by reason, of both kinds."""
    found = Counter(str(record.get("reason")) for record in _records(path / LEFT_OUT))
    listed = ", ".join(f"{count} {reason}" for reason, count in found.most_common())
    return [("pairs left out", printable(listed))] if listed else []


def _records(file: Path) -> list[Mapping[str, Any]]:
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def _evaluations(path: Path) -> list[Mapping[str, Any]]:
    """The evaluations on held-out pairs, by step; `load_run` keeps those by mode only."""
    return _records(path / "evaluations.jsonl")


def _table(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(label, before, after) of each figure."""
    if not evaluations:
        return []
    first, last = evaluations[0]["eval"], evaluations[-1]["eval"]
    return [(label, _figure(first, key, unit), _figure(last, key, unit)) for key, label, unit in FIGURES]


def _figure(figures: Mapping[str, Any], key: str, unit: str) -> str:
    value = number(figures, key)
    if value is None:
        return "-"
    if unit != "%":
        return f"{value:.4f}"
    low, high = number(figures, "ci_low"), number(figures, "ci_high")
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f} %{interval}"


def _draw(run: Run, evaluations: Sequence[Mapping[str, Any]]) -> Path:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from rl.files import atomic_file

    path = run.path / "plots" / "dpo.png"
    path.parent.mkdir(exist_ok=True)
    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 130}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = [axis for line in figure.subplots(2, 2, squeeze=False) for axis in line]
        for axis, (label, metrics, evaluated) in zip(axes, CURVES, strict=True):
            _curve(axis, run.metrics, metrics)
            _points(axis, evaluations, evaluated)
            axis.set_xlabel("step")
            axis.set_ylabel(label)
            axis.legend(frameon=False)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png")
    return path


def _curve(axis: Axes, records: Sequence[Mapping[str, Any]], metrics: Mapping[str, str]) -> None:
    for name, label in metrics.items():
        points = [(record["step"], value) for record in records if (value := number(record, name)) is not None]
        axis.plot([step for step, _ in points], [value for _, value in points], label=label, linewidth=1.2)


def _points(axis: Axes, evaluations: Sequence[Mapping[str, Any]], name: str | None) -> None:
    found = [(e["step"], value) for e in evaluations if name and (value := number(e["eval"], name)) is not None]
    if found:
        steps, values = zip(*found, strict=True)
        axis.plot(steps, values, "o--", color="#009E73", label="held-out pairs")


def chosen_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Held-out pairs that a report shows: from the most wrongly to the most rightly judged, evenly spaced."""
    ordered = sorted(samples, key=_margin)
    if len(ordered) <= SHOWN_PAIRS:
        return ordered
    return [ordered[round(at * (len(ordered) - 1) / (SHOWN_PAIRS - 1))] for at in range(SHOWN_PAIRS)]


def _margin(sample: Mapping[str, Any]) -> float:
    return (number(sample, "reward_chosen") or 0.0) - (number(sample, "reward_rejected") or 0.0)


def _shown(sample: Mapping[str, Any]) -> dict[str, Any]:
    turns = sample.get("prompt") or []
    prompt = "\n".join(
        f"{turn.get('role')}: {_text(turn.get('content'))}" for turn in turns if isinstance(turn, Mapping)
    )
    sides = [
        {
            "name": name,
            "text": clipped(str(sample.get(name)))[0],
            "reward": f"{number(sample, f'reward_{name}') or 0.0:.3f}",
        }
        for name in ("chosen", "rejected")
    ]
    return {
        "prompt": clipped(prompt)[0],
        "media": [uri for uri in sample.get("media") or () if is_thumbnail(uri)],
        "margin": f"{_margin(sample):+.3f}",
        "right": _margin(sample) > 0,
        "sides": sides,
    }


def _text(content: Any) -> str:
    """A message's content with a marker where an image or video stands."""
    if not isinstance(content, list):
        return str(content)
    parts = [part for part in content if isinstance(part, Mapping)]
    return " ".join(str(part["text"]) if part.get("text") else f"<{part.get('type')}>" for part in parts)


def _yaml(data: Mapping[str, Any]) -> str:
    from recipes.yaml_config import dump

    return dump(dict(data)) if data else ""
