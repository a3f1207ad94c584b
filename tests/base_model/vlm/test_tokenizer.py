"""A tokenizer learned from a few texts: nothing is lost, every tag is one token, and the template flattens parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoTokenizer

from base_model.vlm.presets import build
from base_model.vlm.processing import IMAGE_TAG, VIDEO_TAG
from base_model.vlm.tokenizer import SMALLEST_VOCABULARY, THINK_TAGS, TURN_END, train_tokenizer

TEXTS = [f"How many {colour} circles are there? There are {n}." for colour in ("red", "blue") for n in range(30)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=400)


@given(st.text())
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_the_size_is_kept_and_reached(tokenizer):
    assert len(tokenizer) <= 400
    assert len(train_tokenizer(TEXTS, vocab_size=SMALLEST_VOCABULARY)) == SMALLEST_VOCABULARY


def test_a_size_without_room_for_bytes_is_refused():
    with pytest.raises(ValueError, match="bytes and special tokens"):
        train_tokenizer(TEXTS, vocab_size=SMALLEST_VOCABULARY - 1)


def test_tags_and_the_end_of_a_turn_are_one_token_each(tokenizer):
    for tag in (*THINK_TAGS, TURN_END, "<unk>", "<image>", "</slice>"):
        assert len(tokenizer(tag, add_special_tokens=False)["input_ids"]) == 1, tag
    assert tokenizer.eos_token == TURN_END
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_think_tags_survive_decoding_and_special_tokens_do_not(tokenizer):
    ids = tokenizer("<think>\n5\n</think>\n\nsix<|im_end|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\n5\n</think>\n\nsix"


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("1229") == ["1", "2", "2", "9"]


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    assert train_tokenizer(TEXTS, vocab_size=400).get_vocab() == tokenizer.get_vocab()


def test_the_template_is_chatml(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_parts_are_flattened_as_the_processor_flattens_them(tokenizer):
    _, processor = build("tiny", tokenizer)
    image = Image.new("RGB", (30, 20))
    parts = [
        {"type": "image", "image": image},
        {"type": "text", "text": "and"},
        {"type": "video", "video": None},
        {"type": "text", "text": "What?"},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "That."}]
    ours = tokenizer.apply_chat_template(messages, tokenize=False)
    assert ours == processor.apply_chat_template(messages)
    assert f"user\n{IMAGE_TAG}\nand\n{VIDEO_TAG}\nWhat?<|im_end|>" in ours


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\n<think> 12 red naïve 中\n<|im_end|>"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == "user\n<think> 12 red naïve 中\n"
