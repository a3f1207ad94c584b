"""A sampler for vLLM that draws each token with one random number and keeps log-probabilities whole.

vLLM draws a seeded request's token by filling a row of the whole vocabulary with exponential noise, one request after
the other. On a CPU that took more time than the model itself (32 requests, vocabulary 49,152: 54 % of a decoding
step). Here each request's generator gives one uniform number, which is inverted through the cumulative distribution.

Letters: B = requests of the step, V = vocabulary, K = blocks of the vocabulary, W = width of a block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p
from vllm.v1.sample.sampler import Sampler

from rollouts.inverse_cdf import draw


class SeededSampler(Sampler):
    """vLLM's sampler with another way of drawing, and log-probabilities of the untruncated distribution.

    The log-probability is that of the sampled token under softmax(logits / temperature) over the whole vocabulary,
    whatever min_p, top_k and top_p have removed; at temperature 0 it is that of temperature 1.
    """

    def sample(
        self, logits: Tensor, sampling_metadata: Any, logprobs_mode_override: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws one token per request.

        Args:
            logits: [B, V] float32, after penalties; changed in place.
            sampling_metadata: vLLM's record of temperatures, truncations and generators.
            logprobs_mode_override: Not used: there is one kind of log-probability here.

        Returns:
            [B] token ids and [B, 1] their log-probabilities; [B, V] those of all tokens where a request names some.
        """
        meta = sampling_metadata
        greedy_B = None if meta.all_random else logits.argmax(-1)
        if not meta.all_greedy:
            logits = self.apply_temperature(logits, meta.temperature, meta.all_random)
        norm_B = logits.logsumexp(-1)
        if meta.all_greedy:
            sampled_B = greedy_B
            return sampled_B, _logprobs(logits, sampled_B, norm_B, meta)
        weights_BV = self._truncated(logits, meta)
        sampled_B = draw(weights_BV, _uniforms(meta.generators, logits))
        if greedy_B is not None:
            sampled_B = torch.where(meta.temperature < 1e-5, greedy_B, sampled_B)
        return sampled_B, _logprobs(logits, sampled_B, norm_B, meta)

    @staticmethod
    def _truncated(logits: Tensor, meta: Any) -> Tensor:
        """[B, V] probabilities after min_p, top_k and top_p; `logits` stays as it is."""
        processors = [p for p in meta.logitsprocs.argmax_invariant if getattr(p, "min_p_count", 1)]
        if processors or meta.top_k is not None or meta.top_p is not None:
            logits = logits.clone()
            for processor in processors:
                logits = processor.apply(logits)
            logits = apply_top_k_top_p(logits, meta.top_k, meta.top_p)
        return logits.softmax(-1)

    @staticmethod
    def gather_logprobs(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> LogprobsTensors:
        """Log-probabilities of the given tokens alone, without the ranks that nobody asked for.

        Args:
            logprobs: [N, V], or [N, 1] as `sample` returns them.
            num_logprobs: 0: no further tokens.
            token_ids: [N] tokens.
        """
        if num_logprobs > 0:
            return Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)
        ids_N1 = token_ids.unsqueeze(-1)
        values_N1 = logprobs if logprobs.shape[-1] == 1 else logprobs.gather(-1, ids_N1)
        return LogprobsTensors(ids_N1.to(torch.int32), values_N1, torch.zeros_like(token_ids))


def _logprobs(logits_BV: Tensor, tokens_B: Tensor, norm_B: Tensor, meta: Any) -> Tensor:
    """[B, 1] log-probabilities of the tokens, given the log-sum-exp of their rows; of all [B, V] where a request names
    tokens that it wants.
    """
    if meta.logprob_token_ids:
        return logits_BV - norm_B.unsqueeze(-1)
    return logits_BV.gather(-1, tokens_B.unsqueeze(-1)) - norm_B.unsqueeze(-1)


def _uniforms(generators: dict[int, torch.Generator], logits_BV: Tensor) -> Tensor:
    """[B] float64 numbers in [0, 1), each from its request's own generator."""
    uniforms_B = torch.empty(logits_BV.shape[0], dtype=torch.float64, device=logits_BV.device)
    for row in range(uniforms_B.shape[0]):
        uniforms_B[row : row + 1].uniform_(generator=generators.get(row))
    return uniforms_B
