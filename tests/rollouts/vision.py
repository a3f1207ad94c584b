"""A tiny vision-language checkpoint, prompts with images and videos, and their log-probabilities by plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.vlm import MiniCPMV, MiniCPMVProcessor, PackedVideo
from base_model.vlm.presets import build
from rollouts import EngineConfig, Request, Rollout, Sampling, ShortMode, VLLMEngine, request_seed
from rollouts.prompts import MediaPrompt, render_media_prompt
from tests.base_model.vlm.small import picture, tiny, video
from tests.tiny import QWEN3_CHAT_TEMPLATE, make_tiny_model, make_tiny_tokenizer

CONFIG = EngineConfig(
    dtype="float32", max_model_len=512, max_num_seqs=8, kv_cache_gib=0.25, threads=1, max_images=6, max_videos=2
)
MODE = ShortMode(max_tokens=6)
CLOSE = 1e-4
CONTINUATION = [20, 31, 47, 58]


def save_tiny(directory: Path, decoder: str = "qwen3", **changes: Any) -> tuple[MiniCPMV, MiniCPMVProcessor]:
    """A random checkpoint with a language model of the kind asked for; returns model and processor."""
    if decoder == "qwen3":
        model, processor = tiny(**changes)
    else:
        from transformers import AutoModelForCausalLM

        path = make_tiny_model(directory / "llm", decoder, hidden_size=128, num_attention_heads=4, head_dim=32)
        llm = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
        model, processor = build("tiny", make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE), llm=llm, query_num=4)
        with torch.no_grad():
            for weight in (*model.vpm.parameters(), *model.resampler.parameters()):
                weight.mul_(2 if weight.ndim > 1 else 1)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return model.eval(), processor


def mixed_sizes() -> PackedVideo:
    """A package of two frames of different sizes, and one of a third size."""
    return PackedVideo(
        [[picture(100, 120, 1), picture(60, 140, 2)], [picture(200, 90, 3)]],
        [[0.0, 0.5], [1.2]],
    )


def cases() -> dict[str, tuple[list[Any], list[Any], list[Any]]]:
    """Name -> parts of the message, images and videos."""
    image, clip = {"type": "image"}, {"type": "video"}

    def text(words: str) -> dict[str, str]:
        return {"type": "text", "text": words}

    return {
        "text": ([text("What is 3 + 4? <unk>")], [], []),
        "image": ([image, text("What is it?")], [picture(110, 100)], []),
        "sliced image": ([text("Look:"), image, text("The total?")], [picture(300, 200)], []),
        "two images": ([image, text("or"), image, text("?")], [picture(300, 200, 1), picture(80, 90, 2)], []),
        "video": ([clip, text("What moved?")], [], [video([3, 2, 1])]),
        "frames of different sizes": ([clip, text("What moved?")], [], [mixed_sizes()]),
        "videos and an image": ([clip, image, clip], [picture(50, 60)], [mixed_sizes(), video([6])]),
    }


def render(processor: MiniCPMVProcessor, name: str) -> MediaPrompt:
    """The prompt of a case."""
    parts, images, videos = cases()[name]
    return render_media_prompt(processor, [{"role": "user", "content": parts}], images, videos, MODE)


def requests_of(prompt: MediaPrompt, row: int = 0, samples: int = 1, **fields: Any) -> list[Request]:
    """A group of requests that share the prompt's ids and media."""
    return [
        Request(
            prompt_ids=prompt.ids,
            mode=MODE,
            row=row,
            sample=sample,
            seed=request_seed(0, 0, row, sample),
            sampling=Sampling(),
            media=prompt.media,
            **fields,
        )
        for sample in range(samples)
    ]


def torch_logprobs(model: MiniCPMV, prompt: MediaPrompt, response_ids: Sequence[int]) -> list[float]:
    """Log-probabilities of a response after the prompt, by one plain forward pass."""
    ids_T = torch.tensor([[*prompt.ids, *response_ids]])
    with torch.no_grad():
        logprobs_TV = model(input_ids=ids_T, **prompt.inputs).logits[0, len(prompt.ids) - 1 : -1].log_softmax(-1)
    return logprobs_TV.gather(1, torch.tensor(response_ids)[:, None])[:, 0].tolist()


def largest_gap(model: MiniCPMV, prompt: MediaPrompt, rollout: Rollout) -> float:
    """Largest difference between the engine's log-probabilities of a response and plain torch's."""
    expected = torch_logprobs(model, prompt, rollout.response_ids)
    return max(abs(a - b) for a, b in zip(expected, rollout.logprobs, strict=True))


class Served:
    """A checkpoint, its torch model and processor, and an engine on it."""

    def __init__(self, path: Path, decoder: str = "qwen3") -> None:
        self.model, self.processor = save_tiny(path, decoder)
        self.engine = VLLMEngine(path, CONFIG)

    def prompt(self, name: str) -> MediaPrompt:
        """The prompt of a case."""
        return render(self.processor, name)

    def scores(self, prompts: Sequence[MediaPrompt]) -> list[list[float]]:
        """The engine's log-probabilities of one fixed continuation after each prompt, in one call."""
        media = [prompt.media for prompt in prompts]
        return self.engine.score([p.ids for p in prompts], [CONTINUATION] * len(prompts), media=media)

    def expected(self, prompt: MediaPrompt, model: MiniCPMV | None = None) -> Any:
        """What they should be, by the torch model or another one."""
        return pytest.approx(torch_logprobs(model or self.model, prompt, CONTINUATION), abs=CLOSE)
