"""FSDP2 on gloo for verl's training workers; loaded in each of them (actor_rollout_ref.model.external_lib)."""

import importlib
import os
import sys
import types
from typing import Any

import torch.distributed as dist


def _register() -> None:
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    class CPUEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
        """verl's engine, whose forward-only form would pin memory for an accelerator."""

        def _build_fsdp_module(self, module: Any) -> Any:
            forward_only = self.engine_config.forward_only
            object.__setattr__(self.engine_config, "forward_only", False)
            try:
                return super()._build_fsdp_module(module)
            finally:
                object.__setattr__(self.engine_config, "forward_only", forward_only)

    EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(CPUEngine)


def _start_gloo() -> None:
    """verl would ask torch for `cpu:gloo,cpu:gloo`, which it refuses; a group that is there is used as it is."""
    if "WG_PREFIX" in os.environ and "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )


def _stand_in_for_trl() -> None:
    """verl looks for a class that TRL 1.16 no longer has, as soon as TRL is installed."""
    try:
        importlib.import_module("trl.experimental.ppo")
    except ImportError:
        module = types.ModuleType("trl.experimental.ppo")
        module.AutoModelForCausalLMWithValueHead = type("AutoModelForCausalLMWithValueHead", (), {})  # type: ignore[attr-defined]
        sys.modules["trl.experimental.ppo"] = module


_register()
_start_gloo()
_stand_in_for_trl()
