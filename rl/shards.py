"""FSDP2: every process keeps a part of the language model's weights, gradients and optimiser state.

torch's `fully_shard` divides each decoder layer, and embedding, last norm and head together. A vision tower and its
resampler stay whole in every process, as in `rl.replicas`: they are small beside the language model, and a process
whose micro-batch has no image does not run them, while divided weights must be gathered by all processes at once.

The optimiser works on each process's parts as plain tensors: AdamW moves every element by itself, so this is exact,
and divided and whole parameters can be moved by one fused call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from base_model.packed_lm import PackedCausalLM
from rl.optimizer_state import SEPARATOR, flatten_optimizer
from rl.processes import Processes
from rl.replicas import sum_gradients


class Shards:
    """Weights, gradients and their norm of a model that is divided among the processes."""

    even = True
    """Every forward and backward pass gathers weights from all processes, so all must make as many."""

    def __init__(self, packed: PackedCausalLM, processes: Processes) -> None:
        """Divide a model in place, on the device where it is.

        Raises:
            ValueError: The model has adapters, or its layers are unknown here.
        """
        self.model: Any = packed.model
        self.processes = processes
        self._mesh = init_device_mesh(next(packed.parameters()).device.type, (processes.count,))
        processes.share_first([p.data for p in packed.parameters()])
        _divide(packed, self._mesh)
        self._parts = [(name, p, _part(p)) for name, p in self.model.named_parameters() if p.requires_grad]

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """What this process's optimiser moves: its parts, under the names of the whole parameters."""
        return [(name, part) for name, _, part in self._parts]

    def collect_gradients(self) -> None:
        """Give the parts their gradients; those of divided parameters were added up in the backward pass."""
        for _, parameter, part in self._parts:
            if isinstance(parameter, DTensor):
                assert parameter.to_local().data_ptr() == part.data_ptr(), "FSDP has moved its weights"
                part.grad = None if parameter.grad is None else parameter.grad.to_local()
        sum_gradients([p for _, p, part in self._parts if p is part], self.processes)

    def clip(self, limit: float) -> float:
        """Scale the gradients down to the limit; returns their norm before, over all processes."""
        divided = [part.grad for _, p, part in self._parts if p is not part and part.grad is not None]
        whole = [part.grad for _, p, part in self._parts if p is part and part.grad is not None]
        square = torch.nn.utils.get_total_norm(divided).square()
        self.processes.add_up([square])
        norm = (square + torch.nn.utils.get_total_norm(whole).square().to(square)).sqrt()
        torch.nn.utils.clip_grads_with_norm_([part for _, part in self.named_parameters()], limit or math.inf, norm)
        return float(norm)

    def clear_gradients(self) -> None:
        """Forget the gradients that FSDP keeps."""
        for _, parameter, _ in self._parts:
            parameter.grad = None

    def full_weights(self) -> dict[str, Tensor]:
        """The whole weights in main memory on process 0, nothing elsewhere; all processes must ask."""
        from transformers.core_model_loading import revert_weight_conversion

        tensors = self._full({name: p.detach() for name, p in self.model.named_parameters()})
        return revert_weight_conversion(self.model, tensors) if self.processes.leads else {}

    def full_state(self, optimizer: Any) -> tuple[dict[str, Tensor], tuple[dict[str, Tensor], dict[str, Any]]]:
        """Whole weights, with the names of `state_dict`, and whole optimiser state (as by `flatten_optimizer`) on
        process 0; all processes must ask.
        """
        tensors, scalars = flatten_optimizer(optimizer, self.named_parameters())
        whole = {name: p for name, p, part in self._parts if p is not part}
        for name in tensors:
            owner = whole.get(name.rsplit(SEPARATOR, 1)[0])
            if owner is not None and tensors[name].dim():
                tensors[name] = _like(owner, tensors[name])
        return self._full(self.model.state_dict()), (self._full(tensors), scalars)

    def own_part(self, name: str, tensor: Tensor) -> Tensor:
        """This process's part of a whole tensor that belongs to a parameter (the parameter, or a moment of it)."""
        owner = next((p for other, p, _ in self._parts if other == name), None)
        divided = isinstance(owner, DTensor) and tensor.shape == owner.shape
        return own_part(tensor, owner) if divided else tensor

    def _full(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on process 0, one at a time and kept in main memory; names of one tensor stay one tensor."""
        found: dict[int, Tensor] = {}
        full = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.processes.leads:
                full[name] = found.setdefault(_address(tensor), whole.detach().cpu())
        return full


def own_part(tensor: Tensor, like: Any) -> Tensor:
    """The rows of a whole tensor that this process holds of the divided tensor `like`."""
    rows = tensor.chunk(like.device_mesh.size(), 0)
    rank = like.device_mesh.get_local_rank()
    return rows[rank] if rank < len(rows) else tensor[:0]


def _address(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.data_ptr()


def _part(parameter: Parameter) -> Parameter:
    """This process's rows of a divided parameter, over the same memory; a whole one as it is."""
    return Parameter(parameter.to_local().detach()) if isinstance(parameter, DTensor) else parameter


def _like(owner: Any, local: Tensor) -> Tensor:
    """A divided tensor of the owner's shape, from this process's part."""
    return DTensor.from_local(
        local, owner.device_mesh, owner.placements, run_check=False, shape=owner.shape, stride=owner.stride()
    )


def _divide(packed: PackedCausalLM, mesh: Any) -> None:
    kind = packed.causal_lm.config.model_type
    if packed.model is not packed.causal_lm:
        raise ValueError("trainer.parallel.kind fsdp trains all weights, not adapters: leave lora out, or use kind ddp")
    decoder = packed.decoder
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(f"trainer.parallel.kind fsdp does not know the layers of {kind!r} models: use kind ddp")
    divided = {*decoder.parameters(), *packed.causal_lm.get_output_embeddings().parameters()}
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": True}
    units = [fully_shard(layer, **options) for layer in layers]
    whole = {p for p in packed.parameters() if p not in divided}
    units.append(fully_shard(packed, ignored_params=whole, **options))
    for unit in units:  # the step's weights are fixed before it is divided: gradients are summed, not averaged
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    for method in ("logprobs", "branch_logprobs"):
        register_fsdp_forward_method(packed, method)
