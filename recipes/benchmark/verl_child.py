"""verl's side: its own synchronous trainer, replay buffer and GRPO on a Ray of its own, at sensible settings for CPU.

What costs verl time and can be switched off is off: the second forward pass for log-probs (`bypass_mode` takes the
engine's), gradient checkpointing, entropy, offloading, gathering the weights anew for the backward pass, reward
workers, loggers. Its trainer runs in this process, where its own command would start one more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, PPOTrainerSync

from base_model.packed_lm import compute_dtype
from recipes.benchmark.config import Job
from recipes.benchmark.session import Session, TokenCount
from recipes.benchmark.verl_keys import verl_keys
from recipes.benchmark.verl_parts import stand_ins
from recipes.benchmark.workload import make_prompts
from recipes.on_verl.launch import compose


def run(session: Session, job: Job) -> None:
    """Train until the parent stops asking for steps."""
    folder = Path(job.work_dir) / "verl"
    folder.mkdir()
    _write_prompts(job, folder / "prompts.json")
    precision = str(compute_dtype(job.precision)).removeprefix("torch.")
    parts = stand_ins()
    config = compose((parts.OVERRIDES if parts else {}) | verl_keys(job, folder, precision))
    config.transfer_queue.enable = True
    OmegaConf.resolve(config)
    start = {"address": "local", "runtime_env": get_ppo_ray_runtime_env(config)}
    ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init) | start)
    tq.init(config.transfer_queue)
    try:
        trainer = MeasuredTrainer(config, session, job, precision)
        trainer.init()
        trainer.fit(
            AgentLoopManagerTQ.create(
                config=config,
                llm_client=trainer.get_llm_client(),
                teacher_client=trainer.get_teacher_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
        )
    except _EnoughError:
        return
    finally:
        tq.close()
        ray.shutdown()


def _write_prompts(job: Job, path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    texts = make_prompts(tokenizer, job.prompt, job.prompts * (job.total_steps + 1))
    path.write_text(json.dumps([tokenizer(text)["input_ids"] for text in texts]))


class _EnoughError(Exception):
    """The parent wants no more steps."""


class MeasuredTrainer(PPOTrainerSync):
    """verl's trainer, which waits for its turn before each step and reports the one before."""

    def __init__(self, config: Any, session: Session, job: Job, precision: str) -> None:
        super().__init__(config=config)
        self._session = session
        self._job = job
        self._precision = precision
        self._measuring = False

    def on_train_begin(self) -> None:
        """Everything is loaded."""
        super().on_train_begin()
        clock = self._session.clock
        clock.wrap(self.replay_buffer, "sample", "generate")
        clock.wrap(self.actor_rollout_wg, "update_actor", "learn")
        clock.wrap(self.checkpoint_manager, "update_weights", "sync")
        self._session.ready(
            threads=self._job.threads, precision=self._precision, poll_interval_s=self.replay_buffer.poll_interval
        )

    def on_step_begin(self) -> None:
        """Between two steps."""
        if self._measuring:
            self._session.report()
        self._measuring = True
        if not self._session.next_step():
            raise _EnoughError
        super().on_step_begin()

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """One step, whose tokens are counted."""
        self.train_dataset.drawn.clear()
        batch = super().step(metrics, timing_raw)
        prompts = [ids for ids in self.train_dataset.drawn for _ in range(self._job.group_size)]
        count_tokens(self._session.tokens, prompts, batch.tags)
        return batch


def count_tokens(count: TokenCount, prompts: Sequence[Sequence[int]], tags: Sequence[dict[str, Any]]) -> None:
    """What verl trained on, from what its store says of each response.

    Args:
        count: takes the sums.
        prompts: prompts of the step, one per response, in the order of the data.
        tags: `prompt_len`, `response_len` of each response; rows that only fill the batch have `is_padding`.
    """
    count.asked(prompts)
    real = [tag for tag in tags if not tag.get("is_padding", False)]
    prompt, response = (sum(tag[name] for tag in real) for name in ("prompt_len", "response_len"))
    # Responses of one forward pass are padded to the longest, and here all are equally long.
    count.forwarded(prompt=prompt, response=response, positions=prompt + response)
