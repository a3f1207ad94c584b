"""Floating-point operations of a training step, counted from the model's own matrix products.

One product of [m, k] by [k, n] counts 2 m k n. A backward pass makes two more products for each: one for the weight's
gradient, if the weight trains, and one for the input's, if anything below it trains. What is recomputed to save memory
does not count (model FLOPs utilisation: arXiv 2204.02311, appendix B). Norms, softmax and the optimiser are left out.

Legend: D width of the language model, L tokens of a sample, N patches of a view or package, Q queries, T target tokens.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from base_model.packing import GroupLayout, PackedBatch
from base_model.training_settings import PartName


@dataclass(frozen=True, slots=True)
class Passes:
    """How often the products of a part are done: with weights (forward, weight gradient, input gradient) and without
    (forward, and two gradients)."""

    weights: int
    attention: int

    @classmethod
    def of(cls, *, trains: bool, below: bool) -> "Passes":
        """For a part that trains or not, above parts of which one trains or none."""
        needed = trains or below
        return cls(1 + trains + needed, 1 + 2 * needed)


ONCE = Passes(1, 1)
"""A forward pass."""


class FlopCount:
    """Counts of one model with fixed trainable parts.

    Args:
        model: `MiniCPMV` or a text-only causal language model of transformers.
        parts: those that train.
    """

    def __init__(self, model: Any, parts: Collection[PartName]) -> None:
        self.llm = getattr(model, "llm", model)
        self.vision = model if hasattr(model, "resampler") else None
        head = self.llm.get_output_embeddings()
        self.per_token = _linear_weights(self.llm, leave_out=head)
        self.head = head.weight.numel()
        config = self.llm.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.per_score = config.num_hidden_layers * config.num_attention_heads * width
        tower, resampler, llm = (part in parts for part in ("vision tower", "resampler", "language model"))
        self.tower_passes = Passes.of(trains=tower, below=False)
        self.keys_passes = Passes.of(trains=resampler, below=tower)
        self.llm_passes = Passes.of(trains=llm, below=tower or resampler)

    def count(self, batch: PackedBatch) -> float:
        """Operations of one training step on the batch, forward and backward."""
        return self.forward(batch) + self.head_step(len(batch.targets_T)) + self.backward(batch)

    def forward(self, batch: PackedBatch) -> float:
        """Operations of a forward pass up to the head."""
        return self.language(batch.layout, ONCE) + self.media(batch)

    def backward(self, batch: PackedBatch) -> float:
        """Operations of the backward pass below the head."""
        media = self._views(batch, self.tower_passes, self.keys_passes) - self.media(batch)
        return self.language(batch.layout, self.llm_passes) - self.language(batch.layout, ONCE) + media

    def head_step(self, targets: int) -> float:
        """Operations of the head on this many positions, its gradients included."""
        return 2.0 * self.llm_passes.weights * targets * self.head

    def language(self, layout: Iterable[GroupLayout], passes: Passes) -> float:
        """Operations of the language model without its head. A prompt's scores are its square; a response is scored
        against the prompt and itself."""
        groups = list(layout)
        squares = sum(map(attention_scores, groups))
        products = 2.0 * passes.weights * sum(each.total for each in groups) * self.per_token
        return products + 4.0 * passes.attention * squares * self.per_score

    def generation(self, layout: Iterable[GroupLayout]) -> float:
        """Operations of sampling each group's responses, its prompt computed once: every token but the last of a
        response runs through the layers, against the keys before it and its own, and each is one row of the head."""
        total = 0.0
        for each in layout:
            rows = each.prompt + sum(n - 1 for n in each.responses)
            scores = each.prompt**2 + sum((n - 1) * each.prompt + n * (n - 1) // 2 for n in each.responses)
            total += 2.0 * (rows * self.per_token + sum(each.responses) * self.head) + 4.0 * scores * self.per_score
        return total

    def branches(self, tokens: int, keys: int) -> float:
        """Operations of scoring branch tokens without gradient.

        Args:
            tokens: of all branches.
            keys: seen by them, in all.
        """
        return 2.0 * tokens * (self.per_token + self.head) + 4.0 * keys * self.per_score

    def media(self, batch: PackedBatch) -> float:
        """Operations of vision tower and resampler in a forward pass."""
        return self._views(batch, ONCE, ONCE)

    def _views(self, batch: PackedBatch, tower: Passes, keys: Passes) -> float:
        if self.vision is None:
            return 0.0
        return sum(self._media(each.inputs, tower, keys) for each in batch.media)

    def _media(self, inputs: Any, tower: Passes, keys: Passes) -> float:
        patches = [int(rows) * int(columns) for rows, columns in inputs["tgt_sizes"][0].tolist()]
        views = iter(patches)
        packages = [sum(next(views) for _ in package) for package in inputs["temporal_ids"][0]]
        return sum(self._view(n, tower) for n in patches) + sum(self._package(n, keys) for n in packages)

    def _view(self, patches: int, passes: Passes) -> float:
        tower = self.vision.vpm  # type: ignore[union-attr]
        kernel, layers = tower.embeddings.patch_embedding, tower.encoder.layers
        products = 2.0 * passes.weights * patches * (_linear_weights(layers) + kernel.weight.numel())
        return products + 4.0 * passes.attention * len(layers) * patches**2 * kernel.out_channels

    def _package(self, patches: int, passes: Passes) -> float:
        """Keys and values of all patches; attention of the queries; output projection and `proj` of the queries."""
        resampler = self.vision.resampler  # type: ignore[union-attr]
        queries, width = resampler.query.shape
        incoming = 0 if isinstance(resampler.kv_proj, nn.Identity) else resampler.kv_proj.weight.numel()
        keys = 2.0 * passes.weights * patches * (incoming + 2 * width**2)
        return (
            keys + 2.0 * passes.weights * queries * 2 * width**2 + (4.0 * passes.attention * queries * patches * width)
        )


def attention_scores(group: GroupLayout) -> int:
    """Pairs of a row and a key in one group, masked ones of its own text included."""
    return group.prompt**2 + sum(n * (group.prompt + n) for n in group.responses)


def _linear_weights(module: nn.Module, leave_out: nn.Module | None = None) -> int:
    """Weights in linear layers: the products per token, without the factor 2."""
    linear = (each for each in module.modules() if isinstance(each, nn.Linear) and each is not leave_out)
    return sum(each.weight.numel() for each in linear)


def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations per second of the best of many large matrix products in this type: what MFU is a share of."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    return 2.0 * side**3 / _best(lambda: a @ b, device, seconds)


def measure_bandwidth(device: torch.device, seconds: float = 0.5) -> float:
    """Bytes per second of the best of many copies of a tensor that no cache holds, each byte read and written once."""
    size = 2**30 if device.type == "cuda" else 2**28
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    return 2.0 * size / _best(lambda: target.copy_(source), device, seconds)


def _best(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds of the fastest of as many calls as fit into the time, at least one."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
