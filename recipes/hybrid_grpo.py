"""Hybrid GRPO: trains a policy on rollouts in short mode, in long mode, or in both.

Every prompt is run in one mode, its responses are scored by the rewards and compared with one another, and the policy
moves towards the better ones. Everything is written to the run directory: metrics, rollouts, tokens by mode,
checkpoints, the final evaluation and a report.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.config import LoraSettings
from base_model.video_settings import VideoSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.evaluation import EvaluationConfig, check_breakdown, check_evaluation
from recipes.models import ModelConfig
from recipes.on_verl import refusals as on_verl
from recipes.on_verl.settings import VerlConfig
from recipes.plan import plan_of_run
from recipes.reward_keys import RewardsKey, reward_columns, reward_specs
from recipes.tasks import TaskConfig
from rl.config import LearnerConfig, TrainerConfig
from rollouts.modes import ModesConfig
from rollouts.pool_config import PoolConfig

if TYPE_CHECKING:
    from recipes.console import StepBar
    from recipes.tasks import Row
    from rewards import RewardSet
    from rl.environment import Environment
    from rl.processes import Processes
    from rl.run_directory import RunDirectory
    from rl.trainer import Trainer
    from rollouts.engine import VLLMEngine

STALE_IMPORTANCE_CAP = 2.0
"""Upper bound of the importance weights where responses are generated ahead: the default of TRL and verl."""
MAX_CHECKED = 5000
"""Rows of each split whose reference must pass its own verifier before anything is loaded (a second or two)."""
MAY_CHANGE = {
    "resume",
    "overwrite",
    "trainer.steps",
    "trainer.save_every",
    "trainer.keep_last",
    "trainer.parallel.kind",
    "engine.timeout_s",
    "engine.max_restarts",
    "engine.hang_s",
    "rewards.N.timeout_s",
    "rewards.N.retries",
    "rewards.N.retry_wait_s",
    "rewards.N.concurrency",
    "rewards.N.on_error",
    "rewards.N.max_missing",
    "rewards.N.isolate",
    "rewards.N.memory_mb",
    "verl.address",
    "verl.timeout_s",
}
"""Keys that a resumed run may give anew: none of them changes what a completed step was."""


class SamplingConfig(BaseModel):
    """How responses are drawn during training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probs and ratios are taken at it too."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus; below 1 the probability ratio is biased, so leave it at 1 unless you must."""


class HybridGrpoConfig(BaseModel):
    """A hybrid GRPO run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    run: Path = Path("runs/hybrid_grpo")
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of modes, data order, sampling and dropout."""
    model: ModelConfig
    """The policy to start from."""
    task: TaskConfig
    """Rows to train and to evaluate on."""
    modes: ModesConfig = ModesConfig()
    """Short, long or hybrid, and what the modes are."""
    rewards: RewardsKey
    """Rewards and their weights, or a reward file (docs/rewards.md); the total is their weighted sum."""
    group_size: int = Field(8, ge=2)
    """Responses per prompt."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights; null = all weights."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, about a third more time."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed, where rows have videos."""
    learner: LearnerConfig = LearnerConfig()
    """The policy update."""
    trainer: TrainerConfig = TrainerConfig()
    """The loop."""
    engine: PoolConfig = PoolConfig()
    """vLLM."""
    backend: Literal["tandem", "verl"] = "tandem"
    """What trains: this library's trainer on one machine, or verl's on a Ray cluster (docs/verl.md)."""
    verl: VerlConfig = VerlConfig()
    """Backend verl: the cluster."""
    evaluation: EvaluationConfig | None = EvaluationConfig()
    """Evaluation on held-out rows at the end (and every trainer.eval_every steps); null = none."""
    resume: bool = False
    """Continue the run in the run directory from its newest checkpoint."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""

    @model_validator(mode="before")
    @classmethod
    def _stale_responses_are_corrected(cls, data: Any) -> Any:
        """Sets learner.importance_cap where nothing is said of it and responses are of an earlier policy."""
        if not isinstance(data, dict):
            return data
        trainer, learner = data.get("trainer") or {}, data.get("learner") or {}
        if not (isinstance(trainer, dict) and isinstance(learner, dict)):
            return data
        if trainer.get("staleness") and "importance_cap" not in learner:
            return {**data, "learner": {**learner, "importance_cap": STALE_IMPORTANCE_CAP}}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other: continue the run, or delete it and start again")
        longest = max(mode.max_tokens for mode in self.modes.active())
        if longest >= self.engine.max_model_len:
            raise ValueError(
                f"a response may take {longest} tokens, which engine.max_model_len {self.engine.max_model_len} cannot "
                "hold with its prompt: raise engine.max_model_len, or lower modes.<mode>.max_tokens"
            )
        if self.lora is not None and self.trainer.parallel.kind == "fsdp":
            raise ValueError(
                "trainer.parallel.kind fsdp trains all weights, not adapters: leave lora out, or use kind ddp"
            )
        return self


def main(config: HybridGrpoConfig, base_dir: Path | None = None) -> None:
    """The recipe in this launch's processes: the first does it, the others work for its learner."""
    from recipes.training_processes import in_processes

    in_processes(config, lambda processes: _lead(config, base_dir, processes))


def _lead(config: HybridGrpoConfig, base_dir: Path | None, processes: Processes | None) -> None:
    """Check everything that can be checked without the model, then train, evaluate and report."""
    import rewards
    from base_model.checkpoints import load_processor
    from recipes.console import say
    from recipes.data_findings import gold_row
    from recipes.models import resolve_model
    from recipes.prompt_checks import check_context, check_prompts
    from recipes.tasks import load_rows
    from rl.run_directory import RunDirectory
    from rollouts.engine import check_block_size

    if processes is not None and config.backend == "verl":
        raise ValueError(
            f"this is one of {processes.count} processes, and verl starts its own on the cluster: run it without "
            "torchrun, or leave `backend: verl` out"
        )
    specs = reward_specs(config.rewards, config.modes, base_dir)
    config = config.model_copy(update={"rewards": specs})  # the run directory keeps what the file said
    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    place: dict[str, Any] = {"resume": config.resume, "overwrite": config.overwrite, "may_change": MAY_CHANGE}
    RunDirectory.check(config.run, dumped, **place)
    if config.resume and _is_finished(config):
        say(f"the run in {config.run} has made its {config.trainer.steps} steps; raise trainer.steps to go on")
        return
    check_block_size(config.engine)
    if config.backend == "verl":
        on_verl.check_installed()
        on_verl.check_config(config)
    with rewards.build(specs, reward_columns(config.task), base_dir) as reward_set:
        if config.evaluation:
            check_evaluation(config.evaluation, reward_set.names)
        rows = load_rows(config.task, "train")
        eval_rows = load_rows(config.task, "eval") if config.evaluation else []
        if config.evaluation:
            check_breakdown(config.evaluation, eval_rows[: config.evaluation.rows or None])
        reward_set.check_gold([gold_row(row) for row in (*rows[:MAX_CHECKED], *eval_rows[:MAX_CHECKED])])
        if config.backend == "verl":
            on_verl.check_rows([*rows, *eval_rows])
            on_verl.check_rewards(config, reward_set.deferred)
        model_path = resolve_model(config.model)
        check_context(model_path, config.engine.max_model_len)
        processor = load_processor(model_path, trust_remote_code=config.model.trust_remote_code)
        limits: dict[str, Any] = {"max_model_len": config.engine.max_model_len, "video": config.video}
        check_prompts(rows, config.modes.active(), processor, **limits)
        check_prompts(eval_rows, [config.modes.short, config.modes.long], processor, kind="evaluation ", **limits)
        with RunDirectory.create(config.run, dumped, **place) as run:
            reward_set.save_failures_in(run.path)
            if config.backend == "verl":
                _run_on_verl(config, run, model_path, base_dir, processor, reward_set, eval_rows)
            else:
                _run(config, run, model_path, processor, reward_set, rows, eval_rows, processes)


def _run(
    config: HybridGrpoConfig,
    run: RunDirectory,
    model_path: Path,
    processor: Any,
    rewards: RewardSet,
    rows: list[Row],
    eval_rows: list[Row],
    processes: Processes | None,
) -> None:
    from recipes.console import StepBar, say
    from rollouts.pool import make_engine

    several = f", {processes.count} training processes ({config.trainer.parallel.kind})" if processes else ""
    say(
        f"{config.modes.mode} GRPO of {model_path.name}: {config.trainer.steps} steps, {len(rows)} rows, run {run.path}"
        f"{several}"
    )
    with make_engine(model_path, config.engine, log_path=run.path / "engine.log") as engine:
        with StepBar(config.modes.mode, config.trainer.steps) as bar:
            trainer = build_trainer(
                config, run, model_path, processor, rewards, rows, engine, bar, eval_rows, processes
            )
            done = trainer.resume() if config.resume else 0
            bar.update(done)
            steps = trainer.train()
        if steps < config.trainer.steps:
            say(f"stopped after step {steps} of {config.trainer.steps}; continue with --resume. Run: {run.path}")
            return
        checkpoint = _final_model(config, run, trainer, steps)
        if config.evaluation:
            engine.load_weights(trainer.learner.weights().items(), steps)
            _evaluate(config, run, engine, processor, rewards, eval_rows, checkpoint)
    _finish(config, run)


def _run_on_verl(
    config: HybridGrpoConfig,
    run: RunDirectory,
    model_path: Path,
    base_dir: Path | None,
    processor: Any,
    rewards: RewardSet,
    eval_rows: list[Row],
) -> None:
    from recipes.console import say
    from recipes.on_verl.launch import train
    from rollouts.pool import make_engine

    say(
        f"{config.modes.mode} GRPO of {model_path.name} on verl: {config.trainer.steps} steps on {config.verl.nodes} x "
        f"{config.verl.gpus_per_node} GPUs, run {run.path}"
    )
    steps = train(config, model_path, base_dir)
    if steps < config.trainer.steps:
        say(f"stopped after step {steps} of {config.trainer.steps}; continue with --resume. Run: {run.path}")
        return
    checkpoint = run.checkpoints / f"step_{config.trainer.steps}"
    if config.evaluation:
        with make_engine(checkpoint, config.engine, log_path=run.path / "engine.log") as engine:
            _evaluate(config, run, engine, processor, rewards, eval_rows, checkpoint)
    _finish(config, run)


def _finish(config: HybridGrpoConfig, run: RunDirectory) -> None:
    """Write down that the run has ended, and its report."""
    from recipes.console import say
    from recipes.report import write_run_report

    steps, seconds = config.trainer.steps, run_seconds(run.path)
    run.write_summary(
        {"name": run.path.name, "mode": config.modes.mode, "steps": steps, "seconds": seconds, "finished": True}
    )
    report = write_run_report(run.path)
    tokens = json.loads((run.path / "ledger.json").read_text())["total"]["generated"]
    say(f"done: {steps} steps in {seconds:.0f} s, {tokens} RL tokens. Report: {report}")


def build_trainer(
    config: HybridGrpoConfig,
    run: RunDirectory,
    model_path: Path,
    processor: Any,
    rewards: RewardSet,
    rows: list[Row],
    engine: VLLMEngine,
    bar: StepBar,
    eval_rows: list[Row],
    processes: Processes | None = None,
) -> Trainer:
    """Load the policy (while the engine starts) and wire it to data, rewards and engine."""
    from base_model.packed_lm import load_packed
    from recipes.training_processes import load_learner
    from rl.learner import Learner
    from rl.processes import Processes
    from rl.trainer import Trainer

    if processes is not None:
        processes.announce(model_path)
    learner = load_learner(config, model_path, processes)
    environment = build_environment(config, rows, rewards, processor)

    def evaluate(step: int) -> dict[str, Any]:
        return _evaluate_rows(config, engine, processor, rewards, eval_rows)[0]

    return Trainer(
        config=config.trainer,
        environment=environment,
        engine=engine,
        learner=learner,
        run=run,
        tokenizer=processor,
        on_step=lambda step, metrics: _show(bar, step, metrics, config.trainer.steps),
        on_progress=bar.note,
        evaluate=evaluate if config.evaluation else None,
        initial_policy=lambda: (
            Learner(
                load_packed(
                    model_path,
                    temperature=config.sampling.temperature,
                    trust_remote_code=config.model.trust_remote_code,
                ),
                config.learner,
                total_steps=1,
                processes=Processes(),
            ).branch_logprobs
        ),
    )


def build_environment(config: HybridGrpoConfig, rows: list[Row], rewards: RewardSet, processor: Any) -> Environment:
    """Rows, modes and rewards as the trainer sees them."""
    from recipes.tasks import EpochOrder
    from rl.environment import Environment
    from rollouts.modes import ModeSampler
    from rollouts.records import Sampling

    return Environment(
        rows=rows,
        order=EpochOrder(len(rows), config.seed),
        modes=ModeSampler(config.modes, config.seed),
        rewards=rewards,
        tokenizer=processor,
        video=config.video,
        sampling=Sampling(temperature=config.sampling.temperature, top_p=config.sampling.top_p),
        group_size=config.group_size,
        seed=config.seed,
    )


def _is_finished(config: HybridGrpoConfig) -> bool:
    """Whether a run to be resumed has ended, with all of its steps."""
    summary = config.run / "run.json"
    return summary.is_file() and json.loads(summary.read_text())["steps"] >= config.trainer.steps


def run_seconds(run: Path) -> float:
    """Seconds spent in completed steps, over all resumptions."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return sum(json.loads(line)["time/step"] for line in lines)


def _final_model(config: HybridGrpoConfig, run: RunDirectory, trainer: Trainer, step: int) -> Path:
    """The plain model at the end: the last checkpoint, or for adapters ``model/``, where they are folded in."""
    if config.lora is None:
        return run.checkpoints / f"step_{step}"
    from base_model.packed_lm import save_merged
    from rl.files import atomic_directory

    with atomic_directory(run.path / "model") as folder:
        save_merged(trainer.learner.model, folder)
        trainer.tokenizer.save_pretrained(folder)
    return run.path / "model"


def _evaluate(
    config: HybridGrpoConfig,
    run: RunDirectory,
    engine: VLLMEngine,
    processor: Any,
    rewards: RewardSet,
    eval_rows: list[Row],
    checkpoint: Path,
) -> None:
    """Evaluate the engine's weights, which are those of the final checkpoint."""
    from recipes.console import say
    from recipes.evaluate import figures, write_evaluation

    assert config.evaluation is not None
    used = len(eval_rows[: config.evaluation.rows or None])
    say(f"evaluating on {used} held-out rows in both modes ...")
    started = time.perf_counter()
    summary, records = _evaluate_rows(config, engine, processor, rewards, eval_rows)
    write_evaluation(run.path, checkpoint=checkpoint, step=config.trainer.steps, summary=summary, records=records)
    for line in figures(summary):
        say(line)
    say(f"  ({time.perf_counter() - started:.0f} s)")


def _evaluate_rows(
    config: HybridGrpoConfig, engine: VLLMEngine, processor: Any, rewards: RewardSet, eval_rows: list[Row]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from recipes.evaluation import evaluate_policy

    assert config.evaluation is not None
    return evaluate_policy(
        engine=engine,
        tokenizer=processor,
        rows=eval_rows,
        modes=config.modes,
        rewards=rewards,
        config=config.evaluation,
        reference=config.trainer.reference,
        video=config.video,
    )


def _show(bar: StepBar, step: int, metrics: dict[str, float], steps: int) -> None:
    bar.update(step)
    lengths = " ".join(
        f"{mode} {metrics[key]:.0f}" for mode in ("short", "long") if (key := f"response_tokens/{mode}") in metrics
    )
    bar.line(
        f"step {step}/{steps}  reward {metrics.get('reward/total', float('nan')):.3f}  tokens {lengths}  "
        f"groups {metrics['groups/trained']:.0f}/{metrics['groups/generated']:.0f}  "
        f"grad {metrics.get('grad_norm', 0.0):.2f}  engine gap {metrics.get('engine/logprob_gap_mean', 0.0):.3f}  "
        f"{metrics['time/step']:.1f} s (generate {metrics.get('time/generate', 0.0):.1f}, "
        f"learn {metrics.get('time/learn', 0.0):.1f})"
    )


if __name__ == "__main__":
    default = CONFIGS / "hybrid_grpo.yaml"
    raise SystemExit(run_recipe(main, HybridGrpoConfig, doc=__doc__, default_config=default, plan=plan_of_run))
