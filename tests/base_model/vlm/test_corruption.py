"""Document corruption: what it may touch, what it must hide, how often, and how legible each level is to a reader."""

import math
import random
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from base_model.corruption_settings import LARGEST, CorruptionSettings, FillName, OperatorName
from base_model.vlm.corruption import TextRegion, corrupt_page
from base_model.vlm.corruption_operators import OPERATORS

DEFAULT = CorruptionSettings()
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZabdefghkmnprtuy2345679"
CELL, LINE = 26, 36
FONT = ImageFont.load_default(28)


def only(level: str, **values) -> CorruptionSettings:
    """Every region, at one level."""
    off = {"low": DEFAULT.low, "moderate": DEFAULT.moderate, "high": DEFAULT.high}
    levels = {name: one.model_copy(update={"weight": float(name == level)}) for name, one in off.items()}
    return CorruptionSettings(region_share=1, **levels, **values)


def random_page(rng: random.Random, width=90, height=70, regions=6):
    """Pixels without any pattern, and boxes of any size, single pixels and overlaps included."""
    page = Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))
    made = []
    for index in range(regions):
        left, top = rng.randrange(width), rng.randrange(height)
        right, bottom = rng.randint(left + 1, width), rng.randint(top + 1, height)
        if index == 0:
            right, bottom = left + 1, top + 1
        made.append(TextRegion(box=(left, top, right, bottom), text=rng.choice(["word", "two\nlines", "x" * 40])))
    return page, made


def inside(targets, size) -> np.ndarray:
    hit = np.zeros((size[1], size[0]), dtype=bool)
    for target in targets:
        left, top, right, bottom = target.box
        hit[top:bottom, left:right] = True
    return hit


def test_nothing_outside_the_boxes_changes_and_the_result_is_pure():
    rng = random.Random(0)
    for sample in range(150):
        page, regions = random_page(rng)
        before = page.tobytes()
        done = corrupt_page(page, regions, DEFAULT, seed=5, sample=sample)
        assert page.tobytes() == before
        assert done.targets
        assert [target.text for target in done.targets] == [regions[target.region].text for target in done.targets]
        outside = ~inside(done.targets, page.size)
        assert np.array_equal(np.asarray(done.image)[outside], np.asarray(page)[outside])
        again = corrupt_page(page, regions, DEFAULT, seed=5, sample=sample)
        assert again.image.tobytes() == done.image.tobytes()
        assert again.targets == done.targets


def test_other_seeds_and_samples_give_other_corruptions():
    page, regions = random_page(random.Random(1), regions=20)
    seen = {corrupt_page(page, regions, DEFAULT, seed=s, sample=k).targets for s in range(5) for k in range(5)}
    assert len(seen) == 25
    assert corrupt_page(page, regions, DEFAULT, seed=1, sample="a/b.png").targets


def test_a_region_does_not_depend_on_the_other_regions():
    page, regions = random_page(random.Random(2), regions=8)
    settings = CorruptionSettings(region_share=0.7, min_regions=0)
    for sample in range(30):
        all_of_them = corrupt_page(page, regions, settings, seed=0, sample=sample).targets
        first_ones = corrupt_page(page, regions[:3], settings, seed=0, sample=sample).targets
        assert [target for target in all_of_them if target.region < 3] == list(first_ones)


@pytest.mark.parametrize("fill", get_args(FillName))
def test_a_masked_region_does_not_depend_on_what_was_in_it(fill):
    rng = random.Random(fill)
    settings = only("high").model_copy(update={"high": DEFAULT.high.model_copy(update={"fills": (fill,)})})
    for sample in range(60):
        page, regions = random_page(rng, regions=3)
        first = corrupt_page(page, regions, settings, seed=0, sample=sample)
        pixels = np.array(page)
        hidden = inside(first.targets, page.size)
        pixels[hidden] = np.frombuffer(rng.randbytes(3 * int(hidden.sum())), np.uint8).reshape(-1, 3)
        second = corrupt_page(Image.fromarray(pixels), regions, settings, seed=0, sample=sample)
        assert first.image.tobytes() == second.image.tobytes()
        assert all(target.operators == ((fill, 1.0),) for target in first.targets)


def test_masked_text_does_not_leak_through_overlapping_regions_of_other_levels():
    """The boxes of the high level change; nothing anywhere on the page may show it."""
    rng = random.Random(3)
    settings = CorruptionSettings(region_share=1)
    mixed = 0
    for sample in range(150):
        page, regions = random_page(rng, regions=5)
        first = corrupt_page(page, regions, settings, seed=0, sample=sample)
        high = [target for target in first.targets if target.level == "high"]
        mixed += 0 < len(high) < 5
        hidden = inside(high, page.size)
        pixels = np.array(page)
        pixels[hidden] = 255 - pixels[hidden]
        second = corrupt_page(Image.fromarray(pixels), regions, settings, seed=0, sample=sample)
        assert first.image.tobytes() == second.image.tobytes()
    assert mixed > 50


def test_share_levels_operators_and_strengths_follow_the_settings():
    page = Image.new("RGB", (200, 200), "white")
    regions = [TextRegion(box=(10 * i, 10 * j, 10 * i + 9, 10 * j + 9), text="t") for i in range(20) for j in range(20)]
    settings = CorruptionSettings(
        region_share=0.4,
        low=DEFAULT.low.model_copy(update={"weight": 2.0, "at_least": 2, "at_most": 3}),
        high=DEFAULT.high.model_copy(update={"weight": 0.5}),
    )
    targets = [t for k in range(10) for t in corrupt_page(page, regions, settings, seed=0, sample=k).targets]
    chosen = len(targets)
    assert abs(chosen - 1600) < 5 * math.sqrt(4000 * 0.4 * 0.6)
    for level, share in (("low", 2 / 3.5), ("moderate", 1 / 3.5), ("high", 0.5 / 3.5)):
        count = sum(target.level == level for target in targets)
        assert abs(count - chosen * share) < 5 * math.sqrt(chosen * share * (1 - share))
    for level in (settings.low, settings.moderate):
        name = "low" if level is settings.low else "moderate"
        applied = [target.operators for target in targets if target.level == name]
        assert {len(one) for one in applied} == set(range(level.at_least, level.at_most + 1))
        assert {operator for one in applied for operator, _ in one} == set(level.operators)
        assert all(len(dict(one)) == len(one) for one in applied)
        for operator, strength in (pair for one in applied for pair in one):
            low, high = level.operators[operator]
            assert low <= strength <= high
    assert {t.operators[0][0] for t in targets if t.level == "high"} == set(get_args(FillName))


def test_a_page_is_not_drawn_in_vain_and_empty_texts_are_never_asked_for():
    page = Image.new("RGB", (50, 50), "white")
    regions = [TextRegion(box=(0, 0, 9, 9), text=" \n"), *[TextRegion(box=(10, 10, 30, 30), text="t")] * 3]
    none = CorruptionSettings(region_share=0, min_regions=0)
    two = CorruptionSettings(region_share=0, min_regions=2)
    many = CorruptionSettings(region_share=1, min_regions=9)
    for sample in range(20):
        assert corrupt_page(page, regions, none, seed=0, sample=sample).targets == ()
        assert len(corrupt_page(page, regions, two, seed=0, sample=sample).targets) == 2
        assert [t.region for t in corrupt_page(page, regions, many, seed=0, sample=sample).targets] == [1, 2, 3]
    assert corrupt_page(page, [], many, seed=0, sample=0).targets == ()
    picked = [corrupt_page(page, regions, two, seed=0, sample=k).targets[0].region for k in range(60)]
    assert set(picked) == {1, 2}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_pages_of_every_mode(mode):
    page = Image.new(mode, (40, 30))
    done = corrupt_page(page, [TextRegion(box=(5, 5, 35, 25), text="a")], only("moderate"), seed=0, sample=0)
    assert (done.image.mode, done.image.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("name", get_args(OperatorName))
def test_operators_at_any_strength_and_size_keep_shape_and_range_and_do_nothing_at_zero(name):
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 50), (50, 1), (2, 3), (33, 47)]:
        pixels = rng.random((height, width, 3), dtype=np.float32)
        for strength in (0.0, LARGEST[name] / 10, LARGEST[name]):
            for line in (1.0, 12.5, 400.0):
                out = OPERATORS[name](pixels, strength, line, np.random.default_rng(1))
                assert (out.shape, out.dtype) == (pixels.shape, np.float32)
                assert 0 <= float(out.min()) <= float(out.max()) <= 1
                if strength == 0:
                    assert float(np.abs(out - pixels).max()) <= 0.5 / 255 + 1e-6
    assert set(OPERATORS) == set(LARGEST) == set(get_args(OperatorName))


def test_erosion_thins_and_dilation_thickens_on_light_and_on_dark():
    for background, ink in ((1.0, 0.0), (0.0, 1.0)):
        pixels = np.full((20, 40, 3), background, dtype=np.float32)
        pixels[8:13, 5:35] = ink
        amount = [
            float(np.abs(OPERATORS[name](pixels, 1.0, 20.0, np.random.default_rng(0)) - background).sum())
            for name in ("erode", "mask", "dilate")
        ]
        assert amount[0] < float(np.abs(pixels - background).sum()) < amount[2]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "a box is four numbers"),
        ((1, 2, math.nan, 4), "a box is four numbers"),
        ((1, 2, "3", 4), "a box is four numbers"),
        ((30, 5, 10, 20), "is empty or lies outside the page of 40 x 30"),
        ((40, 0, 60, 10), "is empty or lies outside"),
        ((-9, -9, 0, 0), "is empty or lies outside"),
    ],
)
def test_impossible_boxes_are_refused(box, message):
    regions = [TextRegion(box=(0, 0, 5, 5), text="a"), TextRegion(box=box, text="b")]
    with pytest.raises(ValueError, match="region 1 .*" + message):
        corrupt_page(Image.new("RGB", (40, 30)), regions, DEFAULT, seed=0, sample=0)


def test_boxes_beyond_the_edge_are_cut_and_fractions_take_the_pixels_they_touch():
    regions = [TextRegion(box=(-5.5, 2.2, 400, 3.1), text="a")]
    [target] = corrupt_page(Image.new("RGB", (40, 30)), regions, only("high"), seed=0, sample=0).targets
    assert target.box == (0, 2, 40, 4)
    regions = [
        TextRegion(box=tuple(np.array([1, 2, 9, 8])), text="a"),
        TextRegion(box=np.float32([1, 2, 9, 8]), text="b"),
    ]
    boxes = [t.box for t in corrupt_page(Image.new("RGB", (40, 30)), regions, only("high"), seed=0, sample=0).targets]
    assert boxes == [(1, 2, 9, 8)] * 2


def test_overriding_one_field_of_a_level_keeps_the_others():
    settings = CorruptionSettings.model_validate(
        {"low": {"weight": 2}, "moderate": {"at_most": 1}, "high": {"weight": 0}}
    )
    assert (settings.low.operators, settings.weights) == (DEFAULT.low.operators, (2, 1, 0))
    assert (settings.moderate.operators, settings.moderate.at_most) == (DEFAULT.moderate.operators, 1)
    assert settings.high.fills == DEFAULT.high.fills


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region_share": 1.1}, "less than or equal to 1"),
        ({"low": {"operators": {"noise": [0.5, 0.1]}, "at_most": 1}}, "give the smaller strength first"),
        ({"low": {"operators": {"mask": [0.5, 1.5]}, "at_most": 1}}, "within 0 to 1"),
        ({"low": {"operators": {"melt": [0, 1]}}}, "Input should be"),
        ({"low": {"operators": {"noise": [0, 1]}, "at_most": 2}}, "the three must ascend"),
        ({"high": {"fills": []}}, "no fill is given"),
        ({"high": {"operators": {"noise": [0, 1]}}}, "Extra inputs"),
        (
            {name: {**getattr(DEFAULT, name).model_dump(), "weight": 0} for name in ("low", "moderate", "high")},
            "all three",
        ),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        CorruptionSettings.model_validate(values)


def glyph(letter: str) -> np.ndarray:
    cell = Image.new("L", (CELL, LINE), 250)
    ImageDraw.Draw(cell).text((CELL // 2, LINE // 2), letter, fill=20, font=FONT, anchor="mm")
    return np.asarray(cell, dtype=np.float64)


def read_rate(settings: CorruptionSettings, samples: int) -> float:
    """Share of characters read by the best-correlated template, with font and places known."""
    templates = np.stack([glyph(letter).ravel() for letter in LETTERS])
    templates -= templates.mean(axis=1, keepdims=True)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    right = total = 0
    for sample in range(samples):
        letters = rng.integers(0, len(LETTERS), 20)
        line = np.concatenate([glyph(LETTERS[k]) for k in letters], axis=1)
        page = Image.fromarray(np.pad(line, 10, constant_values=250).astype(np.uint8))
        box = (10, 10, 10 + line.shape[1], 10 + LINE)
        done = corrupt_page(page, [TextRegion(box=box, text="t")], settings, seed=0, sample=sample).image
        seen = np.asarray(done.convert("L"), dtype=np.float64)[10 : 10 + LINE, 10:-10]
        cells = seen.reshape(LINE, 20, CELL).transpose(1, 0, 2).reshape(20, -1)
        cells = cells - cells.mean(axis=1, keepdims=True)
        right += int(((cells @ templates.T).argmax(axis=1) == letters).sum())
        total += 20
    return right / total


def test_the_levels_are_legible_uncertain_and_gone():
    assert read_rate(only("low"), 60) > 0.97
    assert 0.5 < read_rate(only("moderate"), 60) < 0.75
    assert read_rate(only("high"), 60) < 0.06  # chance is 1 in 45
