"""The recipe's config as verl's: dotted keys and their values.

verl 0.9.1's defaults stand wherever nothing is said here (KL and entropy are off in both, and said nevertheless).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig

PACKAGE = "recipes.on_verl"
AGENT_LOOP = Path(__file__).parent / "agent_loop.yaml"
"""What tells verl's agent-loop workers about `recipes.on_verl.agent_loop`."""
NO_CLIP = 1e9
"""Beyond any gradient norm, and any ratio: verl's dual clip (a third bound for negative advantages) is switched off."""
LOSSES = {"token-mean": "token-mean", "sequence-mean": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}
"""Our names of the loss's denominators, and verl's."""


def verl_keys(config: HybridGrpoConfig, model_path: Path, base_dir: Path | None) -> dict[str, Any]:
    """Everything that the recipe sets of verl's configuration, the user's own overrides last.

    Raises:
        ValueError: an override names a key that the recipe sets.
    """
    keys = {
        **_algorithm(config),
        **_actor(config),
        **_rollout(config),
        **_data(config),
        **_trainer(config, base_dir),
        "actor_rollout_ref.model.path": str(model_path),
        "actor_rollout_ref.model.trust_remote_code": config.model.trust_remote_code,
        "actor_rollout_ref.model.enable_gradient_checkpointing": config.gradient_checkpointing,
    }
    if config.verl.address is not None:
        keys["ray_kwargs.ray_init.address"] = config.verl.address
    taken = [key for key in config.verl.overrides if key in keys]
    if taken:
        raise ValueError(
            f"verl.overrides sets {taken[0]}, which the recipe sets itself to {keys[taken[0]]!r}: change the recipe's "
            "own key instead (docs/verl.md)"
        )
    return keys | config.verl.overrides


def _algorithm(config: HybridGrpoConfig) -> dict[str, Any]:
    cap = config.learner.importance_cap
    keys: dict[str, Any] = {
        "algorithm.adv_estimator": f"tandem_{config.trainer.scale_rewards}",
        "algorithm.use_kl_in_reward": False,
        "algorithm.rollout_correction.rollout_is": None if cap is None else "token",
    }
    return keys if cap is None else keys | {"algorithm.rollout_correction.rollout_is_threshold": cap}


def _actor(config: HybridGrpoConfig) -> dict[str, Any]:
    learner, trainer, offload = config.learner, config.trainer, config.verl.offload
    precision = "fp32" if learner.precision == "float32" else "bf16"
    step_tokens = trainer.prompts_per_step * config.group_size * config.engine.max_model_len
    keys = {
        "strategy": "fsdp2",
        "fsdp_config.strategy": "fsdp2",
        "fsdp_config.model_dtype": "fp32",
        "fsdp_config.mixed_precision": {"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        "fsdp_config.seed": config.seed,
        "fsdp_config.param_offload": offload,
        "fsdp_config.optimizer_offload": offload,
        "ppo_mini_batch_size": trainer.prompts_per_step // learner.updates_per_step,
        "ppo_epochs": 1,
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": max(learner.micro_batch_tokens or step_tokens, config.engine.max_model_len),
        "clip_ratio_low": learner.clip_low,
        "clip_ratio_high": learner.clip_high,
        "clip_ratio_c": NO_CLIP,
        "loss_agg_mode": LOSSES[learner.aggregation],
        "loss_scale_factor": learner.constant_length if learner.aggregation == "constant" else None,
        "policy_loss.loss_mode": "vanilla",
        "entropy_coeff": 0,
        "use_kl_loss": False,
        "shuffle": False,
        "grad_clip": learner.max_grad_norm or NO_CLIP,
        "optim.clip_grad": learner.max_grad_norm or NO_CLIP,
        "optim.lr": learner.learning_rate,
        "optim.lr_scheduler_type": "cosine" if learner.lr_scheduler == "cosine" else "constant",
        "optim.lr_warmup_steps": 0 if learner.lr_scheduler == "constant" else learner.warmup_steps,
        "optim.weight_decay": learner.weight_decay,
        "optim.betas": [learner.adam_beta1, learner.adam_beta2],
        "checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        "checkpoint.load_contents": ["model", "optimizer", "extra"],
    }
    return {f"actor_rollout_ref.actor.{key}": value for key, value in keys.items()}


def _rollout(config: HybridGrpoConfig) -> dict[str, Any]:
    engine = config.engine
    keys = {
        "name": "vllm",
        "n": config.group_size,
        "temperature": config.sampling.temperature,
        "top_p": config.sampling.top_p,
        "top_k": -1,
        "seed": config.seed,
        "dtype": engine.dtype,
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": max(8192, engine.max_model_len),
        "enable_chunked_prefill": False,
        "tensor_model_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enforce_eager": engine.enforce_eager,
        "calculate_log_probs": True,
        "agent.default_agent_loop": "tandem",
        "agent.agent_loop_config_path": str(AGENT_LOOP),
    }
    return {f"actor_rollout_ref.rollout.{key}": value for key, value in keys.items()}


def _data(config: HybridGrpoConfig) -> dict[str, Any]:
    longest = max(mode.max_tokens for mode in config.modes.active())
    keys = {
        "custom_cls.path": f"pkg://{PACKAGE}.dataset",
        "custom_cls.name": "Positions",
        "train_files": [],
        "val_files": [],
        "train_batch_size": config.trainer.prompts_per_step,
        "train_max_samples": config.trainer.steps * config.trainer.prompts_per_step,
        "max_prompt_length": config.engine.max_model_len - longest,
        "max_response_length": longest,
        "shuffle": False,
        "dataloader_num_workers": 0,
    }
    return {f"data.{key}": value for key, value in keys.items()}


def _trainer(config: HybridGrpoConfig, base_dir: Path | None) -> dict[str, Any]:
    run = config.run.absolute()
    keys = {
        "project_name": "tandem",
        "experiment_name": run.name,
        "nnodes": config.verl.nodes,
        "n_gpus_per_node": config.verl.gpus_per_node,
        "total_epochs": 1,
        "total_training_steps": config.trainer.steps,
        "val_before_train": False,
        "test_freq": -1,
        "save_freq": config.trainer.save_every or config.trainer.steps,
        "default_local_dir": str(run / "verl"),
        "checkpoint_callback_class": f"{PACKAGE}.checkpoints.Checkpoints",
        "use_v1": True,
        "v1.trainer_mode": "sync",
        "v1.sampler.custom_sampler.path": f"pkg://{PACKAGE}.sampler",
        "v1.sampler.custom_sampler.name": "TandemSampler",
        "v1.sampler.sampler_kwargs": {"run": str(run), "base_dir": None if base_dir is None else str(base_dir)},
    }
    return {"reward.num_workers": 1} | {f"trainer.{key}": value for key, value in keys.items()}
