"""A policy's probabilities of the cases' references, for the audit of rewards that ask for them.

The cases hold text, so prompt and response are tokenised here; in training the ids are those that were sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rollouts.reference import ReferenceSpan

BATCH_TOKENS = 16384


class _Question(NamedTuple):
    """A reference after a prefix, and the case and field that the answer belongs to."""

    case: int
    field: str
    prompt: Sequence[int]
    response: Sequence[int]
    span: ReferenceSpan


def with_reference_probs(
    rows: Sequence[dict[str, Any]], model: str | Path, *, answer_open: str = "", quiet: bool = False
) -> list[dict[str, Any]]:
    """The cases with ``reference_probs`` and ``baseline_probs``, as the model gives them in fp32 at temperature 1.

    Args:
        rows: cases with the question in `messages`, `prompt` or `question`; `mode` as in a run, else told from the
            response's think tags.
        model: checkpoint folder, run directory, or a name that recipes know.
        answer_open: text that opens the answer; see ``trainer.reference``.
        quiet: no progress bar.

    Raises:
        ValueError: a case has no question, or the checkpoint cannot be used.
    """
    from rich.progress import track
    from transformers import AutoTokenizer

    from base_model.packed_lm import load_packed
    from base_model.packing import split_by_tokens
    from recipes.models import ModelConfig, resolve_model

    path = resolve_model(ModelConfig(path=str(model)))
    questions = list(_questions(rows, AutoTokenizer.from_pretrained(path), answer_open))
    packed = load_packed(path)
    fields: list[dict[str, Any]] = [{"reference_probs": [], "baseline_probs": None} for _ in rows]
    sizes = [len(q.prompt) + q.span.keep + len(q.span.tokens) for q in questions]
    parts = list(split_by_tokens(sizes, BATCH_TOKENS))
    for part in parts if quiet else track(parts, description="asking the policy"):
        own = [questions[i] for i in part]
        for question, probs in zip(own, _probs(packed, own), strict=True):
            fields[question.case][question.field] = probs
    return [{**row, **own} for row, own in zip(rows, fields, strict=True)]


def _probs(packed: Any, questions: Sequence[_Question]) -> list[list[float]]:
    from base_model.branches import Branch, pack_branches
    from base_model.packing import TokenGroup, pack_groups
    from rl.reference import scored_probs

    groups = [TokenGroup(prompt=q.prompt, responses=[q.response[: q.span.keep]]) for q in questions]
    branches = pack_branches(groups, [[Branch(keep=q.span.keep, tokens=q.span.tokens)] for q in questions])
    assert branches is not None
    found = packed.branch_logprobs(pack_groups(groups), branches)
    return [scored_probs(q.span, logprobs.tolist()) for q, logprobs in zip(questions, found, strict=True)]


def _questions(rows: Sequence[dict[str, Any]], tokenizer: Any, answer_open: str) -> Iterator[_Question]:
    """Two per case: the reference in place of the answer, where it has a place, and after the prompt alone."""
    from rollouts.modes import LongMode, ShortMode
    from rollouts.prompts import render_prompt
    from rollouts.reference import prompt_span, reference_span

    for number, row in enumerate(rows):
        messages, reference = _messages(row, number), str(row.get("reference") or "")
        mode = LongMode() if _is_long(row) else ShortMode()
        prompt, bare = (render_prompt(tokenizer, messages, item) for item in (mode, ShortMode()))
        response = tokenizer(str(row["response"] or ""), add_special_tokens=False)["input_ids"]
        span = reference_span(
            tokenizer,
            prompt_ids=prompt,
            response_ids=response,
            mode=mode,
            reference=reference,
            answer_open=answer_open,
        )
        if span is not None:
            yield _Question(number, "reference_probs", prompt, response, span)
        before = prompt_span(tokenizer, prompt_ids=bare, reference=reference)
        if before is not None:
            yield _Question(number, "baseline_probs", bare, [], before)


def _is_long(row: dict[str, Any]) -> bool:
    return row.get("mode", "long" if "</think>" in str(row["response"]) else "short") == "long"


def _messages(row: dict[str, Any], number: int) -> list[dict[str, Any]]:
    if isinstance(row.get("messages"), list) and row["messages"]:
        return row["messages"]
    text = row.get("prompt") or row.get("question")
    if not isinstance(text, str) or not text:
        raise ValueError(
            f"case {number + 1} has no question: --policy needs it in the column `messages`, `prompt` or `question`."
        )
    return [{"role": "user", "content": text}]
