"""One DPO update: packed micro-batches in which the two sides of a pair share their prompt.

Legend: T response tokens of one batch, P pairs.

The learner sees token ids and reference log-probs. Its gradient does not depend on how a step is cut into
micro-batches: every pair has the weight 1 / (pairs of the step), every token of the supervised term 1 / (chosen tokens
of the step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from base_model.packed_lm import PackedCausalLM
from base_model.packing import TokenGroup, pack_groups, split_by_tokens
from base_model.sequence_logprobs import SequenceLogprobs
from rl.metrics import Mean, Metrics, merge, to_floats
from rl.optimisation import Optimisation
from rl.preference_config import PreferenceLearnerConfig
from rl.preference_losses import PairLogprobs, both_rewards, dpo_loss, pair_metrics, sft_loss, sum_by_response


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPair:
    """A preference pair as token ids.

    Example:
        ``EncodedPair(prompt_ids=(5, 6), chosen_ids=(7, 2), rejected_ids=(8, 9, 2))``
    """

    prompt_ids: tuple[int, ...]
    """Everything that is given, the mode's prefill included, blocks of images and videos in place."""
    chosen_ids: tuple[int, ...]
    """The better response with its end of turn."""
    rejected_ids: tuple[int, ...]
    """The worse response with its end of turn."""
    load_inputs: Callable[[], Mapping[str, Any]] | None = None
    """Makes the model's further arguments for the prompt's images and videos; None = there are none."""
    media_key: str = ""
    """Tells prompts apart whose ids are equal but whose images or videos differ."""

    @property
    def tokens(self) -> int:
        """Packed tokens of the pair: the prompt counts once."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    def group(self) -> TokenGroup:
        """Both sides behind one prompt."""
        inputs = self.load_inputs() if self.load_inputs else None
        return TokenGroup(prompt=self.prompt_ids, responses=[self.chosen_ids, self.rejected_ids], inputs=inputs)


class SideLogprobs(NamedTuple):
    """Summed log-probs of the two sides of a pair."""

    chosen: float
    rejected: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PairScore:
    """A pair under the current policy."""

    loss: float
    """Of this pair alone."""
    reward_chosen: float
    """Implicit reward of the chosen side."""
    reward_rejected: float
    """Implicit reward of the rejected side."""


class PreferenceLearner:
    """Model, optimiser and schedule, behind ``update``."""

    def __init__(self, packed: PackedCausalLM, config: PreferenceLearnerConfig, *, total_steps: int) -> None:
        """Args:
        packed: The policy, loaded at temperature 1.
        config: Loss and optimiser.
        total_steps: Of the run, for the schedule.
        """
        warmup = math.ceil(0.05 * total_steps) if config.warmup_steps is None else config.warmup_steps
        self.config = config
        self.packed = packed
        self.optimisation = Optimisation(SequenceLogprobs(packed), config, warmup_steps=warmup, total_steps=total_steps)

    @property
    def model(self) -> Any:
        """The transformers (or peft) model under training."""
        return self.packed.model

    def logprobs(self, pairs: Sequence[EncodedPair]) -> list[SideLogprobs]:
        """Summed log-probs of both sides under the current weights, in one forward pass, without dropout or
        gradient.
        """
        batch = pack_groups([pair.group() for pair in pairs]).to(self.optimisation.device)
        with torch.no_grad(), self._evaluating(), self.optimisation.autocast():
            logprobs_T = self.packed.logprobs(batch)
        sums = sum_by_response(logprobs_T, _lengths(pairs)).tolist()
        return [SideLogprobs(*sums[at : at + 2]) for at in range(0, len(sums), 2)]

    def micro_batches(self, pairs: Sequence[EncodedPair]) -> list[range]:
        """How pairs are cut to the token budget."""
        return list(split_by_tokens([pair.tokens for pair in pairs], self.config.micro_batch_tokens))

    def update(self, pairs: Sequence[EncodedPair], reference: Sequence[SideLogprobs]) -> dict[str, float]:
        """Run one step on the pairs and advance the schedule.

        A gradient that is not finite refuses the update: the weights stay as they were and ``skipped`` is 1.

        Args:
            pairs: The step's pairs.
            reference: The reference policy's log-probs of each.

        Returns:
            Loss and its parts, gradient norm, ``lr`` as it was used, implicit rewards, log-probs and lengths.
        """
        chosen_tokens = sum(len(pair.chosen_ids) for pair in pairs)
        metrics: list[Metrics] = []
        loss = 0.0
        for part in self.micro_batches(pairs):
            own, ref = [pairs[i] for i in part], [reference[i] for i in part]
            part_loss = self._part_loss(own, ref, len(pairs), chosen_tokens, metrics)
            self.optimisation.backward(part_loss)
            loss += float(part_loss.detach())
        norm, rate = self.optimisation.step()
        skipped = float(not math.isfinite(norm))
        return {"loss": loss, "lr": rate, "grad_norm": norm, "skipped": skipped, **to_floats(merge(*metrics))}

    def evaluate(self, pairs: Sequence[EncodedPair], reference: Sequence[SideLogprobs]) -> list[PairScore]:
        """Loss and implicit rewards of each pair under the current weights."""
        scores = []
        for part in self.micro_batches(pairs):
            own = [pairs[i] for i in part]
            found = torch.tensor(self.logprobs(own), dtype=torch.float64)
            both = self._pair_logprobs(own, [reference[i] for i in part], found[:, 0], found[:, 1])
            scores.extend(self._scores(both))
        return scores

    def _part_loss(
        self,
        pairs: Sequence[EncodedPair],
        reference: Sequence[SideLogprobs],
        step_pairs: int,
        step_chosen_tokens: int,
        metrics: list[Metrics],
    ) -> Tensor:
        """The share of some pairs in the step's loss."""
        batch = pack_groups([pair.group() for pair in pairs]).to(self.optimisation.device)
        sums = sum_by_response(self.optimisation.forward(batch), _lengths(pairs))
        both = self._pair_logprobs(pairs, reference, sums[0::2], sums[1::2])
        config = self.config
        loss_P = dpo_loss(
            both,
            beta=config.beta,
            label_smoothing=config.label_smoothing,
            length_normalised=config.length_normalised,
        )
        metrics.append(pair_metrics(both, beta=config.beta, length_normalised=config.length_normalised))
        metrics[-1]["loss/dpo"] = Mean(float(loss_P.detach().sum()), len(pairs))
        metrics[-1]["loss/sft"] = Mean(-float(both.chosen_P.detach().sum()), float(both.chosen_tokens_P.sum()))
        loss = loss_P.sum() / step_pairs
        return loss + config.sft_weight * sft_loss(both.chosen_P, step_chosen_tokens) if config.sft_weight else loss

    def _pair_logprobs(
        self, pairs: Sequence[EncodedPair], reference: Sequence[SideLogprobs], chosen_P: Tensor, rejected_P: Tensor
    ) -> PairLogprobs:
        options: dict[str, Any] = {"dtype": torch.float64, "device": chosen_P.device}
        return PairLogprobs(
            chosen_P=chosen_P,
            rejected_P=rejected_P,
            ref_chosen_P=torch.tensor([side.chosen for side in reference], **options),
            ref_rejected_P=torch.tensor([side.rejected for side in reference], **options),
            chosen_tokens_P=torch.tensor([len(pair.chosen_ids) for pair in pairs], **options),
            rejected_tokens_P=torch.tensor([len(pair.rejected_ids) for pair in pairs], **options),
        )

    def _scores(self, both: PairLogprobs) -> list[PairScore]:
        config = self.config
        options: dict[str, Any] = {"beta": config.beta, "length_normalised": config.length_normalised}
        loss_P = dpo_loss(both, label_smoothing=config.label_smoothing, **options)
        chosen_P, rejected_P = both_rewards(both, **options)
        values = zip(loss_P.tolist(), chosen_P.tolist(), rejected_P.tolist(), strict=True)
        return [PairScore(loss=loss, reward_chosen=c, reward_rejected=r) for loss, c, r in values]

    @contextmanager
    def _evaluating(self) -> Any:
        """Dropout off, and back to how it was."""
        training = self.packed.training
        self.packed.eval()
        try:
            yield
        finally:
            self.packed.train(training)


def _lengths(pairs: Sequence[EncodedPair]) -> list[int]:
    """Tokens of every response, chosen before rejected, pair by pair."""
    return [len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
