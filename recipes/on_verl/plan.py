"""What a run on verl asks of the cluster, before anything is loaded: processes, GPUs, memory, disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from recipes.plan import GIB, ModelShape, make_plan

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig
    from recipes.plan import Hardware, Work

AGENT_LOOPS = 8
"""verl's default number of processes that pass requests to the rollout servers (`rollout.agent.num_workers`)."""
TRAINED_BYTES = 16
"""Per weight, shared out over all GPUs: float32 weight and gradient, and AdamW's two."""
CHECKPOINT_BYTES = 16
"""Per weight on disk: verl's shards (weight and AdamW's two) and the plain model, all in float32."""


def plan_of_verl(config: HybridGrpoConfig, shape: ModelShape, work: Work, hardware: Hardware) -> list[str]:
    """The plan for a person.

    Args:
        config: The run.
        shape: The model.
        work: One step, as `recipes.plan.work_of` gives it.
        hardware: One GPU.
    """
    verl, parallel = config.verl, config.engine.tensor_parallel_size
    gpus = verl.nodes * verl.gpus_per_node
    servers = gpus // parallel
    plan = make_plan(shape, work, hardware)
    parameters = shape.parameters
    shard = TRAINED_BYTES * parameters / gpus
    responses = work.prompts * work.group_size
    waves = math.ceil(responses / (servers * work.max_num_seqs))
    kept = config.trainer.keep_last or math.ceil(config.trainer.steps / (config.trainer.save_every or 1))

    def gib(value: float) -> str:
        return f"{value / GIB:.2f} GiB"

    offloaded = ", while verl.offload keeps the trainer's share in main memory" if verl.offload else ""
    return [
        f"verl on Ray: {verl.nodes} nodes x {verl.gpus_per_node} GPUs = {gpus} training workers (FSDP2), and on the"
        f" same GPUs {servers} vLLM servers of {parallel} GPUs; {AGENT_LOOPS} agent loops, one trainer process on this"
        " machine",
        f"estimate for {hardware.name}; {parameters / 1e6:.0f} M parameters",
        f"training, per GPU: {gib(shard + plan.train_activations)} = {gib(shard)} ({TRAINED_BYTES} B per weight /"
        f" {gpus} GPUs: weights, gradients, AdamW) + activations {gib(plan.train_activations)}, and for a moment one"
        " layer's weights of all GPUs",
        f"generation, per GPU: engine.gpu_memory_utilization {config.engine.gpu_memory_utilization:g} of its memory;"
        f" {gib(plan.engine_total)} = weights {gib(plan.engine_weights)} + KV cache {gib(plan.engine_kv)} hold"
        f" {work.max_num_seqs} responses of full length{offloaded}",
        f"tokens per step: {plan.generated_tokens} generated = {work.prompts} prompts x {work.group_size} responses"
        f" x {work.response_tokens:.0f}, in {waves} rounds of {servers} servers x {work.max_num_seqs} responses",
        f"main memory of one node when a checkpoint is written: {gib(4 * parameters)} (the whole model, 4 B per"
        " weight)",
        f"disk: {gib(CHECKPOINT_BYTES * parameters)} per checkpoint ({CHECKPOINT_BYTES} B per weight), {kept} kept, in"
        " a run directory that all nodes share",
    ]
