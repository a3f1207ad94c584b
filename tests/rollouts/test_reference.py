"""Where a reference stands in a response: text, token by token, and the cases that have no such place."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollouts.modes import LongMode, ShortMode
from rollouts.reference import prompt_span, reference_span
from tests.tiny import make_tiny_tokenizer

TOKENIZER = make_tiny_tokenizer()
LONG, SHORT = LongMode(), ShortMode()
PROMPT = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def text(tokens) -> str:
    return TOKENIZER.decode(list(tokens), skip_special_tokens=False)


def span(response: str, reference: str, mode=LONG, **options):
    return reference_span(
        TOKENIZER,
        prompt_ids=ids(PROMPT + mode.prefill),
        response_ids=ids(response),
        mode=mode,
        reference=reference,
        **options,
    )


def spliced(response: str, found) -> str:
    return text([*ids(response)[: found.keep], *found.tokens])


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("3 + 4 = 7\n</think>\n\n7<|im_end|>", "12", "3 + 4 = 7\n</think>\n\n12"),
        ("so</think> 7", "twelve", "so</think> twelve"),
        ("so</think>7", "12", "so</think> 12"),  # no white space of the model's own: one space
        ("so</think>\n  The answer is 7.", "x y", "so</think>\n  x y"),
        ("so</think>\n\n日本", "東京", "so</think>\n\n東京"),  # letters of several tokens each
        ("so</think>\n\n7", "éàü ñ", "so</think>\n\néàü ñ"),
        ("so</think>\n\nThe answer is a lo", "b", "so</think>\n\nb"),  # cut off inside the answer
        ("</think>\n\n7", "8", "</think>\n\n8"),
        ("</think>\xa07", "8", "</think>\xa08"),  # white space of two tokens
        ("</think>\xa0日", "月", "</think>\xa0月"),
        ("so</think>\n\n7", "  8 \n", "so</think>\n\n8"),
    ],
)
def test_long_mode(response, reference, expected):
    found = span(response, reference)
    assert spliced(response, found) == expected
    assert reference.strip() in text(found.tokens[i] for i in found.scored)


@pytest.mark.parametrize(
    "response",
    [
        "never closed",
        "so</think>",
        "so</think>\n\n",
        "so</think>\n <|im_end|>",
        "",
        "a</think>\n\n7</think>8",
        "a<think>b</think>\n\n7",
        "a</think>\n\n<think>7",
    ],
)
def test_responses_without_a_place_for_it(response):
    assert span(response, "7") is None


def test_short_mode_follows_the_prefill():
    found = span("7<|im_end|>", "12", SHORT)
    assert (found.keep, text(found.tokens)) == (0, "12")  # the prefill ends in white space
    assert span("  \n<|im_end|>", "12", SHORT) is None
    assert span("a</think>b", "12", SHORT) is None
    bare = ShortMode(prefill="<think></think>")
    assert text(span("7", "12", bare).tokens) == " 12"
    assert text(span("\n7", "12", bare).tokens) == "12"  # the white space is a token of its own, and is kept


def test_an_opening_of_the_answer_is_part_of_what_is_kept():
    response = "so</think>\nIt is <answer> 7</answer>"
    assert spliced(response, span(response, "12", answer_open="<answer>")) == "so</think>\nIt is <answer> 12"
    response = "It is <answer>7</answer>"
    found = span(response, "12", SHORT, answer_open="<answer>")
    assert spliced(response, found) == "It is <answer> 12"
    for bad in ("7", "<answer>7</answer><answer>8</answer>", "<answer>  ", "a <answer>"):
        assert span(bad, "12", SHORT, answer_open="<answer>") is None
    assert span("<answer>1</think>\n<answer>7", "12", answer_open="<answer>") is None


def test_white_space_inside_a_token_is_not_scored_alone():
    """The model wrote ` is` as one token; the reference's first token is whatever ` to` becomes."""
    found = span("so</think> is", "to")
    assert text(found.tokens) == " to"
    only_text = [text([token]).strip() != "" for token in found.tokens]
    assert [i in found.scored for i in range(len(found.tokens))] == only_text


def test_after_the_prompt_alone():
    assert text(prompt_span(TOKENIZER, prompt_ids=ids("Q:\n\n"), reference="12").tokens) == "12"
    assert text(prompt_span(TOKENIZER, prompt_ids=ids("Q:"), reference="12").tokens) == " 12"
    assert prompt_span(TOKENIZER, prompt_ids=ids("Q:"), reference=" \n") is None


@settings(max_examples=300, deadline=None)
@example(thinking="", space="", answer="\xa00\x80𐀀", reference="0")
@given(
    thinking=st.text(max_size=20),
    space=st.sampled_from(["", " ", "\n", "\n\n", " \n "]),
    answer=st.text(min_size=1, max_size=20),
    reference=st.text(min_size=1, max_size=20),
)
def test_the_text_is_the_kept_text_and_the_reference(thinking, space, answer, reference):
    response = f"{thinking}</think>{space}{answer}"
    found = span(response, reference)
    tags = ("<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|pad|>")
    blank = not answer.strip() or not reference.strip() or any(c in "\x1c\x1d\x1e\x1f\x85\u2028\u2029" for c in answer)
    if blank or any(tag in part for tag in tags for part in (thinking, answer, reference, space + answer)):
        return
    whole = response[: len(response) - len((space + answer).lstrip())]
    own = whole if whole[-1].isspace() else whole + " "
    assert spliced(response, found) == own + reference.strip()
