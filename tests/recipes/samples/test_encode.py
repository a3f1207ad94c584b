"""Samples as token ids: what is given, what is trained, and that both are what rollouts render and sample."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.training_example import TrainingExample, spans_of
from recipes.samples.encode import encode_sample
from recipes.samples.sample import Rejected, Sample, asked, turns
from rollouts.modes import LongMode, ModesConfig, ShortMode
from rollouts.prompts import render_media_prompt, render_prompt
from tests.base_model.vlm.small import picture, shared, video

MODES = ModesConfig()
TEXTS = st.text(st.sampled_from("ab 12\n.é中<>"), min_size=1, max_size=20).filter(lambda text: text.strip())


def sample(messages: Any = (), **changes: Any) -> Sample:
    return Sample(messages=tuple(messages), task="qa", place="rows.jsonl, line 1", **changes)


def trained(processor: Any, example: TrainingExample) -> list[str]:
    """The text of each span."""
    return [processor.tokenizer.decode(example.ids[start:end]) for start, end in example.target_spans]


@pytest.mark.parametrize(("mode", "thinks"), [(ShortMode(), False), (LongMode(), True), (None, True)])
def test_one_turn_is_the_prompt_of_a_rollout_and_what_it_would_sample(mode, thinks):
    _, processor = shared()
    messages = turns(asked("image", "How many?"), "3", "I count 1, 2, 3.")
    image = picture(100, 120)
    example = encode_sample(processor, sample(messages, images=(image,)), MODES, mode=mode)
    prompt = render_media_prompt(processor, messages[:1], [image], [], MODES.long if thinks else MODES.short)
    start = len(prompt.ids)
    assert example.ids[:start] == prompt.ids
    assert example.target_spans == ((start, len(example.ids)),)
    assert trained(processor, example) == [("I count 1, 2, 3.\n</think>\n\n" if thinks else "") + "3<|im_end|>"]
    assert set(example.inputs) == set(prompt.inputs)
    assert torch.equal(example.inputs["image_bound"][0], prompt.inputs["image_bound"][0])


def test_a_sample_without_reasoning_is_trained_in_short_mode():
    _, processor = shared()
    messages = turns("2 + 3?", "5")
    example = encode_sample(processor, sample(messages), MODES, mode=LongMode())
    prompt = render_prompt(processor.tokenizer, messages[:1], MODES.short)
    assert example.ids[: len(prompt)] == prompt
    assert example.inputs is None


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user" if at % 2 == 0 else "assistant", "content": text} for at, text in enumerate(texts)]


def test_several_turns_with_media_between_them():
    _, processor = shared()
    messages = chat("", "A cat.", "", "It jumps.", "Why?", "It sees a bird.")
    messages[0]["content"] = asked("image", "What is it?")
    messages[2]["content"] = asked("video", "And here?")
    images, videos = (picture(260, 100),), (video([2, 1]),)
    example = encode_sample(processor, sample(messages, images=images, videos=videos), MODES)
    assert trained(processor, example) == ["A cat.<|im_end|>", "It jumps.<|im_end|>", "It sees a bird.<|im_end|>"]
    prompt = render_media_prompt(processor, messages[:-1], images, videos, MODES.short)
    assert example.ids[: len(prompt.ids)] == prompt.ids
    assert prompt.media.text.count("<think>") == 1  # earlier turns are shown without think blocks


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
def test_every_token_of_every_answer_is_trained_and_no_other(texts):
    _, processor = shared()
    messages = chat(*texts)
    example = encode_sample(processor, sample(messages), MODES)
    prompt = render_prompt(processor.tokenizer, messages[:-1], MODES.short)
    assert example.ids[: len(prompt)] == prompt
    answers = [
        f"{message['content'].lstrip(chr(10))}<|im_end|>" for message in messages if message["role"] == "assistant"
    ]
    found = trained(processor, example)
    assert len(found) == len(answers)
    for text, answer in zip(found[:-1], answers[:-1], strict=True):
        assert text.endswith(answer)  # the line break before it may share its first token
        assert text.removesuffix(answer) in ("", "\n")
    assert found[-1] == f"{texts[-1]}<|im_end|>"


def test_an_answer_that_repeats_the_question_is_found_at_its_own_place():
    _, processor = shared()
    example = encode_sample(processor, sample(chat("user", "user", "im_end", "assistant", "a", "b")), MODES)
    assert trained(processor, example) == ["user<|im_end|>", "assistant<|im_end|>", "b<|im_end|>"]
    text = processor.tokenizer.decode(example.ids[: example.target_spans[0][0]])
    assert text == "<|im_start|>user\nuser<|im_end|>\n<|im_start|>assistant\n"


def document(*parts: dict[str, str], **media: Any) -> Sample:
    return Sample(document=parts, task="interleaved", place="rows.jsonl, line 1", **media)


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_all_text_of_a_document_is_trained_and_no_token_of_its_media():
    _, processor = shared()
    parts = (part("A cat."), {"type": "image"}, part("A dog."), {"type": "video"}, {"type": "image"}, part("End."))
    images, videos = (picture(260, 100), picture(50, 60)), (video([2, 3]),)
    example = encode_sample(processor, document(*parts, images=images, videos=videos), MODES)
    assert trained(processor, example) == ["A cat.\n", "\nA dog.\n", "\n", "\nEnd.<|im_end|>"]
    inside = {at for start, end in example.inputs["image_bound"][0].tolist() for at in range(start, end)}
    assert not inside & {at for start, end in example.target_spans for at in range(start, end)}
    given_ids = [token for token, mask in zip(example.ids, example.target_mask, strict=True) if not mask]
    shown = processor.tokenizer.decode(given_ids)
    assert shown.count("<image>") == 4  # two images, two packages
    assert "cat" not in shown


def test_a_document_of_text_is_cut_at_the_limit():
    _, processor = shared()
    whole = encode_sample(processor, document(part("one two three " * 20)), MODES)
    cut = encode_sample(processor, document(part("one two three " * 20)), MODES, max_tokens=30)
    assert (cut.ids, cut.target_spans) == (whole.ids[:30], ((1, 30),))
    assert whole.target_spans == ((1, len(whole.ids)),)
    assert whole.ids[0] == whole.ids[-1] == processor.tokenizer.eos_token_id


def test_what_is_too_long_or_marks_media_itself_is_refused():
    _, processor = shared()
    with pytest.raises(Rejected, match=r"line 1: \d+ tokens, more than 20") as error:
        encode_sample(processor, sample(turns("a" * 50, "b")), MODES, max_tokens=20)
    assert error.value.reason == "too_long"
    hostile = turns(asked("image", "Read (<image>./</image>)."), "x")
    with pytest.raises(Rejected, match="holds the mark of an image"):
        encode_sample(processor, sample(hostile, images=(picture(50, 50),)), MODES)
    plain = encode_sample(processor, sample(turns("Read (<image>./</image>).", "x")), MODES)
    assert plain.inputs is None  # without media these are words


def test_a_template_that_rewrites_earlier_turns_is_refused():
    from tests.tiny import make_tiny_tokenizer

    template = (
        "{% for message in messages %}{{ message['role'] + loop.revindex|string + message['content'] }}{% endfor %}"
    )
    with pytest.raises(ValueError, match="writes earlier turns differently"):
        encode_sample(make_tiny_tokenizer(chat_template=template), sample(chat("a", "b", "c", "d")), MODES)


@given(st.lists(st.booleans(), max_size=30))
def test_spans_and_masks_say_the_same(mask):
    spans = spans_of(mask)
    example = TrainingExample(ids=tuple(range(len(mask))), target_spans=spans)
    assert list(example.target_mask) == [trained and at > 0 for at, trained in enumerate(mask)]
    assert example.targets == sum(mask[1:])
