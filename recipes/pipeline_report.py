"""The pipeline's page: what each stage trained and cost, how often each model answers rightly by family and mode, and
what it says about the same held-out pictures.

Like every report it holds all it shows; what a model wrote is escaped, made printable and cut.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from recipes.comparison_table import HEADERS, accuracy_cell, duration, rows, tokens_cell
from recipes.html_page import render_page
from recipes.pipeline import PRETRAIN, RL, SFT, models, task_config, training_config
from recipes.pipeline_plots import draw_pipeline_plots
from recipes.report import clipped, data_uri, printable
from recipes.run_records import MODES, Run, load_run, number, read_evaluation
from recipes.stage_config import Stage

SHOWN = 8
"""Pictures shown with all models' answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A model with its evaluation."""

    title: str
    run: Run
    """Holds the evaluation; for a model between two stages its figures and samples alone."""

    def parts(self, mode: str) -> Mapping[str, Any]:
        """Figures by family."""
        parts = self.run.eval.get(mode, {}).get("by", {})
        return parts if isinstance(parts, Mapping) else {}


def write_pipeline_report(out: Path, small: bool) -> Path:
    """Draw the plots into `out/plots` and write `out/report.html`.

    Raises:
        ValueError: a run or an evaluation of the pipeline is missing.
    """
    from rl.files import atomic_write_text

    runs = {name: load_run(out / name) for name in (PRETRAIN, SFT, RL)}
    found = [Evaluated(title=model.title, run=_evaluation(model.evaluation)) for model in models(out, small)]
    plots = draw_pipeline_plots(found, list(runs.values()), out / "plots")
    page = render_page(
        "pipeline.html",
        title=f"From nothing: {printable(out.name)}",
        stages=_stage_rows(out, small, runs),
        models=[_model_row(each) for each in found],
        families=_families(found),
        modes=MODES,
        headers=HEADERS,
        rl=rows([runs[RL]]),
        plots=[(caption, data_uri(path)) for caption, path in plots],
        examples=_examples(found, _pictures(small)),
    )
    atomic_write_text(out / "report.html", page)
    return out / "report.html"


def _evaluation(folder: Path) -> Run:
    """The evaluation in a folder, which may be a whole run."""
    if not (folder / "evaluation.json").is_file():
        raise ValueError(f"{folder} holds no evaluation.json: run the pipeline's stages first")
    return read_evaluation(folder)


# ---- stages ----


def _stage_rows(out: Path, small: bool, runs: Mapping[str, Run]) -> list[list[str]]:
    """Name, parts and parameters trained, steps, samples, time, loss at both ends."""
    sizes = part_sizes(out / "model" / "model.safetensors")
    table = []
    for name in (PRETRAIN, SFT):
        for stage in training_config(name, small).stages:
            records = [record for record in runs[name].metrics if record.get("stage") == stage.name]
            table.append(_training_row(name, stage, records, sizes))
    run = runs[RL]
    everything = f"{sum(sizes.values()):,}"
    table.append(["GRPO", ", ".join(sizes), everything, str(run.steps), "-", duration(run.seconds), "-"])
    return [[printable(cell) for cell in row] for row in table]


def _training_row(name: str, stage: Stage, records: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> list[str]:
    losses = [loss for record in records if (loss := number(record, "loss")) is not None]
    seconds = sum(number(record, "time/step") or 0.0 for record in records)
    samples = int(sum(number(record, "samples") or 0 for record in records))
    edge = max(1, min(10, len(losses) // 4))
    ends = f"{_mean(losses[:edge]):.2f} → {_mean(losses[-edge:]):.2f}" if losses else "-"
    trained = sum(sizes[part] for part in stage.train)
    place = f"{'pre-training' if name == PRETRAIN else 'fine-tuning'}: {stage.name}"
    return [place, ", ".join(stage.train), f"{trained:,}", str(len(records)), f"{samples:,}", duration(seconds), ends]


def part_sizes(weights: Path) -> dict[str, int]:
    """Parameters of each part of a saved model; tied ones are saved once."""
    from math import prod

    from safetensors import safe_open

    from base_model.vlm.presets import PREFIXES

    sizes = dict.fromkeys(PREFIXES, 0)
    with safe_open(weights, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            part = next(part for part, prefix in PREFIXES.items() if name.startswith(prefix))
            sizes[part] += prod(file.get_slice(name).get_shape())
    return sizes


# ---- accuracy ----


def _model_row(each: Evaluated) -> list[str]:
    cells = [accuracy_cell(each.run, mode) for mode in MODES] + [tokens_cell(each.run, mode) for mode in MODES]
    return [printable(cell) for cell in (each.title, *cells)]


def _families(found: Sequence[Evaluated]) -> list[tuple[str, str, list[str]]]:
    """(family, mode, cell of each model)."""
    names = sorted({name for each in found for mode in MODES for name in each.parts(mode)})
    return [
        (printable(name), mode, [_family_cell(each.parts(mode).get(name)) for each in found])
        for name in names
        for mode in MODES
    ]


def _family_cell(figures: Any) -> str:
    """`41.0 [36.2, 46.0] of 52`, in per cent."""
    names = ("accuracy", "ci_low", "ci_high", "n")
    values = [value for name in names if figures and (value := number(figures, name)) is not None]
    if len(values) < len(names):
        return "-"
    accuracy, low, high, count = values
    return f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}] of {count:.0f}"


# ---- pictures ----


def _pictures(small: bool) -> dict[int, tuple[str, str]]:
    """(data URI, family) of every evaluation row with a picture, by its index."""
    from recipes.tasks import load_rows

    found = {}
    for row in load_rows(task_config(small), "eval"):
        if row.images and isinstance(row.images[0], bytes):
            uri = "data:image/png;base64," + base64.b64encode(row.images[0]).decode()
            found[row.index] = (uri, str(row.columns.get("asked", "")))
    return found


def _examples(found: Sequence[Evaluated], pictures: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    """Pictures of different families, first those on which the models differ most."""
    answers: dict[int, list[dict[str, Mapping[str, Any]]]] = {}
    for at, each in enumerate(found):
        for sample in each.run.samples:
            row = number(sample, "row")
            if row is not None and row in pictures and sample.get("sample") in (0, None):
                answers.setdefault(int(row), [{} for _ in found])[at][str(sample.get("mode"))] = sample
    whole = [row for row, by_model in answers.items() if all(len(modes) == len(MODES) for modes in by_model)]
    taken: dict[str, int] = {}
    ordered = []
    for row in sorted(whole, key=lambda row: (-_changes(answers[row]), row)):
        family = pictures[row][1]
        ordered.append((taken.get(family, 0), row))
        taken[family] = taken.get(family, 0) + 1
    return [_example(found, answers[row], pictures[row]) for _, row in sorted(ordered)[:SHOWN]]


def _changes(by_model: Sequence[Mapping[str, Mapping[str, Any]]]) -> int:
    """How often a model is right where the one before was wrong."""
    right = [[_right(modes[mode]) for mode in MODES] for modes in by_model]
    return sum(now and not before for one, other in pairwise(right) for before, now in zip(one, other, strict=True))


def _example(
    found: Sequence[Evaluated], by_model: Sequence[Mapping[str, Mapping[str, Any]]], picture: tuple[str, str]
) -> dict[str, Any]:
    first = by_model[0][MODES[0]]
    return {
        "image": picture[0],
        "family": printable(picture[1]),
        "question": clipped(_question(first.get("prompt")))[0],
        "reference": clipped(str(first.get("reference")))[0],
        "answers": [
            (each.title, [(_right(modes[mode]), clipped(str(modes[mode].get("response") or ""))[0]) for mode in MODES])
            for each, modes in zip(found, by_model, strict=True)
        ],
    }


def _question(prompt: Any) -> str:
    """The text of the last message."""
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    content = last.get("content") if isinstance(last, Mapping) else last
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping)).strip()
    return str(content)


def _right(sample: Mapping[str, Any]) -> bool:
    rewards = sample.get("rewards")
    return isinstance(rewards, Mapping) and (number(rewards, "accuracy") or 0.0) >= 0.5


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
