"""Pairs against a brute-force reference, by hand, and through `datasets` and TRL's own reading."""

import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.preference_file import PreferenceRow, write_preference_file
from rl.preference_pairs import PairConfig, PairIndex, PairSet, ScoredResponse, build_pairs, length_threshold

WORDS = ("a", "red", "circle", "and", "two")


def response(score: float | None, words: int = 3, claims: int = 1, first: str = "w") -> ScoredResponse:
    return ScoredResponse(text=" ".join([first] * words), score=score, claims=claims)


RESPONSES = st.builds(
    ScoredResponse,
    text=st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join),
    score=st.none() | st.integers(-4, 0).map(float) | st.sampled_from([-0.5, -0.25]),
    claims=st.integers(0, 9),
)
PROMPTS = st.lists(st.lists(RESPONSES, max_size=6), max_size=7)


def eligible(responses: list[ScoredResponse], min_gap: float) -> set[tuple[str, str]]:
    """Every (chosen, rejected) pair of texts, straight from the definition."""
    return {
        (a.text.strip(), b.text.strip())
        for a, b in permutations(responses, 2)
        if a.score is not None
        and b.score is not None
        and a.score - b.score >= min_gap
        and a.text.strip() != b.text.strip()
    }


def texts(prompts: list[list[ScoredResponse]], pairs: tuple[PairIndex, ...]) -> list[tuple[int, str, str]]:
    return [
        (p.prompt, prompts[p.prompt][p.chosen].text.strip(), prompts[p.prompt][p.rejected].text.strip()) for p in pairs
    ]


@given(PROMPTS, st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_all_pairs_equal_the_brute_force_reference(prompts: list[list[ScoredResponse]], min_gap: float) -> None:
    made = build_pairs(prompts, PairConfig(min_gap=min_gap, max_per_prompt=0, length_control=False), seed=0)
    expected = [(n, *pair) for n, own in enumerate(prompts) for pair in sorted(eligible(own, min_gap))]
    assert sorted(texts(prompts, made.pairs)) == expected
    assert made.candidates == made.drawn == made.kept
    assert made.kept.pairs == len(expected)
    for pair in made.pairs:
        better, worse = prompts[pair.prompt][pair.chosen], prompts[pair.prompt][pair.rejected]
        assert better.score is not None
        assert worse.score is not None
        assert better.score - worse.score >= min_gap


@given(PROMPTS, st.integers(1, 3), st.integers(0, 5))
def test_the_draw_takes_a_few_of_the_candidates(prompts: list[list[ScoredResponse]], most: int, seed: int) -> None:
    config = PairConfig(max_per_prompt=most, length_control=False)
    made = build_pairs(prompts, config, seed)
    assert made == build_pairs(prompts, config, seed)
    for number, own in enumerate(prompts):
        drawn = [pair[1:] for pair in texts(prompts, made.pairs) if pair[0] == number]
        assert len(drawn) == len(set(drawn)) == min(most, len(eligible(own, 1.0)))
        assert set(drawn) <= eligible(own, 1.0)


def brute_threshold(words: list[tuple[int, int]]) -> tuple[float, list[int]] | None:
    """(smallest imbalance, all t in per cent that reach it), by trying each in floating point."""
    found: dict[int, float] = {}
    for percent in range(0, 100, 2):
        kept = [(c, r) for c, r in words if r == 0 or (r - c) / r <= percent / 100 + 1e-12]
        if kept:
            found[percent] = abs(sum(c for c, _ in kept) / len(kept) - sum(r for _, r in kept) / len(kept))
    if not found:
        return None
    best = min(found.values())
    return best, [percent for percent, value in found.items() if value <= best + 1e-9]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=12))
def test_the_length_control_equals_the_brute_force_reference(words: list[tuple[int, int]]) -> None:
    expected, found = brute_threshold(words), length_threshold(words)
    if expected is None:
        assert found is None
    else:
        assert found == max(expected[1])


@given(PROMPTS)
def test_the_length_control_only_drops_and_never_worsens(prompts: list[list[ScoredResponse]]) -> None:
    free = build_pairs(prompts, PairConfig(length_control=False), seed=3)
    made = build_pairs(prompts, PairConfig(), seed=3)
    assert set(made.pairs) <= set(free.pairs)
    assert made.drawn == free.kept
    if made.pairs and all(len(prompts[p.prompt][p.chosen].text.split()) > 0 for p in free.pairs):

        def imbalance(pairs: PairSet) -> float:
            return abs(pairs.kept.chosen.words - pairs.kept.rejected.words)

        assert imbalance(made) <= imbalance(free) + 1e-9


def test_by_hand() -> None:
    prompt = [response(0, 4), response(-1, 8), response(-1, 8, first="v"), response(-2, 10)]
    made = build_pairs([prompt], PairConfig(max_per_prompt=0), seed=0)
    # Words (chosen, rejected): (4, 8) twice, (4, 10), (8, 10) twice: shorter by 50 %, 60 %, 20 %.
    assert made.threshold == 0.48  # only the last two stay, 2 words apart; the largest such t
    assert texts([prompt], made.pairs) == [(0, "w " * 7 + "w", "w " * 9 + "w"), (0, "v " * 7 + "v", "w " * 9 + "w")]
    assert (made.drawn.pairs, made.kept.pairs, made.kept.gap) == (5, 2, 1.0)
    assert (made.drawn.chosen.words, made.drawn.rejected.words) == (5.6, 9.2)
    assert made.kept.chosen_is_shorter == 1.0


def test_two_per_cent_of_fifty_words_is_one_word() -> None:
    assert length_threshold([(49, 50)]) == 98
    assert length_threshold([(49, 50), (51, 50)]) == 98
    assert length_threshold([(48, 50), (52, 50), (10, 50)]) == 78  # (10, 50) is 80 % shorter


def test_why_prompts_have_no_pair() -> None:
    none, same, close = [response(0)], [response(0), response(-3)], [response(0), response(-0.5, 4)]
    made = build_pairs([none, same, close, [], [response(None), response(None)]], PairConfig(), seed=0)
    assert made.pairs == ()
    assert made.threshold is None
    expected = {"fewer than two scored responses": 3, "identical texts": 1, "scores too close": 1}
    assert made.without_pair == expected
    assert made.kept.pairs == made.kept.gap == 0


def test_decimal_scores_count_as_people_write_them() -> None:
    made = build_pairs([[response(-0.1), response(-0.2, 4)]], PairConfig(min_gap=0.1), seed=0)
    assert len(made.pairs) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="prompt 1 has responses with the scores"):
        build_pairs([[], [response(bad), response(0, 4)]], PairConfig(), seed=0)


# --- files -----------------------------------------------------------------------------------------------------------


def conversation(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": list(parts)}]


def load(path: Path, tmp_path: Path) -> Any:
    import datasets

    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.slow
def test_a_file_with_media_loads_as_one_table(tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    image, video, text = {"type": "image"}, {"type": "video"}, {"type": "text", "text": "What is it?"}
    rows = [
        PreferenceRow(prompt=conversation(image, text), chosen="A cat.", rejected="A dog.", images=[Path("a.png")]),
        PreferenceRow(prompt=[{"role": "user", "content": "Hi"}], chosen="Yes é", rejected="No\u2028."),
        PreferenceRow(prompt=conversation(video, image, text), chosen="1", rejected="2", images=["b"], videos=["c"]),
    ]
    write_preference_file(tmp_path / "pairs.jsonl", rows)
    table = load(tmp_path / "pairs.jsonl", tmp_path)
    assert table["images"] == [["a.png"], [], ["b"]]
    assert table["videos"] == [[], [], ["c"]]
    assert all(is_conversational(row) for row in table)
    assert table[1]["prompt"][0]["content"][0]["text"] == "Hi"
    assert table[1]["rejected"][0]["content"][0]["text"] == "No\u2028."
    assert [part["type"] for part in table[2]["prompt"][1]["content"]] == ["video", "image", "text"]


def test_plain_text_stays_plain(tmp_path: Path) -> None:
    rows = [PreferenceRow(prompt="p", chosen="c", rejected="r", columns={"gap": gap}) for gap in (0.1, 2.0)]
    write_preference_file(tmp_path / "pairs.jsonl", rows)
    table = load(tmp_path / "pairs.jsonl", tmp_path)
    assert table.column_names == ["prompt", "chosen", "rejected", "gap"]
    turns = [PreferenceRow(prompt=[{"role": "user", "content": "p"}], chosen="c", rejected="r")]
    write_preference_file(tmp_path / "turns.jsonl", turns)
    line = json.loads((tmp_path / "turns.jsonl").read_text())
    assert line["chosen"] == [{"role": "assistant", "content": "c"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no preference pairs"),
        (
            [PreferenceRow(prompt="p", chosen="c", rejected="r"), PreferenceRow(prompt=[], chosen="", rejected="")],
            "two files",
        ),
        ([PreferenceRow(prompt="p", chosen="c", rejected="r", images=["x"])], "1 images, and its prompt has 0 places"),
        ([PreferenceRow(prompt=conversation({"type": "video"}), chosen="c", rejected="r")], "0 videos"),
        (
            [PreferenceRow(prompt=conversation({"type": "image"}), chosen="c", rejected="r", images=[b"x"])],  # type: ignore[list-item]
            "a bytes among its images",
        ),
        ([PreferenceRow(prompt="p", chosen="c", rejected="r", columns={"chosen": 1})], "which is taken"),
        (
            [PreferenceRow(prompt="p", chosen="c", rejected="r", columns=c) for c in ({"a": 1}, {})],
            "differ in the column 'a'",
        ),
    ],
)
def test_what_makes_no_table_is_refused(tmp_path: Path, rows: list[PreferenceRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_preference_file(tmp_path / "pairs.jsonl", rows)
    assert not list(tmp_path.iterdir())
