"""What Tandem adds to every vLLM worker (`worker_extension_cls`): its sampler and its weight loading.

The methods are called through `collective_rpc`, so that each rank of a tensor-parallel engine does the same.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.v1.sample.sampler import Sampler

from rollouts.vllm_sampler import SeededSampler
from rollouts.weights import MappedWeights


class WorkerExtension:
    """Mixed into vLLM's `Worker`: `self` has `model_runner` and `reload_weights`."""

    model_runner: Any

    def tandem_install_sampler(self) -> None:
        """Replaces vLLM's sampler by `SeededSampler`."""
        kind = type(self.model_runner.sampler)
        assert kind is Sampler, f"the model runner has {kind}, which Tandem's sampler does not know how to replace"
        self.model_runner.sampler = SeededSampler(logprobs_mode="processed_logprobs")

    def tandem_load_weights(self, path: str) -> None:
        """Loads a full set of weights in the names and shapes of the checkpoint.

        Args:
            path: An image of `rollouts.weights`. All its tensors are there before the first is loaded: an error midway
                would leave the model broken.
        """
        if not hasattr(self, "_tandem_weights"):
            self._tandem_weights = MappedWeights()
        tensors = self._tandem_weights.read(path)
        self.reload_weights(weights_iterator=iter(tensors.items()))  # type: ignore[attr-defined]
        repack_heads(self.model_runner.get_model())


def repack_heads(model: nn.Module) -> int:
    """Packs the LM heads again on CPU, where vLLM multiplies with a packed copy of the matrix.

    A head tied to the embedding loads nothing itself, so reloading leaves its packed copy at the OLD weights without
    a word: log-probabilities are then off by 1 or 2.

    Returns:
        Number of heads packed: 0 where heads are not packed (GPU).
    """
    heads = [m for m in model.modules() if isinstance(m, ParallelLMHead) and hasattr(m, "cpu_linear")]
    for head in heads:
        head.quant_method.process_weights_after_loading(head)
    return len(heads)
