"""Chooses the best of several responses to each prompt, by the implicit reward of a DPO policy.

The rows have a `prompt` (text or messages) and `responses` (a list of texts), as sampled from the policy. The reward is
beta / length * log(policy / reference), so the two models and nothing else judge (RLAIF-V, arXiv 2405.17220, s3.4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from recipes.models import ModelConfig
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from base_model.packing import TokenGroup
    from recipes.sources import RawRow


class BestOfNConfig(BaseModel):
    """What is chosen from, by which models."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: ModelConfig
    """The policy that DPO made."""
    reference: ModelConfig
    """The policy that DPO started from."""
    candidates: Path
    """File of prompts with responses (.jsonl, .json, .parquet)."""
    out: Path
    """JSONL file to write: each row with `best` (a place among the responses), `response` and `rewards`."""
    beta: float = Field(0.1, gt=0)
    """That of the DPO run; it scales the rewards and does not change the choice."""
    length_normalised: bool = True
    """Divide rewards by the tokens of the response."""
    modes: ModesConfig = ModesConfig(mode="short")
    """What the modes are; modes.mode (short or long) is the one the responses were given in."""
    micro_batch_tokens: int = Field(16384, ge=0)
    """Packed tokens of one forward pass; 0 = all at once."""


def main(config: BestOfNConfig) -> None:
    """Read the candidates, score them with one model after the other, write the choice."""
    from recipes.console import say
    from recipes.models import resolve_model
    from recipes.sources import read_file
    from rl.best_of_n import best_of_n
    from rl.files import atomic_write_text, finite

    if config.modes.mode == "hybrid":
        raise ValueError("modes.mode is hybrid: set it to short or long, the mode the responses were given in")
    rows = list(read_file(config.candidates))
    for row in rows:
        _check(row)
    paths = [resolve_model(model) for model in (config.model, config.reference)]

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paths[0], trust_remote_code=config.model.trust_remote_code)
    groups = [_group(row, tokenizer, config.modes) for row in rows]
    policy, reference = (
        _score(path, model, groups, config) for path, model in zip(paths, (config.model, config.reference), strict=True)
    )
    records = []
    changed = 0
    for row, group, own, ref in zip(rows, groups, policy, reference, strict=True):
        lengths = [len(response) for response in group.responses]
        best, rewards = best_of_n(own, ref, lengths, beta=config.beta, length_normalised=config.length_normalised)
        changed += best > 0
        records.append({**row.values, "best": best, "response": row.values["responses"][best], "rewards": rewards})
    lines = (json.dumps(finite(record), ensure_ascii=False, default=str) + "\n" for record in records)
    atomic_write_text(config.out, "".join(lines))
    say(f"{len(records)} prompts; the best response is not the first one in {changed}. Written: {config.out}")


def _check(row: RawRow) -> None:
    """Refuse a row that is no prompt with responses. Raises ValueError."""
    responses = row.values.get("responses")
    if not isinstance(responses, list) or not responses or not all(isinstance(text, str) for text in responses):
        raise ValueError(f"{row.place} must have `responses`, a list of texts with at least one")
    if any(row.values.get(name) for name in ("images", "image", "videos", "video")):
        raise ValueError(
            f"{row.place} has images or videos, and best-of-n reads text only so far: leave such rows out."
        )
    if row.values.get("prompt") is None:
        raise ValueError(f"{row.place} has no `prompt`")


def _group(row: RawRow, tokenizer: Any, modes: ModesConfig) -> TokenGroup:
    from base_model.packing import TokenGroup
    from recipes.dpo_data import response_ids
    from recipes.pairs import prompt_turns
    from rollouts.prompts import render_prompt

    turns = prompt_turns(row.values["prompt"], row.place, media=False)
    return TokenGroup(
        prompt=render_prompt(tokenizer, turns, modes.active()[0]),
        responses=[response_ids(tokenizer, text) for text in row.values["responses"]],
    )


def _score(path: Path, model: ModelConfig, groups: Sequence[TokenGroup], config: BestOfNConfig) -> list[list[float]]:
    """Summed log-probs under one model, which is let go of at the end."""
    import torch

    from base_model.packed_lm import load_packed
    from rl.best_of_n import response_logprobs

    packed = load_packed(path, trust_remote_code=model.trust_remote_code)
    packed.to("cuda" if torch.cuda.is_available() else "cpu")
    return response_logprobs(packed, groups, config.micro_batch_tokens)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, BestOfNConfig, doc=__doc__))
