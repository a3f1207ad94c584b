"""Preference pairs as the learner takes them: rendered and tokenised exactly as rollouts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.pairs import Pair
from rollouts.modes import Mode, ModesConfig
from rollouts.prompts import render_prompt

if TYPE_CHECKING:
    from rl.preference_learner import EncodedPair


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPairs:
    """What some pairs became."""

    pairs: tuple[Pair, ...]
    """Those that can be trained on."""
    encoded: tuple[EncodedPair, ...]
    """Their token ids, in the same order."""
    left_out: dict[str, int]
    """The others, counted by reason."""


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: Any, modes: ModesConfig, max_length: int, *, what: str = "pairs"
) -> EncodedPairs:
    """Token ids of both sides of every pair, without pairs that are too long or whose sides are the same.

    Prompts are rendered as rollouts render them, the mode's prefill included; a response is its text's tokens and the
    end of the turn.

    Args:
        pairs: The pairs; each in its own mode where it has one.
        tokenizer: Of the policy, with a chat template.
        modes: What the modes are; `modes.mode` is that of pairs without one.
        max_length: Most tokens of the prompt with either side.
        what: Name of the pairs, for the error.

    Raises:
        ValueError: No pair is left, a pair's mode is unknown, or a pair has images or videos.
    """
    refuse_media(pairs)
    kept: list[tuple[Pair, EncodedPair]] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        encoded = _encode(pair, tokenizer, _mode(pair, modes))
        reason = _reason(pair, encoded, max_length)
        if reason is None:
            kept.append((pair, encoded))
        else:
            left_out[reason] += 1
    if pairs and not kept:
        listed = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise ValueError(
            f"none of the {len(pairs)} {what} can be used ({listed}; max_length is {max_length} tokens): raise "
            "max_length, or give other pairs."
        )
    return EncodedPairs(
        pairs=tuple(pair for pair, _ in kept),
        encoded=tuple(encoded for _, encoded in kept),
        left_out=dict(left_out),
    )


def refuse_media(pairs: Sequence[Pair]) -> None:
    """Refuse pairs with images or videos. Raises ValueError."""
    found = next((pair for pair in pairs if pair.images or pair.videos), None)
    if found is not None:
        raise ValueError(
            f"{found.place} has images or videos, and preference training reads text only so far: leave such pairs out."
        )


def response_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """A response's tokens with the end of the turn, which the policy is to learn as well.

    Raises:
        ValueError: The tokenizer has no end of turn.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no eos_token, which ends a response; set it"
        )
    return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)


def _encode(pair: Pair, tokenizer: Any, mode: Mode) -> EncodedPair:
    from rl.preference_learner import EncodedPair

    return EncodedPair(
        prompt_ids=render_prompt(tokenizer, pair.messages, mode),
        chosen_ids=response_ids(tokenizer, pair.chosen),
        rejected_ids=response_ids(tokenizer, pair.rejected),
    )


def _mode(pair: Pair, modes: ModesConfig) -> Mode:
    by_name = {mode.name: mode for mode in (modes.short, modes.long)}
    if pair.mode is not None:
        if pair.mode not in by_name:
            raise ValueError(f"{pair.place} has the mode {pair.mode!r}, and there are {', '.join(by_name)}")
        return by_name[pair.mode]
    if modes.mode == "hybrid":
        raise ValueError(
            f"{pair.place} has no column `mode`, and modes.mode is hybrid: set modes.mode to short or long, or give "
            "every row its mode"
        )
    return modes.active()[0]


def _reason(pair: Pair, encoded: EncodedPair, max_length: int) -> str | None:
    """Why a pair cannot be used."""
    if encoded.chosen_ids == encoded.rejected_ids:
        return "with two equal sides"
    longest = len(encoded.prompt_ids) + max(len(encoded.chosen_ids), len(encoded.rejected_ids))
    return "too long" if longest > max_length else None
