"""Responses divided into claims by a language model, with retries; what stays unreadable is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from rl.claim_output import division_messages, read_division
from rl.claims import Division
from rollouts.endpoint import ChatAnswer, ChatModel, ChatRequest
from rollouts.modes import stable_hash

OnDivision = Callable[[int, Division], None]


class DivisionConfig(BaseModel):
    """How a language model is asked for claims (temperature and top-p of RLAIF-V's released code)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    temperature: float = Field(0.2, ge=0)
    """Sampling temperature."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Nucleus."""
    max_tokens: int = Field(1024, ge=1)
    """Budget of an answer, which holds all claims of a response; an answer that uses it up is a failure."""
    attempts: int = Field(3, ge=1)
    """Answers asked for, with another seed each, until one can be read."""


def divide_responses(
    responses: Sequence[str],
    model: ChatModel,
    config: DivisionConfig,
    *,
    seed: int = 0,
    on_division: OnDivision | None = None,
) -> list[Division]:
    """Claims and questions of every response.

    Args:
        responses: What is to be divided.
        model: Answers the requests.
        config: Sampling and attempts.
        seed: The seeds of the requests follow from it, the response's text and the attempt.
        on_division: Called with (number of the response, division) when each is settled, in any order.

    Returns:
        Divisions in the order of the responses; where no answer can be read, one with a `problem`.
    """
    settled: dict[int, Division] = {}

    def settle(number: int, division: Division) -> None:
        settled[number] = division
        if on_division is not None:
            on_division(number, division)

    open_numbers = []
    for number, response in enumerate(responses):
        if response.strip():
            open_numbers.append(number)
        else:
            settle(number, Division(problem="the response is empty", attempts=0))
    for attempt in range(1, config.attempts + 1):
        failed: list[int] = []
        asked = list(open_numbers)

        def read(
            at: int, answer: ChatAnswer, asked: list[int] = asked, failed: list[int] = failed, n: int = attempt
        ) -> None:
            division = _read(answer, n)
            if division.problem is None or n == config.attempts:
                settle(asked[at], division)
            else:
                failed.append(asked[at])

        model.ask([_request(responses[number], config, seed, attempt) for number in asked], read)
        open_numbers = sorted(failed)
        if not open_numbers:
            break
    return [settled[number] for number in range(len(responses))]


def _request(response: str, config: DivisionConfig, seed: int, attempt: int) -> ChatRequest:
    return ChatRequest(
        messages=division_messages(response),
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=stable_hash("division", seed, response, attempt, bits=31),
    )


def _read(answer: ChatAnswer, attempts: int) -> Division:
    if answer.text is None:
        return Division(problem=answer.problem or "the model gave no answer", attempts=attempts)
    return read_division(answer.text, truncated=answer.truncated, attempts=attempts)
