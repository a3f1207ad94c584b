"""Data parallelism with a whole copy of the model in every process: gradients are added up before the update.

They are added up once per update and not by hooks during the backward pass (torch's DistributedDataParallel): a
process may have fewer micro-batches than another, and some without images, in which the vision tower has no gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from base_model.packed_lm import PackedCausalLM, merged_weights
from rl.processes import Processes


class Replicas:
    """Weights, gradients and their norm of a model that every process holds as a whole."""

    even = False
    """Whether every process must compute as many micro-batches as the others."""

    def __init__(self, packed: PackedCausalLM, processes: Processes) -> None:
        self.model: Any = packed.model
        self.processes = processes
        processes.share_first([p.data for p in packed.parameters()])  # new adapters are random

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """What this process's optimiser moves, under the model's names."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def collect_gradients(self) -> None:
        """Make every process's gradients those of the whole step."""
        sum_gradients([p for _, p in self.named_parameters()], self.processes)

    def clip(self, limit: float) -> float:
        """Scale the gradients down to the limit; returns their norm before."""
        return float(torch.nn.utils.clip_grad_norm_([p for _, p in self.named_parameters()], limit or math.inf))

    def clear_gradients(self) -> None:
        """Nothing is kept outside of the optimiser's parameters."""

    def full_weights(self) -> dict[str, Tensor]:
        """The plain model's weights, for the engine; see `merged_weights`."""
        return merged_weights(self.model)


def sum_gradients(parameters: list[Parameter], processes: Processes) -> None:
    """Add up gradients over the processes; a parameter without one anywhere keeps none, as in one process."""
    if processes.count == 1 or not parameters:
        return
    used = processes.anywhere([p.grad is not None for p in parameters], parameters[0].device)
    gradients = []
    for parameter in (p for p, flag in zip(parameters, used, strict=True) if flag):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    processes.add_up(gradients)
