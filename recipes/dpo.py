"""Direct preference optimisation (DPO) on a file of preference pairs.

The pairs are TRL's preference format (`prompt`, `chosen`, `rejected`; `images`, `videos`). The reference policy is the
model the run starts from; its log-probs are computed once and kept on the disk. Some prompts are held out: before
and after training it is measured how often the implicit reward prefers their chosen side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.config import LoraSettings
from base_model.video_settings import VideoSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.models import ModelConfig
from recipes.pairs import PairSource
from rl.preference_config import PreferenceLearnerConfig, PreferenceTrainerConfig
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from recipes.console import StepBar
    from recipes.dpo_data import EncodedPairs
    from recipes.pairs import Pair
    from rl.disk_cache import DiskCache
    from rl.preference_learner import PairScore
    from rl.preference_trainer import PreferenceTrainer
    from rl.run_directory import RunDirectory

MAY_CHANGE = {"resume", "overwrite", "trainer.save_every", "trainer.keep_last"}
CACHE = "reference_logprobs.jsonl"


class DpoConfig(BaseModel):
    """A DPO run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    run: Path = Path("runs/dpo")
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of the data order, dropout and the choice of held-out pairs."""
    model: ModelConfig
    """The policy to start from, which is the reference too."""
    pairs: PairSource
    """File or files of preference pairs (.jsonl, .json, .parquet), or {kind: hub, name: ...}."""
    eval_pairs: PairSource | None = None
    """Pairs to evaluate on. null = eval_size pairs are held out."""
    eval_size: int = Field(100, ge=0)
    """Pairs held out for evaluation, with all others of their prompts; 0 = none."""
    modes: ModesConfig = ModesConfig(mode="short")
    """What the modes are; mode is that of pairs without a column `mode`. Plain chat models: short.prefill empty."""
    max_length: int = Field(2048, ge=8)
    """Most tokens of the prompt with either side; longer pairs are left out, and counted."""
    media_folder: Path | None = None
    """Folder that the paths of images and videos are relative to. null = the folder of the data file."""
    media_outside: bool = False
    """Whether images and videos may lie outside that folder. Only for data that is trusted."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed, where rows have videos."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights; null = all weights."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, about a third more time."""
    learner: PreferenceLearnerConfig = PreferenceLearnerConfig()
    """Loss and optimiser."""
    trainer: PreferenceTrainerConfig = PreferenceTrainerConfig()
    """The loop."""
    reference_cache: Path | None = None
    """File of the reference's log-probs, to be shared between runs; null = one in the run directory."""
    resume: bool = False
    """Continue the run in the run directory from its newest checkpoint."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other: continue the run, or delete it and start again")
        return self


def main(config: DpoConfig) -> None:
    """Check everything that can be checked without the model, then train, evaluate and report."""
    from recipes.console import say
    from recipes.models import resolve_model
    from recipes.pairs import split_pairs
    from recipes.row_media import MediaFiles
    from rl.run_directory import RunDirectory

    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    place: dict[str, Any] = {"resume": config.resume, "overwrite": config.overwrite, "may_change": MAY_CHANGE}
    RunDirectory.check(config.run, dumped, **place)
    if config.resume and (config.run / "run.json").is_file():
        say(f"the run in {config.run} has ended: its report is {config.run / 'report.html'}")
        return
    media = MediaFiles(folder=config.media_folder, outside=config.media_outside)
    pairs, eval_pairs = split_pairs(config.pairs, config.eval_pairs, config.eval_size, config.seed, media=media)
    model_path = resolve_model(config.model)

    from base_model.checkpoints import load_processor
    from recipes.dpo_data import write_left_out
    from rl.disk_cache import DiskCache

    processor = load_processor(model_path, trust_remote_code=config.model.trust_remote_code)
    train = _encoded(config, model_path, processor, pairs, "pairs")
    held = _encoded(config, model_path, processor, eval_pairs, "held-out pairs")
    with (
        RunDirectory.create(config.run, dumped, **place) as run,
        DiskCache(config.reference_cache or run.path / CACHE) as cache,
    ):
        write_left_out(run.path, train, held)
        _run(config, run, model_path, processor, train, held, cache)


def _encoded(config: DpoConfig, model_path: Path, processor: Any, pairs: Sequence[Pair], what: str) -> EncodedPairs:
    from recipes.console import StepBar
    from recipes.dpo_data import encode_pairs
    from rl.prompts import KEPT_BYTES, PromptMaker

    maker = PromptMaker(processor, config.video, kept_bytes=KEPT_BYTES // 2)  # one for each kind of pairs
    longest = min(config.max_length, _positions(model_path) or config.max_length)
    with StepBar(what, len(pairs)) as bar:
        return encode_pairs(pairs, maker, config.modes, longest, what=what, on_progress=bar.update)


def _run(
    config: DpoConfig,
    run: RunDirectory,
    model_path: Path,
    processor: Any,
    train: EncodedPairs,
    held: EncodedPairs,
    cache: DiskCache,
) -> None:
    from recipes.console import StepBar, say
    from recipes.dpo_report import write_dpo_report
    from recipes.hybrid_grpo import run_seconds

    steps = config.trainer.total_steps(len(train.pairs))
    say(f"DPO of {model_path.name}: {steps} steps, {_counted(train)}, run {run.path}")
    with StepBar("DPO", steps) as bar:
        trainer = build_trainer(config, run, model_path, processor, train, held, cache, bar)
        trainer.prepare()
        done = trainer.resume() if config.resume else 0
        bar.update(done)
        steps_done = trainer.train()
    if steps_done < steps:
        say(f"stopped after step {steps_done} of {steps}; continue with --resume true. Run: {run.path}")
        return
    model = _final_model(config, run, trainer)
    if held.pairs:
        say(_verdict(_write_evaluation(config, run, trainer, held, model)))
    seconds = run_seconds(run.path)
    counts = {"pairs": len(train.pairs), "left_out": train.left_out, "eval_left_out": held.left_out}
    run.write_summary(
        {"name": run.path.name, "mode": "none", "steps": steps, "seconds": seconds, **counts, "finished": True}
    )
    say(f"done: {steps} steps in {seconds:.0f} s. Model: {model}. Report: {write_dpo_report(run.path)}")


def build_trainer(
    config: DpoConfig,
    run: RunDirectory,
    model_path: Path,
    processor: Any,
    train: EncodedPairs,
    held: EncodedPairs,
    cache: DiskCache,
    bar: StepBar,
) -> PreferenceTrainer:
    """Load the policy and wire it to pairs and cache."""
    from base_model.packed_lm import compute_dtype, load_packed
    from recipes.tasks import EpochOrder
    from rl.preference_learner import PreferenceLearner
    from rl.preference_trainer import PreferenceTrainer
    from rl.reference_logprobs import ReferenceLogprobs, model_fingerprint

    packed = load_packed(
        model_path,
        lora=config.lora,
        gradient_checkpointing=config.gradient_checkpointing,
        trust_remote_code=config.model.trust_remote_code,
    )
    steps = config.trainer.total_steps(len(train.pairs))
    precision = str(compute_dtype(config.learner.precision)).removeprefix("torch.")
    return PreferenceTrainer(
        config=config.trainer,
        learner=PreferenceLearner(packed, config.learner, total_steps=steps),
        reference=ReferenceLogprobs(cache, model_fingerprint(model_path, precision)),
        pairs=train.encoded,
        eval_pairs=held.encoded,
        order=EpochOrder(len(train.encoded), config.seed),
        seed=config.seed,
        run=run,
        tokenizer=processor,
        evaluate=figures,
        on_step=lambda step, metrics: _show(bar, step, metrics, steps),
        on_progress=bar.note,
    )


def figures(scores: Sequence[PairScore]) -> dict[str, Any]:
    """n, accuracy of the implicit reward (a tie is wrong) with its 95 % Wilson interval, mean loss, margin, rewards."""
    from recipes.evaluation import wilson_interval

    count = len(scores)
    right = sum(score.reward_chosen > score.reward_rejected for score in scores)
    low, high = wilson_interval(right, count)
    chosen, rejected = (sum(getattr(s, side) for s in scores) / count for side in ("reward_chosen", "reward_rejected"))
    return {
        "n": count,
        "accuracy": right / count,
        "ci_low": low,
        "ci_high": high,
        "loss": sum(score.loss for score in scores) / count,
        "margin": chosen - rejected,
        "reward_chosen": chosen,
        "reward_rejected": rejected,
    }


def _write_evaluation(
    config: DpoConfig, run: RunDirectory, trainer: PreferenceTrainer, held: EncodedPairs, model: Path
) -> dict[str, Any]:
    """Write evaluation.json and evaluation_samples.jsonl; returns the figures."""
    from recipes.dpo_report import chosen_samples
    from rl.files import atomic_write_json, atomic_write_text

    scores = trainer.scores()
    longer = [len(pair.chosen_ids) > len(pair.rejected_ids) for pair in held.encoded]
    evaluation = {**figures(scores), "chosen_is_longer": sum(longer) / len(longer)}
    atomic_write_json(
        run.path / "evaluation.json", {"checkpoint": str(model), "step": trainer.step, "eval": evaluation}
    )
    samples: list[dict[str, Any]] = [
        {
            "place": pair.place,
            "prompt": list(pair.messages),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "reward_chosen": score.reward_chosen,
            "reward_rejected": score.reward_rejected,
            "loss": score.loss,
        }
        for pair, score in zip(held.pairs, scores, strict=True)
    ]
    pair_of = {id(sample): pair for sample, pair in zip(samples, held.pairs, strict=True)}
    for sample in chosen_samples(samples):
        sample["media"] = _thumbnails(pair_of[id(sample)], config.video)
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    atomic_write_text(run.path / "evaluation_samples.jsonl", lines)
    return evaluation


def _thumbnails(pair: Pair, video: VideoSettings) -> list[str]:
    """The pair's images and videos as the report shows them; without those that are gone by now."""
    from recipes.thumbnails import image_thumbnail, video_thumbnail

    made = [*(partial(image_thumbnail, image) for image in pair.images)]
    made += [partial(video_thumbnail, clip, video) for clip in pair.videos]
    found = []
    for thumbnail in made:
        with suppress(ValueError, OSError):
            found.append(thumbnail())
    return found


def _final_model(config: DpoConfig, run: RunDirectory, trainer: PreferenceTrainer) -> Path:
    """The plain model at the end: the last checkpoint, or for adapters ``model/``, where they are folded in."""
    if config.lora is None:
        return run.checkpoints / f"step_{trainer.step}"
    from base_model.packed_lm import save_merged
    from rl.files import atomic_directory

    with atomic_directory(run.path / "model") as folder:
        save_merged(trainer.learner.model, folder)
        trainer.tokenizer.save_pretrained(folder)
    return run.path / "model"


def _counted(train: EncodedPairs) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in train.left_out.items())
    return f"{len(train.pairs)} pairs" + (f" (left out: {listed})" if listed else "")


def _verdict(evaluation: dict[str, Any]) -> str:
    e = evaluation
    return (
        f"the implicit reward prefers the chosen side on {e['accuracy']:.1%} [{e['ci_low']:.1%}, {e['ci_high']:.1%}] "
        f"of {e['n']} held-out pairs, mean margin {e['margin']:.3f} (the longer side is the chosen one in "
        f"{e['chosen_is_longer']:.1%})"
    )


def _positions(model_path: Path) -> int | None:
    """Tokens that the model has positions for, where its configuration says so."""
    config = json.loads((model_path / "config.json").read_text())
    return config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")


def _show(bar: StepBar, step: int, metrics: dict[str, float], steps: int) -> None:
    bar.update(step)
    bar.line(
        f"step {step}/{steps}  loss {metrics['loss']:.4f}  margin {metrics['reward/margin']:.3f}  "
        f"accuracy {metrics['reward/accuracy']:.2f}  tokens {metrics['tokens/chosen']:.0f}/"
        f"{metrics['tokens/rejected']:.0f}  grad {metrics['grad_norm']:.2f}  {metrics['time/step']:.1f} s",
        every_s=5.0,
    )


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, DpoConfig, doc=__doc__, default_config=CONFIGS / "dpo.yaml"))
