"""What is asked of an OpenAI-compatible endpoint, and what comes back; free of any HTTP library."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator


class EndpointConfig(BaseModel):
    """Where a model is served, and how patiently it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    url: str
    """Base URL, such as http://localhost:8000/v1; /chat/completions is added."""
    model: str = Field(min_length=1)
    """Name of the model there."""
    api_key_env: str | None = None
    """Environment variable that holds the key; null = none is sent."""
    timeout_s: float = Field(120.0, gt=0)
    """Longest wait for one whole answer, in seconds."""
    retries: int = Field(3, ge=0)
    """Further attempts after a time-out, a refused connection, status 408, 409, 429 or 5xx, or an unreadable answer."""
    wait_s: float = Field(1.0, ge=0)
    """Wait before the second attempt, in seconds; doubled for each further one."""
    max_wait_s: float = Field(60.0, ge=0)
    """Longest wait between attempts, also where the server asks for a longer one."""
    concurrency: int = Field(8, ge=1)
    """Requests under way at the same time."""
    give_up_after: int = Field(20, ge=1)
    """Requests that fail for good one after the other, with no success between them, before the rest is not sent."""
    max_answer_mib: float = Field(8.0, gt=0)
    """Largest answer that is read; a larger one is a failure."""
    prompt_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, for the cost in the report."""
    completion_price: float = Field(0.0, ge=0)
    """Price of a million generated tokens, for the cost in the report."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} must begin with http:// or https://")
        return url.rstrip("/")

    def api_key(self) -> str | None:
        """The key. Raises ValueError where the variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {self.api_key_env} is not set, and it must hold the key of {self.url}: set "
                "it, or set api_key_env to null"
            )
        return key


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One question to a model.

    Example:
        ``ChatRequest(messages=[{"role": "user", "content": "Is it red?"}], max_tokens=1, top_logprobs=20)``
    """

    messages: Sequence[Mapping[str, Any]]
    """Turns as the API takes them; images as parts of type image_url."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    """Budget of the answer."""
    seed: int | None = None
    """Asked of the server, which need not follow it."""
    top_logprobs: int = 0
    """Most likely tokens whose log-probs are wanted, per position; 0 = none."""
    json_schema: Mapping[str, Any] | None = None
    """Schema that the answer is to follow, where the server can hold it to one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatAnswer:
    """What came back for one request."""

    text: str | None
    """The answer; None = there is none, and `problem` says why."""
    truncated: bool = False
    """Whether the budget was used up."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_logprobs: Mapping[str, float] = field(default_factory=dict)
    """Log-probs of the likeliest first tokens, where they were asked for."""
    attempts: int = 1
    """Times that it was sent; 0 = never."""
    problem: str | None = None
    """Why there is no answer, in a sentence."""


@dataclass(kw_only=True, slots=True)
class Usage:
    """What an endpoint has been asked and has cost so far; tokens of attempts whose answer could not be used count."""

    requests: int = 0
    attempts: int = 0
    failed: int = 0
    """Requests without an answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problems: dict[str, int] = field(default_factory=dict)
    """Failed attempts by reason."""

    def cost(self, config: EndpointConfig) -> float:
        """In the currency of the configured prices."""
        paid = self.prompt_tokens * config.prompt_price + self.completion_tokens * config.completion_price
        return paid / 1e6


class ChatModel(Protocol):
    """A model that answers chats, wherever it runs."""

    def ask(
        self, requests: Sequence[ChatRequest], on_answer: Callable[[int, ChatAnswer], None] | None = None
    ) -> list[ChatAnswer]:
        """Answers in the order of the requests; a failure is an answer with a `problem`."""
        ...
