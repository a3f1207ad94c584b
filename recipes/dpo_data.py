"""Preference pairs as the learner takes them: rendered and tokenised exactly as rollouts are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recipes.encoded_prompts import encode_prompt
from recipes.pairs import GivenPrompt, Pair
from recipes.samples import Rejected
from rollouts.modes import Mode, ModesConfig

if TYPE_CHECKING:
    from rl.preference_learner import EncodedPair
    from rl.prompts import PromptMaker


LEFT_OUT = "left_out.jsonl"


class LeftOut(NamedTuple):
    """A pair that is not trained on."""

    place: str
    """Where its row stands."""
    reason: str
    """What is wrong, as it is counted: "media missing", "too long", ..."""
    detail: str
    """One sentence, or nothing to add."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPairs:
    """What some pairs became."""

    pairs: tuple[Pair, ...]
    """Those that can be trained on."""
    encoded: tuple[EncodedPair, ...]
    """Their token ids, in the same order."""
    refused: tuple[LeftOut, ...]
    """The others."""

    @property
    def left_out(self) -> dict[str, int]:
        """The others, counted by reason."""
        return dict(Counter(each.reason for each in self.refused))


def encode_pairs(
    pairs: Sequence[Pair],
    maker: PromptMaker,
    modes: ModesConfig,
    max_length: int,
    *,
    what: str = "pairs",
    on_progress: Callable[[int], None] = lambda _done: None,
) -> EncodedPairs:
    """Token ids of both sides of every pair, without pairs that cannot be trained on: too long, sides the same, images
    or videos missing or unreadable.

    Prompts are rendered as rollouts render them, the mode's prefill included; a response is its text's tokens and the
    end of the turn. Images and videos are opened once here, and again when a batch needs them.

    Args:
        pairs: The pairs; each in its own mode where it has one.
        maker: Renders the prompts; of these pairs alone.
        modes: What the modes are; `modes.mode` is that of pairs without one.
        max_length: Most tokens of the prompt with either side, blocks of images and videos included.
        what: Name of the pairs, for the error.
        on_progress: Called with the number of pairs done.

    Raises:
        ValueError: No pair is left, a pair's mode is unknown, or the model takes no images and a pair has some.
    """
    kept: list[tuple[Pair, EncodedPair]] = []
    refused: list[LeftOut] = []
    for index, pair in enumerate(pairs):
        try:
            kept.append((pair, _encode(pair, maker, _mode(pair, modes), max_length, index)))
        except _Unfit as error:
            refused.append(LeftOut(pair.place, str(error), ""))
        except Rejected as error:
            refused.append(LeftOut(pair.place, error.reason.replace("_", " "), str(error)))
        on_progress(index + 1)
    found = EncodedPairs(
        pairs=tuple(pair for pair, _ in kept),
        encoded=tuple(encoded for _, encoded in kept),
        refused=tuple(refused),
    )
    if pairs and not kept:
        raise ValueError(_none_left(found, what, max_length))
    return found


def _none_left(found: EncodedPairs, what: str, max_length: int) -> str:
    listed = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
    first = next((f"; the first: {each.detail.rstrip('.')}" for each in found.refused if each.detail), "")
    return (
        f"none of the {len(found.refused)} {what} can be used ({listed}; max_length is {max_length} tokens{first}): "
        "mend them, raise max_length, or give other pairs."
    )


def write_left_out(run: Path, train: EncodedPairs, held: EncodedPairs) -> None:
    """Write left_out.jsonl, one line for every pair that is not used: place, reason and detail.

    Raises:
        ValueError: The run has begun with other pairs.
    """
    from rl.files import atomic_write_text

    records = [
        {"pairs": what, **each._asdict()}
        for what, found in (("train", train), ("eval", held))
        for each in found.refused
    ]
    path = run / LEFT_OUT
    if path.is_file():
        before = {_place(json.loads(line)) for line in path.read_text().splitlines()}
        changed = sorted(before ^ {_place(record) for record in records})
        if changed:
            raise ValueError(
                f"{changed[0][1]} was {'left out' if changed[0] in before else 'used'} when the run began, and is not "
                "now: put its images and videos back as they were, or begin another run"
            )
    atomic_write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _place(record: dict[str, Any]) -> tuple[str, str]:
    return record["pairs"], record["place"]


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


class _Unfit(ValueError):
    """A pair whose tokens cannot be trained on; the text is the reason."""


def _encode(pair: Pair, maker: PromptMaker, mode: Mode, max_length: int, index: int) -> EncodedPair:
    from rl.preference_learner import EncodedPair

    given = GivenPrompt(pair.messages, pair.images, pair.videos, pair.problem)
    chosen, rejected = (response_ids(maker.tokenizer, text) for text in (pair.chosen, pair.rejected))
    if chosen == rejected:
        raise _Unfit("with two equal sides")
    prompt = encode_prompt(maker, given, mode, index=index, place=pair.place)
    if len(prompt.ids) + max(len(chosen), len(rejected)) > max_length:
        raise _Unfit("too long")
    return EncodedPair(
        prompt_ids=prompt.ids,
        chosen_ids=chosen,
        rejected_ids=rejected,
        load_inputs=prompt.load_inputs,
        media_key=prompt.media_key,
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
