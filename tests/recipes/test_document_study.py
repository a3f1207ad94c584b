"""The comparison of document learning with its control: figures by hand, pages alike in both arms, a small run."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base_model.corruption_settings import CorruptionSettings
from recipes.document_evaluation import TASKS, Reading, difference, edit_distance, figures, held_out
from recipes.document_study import DocumentStudyConfig, compare, main
from recipes.render import RenderSource

PAGES = RenderSource(mixture={"series": 1}, side=(112, 112))


@pytest.mark.parametrize(("first", "second", "distance"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3)])
def test_edit_distance_by_hand(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_edit_distance_is_that_of_the_definition(first, second):
    def by_definition(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        rest = by_definition(a[1:], b[1:])
        return rest if a[0] == b[0] else 1 + min(rest, by_definition(a[1:], b), by_definition(a, b[1:]))

    assert edit_distance(first, second) == by_definition(first, second)


def test_figures_by_hand():
    readings = [Reading(text="12", read="12 "), Reading(text="Mon", read="Man"), Reading(text="7", read="")]
    assert figures(readings) == {"exact": pytest.approx(1 / 3), "cer": pytest.approx(2 / 6)}


def _arm(rights: list[list[bool]]) -> list[list[Reading]]:
    return [[Reading(text="7", read="7" if right else "8") for right in seed] for seed in rights]


def test_the_difference_is_the_mean_over_seeds_and_its_interval_holds_it():
    document, control = _arm([[True] * 30 + [False] * 10] * 2), _arm([[True] * 10 + [False] * 30] * 2)
    gap, low, high = difference(document, control, "exact", [str(page) for page in range(40)])
    assert gap == pytest.approx(0.5)
    assert 0.3 < low < gap < high < 0.7
    assert difference(document, document, "exact", ["one"] * 40) == (0.0, 0.0, 0.0)


def test_pages_that_say_the_same_are_one_piece_of_evidence():
    """Right on all pages of some contents: the more pages each has, the wider the interval for as many pages."""
    document, control = _arm([([True] * 10 + [False] * 10) * 2]), _arm([[False] * 40])
    apart = difference(document, control, "exact", [str(page) for page in range(40)])
    together = difference(document, control, "exact", [str(page // 10) for page in range(40)])
    assert apart[0] == together[0] == pytest.approx(0.5)
    assert together[2] - together[1] > 1.5 * (apart[2] - apart[1])


def test_all_levels_ask_for_the_same_region_of_the_same_page():
    held = held_out(PAGES, CorruptionSettings(), 6, seed=3)
    assert set(held) == set(TASKS)
    asked = [[sample.messages[-1]["content"] for sample in held[f"region, {level}"]] for level in ("low", "high")]
    assert asked[0] == asked[1]
    assert {level for sample in held["region, high"] for level in sample.facts["levels"]} == {"high"}
    assert {level for sample in held["region, clean"] for level in sample.facts["levels"]} == {"none"}
    assert all(a.images[0].tobytes() != b.images[0].tobytes() for a, b in zip(*_shown(held), strict=True))


def _shown(held):
    return held["region, low"], held["region, high"]


def test_the_comparison_has_a_row_for_each_task():
    arm = dict.fromkeys(TASKS, _arm([[True, False]])[0])
    rows = compare(arm, {"document": [arm], "control": [arm]})
    assert [row["task"] for row in rows] == list(TASKS)
    assert {row["figure"] for row in rows} == {"cer", "exact"}
    assert all(row["difference"] == row["low"] == row["high"] == 0 for row in rows)
    assert json.dumps(rows)


def _study(folder, **changes):
    from recipes.new_model import NewModelConfig, TokenizerTexts
    from recipes.new_model import main as make

    if not (folder / "model").exists():
        make(NewModelConfig(out=folder / "model", texts=TokenizerTexts(vocab_size=400, source=PAGES, rows=60)))
    stage = {"name": "arm", "train": ["resampler"], "tokens_per_batch": 512}
    arm = {**stage, "mixture": {"weights": {"document": 1, "read": 1}}, "steps": changes.get("steps", 1)}
    return DocumentStudyConfig.model_validate(
        {
            "run": folder / "study",
            "model": {"path": str(folder / "model")},
            "pages": PAGES.model_dump(),
            "start": None,
            "arm": arm,
            "seeds": [0],
            "eval_pages": changes.get("eval_pages", 2),
        }
    )


@pytest.mark.slow
def test_what_was_trained_otherwise_is_refused_and_other_pages_are_read_anew(tmp_path):
    main(_study(tmp_path))
    model = next((tmp_path / "study" / "document_0").rglob("model.safetensors"))
    written = model.stat().st_mtime_ns
    main(_study(tmp_path, eval_pages=3))
    readings = json.loads((tmp_path / "study" / "control_0" / "readings.json").read_text())
    assert {len(found) for found in readings.values()} == {3}
    assert model.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="cannot be resumed with another configuration"):
        main(_study(tmp_path, steps=2))
