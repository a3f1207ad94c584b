"""Which parts of a model train: set, checked and counted; and their parameters in groups with learning rates of their
own."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from torch import nn

from base_model.training_settings import PARTS, OptimizerSettings, PartName
from base_model.vlm.presets import PREFIXES


class PartState(NamedTuple):
    """Parameters of a part, in numbers of weights; tied ones count once."""

    parameters: int
    trainable: int


def part_of(name: str) -> PartName:
    """The part that a parameter belongs to, by its name; all of a text-only model is its language model."""
    return next((part for part in PARTS if name.startswith(PREFIXES[part])), "language model")


def set_trainable(model: nn.Module, parts: Collection[PartName]) -> dict[PartName, PartState]:
    """Let exactly these parts train, freeze the others; the counts by part.

    Args:
        model: a vision-language model, or a text-only one (which has a language model only).
        parts: at least one, all of which the model has.

    Raises:
        ValueError: the model lacks a part, or none is to train.
    """
    has = {part_of(name) for name, _ in model.named_parameters()}
    lacking = [part for part in parts if part not in has]
    if lacking or not parts:
        named = ", ".join(lacking) or "nothing"
        raise ValueError(f"{named} is to train, but the model has {', '.join(sorted(has))}: choose among these")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)
    states = part_states(model)
    for part, state in states.items():
        assert state.trainable == (state.parameters if part in parts else 0), (part, state)
    return states


def part_states(model: nn.Module) -> dict[PartName, PartState]:
    """Parameters and trainable parameters of every part that the model has."""
    states: dict[PartName, PartState] = {}
    for name, parameter in model.named_parameters():
        part, count = part_of(name), parameter.numel()
        before = states.get(part, PartState(0, 0))
        trained = count if parameter.requires_grad else 0
        states[part] = PartState(before.parameters + count, before.trainable + trained)
    return {part: states[part] for part in PARTS if part in states}


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Groups for AdamW: each part that trains, its matrices with weight decay and the rest without."""
    return list(_groups(model, settings))


def _groups(model: nn.Module, settings: OptimizerSettings) -> Iterator[dict[str, Any]]:
    for part in PARTS:
        trained = [p for name, p in model.named_parameters() if p.requires_grad and part_of(name) == part]
        for matrices in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == matrices]
            if chosen:
                decay = settings.weight_decay if matrices else 0.0
                yield {"params": chosen, "lr": settings.rate(part), "weight_decay": decay, "part": part}
