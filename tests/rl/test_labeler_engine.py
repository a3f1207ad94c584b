"""The labeler's probabilities from a real engine, against one plain forward pass of transformers."""

import pytest
import torch

from rl.labeler import Labeler, LabelRequest, Media, checkpoint_identity
from rl.question_prompts import QuestionPrompts, answer_tokens
from rollouts.modes import ShortMode
from tests.base_model.vlm.small import picture
from tests.rl.fixed_engine import claim
from tests.rollouts.vision import Served

pytestmark = pytest.mark.slow
CLOSE = 1e-4


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = Served(tmp_path_factory.mktemp("labeler"))
    with made.engine:
        yield made


def sums(served, text, images=()):
    """p_yes and p_no by the torch model, from the softmax over the whole vocabulary."""
    from rollouts.prompts import render_media_prompt

    content = [*([{"type": "image"}] * len(images)), {"type": "text", "text": text}]
    messages = [{"role": "user", "content": content if images else text}]
    prompt = render_media_prompt(served.processor, messages, images, [], ShortMode())
    with torch.no_grad():
        logits = served.model(input_ids=torch.tensor([prompt.ids]), **prompt.inputs).logits[0, -1].double()
    probabilities_V = logits.softmax(-1)
    return [probabilities_V[list(tokens)].sum().item() for tokens in answer_tokens(served.processor.tokenizer)]


def test_probabilities_are_those_of_transformers(served):
    pictures = [(picture(300, 200),), (picture(60, 50, 1), picture(90, 90, 2)), ()]
    questions = ["Is there a red circle?", "Is the top left object blue?", "Does it move?"]
    requests = [
        LabelRequest(claim=claim(text, text), media=media)
        for media in [Media(images=images) for images in pictures]
        for text in questions
    ]
    labeler = Labeler(served.engine, served.processor, identity="tiny")
    verdicts = labeler.label(requests)
    assert labeler.counts.asked == len(requests)
    for request, verdict in zip(requests, verdicts, strict=True):
        asked = f"{request.claim.question} Answer with yes or no."
        assert [verdict.p_yes, verdict.p_no] == pytest.approx(sums(served, asked, request.media.images), abs=CLOSE)
        assert verdict.p_yes > 1e-3  # so that the tolerance says something
    assert len({round(verdict.p_yes, 6) for verdict in verdicts}) == len(verdicts)


def test_named_tokens_of_many_prompts_in_one_call(served):
    prompts = QuestionPrompts(served.processor, ShortMode()).prompts([f"Question {n}?" for n in range(40)])
    tokens = [[5 + n, 20, 300 - n] for n in range(40)]
    parts = {}
    found = served.engine.next_logprobs([p.ids for p in prompts], tokens, on_result=parts.__setitem__)
    assert [parts[index] for index in range(40)] == found
    for prompt, wanted, values in zip(prompts, tokens, found, strict=True):
        with torch.no_grad():
            logprobs_V = served.model(input_ids=torch.tensor([prompt.ids])).logits[0, -1].log_softmax(-1)
        assert values == pytest.approx(logprobs_V[wanted].tolist(), abs=1e-3)


def test_generation_after_questions_is_as_before(served):
    from tests.rollouts.vision import largest_gap, requests_of

    prompt = served.prompt("image")
    before = served.engine.generate(requests_of(prompt, samples=2))
    served.engine.next_logprobs([prompt.ids], [[3, 4]], media=[prompt.media])
    assert served.engine.generate(requests_of(prompt, samples=2)) == before
    assert largest_gap(served.model, prompt, before[0]) < CLOSE


def test_prompts_that_cannot_be_asked_are_refused(served):
    with pytest.raises(ValueError, match=r"600 tokens, but engine\.max_model_len is 512"):
        served.engine.next_logprobs([[5] * 600], [[1]])
    with pytest.raises(ValueError, match="the prompt has 0 tokens"):
        served.engine.check_prompt([])
    assert served.engine.next_logprobs([], []) == []


def test_the_identity_of_a_checkpoint(tmp_path, served):
    folder = served.engine._path
    one = checkpoint_identity(folder, "float32")
    assert one == checkpoint_identity(folder, "float32") != checkpoint_identity(folder, "bfloat16")
