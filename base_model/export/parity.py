"""Whether a GGUF file answers as the checkpoint does: llama.cpp against transformers, greedily, on the same prompts."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from base_model.export import llama_cpp

_PLACE = "(<image>./</image>)"
_PROBES = (
    "Add 12 + 345 = ?  <think>\n\n</think>\n\nπ is 3.14, naïve 中文\t<|im_end|>",
    "I've  got\r\n\n   tabs\t\t and 12345.678 'S x",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """One prompt, answered by both."""

    transformers: str
    llama_cpp: str
    tokens: int
    """Length of transformers' answer."""
    equal_tokens: int
    """How many of them llama.cpp gave too, from the first on."""
    logprob_difference: float
    """Largest difference between the log-probs of those, in nats."""
    prompt_tokens: tuple[int, int]
    """Tokens of the prompt, by transformers and by llama.cpp."""

    @property
    def equal(self) -> bool:
        """Whether prompt length and answer are the same."""
        return self.tokens == self.equal_tokens and self.prompt_tokens[0] == self.prompt_tokens[1]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"equal": self.equal}


@torch.no_grad()
def compare(
    model: Any,
    processor: Any,
    gguf: Path,
    prompt: str,
    *,
    images: Sequence[Any] = (),
    projector: Path | None = None,
    max_tokens: int = 16,
) -> Agreement:
    """Answer a prompt with both.

    Tokens that end inside a character are left out of both answers: llama.cpp does not tell their log-probs.

    Args:
        model: the transformers model.
        processor: its processor, or the tokenizer of a text model.
        gguf: the exported language model.
        prompt: the whole text; with images, ``(<image>./</image>)`` where each belongs.
        images: PIL images.
        projector: the exported vision tower; needed with images.
        max_tokens: length of the answers.

    Raises:
        ValueError: llama.cpp is not installed, or cannot run the files.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    banned = _broken(tokenizer, model.config.get_text_config().vocab_size)
    ids, logprobs, read = _greedy(model, processor, prompt, images, banned, max_tokens)
    theirs = llama_cpp.complete(
        gguf,
        _with_markers(processor, prompt) if images else prompt,
        images=[_png(image) for image in images],
        projector=projector,
        max_tokens=max_tokens,
        banned=banned,
        context=read + max_tokens + 64,
    )
    ends = set(_ids(tokenizer.eos_token_id))
    ours = [token for token in ids if token not in ends]
    same = _common(ours, [token for token in theirs.token_ids if token not in ends])
    pairs = zip(logprobs[:same], theirs.logprobs[:same], strict=True)
    return Agreement(
        transformers=tokenizer.decode(ours),
        llama_cpp=theirs.text,
        tokens=len(ours),
        equal_tokens=same,
        logprob_difference=max((abs(a - b) for a, b in pairs if b is not None), default=0.0),
        prompt_tokens=(read, theirs.prompt_tokens),
    )


def check_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Refuse a GGUF file whose tokenizer cuts texts differently.

    Raises:
        ValueError: it does; or llama.cpp is not installed, or cannot load the file.
    """
    for text, theirs in zip(_PROBES, llama_cpp.tokenize(gguf, _PROBES), strict=True):
        ours = tokenizer(text, add_special_tokens=False).input_ids
        if ours != theirs:
            at = _common(ours, theirs)
            raise ValueError(
                f"llama.cpp's tokenizer cuts {text!r} differently from token {at} on ({theirs[at : at + 3]} for "
                f"{ours[at : at + 3]}): convert the merged checkpoint with llama.cpp's convert_hf_to_gguf.py instead"
            )


def _greedy(
    model: Any, processor: Any, prompt: str, images: Sequence[Any], banned: Sequence[int], max_tokens: int
) -> tuple[list[int], list[float], int]:
    """Answer's ids and log-probs, and the prompt's length."""
    given = {"images": list(images)} if images else {}
    inputs = processor(prompt, add_special_tokens=False, return_tensors="pt", **given)
    out = model.generate(
        **{name: value for name, value in inputs.items() if name != "token_type_ids"},
        max_new_tokens=max_tokens,
        do_sample=False,
        suppress_tokens=list(banned) or None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = out.sequences[0, -len(out.logits) :].tolist()
    logprobs = [
        float(torch.log_softmax(step[0].float(), -1)[token]) for step, token in zip(out.logits, ids, strict=True)
    ]
    return ids, logprobs, inputs["input_ids"].shape[1]


def _with_markers(processor: Any, prompt: str) -> str:
    """llama.cpp writes the tags around an image itself, but not its number."""
    numbered = processor.image_processor.use_image_id
    pieces = prompt.split(_PLACE)
    tags = [
        f"<image_id>{n}</image_id>{llama_cpp.MEDIA}" if numbered else llama_cpp.MEDIA for n in range(len(pieces) - 1)
    ]
    return "".join(piece + tag for piece, tag in zip(pieces, [*tags, ""], strict=True))


def _broken(tokenizer: Any, vocabulary: int) -> list[int]:
    """Ids whose text is no whole character."""
    known = min(len(tokenizer), vocabulary)
    texts = tokenizer.batch_decode([[token] for token in range(known)])
    return [token for token, text in enumerate(texts) if "\ufffd" in text]


def _ids(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Length of the common beginning."""
    same = [a == b for a, b in zip(ours, theirs, strict=False)]
    return same.index(False) if False in same else len(same)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
