"""Probabilities of references through the learner, against a float64 computation from transformers' logits."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from rewards.probability import probability
from rl.config import LearnerConfig
from rl.environment import BarePrompt
from rl.learner import Learner, TrainGroup
from rl.reference import BaselineCache, _prompt_probs, branches_of, scored_probs
from rollouts.modes import LongMode, Mode, ShortMode
from rollouts.prompts import render_prompt
from rollouts.reference import prompt_span, reference_span
from tests.tiny import make_tiny_model

QUESTION = [{"role": "user", "content": "What is the sum of 3 and 4?"}]
REFERENCES = ["seven", "7", "東京 and 大阪", "x = \\frac{1}{2}", "The answer is 42."]
RESPONSES = {
    "long": [
        "First add: 3 + 4 = 7.\n</think>\n\n7<|im_end|>",
        "so</think>the answer<|im_end|>",
        "hm\n</think> and then it is cut o",
        "日本</think>\n 12",
        "never closed",
        "blank</think>\n\n<|im_end|>",
    ],
    "short": ["7<|im_end|>", "\n 8 is it", "  <|im_end|>"],
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), spread=0.5)


def mean_probability(
    model: torch.nn.Module, prefix: list[int], tokens: list[int], scored: list[int], t: float
) -> float:
    """The published way: a whole forward pass over prefix and reference, in float64."""
    ids = torch.tensor([[*prefix, *tokens]])
    with torch.no_grad():
        probs = (model(input_ids=ids, use_cache=False).logits[0].double() / t).softmax(-1)
    return sum(float(probs[len(prefix) - 1 + i, tokens[i]]) for i in scored) / len(scored)


@pytest.mark.parametrize("mode", [LongMode(), ShortMode()], ids=lambda mode: mode.name)
@pytest.mark.parametrize("reference", REFERENCES)
def test_reward_equals_the_formula_over_float64_logits(model_path: Path, mode: Mode, reference: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64, attn_implementation="eager")
    packed = load_packed(model_path, temperature=0.8)
    learner = Learner(packed, LearnerConfig(precision="float32"), total_steps=1)
    prompt = render_prompt(tokenizer, QUESTION, mode)
    bare = render_prompt(tokenizer, QUESTION, ShortMode())
    responses = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in RESPONSES[mode.name]]
    spans = [
        reference_span(tokenizer, prompt_ids=prompt, response_ids=ids, mode=mode, reference=reference)
        for ids in responses
    ]
    group = TrainGroup(
        tokens=TokenGroup(prompt=prompt, responses=responses),
        advantages_G=(),
        engine_logprobs=(),
        branches=branches_of(spans),
    )
    bare_span = prompt_span(tokenizer, prompt_ids=bare, reference=reference)
    found = iter(learner.branch_logprobs([group])[0])
    baseline = _prompt_probs(learner.branch_logprobs, [None, BarePrompt(bare, bare_span)])[1]
    before = mean_probability(model, list(bare), list(bare_span.tokens), list(bare_span.scored), 0.8)
    assert sum(span is None for span in spans) == (2 if mode.thinks else 1)
    for ids, span in zip(responses, spans, strict=True):
        probs = scored_probs(span, next(found)) if span else []
        value = probability(reference=reference, reference_probs=probs, baseline_probs=baseline)
        if span is None:
            assert value == 0.0
            continue
        after = mean_probability(model, [*prompt, *ids[: span.keep]], list(span.tokens), list(span.scored), 0.8)
        assert value == pytest.approx(min(max(after - before, 0.0), 1.0), abs=1e-5)
        raw = probability(reference=reference, reference_probs=probs)
        assert raw == pytest.approx(after, abs=1e-5)


def test_baselines_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    cache = BaselineCache(path)
    assert cache.missing([3, 5, 3]) == [3, 5]
    cache.add([3, 5, 6], [[0.1, 1 / 3], [0.2], None])
    cache.save()
    again = BaselineCache(path)
    assert again.missing([5, 3, 8]) == [8]
    assert again.get(3) == [0.1, 1 / 3]
    assert again.get(6) is None
    assert json.loads(path.read_text())["5"] == [0.2]
