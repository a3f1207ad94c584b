"""Where a step of the real trainer goes: seconds, tokens, arithmetic and memory traffic by phase.

    generate    prompts are made and the engine answers      backward    below the head
    score       the policy's log-probs of references         optimizer   clipping, AdamW, schedule
    reward      scores of responses                          sync        weights to the engine
    pack        tokens and pixels become micro-batches       checkpoint  model and optimizer to the disk
    forward     vision tower and layers of the update        other       the rest of the step
    head        the LM head on response positions, softmax, loss and their gradients: one pass makes them all

The trainer is not changed: a clock stands around calls that it makes anyway, some ten per step and six per micro-batch,
each of which takes microseconds to time. On a GPU the clock waits for the kernels of a phase before it goes on to the
next, since calls return before their work is done.

Arithmetic is what the model needs (`base_model.flops`); memory traffic is the least that a phase can do with: weights,
gradients, optimizer state, keys and values, each touched once per use. Activations and scores are left out. Where a
small model fits into the caches, it can be more than the bandwidth allows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from base_model.branches import BranchBatch
from base_model.export.sizes import key_value_bytes
from base_model.flops import FlopCount, measure_bandwidth, measure_peak
from base_model.packing import GroupLayout, PackedBatch
from base_model.training_settings import PARTS
from recipes.benchmark.session import PhaseClock
from rl.learner import Learner
from rl.trainer import Trainer
from rollouts.records import Request, Rollout

ENGINE_PHASES = ("generate", "sync")
"""Phases in which other processes work; their CPU seconds come from the trainer, which counts those."""
_OPTIMIZER_PASSES = 10
"""fp32 values read or written per weight: gradient for the norm; gradient read and written when it is clipped; AdamW
reads weight, gradient and both moments, and writes all but the gradient."""


def machine_peaks(device: torch.device) -> dict[str, float]:
    """Operations per second of large matrix products in fp32 and bf16, and bytes per second of large copies."""
    return {
        "matmul_fp32": measure_peak(device, torch.float32),
        "matmul_bf16": measure_peak(device, torch.bfloat16),
        "bandwidth": measure_bandwidth(device),
    }


def counted_operations(model: Any) -> FlopCount | None:
    """Counts a model's operations where every part trains; None for a vision-language model of another layout, whose
    tower is not known."""
    known = hasattr(model, "resampler") or not hasattr(model.config, "vision_config")
    return FlopCount(model, PARTS) if known else None


class StepProfile:
    """Clock and counters around a trainer.

    Args:
        trainer: its parts get wrapped.
        sequences: responses that the engine works on at a time.
    """

    def __init__(self, trainer: Trainer, sequences: int) -> None:
        self.trainer = trainer
        self.clock = PhaseClock(_reader(trainer.learner.device))
        self._sequences = sequences
        self._model = trainer.learner.packed.causal_lm
        self._flops = counted_operations(self._model)
        weights = {id(weight): weight for weight in self._model.parameters()}.values()
        self._weights = sum(weight.numel() for weight in weights)
        tables = (self._model.get_input_embeddings().weight, self._model.get_output_embeddings().weight)
        self._head = tables[1].numel()
        self._layers = self._weights - sum({id(table): table.numel() for table in tables}.values())
        self._counts: dict[str, dict[str, float]] = {}
        self._views = self._prompts = 0.0
        self._generated: list[GroupLayout] = []
        self._time_calls()
        self._count_work()

    def take(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What has been measured since the last call.

        Args:
            metrics: the trainer's, of the same step.
        """
        self._count_generation()
        phases = {
            name: {"seconds": wall, "cpu_seconds": metrics.get(f"time/{name}_cpu", cpu)}
            if name in ENGINE_PHASES
            else {"seconds": wall, "cpu_seconds": cpu}
            for name, (wall, cpu) in self.clock.take().items()
        }
        counts, self._counts = self._counts, {}
        self._views = self._prompts = 0.0
        return {"profile": phases, "counts": counts}

    def add(self, phase: str, *, tokens: float = 0, flop: float = 0.0, traffic: float = 0.0) -> None:
        """Count work of a phase.

        Args:
            phase: its name.
            tokens: or positions, or whatever the phase is paid by.
            flop: floating-point operations.
            traffic: bytes read or written.
        """
        own = self._counts.setdefault(phase, {"tokens": 0.0, "flop": 0.0, "bytes": 0.0})
        own["tokens"] += tokens
        own["flop"] += flop
        own["bytes"] += traffic

    # ---- time ----

    def _time_calls(self) -> None:
        trainer, clock = self.trainer, self.clock
        clock.wrap(trainer, "_generate", "generate")
        clock.wrap(trainer, "_push_weights", "sync")
        clock.wrap(trainer, "save", "checkpoint")
        clock.wrap(trainer.reference, "baselines", "score")
        time_learner(clock, trainer.learner)
        self._time_rewards()

    def _time_rewards(self) -> None:
        scoring = self.trainer.environment.scoring

        def timed(*args: Any, **kwargs: Any) -> Any:
            made = scoring(*args, **kwargs)
            for method in ("collect", "finish", "supply", "result"):
                self.clock.wrap(made, method, "reward")
            return made

        self.trainer.environment.scoring = timed  # type: ignore[method-assign]

    # ---- work ----

    def _count_work(self) -> None:
        trainer, packed = self.trainer, self.trainer.learner.packed
        _after(trainer.engine, "generate", self._saw_generation)
        _after(trainer.engine, "load_weights", lambda _out, *_args, **_more: self._saw_sync())
        _after(trainer.learner, "_optimizer_step", lambda _out: self._saw_optimizer())
        _after(trainer, "save", lambda _out: self._saw_checkpoint())
        packed.register_forward_pre_hook(lambda _module, args: self._saw_update(args[0]))
        _after(packed, "_branch_logprobs", lambda _out, _batch, branches, _memory: self._saw_branches(branches))
        _after(packed, "branch_logprobs", lambda _out, batch, _branches: self._saw_scoring(batch))
        _after(packed, "logprobs", lambda _out, batch: self._saw_scoring(batch, len(batch.targets_T)))

    def _saw_generation(self, rollouts: Sequence[Rollout], requests: Sequence[Request], *_: Any, **__: Any) -> None:
        lengths: dict[tuple[int, ...], list[int]] = {}
        for request, rollout in zip(requests, rollouts, strict=True):
            lengths.setdefault(tuple(request.prompt_ids), []).append(len(rollout.response_ids))
        groups = [GroupLayout(prompt=len(ids), responses=tuple(filter(None, each))) for ids, each in lengths.items()]
        self._generated += groups
        responses = [n for group in groups for n in group.responses]
        self.add("reward", tokens=sum(responses))
        waves = math.ceil(len(responses) / self._sequences)
        keys = sum(n * group.prompt + n * (n + 1) // 2 for group in groups for n in group.responses)
        weights = waves * max(responses, default=0) * 2 * (self._layers + self._head)
        traffic = weights + key_value_bytes(self._model.config, keys)
        self.add("generate", tokens=sum(responses), traffic=traffic)

    def _count_generation(self) -> None:
        """The engine's tower sees each prompt's media once, as the learner's does."""
        if self._flops is not None and self._generated:
            media = self._views / self._prompts if self._prompts else 0.0
            self.add("generate", flop=self._flops.generation(self._generated) + len(self._generated) * media)
        self._generated = []

    def _saw_update(self, batch: PackedBatch) -> None:
        tokens, targets = batch.input_ids.numel(), len(batch.targets_T)
        layers, head, flops = 4 * self._layers, 4 * self._head, self._flops
        self.add("pack", tokens=tokens)
        self.add("forward", tokens=tokens, flop=flops.forward(batch) if flops else 0.0, traffic=layers)
        self.add("head", tokens=targets, flop=flops.head_step(targets) if flops else 0.0, traffic=3 * head)
        self.add("backward", tokens=tokens, flop=flops.backward(batch) if flops else 0.0, traffic=2 * layers)
        self._views += flops.media(batch) if flops else 0.0
        self._prompts += len(batch.layout)

    def _saw_branches(self, branches: BranchBatch) -> None:
        tokens, flops = len(branches.targets_M), self._flops
        keys = sum(
            n * (len(prefix) + 1) + n * (n - 1) // 2
            for n, prefix in zip(branches.lengths, branches.prefix_rows(), strict=True)
        )
        flop = flops.branches(tokens, keys) if flops else 0.0
        self.add("score", tokens=tokens, flop=flop, traffic=4 * (self._layers + self._head))

    def _saw_scoring(self, batch: PackedBatch, targets: int = 0) -> None:
        """A pass of its own, of which the head sees some rows or none."""
        flops = self._flops
        flop = flops.forward(batch) + 2.0 * targets * flops.head if flops else 0.0
        head = 4 * self._head if targets else 0
        self.add("score", tokens=batch.input_ids.numel(), flop=flop, traffic=4 * self._layers + head)

    def _saw_optimizer(self) -> None:
        self.add("optimizer", traffic=4 * _OPTIMIZER_PASSES * self._weights)

    def _saw_sync(self) -> None:
        """Each value is read by the trainer, written to shared memory, read by the engine and written there."""
        self.add("sync", traffic=(4 + 4 + 4 + 2) * self._weights)

    def _saw_checkpoint(self) -> None:
        files = (self.trainer.run.path / "checkpoints" / f"step_{self.trainer.state.step}").rglob("*")
        self.add("checkpoint", traffic=sum(file.stat().st_size for file in files if file.is_file()))


def time_learner(clock: PhaseClock, learner: Learner) -> None:
    """Count what a learner does by phase."""
    clock.wrap(learner, "branch_logprobs", "score")
    clock.wrap(learner, "_old_logprobs", "score")
    clock.wrap_iterator(learner, "_micro_batches", "pack")
    clock.wrap(learner.accelerator, "backward", "backward")
    clock.wrap(learner, "_optimizer_step", "optimizer")
    # The update's own forward pass is all head, but for the layers and the branches.
    clock.wrap(learner, "_forward", "head")
    clock.wrap(learner.packed._backbone, "hidden", "forward", only_in="head")
    clock.wrap(learner.packed, "_branch_logprobs", "score", only_in="head")


def _after(owner: Any, method: str, note: Callable[..., None]) -> None:
    """Call ``note(result, *arguments)`` after every call of ``owner.method``."""
    call = getattr(owner, method)

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        note(result, *args, **kwargs)
        return result

    setattr(owner, method, noted)


def _reader(device: torch.device) -> Callable[[], tuple[float, float]]:
    """Wall and CPU seconds of this process, when all that was asked of the device is done."""
    if device.type != "cuda":
        return lambda: (time.perf_counter(), time.process_time())

    def read() -> tuple[float, float]:
        torch.cuda.synchronize(device)
        return time.perf_counter(), time.process_time()

    return read
