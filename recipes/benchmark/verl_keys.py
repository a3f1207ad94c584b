"""verl's configuration for the benchmark: the same update as Tandem's defaults, at sensible settings for CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes.benchmark.config import Job
from rl.config import LearnerConfig

WORK = "pkg://recipes.benchmark.verl_work"
BUCKET_MB = 2048
"""Shared memory through which weights go to the engine: without IPC between GPUs it has to hold the largest matrix."""
BLOCK_SIZE = 32
"""Tokens per block of vLLM's prefix cache: its default on CPU, 128, shares no block of a short prompt in a group."""


def verl_keys(job: Job, folder: Path, precision: str) -> dict[str, Any]:
    """Dotted keys of verl 0.9.1 and their values.

    Args:
        job: what to do.
        folder: has `prompts.json`, and takes verl's files.
        precision: of matrix products in training, `bfloat16` or `float32`.
    """
    loops = folder / "agent_loops.yaml"
    loops.write_text("- name: forced\n  _target_: recipes.benchmark.verl_work.ForcedLengths\n")
    return {
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "algorithm.rollout_correction.bypass_mode": True,
        "actor_rollout_ref.model.path": job.model,
        "actor_rollout_ref.model.enable_gradient_checkpointing": False,
        **{f"actor_rollout_ref.actor.{key}": value for key, value in _actor(job, precision).items()},
        **{f"actor_rollout_ref.rollout.{key}": value for key, value in _rollout(job, loops).items()},
        **{f"data.{key}": value for key, value in _data(job, folder / "prompts.json").items()},
        **{f"trainer.{key}": value for key, value in _trainer(job, folder).items()},
        "reward.num_workers": 1,
    }


def _micro_batch(job: Job) -> int:
    """Responses per forward pass."""
    return max(size for size in range(1, job.peer_micro_batch + 1) if job.batch % size == 0)


def _actor(job: Job, precision: str) -> dict[str, Any]:
    learner = LearnerConfig()
    param = "bf16" if precision == "bfloat16" else "fp32"
    return {
        "strategy": "fsdp2",
        "fsdp_config.strategy": "fsdp2",
        "fsdp_config.model_dtype": "fp32",
        "fsdp_config.mixed_precision": {"param_dtype": param, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        "fsdp_config.reshard_after_forward": False,
        "fsdp_config.use_no_sync_for_gradient_accumulation": True,
        "ppo_mini_batch_size": job.prompts,
        "ppo_micro_batch_size_per_gpu": _micro_batch(job),
        "use_dynamic_bsz": False,
        "ppo_epochs": 1,
        "clip_ratio_low": learner.clip_low,
        "clip_ratio_high": learner.clip_high,
        "loss_agg_mode": "token-mean",
        "entropy_coeff": 0,
        "use_kl_loss": False,
        "shuffle": False,
        "grad_clip": learner.max_grad_norm,
        "optim.clip_grad": learner.max_grad_norm,
        "optim.lr": learner.learning_rate,
        "optim.lr_scheduler_type": "constant",
        "optim.lr_warmup_steps": 0,
        "optim.weight_decay": learner.weight_decay,
        "optim.betas": [learner.adam_beta1, learner.adam_beta2],
    }


def _rollout(job: Job, loops: Path) -> dict[str, Any]:
    return {
        "name": "vllm",
        "n": job.group_size,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "ignore_eos": True,
        "dtype": "bfloat16",
        "max_model_len": job.max_model_len,
        "tensor_model_parallel_size": 1,
        "gpu_memory_utilization": 0.1,
        "enforce_eager": job.enforce_eager,
        "calculate_log_probs": True,
        "log_prob_micro_batch_size_per_gpu": _micro_batch(job),
        "checkpoint_engine.update_weights_bucket_megabytes": BUCKET_MB,
        "engine_kwargs.vllm.block_size": BLOCK_SIZE,
        "agent.num_workers": 1,
        "agent.default_agent_loop": "forced",
        "agent.agent_loop_config_path": str(loops),
    }


def _data(job: Job, prompts: Path) -> dict[str, Any]:
    return {
        "custom_cls.path": WORK,
        "custom_cls.name": "Prompts",
        "train_files": str(prompts),
        "val_files": str(prompts),
        "train_batch_size": job.prompts,
        "max_prompt_length": job.prompt,
        "max_response_length": job.response,
        "shuffle": False,
        "dataloader_num_workers": 0,
    }


def _trainer(job: Job, folder: Path) -> dict[str, Any]:
    return {
        "project_name": "tandem",
        "experiment_name": "benchmark",
        "nnodes": 1,
        "n_gpus_per_node": 1,
        "total_epochs": 1,
        # One more than is asked for: verl writes a checkpoint and validates at the last one.
        "total_training_steps": job.total_steps + 1,
        "val_before_train": False,
        "test_freq": -1,
        "save_freq": -1,
        "logger": [],
        "default_local_dir": str(folder / "checkpoints"),
        "resume_mode": "disable",
        "use_v1": True,
        "v1.trainer_mode": "sync",
    }
