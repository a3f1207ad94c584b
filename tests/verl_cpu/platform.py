"""A CPU platform for verl's registry; imported by verl itself (VERL_USE_EXTERNAL_MODULES)."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _device_module() -> types.ModuleType:
    """`torch.cpu` with the calls on memory and random state that verl makes on a device's module."""
    module = types.ModuleType("verl_torch_cpu")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))
    nothing = ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "set_device", "synchronize")
    nothing += ("set_per_process_memory_fraction", "manual_seed_all")
    zero = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device")
    calls: dict[str, Any] = {name: lambda *_, **__: None for name in nothing}
    calls |= {name: lambda *_, **__: 0 for name in zero}
    calls |= {
        "is_available": lambda: False,
        "mem_get_info": lambda *_, **__: (0, 0),
        "device_count": lambda: 1,
        "manual_seed": torch.manual_seed,
        "get_rng_state": lambda *_, **__: torch.get_rng_state(),
        "set_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
        "get_device_name": lambda *_, **__: "CPU",
    }
    for name, call in calls.items():
        setattr(module, name, call)
    return module


@PlatformRegistry.register(platform="cpu")
class CPU(PlatformBase):
    """Gloo, shared memory for weights, and GPUs that only Ray's bookkeeping believes in."""

    device_name = "cpu"
    vendor_name = "cpu"
    _module: types.ModuleType | None = None

    @property
    def device_module(self) -> types.ModuleType:
        if CPU._module is None:
            CPU._module = _device_module()
        return CPU._module

    def is_available(self) -> bool:
        return True

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"  # verl's resource pools count nothing else

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # so weights go through POSIX shared memory

    def cudart(self) -> None:
        return None
