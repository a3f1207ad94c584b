import math
from pathlib import Path

import numpy as np
import pytest
import torch

from base_model.export.load import load_plain
from base_model.export.quality import AnswerExample, AnswerScore, answer_scores, compare_quality
from tests.base_model.export.models import text_checkpoint


def _scores(logprobs: list[float], tokens: int = 2) -> list[AnswerScore]:
    return [AnswerScore(logprob=value, tokens=tokens, exact=value > -1) for value in logprobs]


def test_hand_computed_figures() -> None:
    found = compare_quality(_scores([-0.5, -1.5]), _scores([-0.9, -3.1]))
    assert found.drop == pytest.approx((0.4 + 1.6) / 4)
    assert found.logprob_before == pytest.approx(-0.5)
    assert found.perplexity_after == pytest.approx(math.exp(1.0))
    assert (found.exact_before, found.exact_after) == (0.5, 0.5)


def test_the_interval_covers_the_true_fall_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        before, falls = rng.normal(-3, 1, 60), rng.normal(0.3, 0.5, 60)
        found = compare_quality(_scores(before.tolist(), 1), _scores((before - falls).tolist(), 1), seed=seed)
        covered += found.drop_low <= 0.3 <= found.drop_high
    assert 0.88 <= covered / 200 <= 0.99


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to check the quality on"):
        compare_quality([], [])


def test_scores_are_those_of_a_plain_forward_pass(tmp_path: Path) -> None:
    model = load_plain(text_checkpoint(tmp_path).folder)
    prompt, answer = [5, 9, 40], [7, 3]
    (score,) = answer_scores(model, [AnswerExample(prompt_ids=prompt, answer_ids=answer)])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].double()
    logprobs = torch.log_softmax(logits, -1)
    assert score.logprob == pytest.approx(float(logprobs[2, 7] + logprobs[3, 3]), abs=1e-5)
    assert (score.tokens, score.exact) == (2, False)
    greedy = model.generate(torch.tensor([prompt]), max_new_tokens=2, do_sample=False, eos_token_id=None)
    (own,) = answer_scores(model, [AnswerExample(prompt_ids=prompt, answer_ids=greedy[0, 3:].tolist())])
    assert own.exact
