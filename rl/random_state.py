"""The state of every random generator of this process, as JSON-able values."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """State of the generators of Python, numpy (the global one), torch and, where CUDA is in use, its devices."""
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": _encode(torch.get_rng_state()),
        "cuda": [_encode(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from a `random_state`. CUDA's part needs as many devices as there were, and is left out otherwise."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    generator = state["numpy"]["state"]
    key = np.array(generator["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**generator, "key": key}})
    torch.set_rng_state(_decode(state["torch"]))
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([_decode(encoded) for encoded in state["cuda"]])


def _encode(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(encoded: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(encoded)), dtype=torch.uint8)


def seed_everything(*parts: int | str) -> None:
    """Restart the generators of Python, numpy and torch from a hash of the parts, such as a run's seed and step."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    value = int.from_bytes(digest[:4], "big")
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
