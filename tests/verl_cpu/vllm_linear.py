"""A plug-in of vLLM that leaves linear weights as they are: packed for CPU, they could not be loaded anew."""

from typing import Any


def register() -> None:
    """Called by vLLM in each of its processes."""
    import torch
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return

    def dispatch(layer: Any, remove_weight: bool = False) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch
