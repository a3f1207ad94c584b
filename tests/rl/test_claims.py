"""Claims from simple sentences and from a model's answers; scores of verdicts."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.render.source import render_item
from rl import claim_output, claim_splitter
from rl.claim_output import division_messages, read_division
from rl.claim_splitter import split_claims
from rl.claims import Claim, ClaimKind, ScoreConfig, Verdict, judge, response_score, verdict_record
from rl.clauses import claim_kind, read_clause

CASES = [
    ("There is a red circle.", ["Is there a red circle?"]),
    ("There are 3 small blue squares.", ["Are there 3 small blue squares?"]),
    (
        "There is a large blue triangle, 3 small blue squares and a pink cross.",
        ["Is there a large blue triangle?", "Are there 3 small blue squares?", "Is there a pink cross?"],
    ),
    ("There are 2 crosses and a ring.", ["Are there 2 crosses?", "Is there a ring?"]),
    ("There were two cats and a dog.", ["Were there two cats?", "Was there a dog?"]),
    ("No, there are no large red stars.", ["Are there no large red stars?"]),
    ("Yes, there is one star and no cross.", ["Is there one star?", "Is there no cross?"]),
    ("The circle is left of the square.", ["Is the circle left of the square?"]),
    ("The red circle is left of the blue square and the star.", [
        "Is the red circle left of the blue square?",
        "Is the red circle left of the star?",
    ]),
    ("The circle and the square are red.", ["Is the circle red?", "Is the square red?"]),
    ("The circle is large, red and above the star.", [
        "Is the circle large?",
        "Is the circle red?",
        "Is the circle above the star?",
    ]),
    ("The circle is between the square and the star.", ["Is the circle between the square and the star?"]),
    ("The circle isn't red, but the square is blue.", ["Is the circle not red?", "Is the square blue?"]),
    ("The clip shows a brown square and a star.", ["Does the clip show a brown square?", "Does the clip show a star?"]),
    ("At 2.5 seconds the green pentagon appears.", ["Does the green pentagon appear at 2.5 seconds?"]),
    ("At 2 seconds the red ring and the blue star collide.", [
        "Do the red ring and the blue star collide at 2 seconds?"
    ]),
    ("The red ring and the blue star move left.", ["Does the red ring move left?", "Does the blue star move left?"]),
    ("The brown ring does not move.", ["Does the brown ring not move?"]),
    ("The ring moves left and turns blue.", ["Does the ring move left?", "Does the ring turn blue?"]),
    ("The ring moved left.", ["Did the ring move left?"]),
    ("No two objects touch in any frame.", ["Is it true that no two objects touch in any frame?"]),
    ("Nothing moves or changes.", ["Is it true that nothing moves or changes?"]),
    ("First the green circle appears.", ["Does the green circle appear first?"]),
    ("At 5 seconds one object is visible.", ["Is one object visible at 5 seconds?"]),
    ("The cat has green eyes and wears a hat.", ["Does the cat have green eyes?", "Does the cat wear a hat?"]),
    ("The cat has striped fur.", ["Does the cat have striped fur?"]),
    ("The ball has been caught.", ["Has the ball been caught?"]),
    ("In the picture, there is a dog.", ["Is there a dog in the picture?"]),
    ("I can see a cat and 2 dogs.", ["Is there a cat?", "Are there 2 dogs?"]),
    ("There is a red ring and it is above the star.", ["Is there a red ring?", "Is the red ring above the star?"]),
    ("A dog runs. It wears a hat.", ["Does a dog run?", "Does the dog wear a hat?"]),
    ("- a red circle\n- two blue squares", ["Is there a red circle?", "Are there two blue squares?"]),
    ("A dog runs and barks.", ["Is it true that a dog runs and barks?"]),  # barks is no verb it knows: kept whole
    ("The circle is red. The circle is red.", ["Is the circle red?"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "questions"), CASES)
def test_questions_of_simple_sentences(text: str, questions: list[str]) -> None:
    division = split_claims(text)
    assert [claim.question for claim in division.claims] == questions
    assert division.problem is None


@pytest.mark.parametrize(
    ("text", "claims", "reasons"),
    [
        ("The picture is beautiful and the circle is red.", ["The circle is red."], ["opinion"]),
        ("I think it rains. Is it red? The sky is blue.", ["The sky is blue."], ["opinion", "question"]),
        ("They collide.", [], ["it is not clear what the pronoun stands for"]),
        ("A circle is above a square, and a star is below it.", ["A circle is above a square."], ["it is not clear"]),
        ("Yes.", [], ["answer without a fact of its own"]),
        ("", [], []),
    ],
)
def test_what_is_no_claim_is_recorded(text: str, claims: list[str], reasons: list[str]) -> None:
    division = split_claims(text)
    assert [claim.text for claim in division.claims] == claims
    assert len(division.dropped) == len(reasons)
    for dropped, reason in zip(division.dropped, reasons, strict=True):
        assert dropped.reason.startswith(reason)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("There is a red circle.", ClaimKind.PRESENCE),
        ("The clip shows a star.", ClaimKind.PRESENCE),
        ("There are 2 red circles.", ClaimKind.COUNT),
        ("There is one star.", ClaimKind.COUNT),
        ("At 2 seconds 3 objects are visible.", ClaimKind.COUNT),
        ("The circle is red.", ClaimKind.COLOUR),
        ("The circle is left of the red star.", ClaimKind.RELATION),
        ("The circle moves left.", ClaimKind.ACTION),
        ("The circle does not move.", ClaimKind.ACTION),
        ("The ring turns blue.", ClaimKind.ACTION),
        ("A man is riding a horse.", ClaimKind.ACTION),
        ("The object is a star.", ClaimKind.OTHER),
        ("Sunlight streams over hills.", ClaimKind.OTHER),
    ],
)
def test_kinds(text: str, kind: ClaimKind) -> None:
    assert claim_kind(text) == kind


def facts(item: object) -> set[str]:
    """The claims of a rendered caption, from the scene itself: a sentence for each group and relation."""
    from collections import Counter

    from recipes.render.shapes import a, counted, named
    from recipes.render.words import capital

    things = item.scene["objects"]  # type: ignore[attr-defined]
    groups = Counter(named(thing, size=True) for thing in things)
    told = {
        f"There {'is' if many == 1 else 'are'} {a(what) if many == 1 else counted(what, many)}."
        for what, many in groups.items()
    }
    return told | {capital(s.strip()) + "." for s in item.reference.split(". ")[1:] for s in [s.rstrip(".")]}  # type: ignore[attr-defined]


def test_captions_of_rendered_scenes_come_apart_into_their_facts() -> None:
    items = [render_item("scene", 1, index, short_share=0.0) for index in range(80)]
    captions = [item for item in items if item.asked.kind == "caption"]
    assert len(captions) > 8
    for item in captions:
        division = split_claims(item.reference)
        assert {claim.text for claim in division.claims} == facts(item)
        assert not division.dropped


def test_sentences_about_rendered_clips_are_all_understood() -> None:
    items = [render_item("clip", 1, index, short_share=0.0) for index in range(60)]
    for item in items:
        division = split_claims(item.reference)
        if "hey collide" not in item.reference:  # `They collide at 2 seconds` says of nothing who does
            assert division.claims, item.reference
            assert not division.dropped
        for claim in division.claims:
            assert claim.question.startswith(("Is ", "Are ", "Does ", "Do ")), claim
            assert claim.kind is not ClaimKind.OTHER, claim


def test_place_joins_questions_whether_something_is_there() -> None:
    questions = [claim.question for claim in split_claims("There is a cat. The cat is red.", "in the picture").claims]
    assert questions == ["Is there a cat in the picture?", "Is the cat red?"]


VOCABULARY = "there is are a the red circle and , . ; ? no not it they moves left between at 2.5 seconds has been -"
WORDS = st.sampled_from([*VOCABULARY.split(), "\n", ""])


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=200))
def test_any_text_is_divided_without_an_error(text: str) -> None:
    division = split_claims(text)
    texts = [claim.text for claim in division.claims]
    assert len({text.lower() for text in texts}) == len(texts)
    assert all(claim.question.endswith("?") for claim in division.claims)


@pytest.mark.parametrize(
    "unit", ["move ", "between, ", "the red and ", "a, ", "it is ", ") ", ".", " ", "'", "there is a "]
)
def test_hostile_text_costs_little(unit: str) -> None:
    most, sentence = claim_splitter.MAX_CHARACTERS, claim_splitter.MAX_SENTENCE
    long = (unit * most)[:most]
    many = ((unit * sentence)[: sentence - 2] + ". ") * (most // sentence)
    started = time.thread_time()
    split_claims(long)
    split_claims(many)
    assert time.thread_time() - started < 2.0
    assert "characters, more than" in str(split_claims(long + ".").problem)


def test_too_many_claims_are_a_problem() -> None:
    text = " ".join(f"There are {number} red stars." for number in range(2, claim_splitter.MAX_CLAIMS + 3))
    assert split_claims(text).claims == ()
    assert "claims, more than" in str(split_claims(text).problem)


def test_a_clause_of_unknown_verbs_is_none() -> None:
    assert read_clause("Sunlight streams over hills") is None
    assert read_clause("") is None


# --- a model's answer ------------------------------------------------------------------------------------------------

LINE = '{"claim": "There is a cat.", "question": "Is there a cat?"}'
OTHER = '{"claim": "The cat is red.", "question": "Is the cat red?", "kind": "colour"}'


@pytest.mark.parametrize(
    "answer",
    [
        f"{LINE}\n{OTHER}",
        f"```json\n{LINE}\n\n{OTHER}\n```",
        f"Here are the claims:\n{LINE},\n{OTHER}",
        f"[{LINE},\n {OTHER}]",
        f"  {LINE}  \r\n{OTHER}\n{LINE}",
    ],
)
def test_answers_that_can_be_read(answer: str) -> None:
    division = read_division(answer, attempts=2)
    assert [(c.text, c.question) for c in division.claims] == [
        ("There is a cat.", "Is there a cat?"),
        ("The cat is red.", "Is the cat red?"),
    ]
    assert [c.kind for c in division.claims] == [ClaimKind.PRESENCE, ClaimKind.COLOUR]
    assert division.attempts == 2


@pytest.mark.parametrize("answer", ["[]", "```\n[]\n```", "There are none:\n[]"])
def test_no_claims_is_not_a_failure(answer: str) -> None:
    assert read_division(answer) == read_division("[]")
    assert read_division(answer).problem is None
    assert read_division(answer).claims == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "is empty"),
        ("```\n```", "is empty"),
        (f"{LINE}\nThe cat is red.", "line 2 of the answer is not JSON"),
        (f"{LINE}\n" + OTHER[:30], "line 2 of the answer is not JSON"),
        (f"[{LINE}, " + OTHER[:30], "the list of the answer is not JSON"),
        ('{"claim": "It rains."}', "claim 1 has no question"),
        ('{"claim": " ", "question": "?"}', "claim 1 has no claim"),
        ('{"claim": ["a"], "question": "?"}', "claim 1 has no claim"),
        ("[1]", "claim 1 is a int"),
        ("[" * 50_000, "is not JSON"),
        ("[]\n" * 60_000, "more than 100000"),
        (json.dumps([{"claim": "x" * 3000, "question": "?"}]), "the claim of claim 1 has 3000 characters"),
        (json.dumps([{"claim": str(i), "question": "?"} for i in range(201)]), "201 claims, more than 200"),
        ("9" * 20_000, "is not JSON"),
    ],
)
def test_answers_that_cannot_be_read_are_failures_with_a_reason(answer: str, reason: str) -> None:
    division = read_division(answer)
    assert division.claims == ()
    assert reason in str(division.problem)
    assert len(str(division.problem)) < 300


def test_an_answer_that_was_cut_off_is_a_failure() -> None:
    assert "cut off" in str(read_division(LINE, truncated=True).problem)


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([LINE, OTHER, "[", "]", "{}", "null", "1", "a:"])).map("\n".join)
)
def test_any_answer_is_read_or_refused(answer: str) -> None:
    division = read_division(answer)
    assert not (division.problem and division.claims)
    assert all(claim.text and claim.question for claim in division.claims)


def test_the_instruction_shows_an_answer_that_can_be_read() -> None:
    example = claim_output.INSTRUCTION.split("sleep.\n", 1)[1].rsplit("\n\nText:", 1)[0]
    assert len(read_division(example).claims) == 3
    assert division_messages("A cat.")[0]["content"].endswith("Text: A cat.")


# --- verdicts --------------------------------------------------------------------------------------------------------

CLAIM = Claim(text="There is a cat.", question="Is there a cat?", kind=ClaimKind.PRESENCE)


def test_verdicts_and_scores_by_hand() -> None:
    plain, strict = ScoreConfig(), ScoreConfig(margin=0.5, per_claim=True)
    pairs = [(0.6, 0.2), (0.2, 0.6), (0.3, 0.3), (0.9, 0.1)]
    verdicts = [judge(CLAIM, yes, no, plain) for yes, no in pairs]
    assert [v.accepted for v in verdicts] == [True, False, False, True]
    assert response_score(verdicts, plain) == -2.0
    verdicts = [judge(CLAIM, yes, no, strict) for yes, no in pairs]
    assert response_score(verdicts, strict) == -0.75
    assert response_score([], plain) is None
    unknown = Verdict(claim=CLAIM, p_yes=None, p_no=None, accepted=None, problem="the image is missing")
    assert response_score([*verdicts, unknown], plain) is None


def test_kinds_that_do_not_count_are_no_part_of_the_score() -> None:
    presence = ScoreConfig(kinds=(ClaimKind.PRESENCE,))
    colour = Claim(text="The cat is red.", question="Is the cat red?", kind=ClaimKind.COLOUR)
    verdicts = [judge(CLAIM, 0.2, 0.6, presence), judge(CLAIM, 0.6, 0.2, presence), judge(colour, 0.1, 0.9, presence)]
    assert response_score(verdicts, presence) == -1.0
    assert response_score(verdicts, ScoreConfig()) == -2.0
    assert response_score(verdicts, ScoreConfig(kinds=(ClaimKind.PRESENCE,), per_claim=True)) == -0.5
    assert response_score(verdicts[2:], presence) is None
    silent = Verdict(claim=colour, p_yes=None, p_no=None, accepted=None, problem="too long")
    assert response_score([*verdicts, silent], presence) == -1.0


def test_a_verdicts_record_is_json() -> None:
    verdicts = [judge(CLAIM, 0.6, 0.2, ScoreConfig())]
    record = json.loads(json.dumps(verdict_record(verdicts[0])))
    assert record["claim"]["kind"] == "presence"
    assert record["p_yes"] == 0.6
