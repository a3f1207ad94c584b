"""Does document learning teach more than reading clean pages? Both arms start from one model, see the same pages,
regions and questions for the same number of steps, and differ in one thing: whether the regions are corrupted. On pages
never trained on, each reads whole clean pages and regions at every level of corruption; seeds give intervals.

    python -m recipes.document_study        (recipes/configs/document_study.yaml says how its model is made)

Source: unified document and OCR learning, MiniCPM-V 4.5 (arXiv 2509.18154, s2.2).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.corruption_settings import CorruptionSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.document_evaluation import CLEAN_PAGE, TASKS, Reading, difference, figures, held_out, read
from recipes.models import ModelConfig
from recipes.render import RenderSource
from recipes.stage_config import Stage, StagedConfig

if TYPE_CHECKING:
    from recipes.samples.sample import Sample

ARMS = ("document", "control")


class DocumentStudyConfig(BaseModel):
    """The two arms, their common start, and what they are measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    run: Path = Path("runs/document_study")
    """Folder of all runs and of the result; runs that are complete are not made again, and refused if they were made
    with other settings."""
    model: ModelConfig
    """The model to start from."""
    pages: RenderSource
    """Pages that the arms learn from and that are measured on, of kinds with text."""
    start_pages: RenderSource | None = None
    """Pages of the first stage; null = the same."""
    corruption: CorruptionSettings = CorruptionSettings()
    """Corruption of the document arm, and of the questions at each level."""
    start: Stage | None = None
    """First stage, common to both arms; its source is `read` (whole clean pages). null = the model as it is."""
    arm: Stage
    """What each arm does; its sources are `document` (whole pages, with corrupted regions in one arm and clean in the
    other) and `read` (whole clean pages)."""
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    """Each gives both arms the same data in another order."""
    eval_pages: int = Field(200, ge=2)
    """Held-out pages."""
    workers: int = Field(0, ge=0)
    """Processes that render samples during training."""


def main(config: DocumentStudyConfig) -> None:
    """Train the start and all arms that are not there yet, read the held-out pages with each, compare."""
    from recipes.console import say

    start = _start(config)
    held = held_out(config.pages, config.corruption, config.eval_pages, seed=0)
    readings: dict[str, list[dict[str, list[Reading]]]] = {arm: [] for arm in ARMS}
    before = _read_all(config.run / "start", start, held)
    for seed in config.seeds:
        for arm in ARMS:
            name = f"{arm}_{seed}"
            model = _trained(config, name, config.arm, seed=seed, model=str(start), corrupted=arm == "document")
            readings[arm].append(_read_all(config.run / name, model, held))
    rows = compare(before, readings)
    _write(config.run, rows)
    say(table(rows, len(config.seeds), config.eval_pages))
    say(f"written to {config.run / 'result.json'}")


def _start(config: DocumentStudyConfig) -> Path:
    """The model that both arms start from."""
    from recipes.models import resolve_model

    if config.start is None:
        (config.run / "start").mkdir(parents=True, exist_ok=True)
        return resolve_model(config.model)
    return _trained(config, "start", config.start, seed=0, model=config.model.path, corrupted=False)


def _trained(config: DocumentStudyConfig, name: str, stage: Stage, *, seed: int, model: str, corrupted: bool) -> Path:
    """The model of a run of one stage, trained unless it is there. Raises ValueError if it was trained otherwise."""
    from recipes.models import resolve_model
    from recipes.stages import run_stages

    folder = config.run / name
    pages = config.start_pages if name == "start" and config.start_pages else config.pages
    render = pages.model_dump()
    corruption = config.corruption.model_dump() if corrupted else None
    sources: dict[str, Any] = {
        "read": {"task": "ocr", "region_share": 0.0, "render": render},
        "document": {"task": "document", "questions": {"refer": "page"}, "corruption": corruption, "render": render},
    }
    chosen = {key: {"kind": "rendered", **sources[key]} for key in stage.sources if key in sources}
    run_stages(
        StagedConfig.model_validate(
            {
                "run": folder,
                "seed": seed,
                "model": {**config.model.model_dump(), "path": model},
                "sources": chosen,
                "stages": [stage.model_dump()],
                "workers": config.workers,
                "resume": (folder / "config.yaml").is_file(),
            }
        )
    )
    return resolve_model(ModelConfig(path=str(folder)))


def _read_all(folder: Path, model: Path, held: Mapping[str, list[Sample]]) -> dict[str, list[Reading]]:
    """The readings of all tasks, kept beside the run."""
    from recipes.console import say
    from rl.files import atomic_write_json

    kept = folder / "readings.json"
    if kept.is_file():
        found = json.loads(kept.read_text())
        if {task: len(readings) for task, readings in found.items()} == {task: len(held[task]) for task in TASKS}:
            return {task: [Reading(**entry) for entry in found[task]] for task in TASKS}
    readings = {task: read(model, samples) for task, samples in held.items()}
    listed = {task: [dataclasses.asdict(reading) for reading in made] for task, made in readings.items()}
    atomic_write_json(kept, listed)
    say(f"{folder.name}: " + ", ".join(f"{task} {figures(made)['exact']:.1%}" for task, made in readings.items()))
    return readings


Row = dict[str, Any]


def compare(
    before: Mapping[str, list[Reading]], arms: Mapping[str, Sequence[Mapping[str, list[Reading]]]]
) -> list[Row]:
    """A row for each task and figure: before, both arms (means over seeds), their difference with its interval."""
    rows = []
    contents = [reading.text for reading in before[CLEAN_PAGE]]
    for task in TASKS:
        name = "cer" if task == CLEAN_PAGE else "exact"
        document, control = ([made[task] for made in arms[arm]] for arm in ARMS)
        gap, low, high = difference(document, control, name, contents)
        rows.append(
            {
                "task": task,
                "figure": name,
                "before": figures(before[task])[name],
                "document": _mean([figures(made)[name] for made in document]),
                "control": _mean([figures(made)[name] for made in control]),
                "difference": gap,
                "low": low,
                "high": high,
            }
        )
    return rows


def table(rows: Sequence[Row], seeds: int, pages: int) -> str:
    """The comparison as text."""
    lines = [f"{'':20}{'figure':>8}{'before':>9}{'document':>10}{'control':>9}   difference [95 %]"]
    for row in rows:
        shown = "".join(
            f"{100 * row[key]:{wide}.1f}" for key, wide in (("before", 9), ("document", 10), ("control", 9))
        )
        interval = f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        lines.append(f"{row['task']:20}{row['figure']:>8}{shown}   {interval}")
    lines.append(f"in per cent; {pages} held-out pages, {seeds} seeds; cer = character error rate, less is better")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _write(run: Path, rows: Sequence[Row]) -> None:
    from rl.files import atomic_write_json

    atomic_write_json(run / "result.json", list(rows))


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, DocumentStudyConfig, doc=__doc__, default_config=CONFIGS / "document_study.yaml"))
