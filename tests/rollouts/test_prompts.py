"""Rendering of prompts and splitting of responses, with real tokenizers."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts import LongMode, Mode, ShortMode, render_prompt, render_text, split_response
from tests.tiny import OPENING_CHAT_TEMPLATE, QWEN3_CHAT_TEMPLATE, make_tiny_tokenizer

USER = {"role": "user", "content": "What is 3 + 4?"}
TURN = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
SHORT, LONG = ShortMode(), LongMode()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny_tokenizer()


def test_prefill_ends_the_prompt(tokenizer):
    assert render_text(tokenizer, [USER], SHORT) == TURN + "<think>\n\n</think>\n\n"
    assert render_text(tokenizer, [USER], LONG) == TURN + "<think>\n"


def test_prompt_ids_are_those_of_the_whole_text(tokenizer):
    ids = render_prompt(tokenizer, [USER], LONG)
    assert tokenizer.decode(ids) == TURN + "<think>\n"
    assert list(ids) == tokenizer(TURN + "<think>\n", add_special_tokens=False).input_ids
    assert ids[0] == tokenizer.bos_token_id != ids[1]


def test_instruction_joins_the_last_user_message(tokenizer):
    mode = ShortMode(instruction="Answer only.")
    text = render_text(tokenizer, [USER, {"role": "assistant", "content": "7"}, USER], mode)
    assert text.count("Answer only.") == 1
    assert "What is 3 + 4?\n\nAnswer only.<|im_end|>\n<|im_start|>assistant\n<think>" in text


def test_instruction_joins_a_message_of_parts():
    from rollouts.prompts import _with_instruction

    parts = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    [turn] = _with_instruction([parts], ShortMode(instruction="Be brief."))
    assert turn["content"] == [*parts["content"], {"type": "text", "text": "\n\nBe brief."}]
    assert len(parts["content"]) == 2  # the row itself is left as it was


@pytest.mark.parametrize(
    "content",
    ["<think>\nadd\n</think>\n\nIt is 7.", "add\n</think>\n\nIt is 7.", "<think></think>It is 7.", "It is 7."],
)
def test_earlier_assistant_turns_lose_their_thoughts(tokenizer, content):
    text = render_text(tokenizer, [USER, {"role": "assistant", "content": content}, USER], LONG)
    assert text == TURN + "It is 7.<|im_end|>\n" + TURN + "<think>\n"


def test_a_thought_that_was_cut_off_is_dropped_too(tokenizer):
    text = render_text(tokenizer, [USER, {"role": "assistant", "content": "<think>\nadd and"}, USER], SHORT)
    assert "add and" not in text


def test_tokenizer_without_chat_template_is_refused():
    with pytest.raises(ValueError, match="has no chat template"):
        render_prompt(make_tiny_tokenizer(chat_template=None), [USER], SHORT)


def test_instruction_without_user_message_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no user message"):
        render_prompt(tokenizer, [{"role": "system", "content": "x"}], ShortMode(instruction="y"))


def test_template_that_opens_the_think_block_is_not_doubled():
    tokenizer = make_tiny_tokenizer(chat_template=OPENING_CHAT_TEMPLATE)
    assert render_text(tokenizer, [USER], LONG) == TURN + "<think>\n"
    assert render_text(tokenizer, [USER], SHORT) == TURN + "<think>\n\n</think>\n\n"
    assert render_text(tokenizer, [USER], LongMode(prefill="<think>\nFirst,")) == TURN + "<think>\nFirst,"
    assert render_text(tokenizer, [USER], LongMode(prefill="")) == TURN + "<think>\n"


def test_template_that_opens_a_block_nobody_closes_is_refused():
    tokenizer = make_tiny_tokenizer(chat_template=OPENING_CHAT_TEMPLATE)
    with pytest.raises(ValueError, match="opens a think block"):
        render_text(tokenizer, [USER], Mode(name="plain"))


def test_qwen3_template_writes_the_empty_block_itself():
    tokenizer = make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE)
    off, on = {"enable_thinking": False}, {"enable_thinking": True}
    assert render_text(tokenizer, [USER], ShortMode(template_kwargs=off)) == TURN + "<think>\n\n</think>\n\n"
    assert render_text(tokenizer, [USER], LongMode(template_kwargs=on)) == TURN + "<think>\n"
    assert render_text(tokenizer, [USER], ShortMode(template_kwargs=on)) == TURN + "<think>\n\n</think>\n\n"
    spaced = ShortMode(template_kwargs=off, prefill="<think> </think> So:")
    assert render_text(tokenizer, [USER], spaced) == TURN + "<think>\n\n</think>\n\nSo:"
    with pytest.raises(ValueError, match="closes the think block"):
        render_text(tokenizer, [USER], LongMode(template_kwargs=off))


def split(tokenizer, text: str, mode: Mode):
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return ids, split_response(tokenizer, ids, mode)


def test_long_response_is_split_at_the_first_closing_tag(tokenizer):
    ids, parts = split(tokenizer, "3 + 4 = 7\n</think>\n\nThe answer is 7.</think> x", LONG)
    assert parts.thinking == "3 + 4 = 7"
    assert parts.answer == "The answer is 7.</think> x"
    assert parts.response == "3 + 4 = 7\n</think>\n\nThe answer is 7.</think> x"
    assert tokenizer.decode(ids[parts.answer_start :], skip_special_tokens=True).strip() == parts.answer


def test_think_block_that_is_never_closed_leaves_no_answer(tokenizer):
    ids, parts = split(tokenizer, "3 + 4 = 7, so", LONG)
    assert (parts.thinking, parts.answer, parts.answer_start) == ("3 + 4 = 7, so", "", len(ids))


def test_short_response_is_all_answer(tokenizer):
    _, parts = split(tokenizer, " 7 </think> 8", SHORT)
    assert tuple(parts) == (" 7 </think> 8", None, " 7 </think> 8", 0)


def test_empty_response(tokenizer):
    assert tuple(split_response(tokenizer, [], LONG)) == ("", "", "", 0)


def test_other_tags(tokenizer):
    mode = LongMode(prefill="[work]", think_open="[work]", think_close="[/work]")
    assert split(tokenizer, "a[/work]b", mode)[1][1:3] == ("a", "b")


def test_closing_tag_that_is_a_special_token():
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids, parts = split(tokenizer, "3 + 4</think>7", LONG)
    assert (parts.thinking, parts.answer) == ("3 + 4", "7")
    assert tokenizer.decode(ids[parts.answer_start :], skip_special_tokens=True) == "7"
    assert split(tokenizer, "3 + 4", LONG)[1][1:] == ("3 + 4", "", len(tokenizer("3 + 4").input_ids) + 1)


@functools.cache
def cached_tokenizer():
    return make_tiny_tokenizer()


@given(thinking=st.text(max_size=30), answer=st.text(max_size=30))
def test_splitting_undoes_joining(thinking, answer):
    tokenizer = cached_tokenizer()
    ids, parts = split(tokenizer, f"{thinking}</think>{answer}", LONG)
    assert (parts.thinking, parts.answer) == (thinking.strip(), answer.strip())
    assert "</think>" in tokenizer.decode(ids[: parts.answer_start], skip_special_tokens=True)
    assert "</think>" not in tokenizer.decode(ids[: parts.answer_start - 1], skip_special_tokens=True)
