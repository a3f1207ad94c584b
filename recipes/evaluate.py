"""Evaluates a checkpoint on held-out rows in short and in long mode: accuracy with its interval, pass@k, length,
truncation, format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from base_model.video_settings import VideoSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.evaluation import EvaluationConfig, check_breakdown, check_evaluation, evaluate_policy
from recipes.models import ModelConfig
from recipes.reward_keys import RewardsKey, reward_columns, reward_specs
from recipes.tasks import TaskConfig
from rl.config import ReferenceConfig
from rollouts.engine import EngineConfig
from rollouts.modes import ModesConfig


class EvaluateConfig(BaseModel):
    """What to evaluate, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: ModelConfig
    """The checkpoint: a directory, or a run directory (its newest checkpoint)."""
    task: TaskConfig
    """The rows; the evaluation split is used."""
    modes: ModesConfig = ModesConfig()
    """What the modes are; both are evaluated."""
    rewards: RewardsKey
    """Rewards, or a reward file; evaluation.metric names the one that says what is right."""
    engine: EngineConfig = EngineConfig()
    """vLLM."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Samples, temperature, pass@k."""
    reference: ReferenceConfig = ReferenceConfig()
    """For rewards that ask for the policy's probability of the reference; r' is always the evaluated policy's."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed, where rows have videos."""
    out: Path | None = None
    """Folder for evaluation.json and evaluation_samples.jsonl; null = the run the checkpoint belongs to."""


def main(config: EvaluateConfig, base_dir: Path | None = None) -> None:
    """Evaluate, print the figures, write them down."""
    import rewards
    from base_model.checkpoints import load_processor
    from recipes.console import StepBar, say
    from recipes.models import resolve_model
    from recipes.tasks import load_rows
    from rollouts.engine import VLLMEngine, check_block_size

    check_block_size(config.engine)
    specs = reward_specs(config.rewards, config.modes, base_dir)
    with rewards.build(specs, reward_columns(config.task), base_dir) as reward_set:
        check_evaluation(config.evaluation, reward_set.names)
        rows = load_rows(config.task, "eval")
        check_breakdown(config.evaluation, rows[: config.evaluation.rows or None])
        checkpoint = resolve_model(config.model)
        out = config.out or run_of(checkpoint)
        reward_set.save_failures_in(out)
        say(f"evaluating {checkpoint} on {len(rows[: config.evaluation.rows or None])} held-out rows in both modes")
        with VLLMEngine(checkpoint, config.engine, log_path=None) as engine, StepBar("evaluate", 1) as bar:
            summary, records = evaluate_policy(
                engine=engine,
                tokenizer=load_processor(checkpoint, trust_remote_code=config.model.trust_remote_code),
                rows=rows,
                modes=config.modes,
                rewards=reward_set,
                config=config.evaluation,
                reference=config.reference,
                on_progress=lambda done, total: bar.note(done, total, "generate"),
                video=config.video,
            )
    write_evaluation(out, checkpoint=checkpoint, step=step_of(checkpoint), summary=summary, records=records)
    for line in figures(summary):
        say(line)
    say(f"written to {out / 'evaluation.json'} and {out / 'evaluation_samples.jsonl'}")


def write_evaluation(
    out: Path, *, checkpoint: Path, step: int, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``evaluation.json`` and ``evaluation_samples.jsonl``, each complete or not at all."""
    import json

    from rl.files import atomic_write_json, atomic_write_text

    out.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"step": step, **record}, ensure_ascii=False) for record in records)
    atomic_write_text(out / "evaluation_samples.jsonl", "".join(f"{line}\n" for line in lines))
    atomic_write_json(out / "evaluation.json", {"checkpoint": str(checkpoint), "step": step, "eval": summary})


def figures(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per mode, and one per part of a breakdown, for the terminal."""
    lines = []
    for mode, whole in summary.items():
        lines.append(_line(mode, whole))
        lines += [f"  {_line(f'{mode}, {value}', part)}" for value, part in whole.get("by", {}).items()]
    return lines


def _line(name: str, f: Mapping[str, Any]) -> str:
    return (
        f"  {name}: accuracy {f['accuracy']:.3f} [{f['ci_low']:.3f}, {f['ci_high']:.3f}] on {f['n']} rows, "
        f"pass@{f['k']} {f['pass_at_k']:.3f}, {f['response_tokens']:.1f} tokens per response, "
        f"truncated {f['truncated']:.1%}" + ("" if f["format"] is None else f", well-formed {f['format']:.1%}")
    )


def run_of(checkpoint: Path) -> Path:
    """The run directory of ``<run>/checkpoints/step_N``; the checkpoint's own folder where there is none."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint


def step_of(checkpoint: Path) -> int:
    """N of ``step_N``, 0 for any other folder."""
    number = checkpoint.name.removeprefix("step_")
    return int(number) if number.isdigit() else 0


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, EvaluateConfig, doc=__doc__, default_config=CONFIGS / "evaluate.yaml"))
