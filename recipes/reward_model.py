"""Trains a reward model on preference pairs, for the reward `preference`.

The pairs are TRL's preference format (`prompt`, `chosen`, `rejected`; text or messages), the loss is TRL's:
-log sigmoid(R(chosen) - R(rejected)). Some prompts are held out, on which the finished model is judged. What it reads
is exactly what the reward will show it: the prompt and the final answer, without thinking.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from base_model.config import LoraSettings
from recipes.cli import CONFIGS, run_recipe
from recipes.models import ModelConfig

if TYPE_CHECKING:
    from recipes.pairs import Pair
    from rl.run_directory import RunDirectory

MAY_CHANGE = {"resume", "overwrite", "save_every"}
Encoded = dict[str, list[int]]


class RewardModelConfig(BaseModel):
    """A reward model's training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    run: Path = Path("runs/reward_model")
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of the new head, the data order and the choice of held-out pairs."""
    model: ModelConfig
    """The language model to start from; it gets a new head with one output."""
    pairs: Path | list[Path]
    """File or files of preference pairs (.jsonl, .json, .parquet)."""
    eval_pairs: Path | list[Path] | None = None
    """File or files to evaluate on. null = eval_size pairs are held out."""
    eval_size: int = Field(200, ge=1)
    """Pairs held out for evaluation, with all others of their prompts."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    batch_pairs: int = Field(8, ge=1)
    """Pairs per batch."""
    gradient_accumulation: int = Field(1, ge=1)
    """Batches per step."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate of AdamW."""
    lr_scheduler: str = "cosine"
    """Schedule of transformers."""
    warmup_steps: int = Field(10, ge=0)
    """Steps over which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 = off."""
    center_rewards: float = Field(0.0, ge=0)
    """Weight of the mean of (R(chosen) + R(rejected))^2, which keeps scores around 0 (arXiv 2312.09244); 0 = off."""
    max_length: int = Field(1024, ge=32)
    """Longest prompt with answer in tokens; pairs with a longer side are left out, and counted."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights; auto = bf16 where the machine multiplies it in hardware."""
    lora: LoraSettings | None = None
    """Train low-rank adapters and the head instead of all weights; null = all weights."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass."""
    save_every: int = Field(0, ge=0)
    """Steps between checkpoints to resume from; 0 = only the final model."""
    resume: bool = False
    """Continue the run in the run directory."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""


def main(config: RewardModelConfig) -> None:
    """Read the pairs, train, write the model, judge it on the held-out pairs."""
    from recipes.console import say
    from recipes.models import resolve_model
    from recipes.pairs import split_pairs
    from rewards.preference import load_tokenizer
    from rl.run_directory import RunDirectory

    require_trl()
    train_pairs, eval_pairs = split_pairs(config.pairs, config.eval_pairs, config.eval_size, config.seed)
    model_path = resolve_model(config.model)
    tokenizer = load_tokenizer(model_path, config.model.trust_remote_code)
    examples = encode_pairs(train_pairs, tokenizer, _longest(config, model_path))
    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    with RunDirectory.create(
        config.run, dumped, resume=config.resume, overwrite=config.overwrite, may_change=MAY_CHANGE
    ) as run:
        left_out = len(train_pairs) - len(examples)
        say(
            f"reward model from {model_path.name}: {len(examples)} pairs ({left_out} left out: too long, or both sides "
            f"the same), run {run.path}"
        )
        started = time.perf_counter()
        folder, steps = train(config, run, model_path, tokenizer, examples)
        seconds = time.perf_counter() - started
        gc.collect()  # the trainer's weights, gradients and optimiser state, before the finished model is loaded
        evaluation = evaluate(run, folder, eval_pairs, config.max_length)
        counts = {"pairs": len(examples), "left_out": left_out}
        run.write_summary(
            {"name": run.path.name, "mode": "none", "steps": steps, "seconds": seconds, **counts, "finished": True}
        )
        say(_verdict(evaluation))
        say(f"done in {seconds:.0f} s. Model: {folder}")


def require_trl() -> None:
    """Refuse to go on without TRL, which is optional.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import trl  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "trl":
            raise
        raise ValueError(
            "a reward model is trained with TRL's RewardTrainer, and TRL is not installed: run `pip install "
            "trl==1.16.0` (or install tandem-rl[trl])."
        ) from None


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, max_length: int) -> list[Encoded]:
    """Return the token ids of both sides, without pairs that are too long or whose sides are the same.

    Raises:
        ValueError: no pair is left.
    """
    from rewards.conversation import ConversationEncoder

    encoder = ConversationEncoder(tokenizer, max_length + 1)  # what it cuts is still too long, and left out below
    both = [(encoder.encode(p.messages, p.chosen), encoder.encode(p.messages, p.rejected)) for p in pairs]
    kept = [(c, r) for c, r in both if c != r and max(len(c), len(r)) <= max_length]
    if not kept:
        raise ValueError(
            f"none of the {len(pairs)} pairs can be trained on: each is longer than max_length {max_length} tokens, or "
            "its two sides are the same."
        )
    return [{"chosen_ids": list(chosen), "rejected_ids": list(rejected)} for chosen, rejected in kept]


def train(
    config: RewardModelConfig, run: RunDirectory, model_path: Path, tokenizer: Any, examples: list[Encoded]
) -> tuple[Path, int]:
    """Train, or go on; return the final model's folder and the number of steps."""
    trainer = build_trainer(config, run, model_path, tokenizer, examples)
    trainer.train(resume_from_checkpoint=_newest(run.path / "trainer") if config.resume else None)
    return _save(run, trainer, tokenizer), trainer.state.global_step


def build_trainer(
    config: RewardModelConfig, run: RunDirectory, model_path: Path, tokenizer: Any, examples: list[Encoded]
) -> Any:
    """TRL's RewardTrainer over pairs that are token ids already."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import RewardConfig, RewardTrainer

    from base_model.memory import keep_freed_memory
    from base_model.packed_lm import compute_dtype

    keep_freed_memory()
    arguments = RewardConfig(
        output_dir=str(run.path / "trainer"),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_pairs,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        center_rewards_coefficient=config.center_rewards or None,
        max_length=None,  # too long ones are left out already
        bf16=compute_dtype(config.precision) is torch.bfloat16,
        gradient_checkpointing=config.gradient_checkpointing,
        model_init_kwargs={"use_safetensors": True, "local_files_only": True},
        trust_remote_code=config.model.trust_remote_code,
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or 1,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = RewardTrainer(
        model=str(model_path),
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        callbacks=[_callback(run)],
        peft_config=_adapters(config.lora),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _adapters(lora: LoraSettings | None) -> Any:
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=["score"],
        task_type="SEQ_CLS",
    )


def _callback(run: RunDirectory) -> Any:
    from transformers import TrainerCallback

    from recipes.console import StepBar

    class Report(TrainerCallback):
        """Writes metrics.jsonl and moves the bar."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = StepBar("reward model", state.max_steps, state.global_step)
            self.bar.__enter__()
            run.truncate_after(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            names = {"loss": "loss", "accuracy": "accuracy", "margin": "margin", "reward/mean": "mean_reward"}
            values = {name: float(logs[key]) for name, key in names.items()}
            rates = {"grad_norm": float(logs["grad_norm"]), "lr": float(logs["learning_rate"])}
            run.append_metrics({"step": state.global_step, **values, **rates})
            self.bar.update(state.global_step)
            self.bar.line(
                f"step {state.global_step}/{state.max_steps}  loss {values['loss']:.4f}  "
                f"accuracy {values['accuracy']:.2f}  margin {values['margin']:.3f}",
                every_s=10.0,
            )

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.__exit__(None, None, None)

    return Report()


def _save(run: RunDirectory, trainer: Any, tokenizer: Any) -> Path:
    """The final model as <run>/model, adapters folded in, complete or absent."""
    from rl.files import atomic_directory

    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    with atomic_directory(run.path / "model") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return run.path / "model"


def evaluate(run: RunDirectory, folder: Path, pairs: Sequence[Pair], max_length: int) -> dict[str, Any]:
    """Score held-out pairs as the reward does, and write evaluation.json and evaluation_samples.jsonl.

    Returns:
        n, accuracy (a tie is wrong) with its 95 % Wilson interval, mean margin R(chosen) - R(rejected), and the share
        of pairs whose chosen side is the longer text: what counting characters alone would get right.
    """
    from recipes.evaluation import wilson_interval
    from rewards.preference import Preference
    from rl.files import atomic_write_json, atomic_write_text

    judge = Preference(model=folder, max_length=max_length)
    prompts = [pair.messages for pair in pairs]
    chosen = judge.score(prompts, [pair.chosen for pair in pairs])
    rejected = judge.score(prompts, [pair.rejected for pair in pairs])
    judge.close()
    right = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    low, high = wilson_interval(right, len(pairs))
    evaluation = {
        "n": len(pairs),
        "accuracy": right / len(pairs),
        "ci_low": low,
        "ci_high": high,
        "margin": sum(c - r for c, r in zip(chosen, rejected, strict=True)) / len(pairs),
        "chosen_is_longer": sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs),
    }
    atomic_write_json(run.path / "evaluation.json", evaluation)
    samples = [
        {"prompt": p.messages, "chosen": p.chosen, "rejected": p.rejected, "reward_chosen": c, "reward_rejected": r}
        for p, c, r in zip(pairs, chosen, rejected, strict=True)
    ]
    lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    atomic_write_text(run.path / "evaluation_samples.jsonl", lines)
    return evaluation


def _verdict(evaluation: dict[str, Any]) -> str:
    e = evaluation
    return (
        f"prefers the chosen side on {e['accuracy']:.1%} [{e['ci_low']:.1%}, {e['ci_high']:.1%}] of {e['n']} held-out "
        f"pairs, mean margin {e['margin']:.3f} (the longer side is the chosen one in {e['chosen_is_longer']:.1%})"
    )


def _longest(config: RewardModelConfig, model_path: Path) -> int:
    """The most tokens of a text: max_length, and no more than the model has positions for."""
    from rewards.preference import positions

    return min(config.max_length, positions(json.loads((model_path / "config.json").read_text())))


def _newest(folder: Path) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, RewardModelConfig, doc=__doc__, default_config=CONFIGS / "reward_model.yaml"))
