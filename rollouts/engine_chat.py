"""Chats answered by a local checkpoint in vLLM, behind the same interface as an endpoint's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rollouts.endpoint import ChatAnswer, ChatRequest, Usage
from rollouts.engine import Engine
from rollouts.modes import Mode
from rollouts.prompts import render_prompt
from rollouts.records import Request, Rollout, Sampling, Status


class EngineChat:
    """A `rollouts.endpoint.ChatModel` of an engine, for chats of text; `usage` counts what it is asked.

    Log-probs and schemas are not given: an answer's form is for the caller to check.

    Example::

        chat = EngineChat(engine, tokenizer, ShortMode(prefill=""), max_model_len=2048)
        chat.ask([ChatRequest(messages=[{"role": "user", "content": "Hello"}], max_tokens=20)])[0].text
    """

    def __init__(self, engine: Engine, tokenizer: Any, mode: Mode, *, max_model_len: int) -> None:
        """Args:
        engine: Holds the model.
        tokenizer: Of the model, with a chat template.
        mode: Instruction and prefill; the budget is each request's own.
        max_model_len: Longest prompt plus answer, in tokens.
        """
        self._engine = engine
        self._tokenizer = tokenizer
        self._mode = mode
        self._max_model_len = max_model_len
        self.usage = Usage()

    def ask(
        self, requests: Sequence[ChatRequest], on_answer: Callable[[int, ChatAnswer], None] | None = None
    ) -> list[ChatAnswer]:
        """Answers in the order of the requests, all in one call of the engine; a prompt that leaves no room for the
        budget gives an answer with a `problem`.
        """
        answers: dict[int, ChatAnswer] = {}

        def settle(number: int, answer: ChatAnswer) -> None:
            answers[number] = answer
            self._count(answer)
            if on_answer is not None:
                on_answer(number, answer)

        asked: list[tuple[int, Request]] = []
        for number, request in enumerate(requests):
            made = self._request(number, request)
            if len(made.prompt_ids) + request.max_tokens > self._max_model_len:
                problem = (
                    f"the prompt has {len(made.prompt_ids)} tokens and the answer may have {request.max_tokens}, and "
                    f"the engine takes {self._max_model_len} together"
                )
                settle(number, ChatAnswer(text=None, attempts=0, problem=problem))
            else:
                asked.append((number, made))
        self._engine.generate(
            [request for _, request in asked],
            on_result=lambda at, rollout: settle(asked[at][0], _answer(rollout)),
        )
        return [answers[number] for number in range(len(requests))]

    def _request(self, number: int, request: ChatRequest) -> Request:
        mode = self._mode.model_copy(update={"max_tokens": request.max_tokens})
        return Request(
            prompt_ids=render_prompt(self._tokenizer, request.messages, mode),
            mode=mode,
            row=number,
            sample=0,
            seed=request.seed or 0,
            sampling=Sampling(temperature=request.temperature, top_p=request.top_p),
        )

    def _count(self, answer: ChatAnswer) -> None:
        self.usage.requests += 1
        self.usage.attempts += answer.attempts
        self.usage.failed += answer.text is None
        self.usage.prompt_tokens += answer.prompt_tokens
        self.usage.completion_tokens += answer.completion_tokens


def _answer(rollout: Rollout) -> ChatAnswer:
    failed = rollout.status is Status.FAILED
    return ChatAnswer(
        text=None if failed else rollout.answer,
        truncated=rollout.status is Status.TRUNCATED,
        prompt_tokens=len(rollout.prompt_ids),
        completion_tokens=len(rollout.response_ids),
        problem="the engine gave log-probabilities that are not finite" if failed else None,
    )
