"""A client of OpenAI-compatible chat endpoints, for servers that are slow, busy, broken or gone.

Every request ends in an answer or a problem within (retries + 1) * timeout plus the waits, whatever the server does:
time-outs are for whole answers, answers are limited in size, and nothing in them is trusted to have the right form.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from rollouts.endpoint import ChatAnswer, ChatRequest, EndpointConfig, Usage
from rollouts.modes import stable_hash

OnAnswer = Callable[[int, ChatAnswer], None]
_TRY_AGAIN = {408, 409, 425, 429}
_SHOWN = 200
"""Characters of a server's error that are passed on."""


class AttemptFailed(Exception):
    """One attempt gave no usable answer."""

    def __init__(self, problem: str, *, reason: str, again: bool = True, wait_s: float | None = None) -> None:
        super().__init__(problem)
        self.reason = reason
        self.again = again
        self.wait_s = wait_s


class Endpoint:
    """Asks one endpoint; `usage` counts what that costs."""

    def __init__(self, config: EndpointConfig) -> None:
        """Raises ValueError where the key's environment variable is not set."""
        key = config.api_key()
        self.config = config
        self.usage = Usage()
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._failed_in_a_row = 0

    def ask(self, requests: Sequence[ChatRequest], on_answer: OnAnswer | None = None) -> list[ChatAnswer]:
        """Send all requests, `concurrency` at a time.

        Args:
            requests: What to ask.
            on_answer: Called with (number of the request, answer) as soon as each is known, in any order.

        Returns:
            Answers in the order of the requests; a failure is an answer with a `problem`.
        """
        self._failed_in_a_row = 0
        return asyncio.run(self._ask_all(requests, on_answer or (lambda _number, _answer: None)))

    async def _ask_all(self, requests: Sequence[ChatRequest], on_answer: OnAnswer) -> list[ChatAnswer]:
        answers: dict[int, ChatAnswer] = {}
        waiting = iter(enumerate(requests))

        async def work(client: httpx.AsyncClient) -> None:
            for number, request in waiting:
                answer = await self._ask(client, number, request)
                self._count(answer)
                answers[number] = answer
                on_answer(number, answer)

        limits = httpx.Limits(max_connections=self.config.concurrency)
        async with httpx.AsyncClient(headers=self._headers, timeout=None, limits=limits) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.config.concurrency, len(requests)))))
        return [answers[number] for number in range(len(requests))]

    async def _ask(self, client: httpx.AsyncClient, number: int, request: ChatRequest) -> ChatAnswer:
        """One request with its retries."""
        if self._failed_in_a_row >= self.config.give_up_after:
            problem = f"not sent: {self._failed_in_a_row} requests to {self.config.url} failed one after the other"
            return ChatAnswer(text=None, attempts=0, problem=problem)
        problem = ""
        for attempt in range(1, self.config.retries + 2):
            self.usage.attempts += 1
            try:
                return await self._attempt(client, request, attempt)
            except AttemptFailed as error:
                problem = str(error)
                self.usage.problems[error.reason] = self.usage.problems.get(error.reason, 0) + 1
                if not error.again or attempt > self.config.retries:
                    break
                await asyncio.sleep(self._wait_s(number, attempt, error.wait_s))
        return ChatAnswer(text=None, attempts=attempt, problem=f"{problem} (attempt {attempt})")

    def _wait_s(self, number: int, attempt: int, asked_s: float | None) -> float:
        """Doubled with each attempt, and spread over its upper half so that requests do not come back all at once."""
        spread = 0.5 + stable_hash("wait", number, attempt, bits=16) / 2**17
        own = min(self.config.max_wait_s, self.config.wait_s * 2.0 ** min(attempt - 1, 60)) * spread
        return min(self.config.max_wait_s, max(own, asked_s or 0.0))

    async def _attempt(self, client: httpx.AsyncClient, request: ChatRequest, attempt: int) -> ChatAnswer:
        url = f"{self.config.url}/chat/completions"
        try:
            async with (
                asyncio.timeout(self.config.timeout_s),
                client.stream("POST", url, json=_payload(self.config.model, request)) as response,
            ):
                body = await self._body(response)
        except TimeoutError:
            problem = f"{self.config.url} gave no whole answer in {self.config.timeout_s:g} s"
            raise AttemptFailed(problem, reason="time-out") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            text = f"{self.config.url} cannot be reached ({type(error).__name__}: {str(error)[:_SHOWN]})"
            raise AttemptFailed(text, reason="connection") from None
        if response.status_code != 200:
            raise _refused(response, body)
        self._failed_in_a_row = 0  # it is there, even if what it says cannot be used
        return self._answer(body, attempt)

    async def _body(self, response: httpx.Response) -> bytes:
        most = int(self.config.max_answer_mib * 2**20)
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                problem = f"the answer of {self.config.url} is larger than {self.config.max_answer_mib:g} MiB"
                raise AttemptFailed(problem, reason="answer too large")
        return bytes(body)

    def _answer(self, body: bytes, attempt: int) -> ChatAnswer:
        try:
            answer = read_answer(json.loads(body), attempt)
        except (ValueError, RecursionError) as error:
            text = f"the answer of {self.config.url} cannot be read ({str(error)[:_SHOWN]})"
            raise AttemptFailed(text, reason="unreadable answer") from None
        self.usage.prompt_tokens += answer.prompt_tokens
        self.usage.completion_tokens += answer.completion_tokens
        if answer.text is None:
            raise AttemptFailed(f"the answer of {self.config.url} has no text", reason="empty answer")
        return answer

    def _count(self, answer: ChatAnswer) -> None:
        self.usage.requests += 1
        if answer.text is None:
            self.usage.failed += 1
            self._failed_in_a_row += answer.attempts > 0


def read_answer(data: Any, attempt: int = 1) -> ChatAnswer:
    """The answer in a server's JSON; `text` is None where the message has none.

    Raises:
        ValueError: It is no chat completion.
    """
    choices = data.get("choices") if isinstance(data, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise ValueError("it holds no choice with a message")
    text = message.get("content")
    usage = data.get("usage")
    return ChatAnswer(
        text=text if isinstance(text, str) and text else None,
        truncated=choice.get("finish_reason") == "length",
        prompt_tokens=_count_of(usage, "prompt_tokens"),
        completion_tokens=_count_of(usage, "completion_tokens"),
        first_logprobs=_first_logprobs(choice.get("logprobs")),
        attempts=attempt,
    )


def _payload(model: str, request: ChatRequest) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "model": model,
        "messages": [dict(message) for message in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
    }
    if request.seed is not None:
        payload["seed"] = request.seed
    if request.top_logprobs:
        payload |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.json_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": dict(request.json_schema)}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    return payload


def _refused(response: httpx.Response, body: bytes) -> AttemptFailed:
    """The failure that a status stands for."""
    status = response.status_code
    said = " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())[:_SHOWN]
    asked = response.headers.get("retry-after", "")
    wait_s = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else None
    again = status in _TRY_AGAIN or status >= 500
    return AttemptFailed(f"status {status}: {said}", reason=f"status {status}", again=again, wait_s=wait_s)


def _count_of(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


def _first_logprobs(logprobs: Any) -> dict[str, float]:
    """Log-probs by token of the first position; what has another form is left out."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    first = content[0] if isinstance(content, list) and content else None
    top = first.get("top_logprobs") if isinstance(first, Mapping) else None
    found = {}
    for item in top if isinstance(top, list) else []:
        token, value = (item.get("token"), item.get("logprob")) if isinstance(item, Mapping) else (None, None)
        if isinstance(token, str) and isinstance(value, int | float) and -1e6 < value <= 0:
            found[token] = float(value)
    return found
