"""Checkpoints that are complete or absent, and from which training goes on bit for bit.

    checkpoints/step_N/
        config.json, model.safetensors, generation_config.json, tokenizer files: a Hugging Face model directory
            (adapter_config.json, adapter_model.safetensors for a LoRA policy)
        optimizer.safetensors: the optimizer's tensors, see `rl.optimizer_state`
        state.json: everything else: step, optimizer scalars and hyper-parameters, random generators, the trainer's own
            state, and the sizes of the other files

The weights are written in the precision they are trained in, so the model directory is both what vLLM and
`from_pretrained` load and the exact state of training. Nothing is pickled: loading a checkpoint runs no code from it.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from rl.files import atomic_directory, remove_directory, write_error
from rl.model_weights import holds_adapter, uses_own_names, weights_loader
from rl.optimizer_state import SEPARATOR, flatten_optimizer, optimizer_loader
from rl.random_state import random_state, set_random_state

FORMAT = 1
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
_NAME = re.compile(r"step_(\d+)")
WholeState: TypeAlias = tuple[Mapping[str, Tensor], tuple[dict[str, Tensor], dict[str, Any]]]
"""Weights by the names of `state_dict`, and what `flatten_optimizer` gives."""


def save_checkpoint(
    run: str | Path,
    *,
    step: int,
    model: Any,
    tokenizer: Any,
    optimizer: Any,
    state: Mapping[str, Any],
    keep_last: int | None = None,
    named_parameters: Iterable[tuple[str, Parameter]] | None = None,
    whole: WholeState | None = None,
) -> Path:
    """Write `checkpoints/step_<step>` into a run directory.

    Args:
        run: The run directory.
        step: Completed steps. A checkpoint of the same step is replaced.
        model: The transformers or peft model, unwrapped (no DDP).
        tokenizer: Anything with `save_pretrained`; None to leave it out.
        optimizer: A torch optimizer over parameters of `model` (or accelerate's wrapper of one).
        state: What the trainer wants back: JSON-able values, text keys.
        keep_last: Checkpoints to keep, this one included; older ones go once this one is complete. 0 or None: all.
        named_parameters: Names of the optimizer's parameters; those of `model` unless given.
        whole: Weights and optimizer state where `model` and `optimizer` hold parts of them.

    Returns:
        The checkpoint's directory.

    Raises:
        WriteError: The disk is full or the like. No half checkpoint is left, earlier ones are intact.
        ValueError: `state` or the optimizer holds something that cannot be saved without pickle.
    """
    path = Path(run) / "checkpoints" / f"step_{step}"
    if whole is None:
        weights, (tensors, scalars) = None, flatten_optimizer(optimizer, named_parameters or model.named_parameters())
    else:
        weights, (tensors, scalars) = whole
    contents = {
        "format": FORMAT,
        "step": step,
        "state": _jsonable(state, "state"),
        "optimizer": _jsonable(scalars, "optimizer"),
        "random": random_state(),
    }
    with atomic_directory(path) as directory:
        try:
            _save_model(model, tokenizer, directory, weights)
            save_file(tensors, directory / OPTIMIZER)
        except SafetensorError as error:  # it words the system's error itself, and is no OSError
            raise write_error(OSError(str(error)), path) from error
        contents["own_names"] = uses_own_names(directory, model)
        files = sorted(file for file in directory.rglob("*") if file.is_file())
        contents["files"] = {str(file.relative_to(directory)): file.stat().st_size for file in files}
        (directory / STATE).write_text(json.dumps(contents))
    _prune(path, step, keep_last)
    return path


def latest_checkpoint(run: str | Path) -> Path | None:
    """The newest complete checkpoint of a run, or None. A damaged one is passed over with a warning."""
    for _, path in reversed(_checkpoints(Path(run) / "checkpoints")):
        damage = _damage(path)
        if damage is None:
            return path
        warnings.warn(f"the checkpoint {path} is damaged and is passed over: {damage}", stacklevel=2)
    return None


def load_checkpoint(
    path: str | Path,
    *,
    model: Any,
    optimizer: Any = None,
    named_parameters: Iterable[tuple[str, Parameter]] | None = None,
    restore_random: bool = True,
    own_part: Callable[[str, Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Load weights, optimizer and random generators in place; nothing is touched unless everything fits.

    Args:
        path: A checkpoint directory.
        model: The model to load into, built as it was for the saved run.
        optimizer: The optimizer to load into; None to leave it out.
        named_parameters: As in `save_checkpoint`.
        restore_random: Whether the generators of Python, numpy and torch continue where they were.
        own_part: What this process holds of a whole tensor of a parameter's, where the optimizer holds parts.

    Returns:
        The trainer's `state`, with the number of completed steps under `"step"`.

    Raises:
        ValueError: The checkpoint is damaged, or does not fit the model or the optimizer; says where.
    """
    path = Path(path)
    damage = _damage(path)
    if damage is not None:
        raise ValueError(f"the checkpoint {path} cannot be loaded: {damage}: choose another one")
    contents = json.loads((path / STATE).read_text())
    try:
        loaders = [weights_loader(path, model, own_names=contents["own_names"])]
        if optimizer is not None:
            names = named_parameters or model.named_parameters()
            tensors = load_file(path / OPTIMIZER)
            if own_part is not None:
                tensors = {name: own_part(name.rsplit(SEPARATOR, 1)[0], each) for name, each in tensors.items()}
            loaders.append(optimizer_loader(tensors, contents["optimizer"], optimizer, names))
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"the checkpoint {path} does not fit this run: {error}") from error
    for load in loaders:
        load()
    if restore_random:
        set_random_state(contents["random"])
    return {**contents["state"], "step": contents["step"]}


def _save_model(model: Any, tokenizer: Any, directory: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """The model directory, without the progress bar that transformers draws for every save; `weights` instead of the
    model's own, if given.
    """
    with _no_progress_bar():
        if holds_adapter(model):
            # "auto" would look up the base model's configuration on the Hub; trained embeddings are saved either way.
            model.save_pretrained(directory, save_embedding_layers=False)
        else:
            model.save_pretrained(directory, state_dict=weights)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """(step, path) of what is named like a checkpoint, by step."""
    if not directory.is_dir():
        return []
    found = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


def _prune(newest: Path, step: int, keep_last: int | None) -> None:
    """Delete what is older than the `keep_last` newest, counted from the checkpoint that was just written."""
    if keep_last:
        older = [path for other, path in _checkpoints(newest.parent) if other < step]
        for path in older[: max(0, len(older) - (keep_last - 1))]:
            remove_directory(path)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is there in full."""
    try:
        contents = json.loads((path / STATE).read_text())
        if contents["format"] != FORMAT:
            return f"it is of format {contents['format']}, and this version reads format {FORMAT}"
        sizes: dict[str, int] = contents["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE} cannot be read ({error or type(error).__name__})"
    for name, size in sizes.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
    return None


def _jsonable(value: Any, where: str) -> Any:
    """A copy that JSON gives back as it is (tuples become lists), or a refusal that says where it cannot."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_jsonable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"cannot save {where}: its key {key!r} is not text, and JSON would change it")
        return {key: _jsonable(item, f"{where}.{key}") for key, item in value.items()}
    raise ValueError(f"cannot save {where}: a {type(value).__name__} would need pickle; make it a number, text or list")
