"""Floating-point operations of a training step, counted from the model's own matrix products.

One product of [m, k] by [k, n] counts 2 m k n. A backward pass makes two more products for each: one for the weight's
gradient, if the weight trains, and one for the input's, if anything below it trains. What is recomputed to save memory
does not count (model FLOPs utilisation: arXiv 2204.02311, appendix B). Norms, softmax and the optimiser are left out.

Legend: D width of the language model, L tokens of a sample, N patches of a view or package, Q queries, T target tokens.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from base_model.packing import PackedBatch
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
        tokens, squares = batch.input_ids.numel(), sum(group.total**2 for group in batch.layout)
        once = self.llm_passes
        total = 2.0 * once.weights * (tokens * self.per_token + len(batch.targets_T) * self.head)
        total += 4.0 * once.attention * squares * self.per_score
        for media in batch.media if self.vision is not None else ():
            total += self._media(media.inputs)
        return total

    def _media(self, inputs: Any) -> float:
        assert self.vision is not None
        patches = [int(rows) * int(columns) for rows, columns in inputs["tgt_sizes"][0].tolist()]
        views = iter(patches)
        packages = [sum(next(views) for _ in package) for package in inputs["temporal_ids"][0]]
        return sum(map(self._view, patches)) + sum(map(self._package, packages))

    def _view(self, patches: int) -> float:
        tower = self.vision.vpm  # type: ignore[union-attr]
        kernel, layers = tower.embeddings.patch_embedding, tower.encoder.layers
        products = 2.0 * self.tower_passes.weights * patches * (_linear_weights(layers) + kernel.weight.numel())
        scores = (
            4.0 * self.tower_passes.attention * len(layers) * patches**2 * tower.embeddings.patch_embedding.out_channels
        )
        return products + scores

    def _package(self, patches: int) -> float:
        """Keys and values of all patches; attention of the queries; output projection and `proj` of the queries."""
        resampler = self.vision.resampler  # type: ignore[union-attr]
        queries, width = resampler.query.shape
        incoming = 0 if isinstance(resampler.kv_proj, nn.Identity) else resampler.kv_proj.weight.numel()
        keys = 2.0 * self.keys_passes.weights * patches * (incoming + 2 * width**2)
        return (
            keys
            + 2.0 * self.keys_passes.weights * queries * 2 * width**2
            + (4.0 * self.keys_passes.attention * queries * patches * width)
        )


def _linear_weights(module: nn.Module, leave_out: nn.Module | None = None) -> int:
    """Weights in linear layers: the products per token, without the factor 2."""
    linear = (each for each in module.modules() if isinstance(each, nn.Linear) and each is not leave_out)
    return sum(each.weight.numel() for each in linear)


def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations per second of the best of many large matrix products in this type: what MFU is a share of."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
