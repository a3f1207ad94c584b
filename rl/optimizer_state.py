"""A torch optimizer's state as named tensors and JSON, and back: no pickle, and no positions that shift with the model.

torch numbers an optimizer's parameters; here every tensor carries the name of its parameter and its own key, so a
checkpoint can be read by eye and a model that does not fit is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

SEPARATOR = "|"


def flatten_optimizer(
    optimizer: Any, named_parameters: Iterable[tuple[str, Parameter]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take an optimizer's state apart.

    Args:
        optimizer: Any torch optimizer, or a wrapper of one with the same methods.
        named_parameters: Must name every parameter of the optimizer.

    Returns:
        Tensors keyed `<parameter>|<state key>` (hyper-parameters that are tensors: `|<group>|<key>`), and a JSON-able
        dictionary with all the rest: `{"class", "groups": [{"params": [names], **hyper-parameters}], "state": {name:
        {key: scalar}}}`.
    """
    groups = _group_names(optimizer, named_parameters)
    state_dict = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    states = {}
    for index, name in enumerate(name for names in groups for name in names):
        states[name] = _split(state_dict["state"].get(index, {}), f"{name}{SEPARATOR}", tensors)
    hyper = []
    for index, (group, names) in enumerate(zip(state_dict["param_groups"], groups, strict=True)):
        rest = {key: value for key, value in group.items() if key != "params"}
        hyper.append({**_split(rest, f"{SEPARATOR}{index}{SEPARATOR}", tensors), "params": names})
    return tensors, {"class": _class_name(optimizer), "groups": hyper, "state": states}


def optimizer_loader(
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Any],
    optimizer: Any,
    named_parameters: Iterable[tuple[str, Parameter]],
) -> Callable[[], None]:
    """Check that a flattened state fits `optimizer`, and return the function that loads it.

    Raises:
        ValueError: Another kind of optimizer, or other parameters; names them.
    """
    groups = _group_names(optimizer, named_parameters)
    _check_fits(scalars, optimizer, groups)
    state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in scalars["state"].items()}
    hyper = [dict(group) for group in scalars["groups"]]
    for full_name, tensor in tensors.items():
        name, key = full_name.rsplit(SEPARATOR, 1)
        target = hyper[int(name[len(SEPARATOR) :])] if name.startswith(SEPARATOR) else state[name]
        target[key] = tensor
    return lambda: _load(optimizer, groups, hyper, state)


def _load(
    optimizer: Any, groups: list[list[str]], hyper: list[dict[str, Any]], state: Mapping[str, dict[str, Any]]
) -> None:
    names = [name for group in groups for name in group]
    numbers = iter(range(len(names)))
    param_groups = [
        {**_with_tuples(saved, current), "params": [next(numbers) for _ in group]}
        for saved, current, group in zip(hyper, optimizer.param_groups, groups, strict=True)
    ]
    by_number = {number: state[name] for number, name in enumerate(names) if state[name]}
    optimizer.load_state_dict({"state": by_number, "param_groups": param_groups})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, name in zip(parameters, names, strict=True):
        _restore_dtypes(optimizer.state.get(parameter, {}), state[name])


def _restore_dtypes(loaded: dict[str, Any], saved: Mapping[str, Any]) -> None:
    """torch casts floating state to the parameter's dtype on loading; state in another precision gets its own back."""
    for key, value in saved.items():
        if isinstance(value, Tensor) and loaded[key].dtype != value.dtype:
            loaded[key] = value.to(loaded[key].device)


def _with_tuples(saved: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: what is one in the running optimizer (betas) becomes one again."""
    return {key: tuple(value) if isinstance(current.get(key), tuple) else value for key, value in saved.items()}


def _split(values: Mapping[str, Any], prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Move tensors of `values` into `tensors` and return the rest."""
    rest = {}
    for key, value in values.items():
        if isinstance(value, Tensor):
            tensors[prefix + key] = _own_memory(value.detach())
        else:
            rest[key] = value
    return rest


def _own_memory(tensor: Tensor) -> Tensor:
    """safetensors refuses tensors that share memory (state kept as views of one buffer) or have gaps."""
    shares = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if shares else tensor.contiguous()


def _group_names(optimizer: Any, named_parameters: Iterable[tuple[str, Parameter]]) -> list[list[str]]:
    """Names of the parameters of each group, in the optimizer's order."""
    names = {id(parameter): name for name, parameter in named_parameters}
    try:
        return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    except KeyError:
        raise ValueError(
            "the optimizer holds a parameter that the model does not name: give named_parameters that cover all of them"
        ) from None


def _check_fits(scalars: Mapping[str, Any], optimizer: Any, groups: list[list[str]]) -> None:
    if scalars["class"] != _class_name(optimizer):
        raise ValueError(f"it was saved with optimizer {scalars['class']}, but this run uses {_class_name(optimizer)}")
    saved = [group["params"] for group in scalars["groups"]]
    if [set(names) for names in saved] == [set(names) for names in groups]:
        return
    before, now = ({name for names in side for name in names} for side in (saved, groups))
    if before != now:
        raise ValueError(
            "its optimizer was trained with other parameters than this run's: "
            f"only there {_some(before - now)}; only here {_some(now - before)}"
        )
    raise ValueError("its optimizer has the same parameters in other groups: build the groups as in the saved run")


def _some(names: set[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return (", ".join(listed[:3]) or "none") + more


def _class_name(optimizer: Any) -> str:
    """accelerate's wrapper is looked through."""
    return type(getattr(optimizer, "optimizer", optimizer)).__name__
