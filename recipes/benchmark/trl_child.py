"""TRL's side: GRPOTrainer with vLLM in its own process (colocate), at the best settings found on CPU.

Two things are mended, since TRL does not run on vLLM's CPU build as it is: the weight sync (tensor by tensor loading
fails on weights that vLLM has repacked) and the engine's arguments that TRL has no option for (bf16, nothing
compiled). What costs TRL time and can be switched off is off: gradient checkpointing, the correction between engine
and trainer (it computes the log-probs a second time), the reference model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import trl.generation.vllm_generation as vllm_generation
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from base_model.packed_lm import compute_dtype
from recipes.benchmark.config import Job
from recipes.benchmark.session import Session
from recipes.benchmark.workload import even_share, make_prompts
from rl.config import LearnerConfig

ATTENTION = "eager"
"""A tenth faster than SDPA on CPU at these lengths, forward and backward."""
ENGINE_DTYPE = "bfloat16"
BLOCK_SIZE = 32
"""Tokens per block of the prefix cache. vLLM's default on CPU, 128, shares no block of a short prompt between the
responses of a group: a fifth more CPU time in generation.
"""


def run(session: Session, job: Job) -> None:
    """Train until the parent stops asking for steps."""
    _mend(job)
    tokenizer = AutoTokenizer.from_pretrained(job.model, padding_side="left")
    texts = make_prompts(tokenizer, job.prompt, job.prompts * (job.total_steps + 1))
    trainer = GRPOTrainer(
        model=job.model,
        reward_funcs=[_reward],
        args=_config(job),
        train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
        processing_class=tokenizer,
        callbacks=[_turns(session)],
    )
    _watch(session, trainer)
    session.ready(threads=torch.get_num_threads(), precision="bfloat16" if trainer.args.bf16 else "float32")
    trainer.train()


def _reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [even_share(response_ids=ids) for ids in completion_ids]


def _config(job: Job) -> GRPOConfig:
    """The same update as Tandem's defaults: one per step, AdamW at the same rate, token-mean, the same clip bounds."""
    learner = LearnerConfig()
    micro = max(size for size in range(1, job.peer_micro_batch + 1) if job.batch % size == 0)
    return GRPOConfig(
        output_dir=str(Path(job.work_dir) / "trl"),
        use_cpu=not torch.cuda.is_available(),
        bf16=compute_dtype(job.precision) is torch.bfloat16,
        model_init_kwargs={"dtype": "float32", "attn_implementation": ATTENTION},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=job.batch // micro,
        num_generations=job.group_size,
        max_completion_length=job.response,
        generation_kwargs={"ignore_eos": True},
        max_steps=job.total_steps + 1,
        shuffle_dataset=False,
        learning_rate=learner.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=learner.weight_decay,
        adam_beta1=learner.adam_beta1,
        adam_beta2=learner.adam_beta2,
        max_grad_norm=learner.max_grad_norm,
        loss_type="dapo",
        epsilon=learner.clip_low,
        epsilon_high=learner.clip_high,
        beta=0.0,
        gradient_checkpointing=False,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_max_model_length=job.max_model_len,
        vllm_gpu_memory_utilization=0.1,
        vllm_importance_sampling_correction=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
    )


def _mend(job: Job) -> None:
    """Give TRL's vLLM the arguments it has no option for, and a weight sync that works on CPU."""
    make = vllm_generation.LLM

    def engine(**arguments: Any) -> Any:
        return make(**arguments, enforce_eager=job.enforce_eager, dtype=ENGINE_DTYPE, block_size=BLOCK_SIZE)

    vllm_generation.LLM = engine
    vllm_generation.VLLMGeneration.sync_weights = _sync_weights


def _sync_weights(self: Any) -> None:
    """Reload all weights as Tandem's engine does, then forget the prefix cache."""
    from vllm.config import set_current_vllm_config

    from rollouts.vllm_extension import repack_heads

    runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
    dtype = getattr(torch, ENGINE_DTYPE)
    with torch.no_grad(), set_current_vllm_config(runner.vllm_config):
        runner.reload_weights(weights_iterator=((name, p.to(dtype)) for name, p in self._iter_named_params()))
        repack_heads(runner.get_model())
    self.llm.reset_prefix_cache()


def _turns(session: Session) -> TrainerCallback:
    """A callback that waits for the parent between steps."""

    class Turns(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            session.report()
            self._wait(control)

        def _wait(self, control: Any) -> None:
            if not session.next_step():
                control.should_training_stop = True

    return Turns()


def _watch(session: Session, trainer: Any) -> None:
    """Time the phases and count what goes through the model."""
    clock = session.clock
    clock.wrap(trainer, "_generate", "generate")
    clock.wrap(trainer.vllm_generation, "sync_weights", "sync")
    clock.wrap(trainer, "_calculate_rewards", "reward")
    clock.wrap(trainer, "compute_loss", "learn")
    clock.wrap(trainer.accelerator, "backward", "learn")
    clock.wrap(trainer.accelerator, "clip_grad_norm_", "learn")
    _watch_optimizer(session, trainer)
    trainer.model.register_forward_pre_hook(lambda _module, _args, inputs: _count(session, inputs), with_kwargs=True)
    generate = trainer.vllm_generation.generate

    def noting(*args: Any, **kwargs: Any) -> Any:
        session.tokens.asked(kwargs["prompts"])
        return generate(*args, **kwargs)

    trainer.vllm_generation.generate = noting


def _watch_optimizer(session: Session, trainer: Any) -> None:
    """The optimiser is made when training begins; its step counts as learning."""
    create = trainer.create_optimizer

    def watched(*args: Any, **kwargs: Any) -> Any:
        optimizer = create(*args, **kwargs)
        session.clock.wrap(trainer.optimizer, "step", "learn")
        return optimizer

    trainer.create_optimizer = watched


def _count(session: Session, inputs: dict[str, Any]) -> None:
    response = int((inputs["labels"] != -100).sum())
    session.tokens.forwarded(
        prompt=int(inputs["attention_mask"].sum()) - response,
        response=response,
        positions=inputs["input_ids"].numel(),
    )
