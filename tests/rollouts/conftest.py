"""Engines that several tests share: starting one takes more than ten seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rollouts import EngineConfig, LongMode, Mode, Request, Rollout, Sampling, ShortMode, VLLMEngine, request_seed
from tests.tiny import make_tiny_model

if TYPE_CHECKING:
    from tests.rollouts.vision import Served

CONFIG = EngineConfig(dtype="float32", max_model_len=192, max_num_seqs=16, kv_cache_gib=0.25, threads=1)
SHORT, LONG = ShortMode(max_tokens=12), LongMode(max_tokens=40)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a tiny Llama whose LM head is tied to its embedding."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), tied=True)


@pytest.fixture(scope="session")
def session_engine(tiny: Path) -> Iterator[VLLMEngine]:
    """An engine that the tests of one session share; use `engine`."""
    with VLLMEngine(tiny, CONFIG) as engine:
        yield engine


@pytest.fixture
def engine(session_engine: VLLMEngine, tiny: Path) -> VLLMEngine:
    """The shared engine with the weights of `tiny`, version 0, whatever an earlier test has loaded."""
    if session_engine.version != 0:
        session_engine.load_weights(model_of(tiny).named_parameters(), 0)
    return session_engine


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tiny vision-language model and an engine on it, which the tests of one session share."""
    from tests.rollouts.vision import Served

    served = Served(tmp_path_factory.mktemp("vision"))
    with served.engine:
        yield served


def model_of(path: Path) -> Any:
    """The checkpoint as a transformers model in float32; other attentions than "eager" leave Gemma 2's soft cap out."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype="float32", attn_implementation="eager").eval()


def perturbed(path: Path, scale: float = 0.3, seed: int = 1) -> Any:
    """The model with every weight moved by `scale` of its tensor's spread."""
    import torch

    model, generator = model_of(path), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor += scale * (tensor.std() + 0.1) * torch.randn(tensor.shape, generator=generator)
    return model


def make_requests(
    rows: int = 2,
    samples: int = 4,
    *,
    prompt_tokens: int = 67,
    modes: Sequence[Mode] = (SHORT, LONG),
    sampling: Sampling | None = None,
    step: int = 0,
    ignore_eos: bool = False,
) -> list[Request]:
    """Groups of requests; row r has its own random prompt and the mode r modulo the number of modes."""
    return [
        Request(
            prompt_ids=tuple(
                3 + (17 * row + 31 * position + position * position) % 380 for position in range(prompt_tokens)
            ),
            mode=modes[row % len(modes)],
            row=row,
            sample=sample,
            seed=request_seed(0, step, row, sample),
            sampling=sampling or Sampling(),
            ignore_eos=ignore_eos,
        )
        for row in range(rows)
        for sample in range(samples)
    ]


def model_logprobs(model: Any, rollout: Rollout, temperature: float = 1.0) -> Any:
    """(T, V) log-probabilities of transformers at the positions of the response, in float64."""
    import torch

    ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
    with torch.no_grad():
        logits_TV = model(ids).logits[0, len(rollout.prompt_ids) - 1 : -1].double()
    return (logits_TV / temperature).log_softmax(-1)


def largest_gap(model: Any, rollouts: Sequence[Rollout], temperature: float = 1.0) -> float:
    """Largest difference between the engine's log-probabilities and those of transformers."""
    import torch

    gaps = []
    for rollout in rollouts:
        expected_T = model_logprobs(model, rollout, temperature).gather(1, torch.tensor(rollout.response_ids)[:, None])
        gaps.append((expected_T[:, 0] - torch.tensor(rollout.logprobs, dtype=torch.float64)).abs().max().item())
    return max(gaps)
