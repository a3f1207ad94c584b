"""What a run will need, before anything is loaded: memory per device, tokens per step, workers that keep up.

Estimates by formula, from the model's config.json and the lengths; every line names its formula. They hold within a
factor of about 1.5 where the machine's speed is known, and are there to choose a configuration, not to promise a time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.launch import launched_processes
from rollouts.simulated import Latency

if TYPE_CHECKING:
    from recipes.hybrid_grpo import HybridGrpoConfig

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """Sizes of a decoder with grouped-query attention and a gated MLP (Llama, Qwen, SmolLM, MiniCPM)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Weights: embedding (and LM head unless tied), and per layer q, k, v, o, gate, up, down and two norms."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Weights of low-rank adapters on all linear layers: rank x (inputs + outputs) of each."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.hidden + q) + 2 * (self.hidden + kv) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * sides

    @property
    def layer_elements(self) -> int:
        """Numbers that one layer keeps per token for its backward pass, with an attention that keeps no score matrix.

        Inputs and outputs of two norms, o and the residual: 6 hidden; q and the attention's output; k and v; gate, up,
        its activation and their product: 4 intermediate.
        """
        return 6 * self.hidden + 2 * (self.heads + self.kv_heads) * self.head_dim + 4 * self.intermediate

    def kv_bytes(self, itemsize: int = 2) -> int:
        """Bytes of the keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * itemsize


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Sizes from a config.json.

    Raises:
        ValueError: It is not the configuration of such a decoder.
    """
    text = config.get("text_config") or config
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    missing = [name for name in needed if not isinstance(text.get(name), int)]
    if missing:
        raise ValueError(f"config.json has no {missing[0]}, so the model's memory cannot be estimated")
    heads = text["num_attention_heads"]
    return ModelShape(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        vocab=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Speed of one device (a GPU, or the cores of one worker): what is reached, not what the data sheet says."""

    name: str
    flops: float
    """Floating-point operations per second of matrix products in bf16."""
    bandwidth: float
    """Bytes per second that a decoding step reads weights and keys with."""


def cpu(cores: int) -> Hardware:
    """Cores that work on one thing: twice as many were twice as fast, measured up to two."""
    return Hardware(name=f"{cores} CPU cores", flops=cores * CPU_CORE.flops, bandwidth=cores * CPU_CORE.bandwidth)


CPU_CORE = Hardware(name="one CPU core with bf16 instructions", flops=1.6e11, bandwidth=8.4e9)
"""Fits SmolLM2-135M on one core: 32 ms + 1.9 ms per response and step, 1.2 ms per prompt token."""
H200 = Hardware(name="H200, 40 % of its products, 70 % of its bandwidth", flops=3.96e14, bandwidth=3.36e12)
"""Shares of the data sheet (989 TFLOP/s dense bf16, 4.8 TB/s) that well-tuned programs reach; not measured here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One step, and how it is computed."""

    prompts: int
    group_size: int
    prompt_tokens: float
    response_tokens: float
    """Mean length of a response."""
    max_model_len: int
    max_num_seqs: int
    micro_batch_tokens: int
    """Packed tokens of one forward pass; 0 = the whole step."""
    adapter_rank: int = 0
    """Rank of the adapters that are trained instead of all weights; 0 = all weights."""
    checkpointing: bool = False
    tensor_parallel: int = 1
    activation_itemsize: int = 2
    processes: int = 1
    """Training processes, each on a device of its own."""
    divided: bool = False
    """Whether they divide weights, gradients and optimiser state (FSDP) or each hold all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Estimates; memory in bytes, times in seconds."""

    parameters: int
    train_weights: int
    train_gradients: int
    train_optimizer: int
    train_activations: int
    engine_weights: int
    engine_kv: int
    kv_per_token: int
    generated_tokens: int
    trained_tokens: int
    generate_s: float
    train_s: float
    workers: int

    @property
    def train_total(self) -> int:
        """Memory of the trainer's device."""
        return self.train_weights + self.train_gradients + self.train_optimizer + self.train_activations

    @property
    def engine_total(self) -> int:
        """Memory of each of a worker's devices with room for `max_num_seqs` responses of full length."""
        return self.engine_weights + self.engine_kv


def latency_of(shape: ModelShape, hardware: Hardware, context: float, tensor_parallel: int = 1) -> Latency:
    """Speed of a bf16 worker: a step reads all weights once, and for each response computes a token and reads its keys.

    Args:
        shape: The model.
        hardware: One device.
        context: Mean number of tokens whose keys are read.
        tensor_parallel: Devices that share each layer.
    """
    token = 2 * shape.parameters / hardware.flops
    keys = context * shape.kv_bytes() / hardware.bandwidth
    return Latency(
        step_s=2 * shape.parameters / hardware.bandwidth / tensor_parallel,
        sequence_s=(token + keys) / tensor_parallel,
        prompt_token_s=token / tensor_parallel,
    )


def make_plan(shape: ModelShape, work: Work, hardware: Hardware) -> Plan:
    """Memory, tokens and times of a run whose trainer and workers are each one device of `hardware`.

    Weights and gradients of the trainer are float32, AdamW keeps two more; a worker holds bf16 weights. Training costs
    6 operations per weight and token, 8 with checkpointing (Kaplan et al., arXiv 2001.08361, section 2.1; Narayanan
    et al., arXiv 2104.04473, appendix), and reads each group's prompt once. Generation is `rollouts.simulated` with
    every response at the mean length.
    """
    adapters = shape.adapter_parameters(work.adapter_rank)
    p, trained = shape.parameters, adapters or shape.parameters
    responses = work.prompts * work.group_size
    generated = round(responses * work.response_tokens)
    packed = generated + round(work.prompts * work.prompt_tokens)
    at_once = min(work.micro_batch_tokens or packed, math.ceil(packed / work.processes))
    latency = latency_of(shape, hardware, work.prompt_tokens + work.response_tokens / 2, work.tensor_parallel)
    waves = math.ceil(responses / work.max_num_seqs)
    generate_s = (
        work.prompts * work.prompt_tokens * latency.prompt_token_s
        + waves * work.response_tokens * latency.step_s
        + generated * latency.sequence_s
    )
    train_s = (8 if work.checkpointing else 6) * p * packed / hardware.flops / work.processes
    holders = work.processes if work.divided else 1
    return Plan(
        parameters=p,
        train_weights=4 * (p + adapters) // holders,
        train_gradients=4 * trained // holders,
        train_optimizer=8 * trained // holders,
        train_activations=at_once * _kept_per_token(shape, work) * work.activation_itemsize,
        engine_weights=2 * p // work.tensor_parallel,
        engine_kv=work.max_num_seqs * work.max_model_len * shape.kv_bytes() // work.tensor_parallel,
        kv_per_token=shape.kv_bytes(),
        generated_tokens=generated,
        trained_tokens=packed,
        generate_s=generate_s,
        train_s=train_s,
        workers=max(1, round(generate_s / train_s)),
    )


def _kept_per_token(shape: ModelShape, work: Work) -> int:
    """Numbers kept per token: all layers' insides, or (checkpointing) their inputs and one layer's inside."""
    if work.checkpointing:
        return shape.layers * shape.hidden + shape.layer_elements
    return shape.layers * shape.layer_elements


def plan_lines(plan: Plan, work: Work, hardware: Hardware) -> list[str]:
    """The plan for a person, with the formulas."""

    def gib(value: float) -> str:
        return f"{value / GIB:.2f} GiB"

    kept = "layers x hidden + one layer" if work.checkpointing else "layers x (6 hidden + q + o + k + v + 4 MLP)"
    per = "" if work.tensor_parallel == 1 else f" / {work.tensor_parallel} devices"
    factor = 8 if work.checkpointing else 6
    shared = "" if work.processes == 1 else f" / {work.processes} processes"
    held = shared if work.divided else ""
    return [
        f"estimate for {hardware.name}; {plan.parameters / 1e6:.0f} M parameters",
        *([f"training processes: {work.processes}, {_SHARING[work.divided]}"] if work.processes > 1 else []),
        f"trainer {gib(plan.train_total)} = weights {gib(plan.train_weights)} (4 B each{held})"
        f" + gradients {gib(plan.train_gradients)} (4 B per trained weight{held})"
        f" + AdamW {gib(plan.train_optimizer)} (8 B per trained weight{held})"
        f" + activations {gib(plan.train_activations)} ({kept}, {work.activation_itemsize} B, per token of a"
        " micro-batch)",
        f"worker {gib(plan.engine_total)} = weights {gib(plan.engine_weights)} (2 B each{per})"
        f" + KV cache {gib(plan.engine_kv)} ({work.max_num_seqs} responses x {work.max_model_len} tokens"
        f" x {plan.kv_per_token} B{per})",
        f"tokens per step: {plan.generated_tokens} generated = {work.prompts} prompts x {work.group_size} responses"
        f" x {work.response_tokens:.0f}; {plan.trained_tokens} trained = those + {work.prompts} prompts"
        f" x {work.prompt_tokens:.0f}",
        f"generation {plan.generate_s:.3g} s per worker = prompts / speed + waves x length x weights / bandwidth"
        " + tokens x (2 x parameters / speed + keys / bandwidth)",
        f"training {plan.train_s:.3g} s = {factor} x parameters x tokens / speed{shared}",
        f"workers that keep up with training: {plan.workers} = generation / training, rounded",
    ]


_SHARING = {False: "each with the whole model (ddp)", True: "the language model divided among them (fsdp)"}


def plan_of_run(config: HybridGrpoConfig) -> list[str]:
    """The plan of a hybrid GRPO run on this machine, every response at its budget; one line if it cannot be made."""
    try:
        shape = _shape_of(Path(config.model.path))
    except ValueError as error:
        return [f"no estimate: {error}"]
    work = work_of(config)
    if config.backend == "verl":
        from recipes.on_verl.plan import plan_of_verl

        return plan_of_verl(config, shape, work, H200)
    cores = max(1, len(os.sched_getaffinity(0)) // work.processes)
    hardware = H200 if Path("/proc/driver/nvidia").exists() else cpu(cores)
    return plan_lines(make_plan(shape, work, hardware), work, hardware)


def work_of(config: HybridGrpoConfig) -> Work:
    """One step of a run: responses at the budgets of their modes, prompts that fill the context with the longest."""
    modes, engine = config.modes, config.engine
    budgets = [mode.max_tokens for mode in modes.active()]
    shares = [1 - modes.long_share, modes.long_share] if modes.mode == "hybrid" else [1.0]
    return Work(
        prompts=config.trainer.prompts_per_step,
        group_size=config.group_size,
        prompt_tokens=engine.max_model_len - max(budgets),
        response_tokens=sum(budget * share for budget, share in zip(budgets, shares, strict=True)),
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        micro_batch_tokens=config.learner.micro_batch_tokens,
        adapter_rank=config.lora.rank if config.lora else 0,
        checkpointing=config.gradient_checkpointing,
        tensor_parallel=engine.tensor_parallel_size,
        activation_itemsize=4 if config.learner.precision == "float32" else 2,
        processes=launched_processes(),
        divided=config.trainer.parallel.kind == "fsdp",
    )


def _shape_of(name: Path) -> ModelShape:
    """Sizes of a checkpoint folder, or of the packaged model once it is unpacked."""
    from recipes.models import MODELS, SMOLLM2

    folder = MODELS / SMOLLM2 if str(name) == SMOLLM2 else name.expanduser()
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"model.path is {str(name)!r}, and no folder of that name has a config.json")
    return read_shape(json.loads(path.read_text()))
