"""What becomes of the tokens that an engine sampled: the record of a response, and which tokens end a turn."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollouts.prompts import split_response
from rollouts.records import Request, Rollout, Status


def end_of_turn_ids(model_path: Path, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a turn, according to the tokenizer and the model's own files."""
    found: set[int] = {tokenizer.eos_token_id} - {None}
    for name in ("config.json", "generation_config.json"):
        eos = read_json(model_path / name).get("eos_token_id")
        found |= set(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return tuple(sorted(found))


def make_rollout(
    tokenizer: Any,
    request: Request,
    ids: Sequence[int],
    logprobs: Sequence[float],
    *,
    stopped: bool,
    policy_version: int,
    cached_tokens: int = 0,
) -> Rollout:
    """The record of a response.

    Args:
        tokenizer: Decodes the ids.
        request: What was asked for.
        ids: (T,) sampled token ids.
        logprobs: (T,) their log-probabilities.
        stopped: Whether the model ended its turn.
        policy_version: Of the weights that sampled it.
        cached_tokens: Prompt tokens taken from the prefix cache.
    """
    status = Status.FINISHED if stopped else Status.TRUNCATED
    if not all(map(math.isfinite, logprobs)):
        status = Status.FAILED
    return Rollout(
        row=request.row,
        sample=request.sample,
        mode=request.mode.name,
        prompt_ids=request.prompt_ids,
        response_ids=tuple(ids),
        logprobs=tuple(logprobs),
        status=status,
        policy_version=policy_version,
        cached_tokens=cached_tokens,
        **split_response(tokenizer, ids, request.mode)._asdict(),
    )


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty when there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}
