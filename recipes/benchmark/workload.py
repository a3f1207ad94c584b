"""What both libraries are given: prompts of an exact length, and a reward that tells responses apart."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rewards import reward

_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "her",
    "all",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "more",
    "no",
    "if",
    "out",
    "so",
    "said",
    "what",
    "up",
    "its",
    "about",
    "into",
    "than",
    "them",
    "can",
    "only",
    "other",
    "new",
    "some",
    "could",
    "time",
    "these",
    "two",
    "may",
    "then",
    "do",
    "first",
    "any",
    "my",
    "now",
    "such",
    "like",
    "our",
    "over",
    "man",
]
_ATTEMPTS = 100


def make_prompts(tokenizer: Any, tokens: int, count: int, seed: int = 0) -> list[str]:
    """Different texts, each of exactly ``tokens`` ids and unchanged by decoding and encoding again.

    Raises:
        ValueError: The tokenizer gives no text back unchanged.
    """
    return [_prompt(tokenizer, tokens, f"{seed}:{index}") for index in range(count)]


def _prompt(tokenizer: Any, tokens: int, seed: str) -> str:
    rng = random.Random(seed)
    for _ in range(_ATTEMPTS):
        words = " ".join(rng.choices(_WORDS, k=2 * tokens + 8))
        ids = tokenizer(words)["input_ids"][:tokens]
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if len(ids) == tokens and tokenizer(text)["input_ids"] == ids:
            return text
    raise ValueError(
        f"this model's tokenizer gave no text of exactly {tokens} tokens back unchanged in {_ATTEMPTS} attempts; "
        "choose another model or another prompt length"
    )


def make_image(side: int, seed: int) -> bytes:
    """A square picture of random blocks of colour, as the content of a PNG file."""
    import io

    import numpy as np
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST).save(file, format="PNG")
    return file.getvalue()


@reward("even_share")
def even_share(*, response_ids: Sequence[int]) -> float:
    """Share of even token ids: cheap, and different from response to response, so that every group is trained."""
    return sum(token % 2 == 0 for token in response_ids) / max(1, len(response_ids))
