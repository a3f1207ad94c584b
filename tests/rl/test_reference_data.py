"""The probability reward on real questions with a real model, against float64 logits of transformers.

The questions lie beside the checkout (or where TANDEM_DEV_DATA says), not in it; without them this is skipped.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from recipes.models import SMOLLM2, ModelConfig, resolve_model
from rewards.probability import probability
from rl.config import LearnerConfig
from rl.environment import BarePrompt
from rl.learner import Learner, TrainGroup
from rl.reference import _prompt_probs, branches_of, scored_probs
from rollouts.modes import LongMode, ShortMode
from rollouts.prompts import render_prompt
from rollouts.reference import prompt_span, reference_span

pytestmark = pytest.mark.slow
FOLDER = Path(os.environ.get("TANDEM_DEV_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
EXTRA = [
    ("Wie heißt die Hauptstadt von Japan auf Japanisch?", "東京"),
    ("Spell the greeting.", "Здравствуйте"),
    ("Name a fruit.", " ананас и яблоко"),
]
RESPONSES = {
    "long": [
        "I think about it for a moment.\n</think>\n\nThe answer is something.<|im_end|>",
        "First this, then that.</think>it",
        "Hm.\n</think> cut off in the mid",
        "never closed",
        "blank\n</think>\n\n<|im_end|>",
    ],
    "short": ["Perhaps<|im_end|>", "\n perhaps not", "<|im_end|>"],
}


def questions() -> list[tuple[str, str]]:
    path = FOLDER / "freeform_qa.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not here: the development data is not part of the repository")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["question"], row["reference"]) for row in rows if len(row["question"]) < 400][::40] + EXTRA


def test_real_questions_in_both_modes():
    path = resolve_model(ModelConfig(path=SMOLLM2))
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")
    learner = Learner(load_packed(path), LearnerConfig(precision="float32"), total_steps=1)

    def mean_probability(prefix, span) -> float:
        ids = torch.tensor([[*prefix, *span.tokens]])
        with torch.no_grad():
            probs = model(input_ids=ids, use_cache=False).logits[0].softmax(-1)
        return sum(float(probs[len(prefix) - 1 + i, span.tokens[i]]) for i in span.scored) / len(span.scored)

    compared = 0
    for question, reference in questions():
        messages = [{"role": "user", "content": question}]
        bare = render_prompt(tokenizer, messages, ShortMode())
        before = prompt_span(tokenizer, prompt_ids=bare, reference=reference)
        baseline = _prompt_probs(learner.branch_logprobs, [BarePrompt(bare, before)])[0]
        expected_before = mean_probability(bare, before)
        for mode in (LongMode(), ShortMode()):
            prompt = render_prompt(tokenizer, messages, mode)
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
            found = iter(learner.branch_logprobs([group])[0])
            for ids, span in zip(responses, spans, strict=True):
                probs = scored_probs(span, next(found)) if span else []
                value = probability(reference=reference, reference_probs=probs, baseline_probs=baseline)
                if span is None:
                    assert value == 0.0
                    continue
                after = mean_probability([*prompt, *ids[: span.keep]], span)
                assert value == pytest.approx(min(max(after - expected_before, 0.0), 1.0), abs=1e-4)
                assert probability(reference=reference, reference_probs=probs) == pytest.approx(after, abs=1e-4)
                compared += 1
    assert compared >= 40
