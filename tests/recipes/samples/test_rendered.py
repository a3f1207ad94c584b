"""Rendered samples: every task, the truth of captions, corrupted pages and their control, splits."""

import re

import numpy as np
import pytest
from PIL import Image

from base_model.corruption_settings import CorruptionSettings
from recipes.render import KINDS, RenderSource
from recipes.render.captions import caption
from recipes.render.records import Region
from recipes.samples.media import Opening
from recipes.samples.pages import OUTLINES, PAGE_KINDS, PageQuestions, page_sample, thousandths, transcript
from recipes.samples.rendered import RenderedSamples
from recipes.samples.sample import Rejected

SIDE = (112, 224)
TRAIN = Opening(split="train", seed=3)
REGIONS = [Region(text=f"word{at}", box=(10, 10 + 20 * at, 90, 24 + 20 * at), kind="line", group=at) for at in range(8)]
ALL = CorruptionSettings(region_share=1.0)


def opened(task: str, opening: Opening = TRAIN, **settings):
    render = {"side": SIDE, **settings.pop("render", {})}
    return RenderedSamples.model_validate({"task": task, "render": render, **settings}).open(opening)


@pytest.mark.parametrize("task", ["qa", "caption", "ocr", "document", "text"])
def test_a_sample_is_a_function_of_its_position(task):
    first, second = opened(task), opened(task)
    for position in (7, 0, 3):
        one, other = first.sample(position), second.sample(position)
        assert (one.messages, one.document, one.facts) == (other.messages, other.document, other.facts)
        assert [image.tobytes() for image in one.images] == [image.tobytes() for image in other.images]
        assert one.task == task
    assert first.sample(0).messages != opened(task, Opening(split="train", seed=4)).sample(0).messages
    assert first.sample(0, 1).place != first.sample(0).place


def test_questions_carry_their_reasoning_and_clips_their_drawn_packages():
    source = opened("qa", render={"mixture": {"clip": 1}})
    shapes = set()
    for position in range(6):
        found = source.sample(position)
        assert found.thinking
        assert found.messages[0]["content"][0] == {"type": "video"}
        shapes.add(max(map(len, found.videos[0].packages)))
    assert len(shapes) > 1
    still = Opening(split="train", seed=3, random_video=False)
    plain = [opened("qa", still, render={"mixture": {"clip": 1}}).sample(at).videos[0] for at in range(4)]
    assert {len(package) for each in plain for package in each.packages} == {1}


def test_pages_alone_are_read():
    assert {opened("ocr").sample(at).place.split()[1].strip(",") for at in range(12)} <= set(PAGE_KINDS)
    with pytest.raises(ValueError, match="task 'document' needs pages with text"):
        RenderedSamples.model_validate({"task": "document", "render": {"mixture": {"scene": 1}}})


@pytest.mark.parametrize("kind", PAGE_KINDS)
def test_a_whole_page_is_read_as_its_regions_say(kind):
    source = opened("ocr", region_share=0, render={"mixture": {kind: 1}})
    found = source.sample(0)
    item = RenderSource(mixture={kind: 1}, side=SIDE).item("train", 3, 0)
    assert found.answer == transcript(item.regions)
    assert len(found.answer.split("\n")) == len({region.group for region in item.regions})


def test_text_has_no_image():
    found = [opened("text").sample(at) for at in range(8)]
    assert not any(each.images or each.videos for each in found)
    assert {bool(each.document) for each in found} == {True, False}


def test_a_conversation_asks_several_questions_about_one_picture():
    render = {"mixture": {"grid": 1}, "asked": ["count", "colour_at", "exists"], "short_share": 1.0}
    plain, source = opened("qa", render=render), opened("qa", render=render, rounds=4)
    lengths = set()
    for position in range(16):
        found, single = source.sample(position), plain.sample(position)
        roles = [turn["role"] for turn in found.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert [turn["content"][0] for turn in found.messages if not isinstance(turn["content"], str)] == [
            {"type": "image"}
        ]
        assert not any(turn.get("thinking") for turn in found.messages[:-1])
        assert (found.messages[-1], found.answer) == (single.messages[-1], single.answer)
        texts = [turn["content"] for turn in found.messages[2::2]]
        assert len(set(texts)) == len(texts)
        lengths.add(len(roles) // 2)
    assert lengths == {1, 2, 3, 4}


def test_a_grid_is_told_before_it_is_asked_about_without_an_image():
    found = opened("text", render={"mixture": {"grid": 1, "turns": 1}}, rounds=3)
    for position in range(8):
        sample = found.sample(position)
        item = found._source.item("train", 3, position)
        assert not sample.images
        assert not sample.videos
        assert sample.messages[0]["content"].startswith(caption(item) + "\n\n")
        assert sample.answer == item.reference


# ---- captions ----


@pytest.mark.parametrize("kind", KINDS)
def test_captions_tell_of_what_is_there(kind):
    for index in range(4):
        item = RenderSource(mixture={kind: 1}, side=(200, 400)).item("train", 0, index)
        said = caption(item)
        assert said == said.strip()
        assert said[0].isupper()
        assert not re.search(
            r"None|\{|  ", said.replace("\\frac{", "").replace("{", "") if kind == "formulas" else said
        )


def test_a_scene_is_told_object_by_object_at_its_place():
    for index in range(10):
        item = RenderSource(mixture={"scene": 1}).item("train", 0, index)
        said = caption(item)
        wide, high = item.images[0].size
        for region in item.regions:
            across, down = (region.box[0] + region.box[2]) / 2 / wide, (region.box[1] + region.box[3]) / 2 / high
            sides = (("left" if across < 0.32 else ""), ("right" if across > 0.68 else ""))
            sides += (("top" if down < 0.32 else ""), ("bottom" if down > 0.68 else ""))
            places = re.findall(rf"{region.text} (?:at|in) the ([a-z ]+?)(?:,|\.| and )", said)
            assert any(all(side in place for side in sides) for place in places), (said, region)


def test_values_of_charts_that_are_not_written_are_not_told():
    found = [RenderSource(mixture={"chart": 1}).item("train", 0, index) for index in range(14)]
    hidden = [item for item in found if not item.scene["shown"] and item.scene["chart"] == "bar"]
    assert hidden
    for item in hidden:
        words = set(re.findall(r"\d+", caption(item))) - set(re.findall(r"\d+", item.scene["title"]))
        assert words <= {word for label in item.scene["labels"] for word in re.findall(r"\d+", label)}


# ---- corrupted pages ----


def page() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (180, 100, 3), dtype=np.uint8))


def made(corruption: CorruptionSettings | None, refer: str = "box", sample: int = 0, **questions):
    asked = PageQuestions.model_validate({"refer": refer, **questions})
    return page_sample(page(), REGIONS, corruption, asked, seed=0, sample=sample, place="page")


def boxes(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, found.split(", "))) for found in re.findall(r"\[([\d, ]+)\]", text)]


def test_the_regions_asked_for_are_those_corrupted_and_no_others():
    for sample in range(10):
        found = made(ALL, sample=sample, at_most=3)
        changed = np.asarray(found.images[0]) != np.asarray(page())
        asked = boxes(found.messages[0]["content"][1]["text"])
        assert len(asked) == len(found.facts["levels"]) == 3
        for region in REGIONS:
            left, top, right, bottom = region.box
            is_asked = thousandths(region.box, (100, 180)) in asked
            assert changed[top:bottom, left:right].any() == is_asked
            changed[top:bottom, left:right] = False
        assert not changed.any()
        texts = {thousandths(region.box, (100, 180)): region.text for region in REGIONS}
        assert found.answer == "\n".join(texts[box] for box in asked)


def test_the_control_asks_the_same_of_clean_pixels():
    for sample in range(10):
        found, control = made(CorruptionSettings(), sample=sample), made(None, sample=sample)
        assert control.messages == found.messages
        assert control.images[0].tobytes() == page().tobytes()
        assert found.images[0].tobytes() != page().tobytes()
        assert set(control.facts["levels"]) == {"none"}


def test_levels_are_mixed_over_samples():
    levels = [level for sample in range(40) for level in made(ALL, sample=sample).facts["levels"]]
    shares = [levels.count(level) / len(levels) for level in ("low", "moderate", "high")]
    assert all(0.2 < share < 0.47 for share in shares)


def test_outlines_surround_the_regions_they_name():
    found = made(None, "outline", at_most=2, sample=4)
    text = found.messages[0]["content"][1]["text"]
    pixels = np.asarray(found.images[0])
    for colour, answer in zip(list(OUTLINES)[: len(found.facts["texts"])], found.answer.split("\n"), strict=True):
        assert f"in the {colour} outline" in text
        rows, columns = np.nonzero((pixels == OUTLINES[colour]).all(axis=2))
        region = next(region for region in REGIONS if region.text == answer)
        left, top, right, bottom = region.box
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == (left - 2, top - 2, right + 1, bottom + 1)
        inside = np.asarray(page())[top:bottom, left:right]
        assert (pixels[top:bottom, left:right] == inside).all()


def test_pages_without_text_and_boxes_outside_are_refused():
    empty = [Region(text=" ", box=(1, 1, 9, 9), kind="line", group=0)]
    with pytest.raises(Rejected, match="no region of the page has text"):
        page_sample(page(), empty, ALL, PageQuestions(), seed=0, sample=0, place="page")
    outside = [Region(text="a", box=(200, 1, 209, 9), kind="line", group=0)]
    with pytest.raises(Rejected, match="lies outside the page") as error:
        page_sample(page(), outside, ALL, PageQuestions(), seed=0, sample=0, place="page")
    assert error.value.reason == "malformed"


def test_thousandths_stay_within_the_page():
    assert thousandths((-5, 0, 200.4, 90), (200, 90)) == (0, 0, 1000, 1000)
