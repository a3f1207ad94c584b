"""What crosses the socket between the engine's client and its worker process."""

from __future__ import annotations

from typing import NamedTuple


class WireItem(NamedTuple):
    """One image or video: its content, pickled, and the hash of it, which is its name in every cache of vLLM."""

    uuid: str
    content: bytes


class WireMedia(NamedTuple):
    """Media of a prompt. Requests that share one object have it sent, unpacked and processed once."""

    text: str
    images: tuple[WireItem, ...]
    videos: tuple[WireItem, ...]


class WireText(NamedTuple):
    """A text to score from token `first` on; its media, if any, are in the tokens before."""

    ids: tuple[int, ...]
    first: int
    media: WireMedia | None


class WireChoice(NamedTuple):
    """A prompt, and the tokens whose log-probabilities directly after it are wanted."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    media: WireMedia | None


class WireRequest(NamedTuple):
    """A `Request` reduced to what the worker needs: it knows no modes."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop_ids: tuple[int, ...]
    media: WireMedia | None


class WireResult(NamedTuple):
    """What the engine returned for one `WireRequest`; `stopped` = it ended with a stop token (kept in the ids)."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool
    cached_tokens: int
