"""Rendered images and clips as rows of a task."""

import pytest
from PIL import Image

from base_model.video_settings import VideoSettings
from base_model.vlm.media import open_image, open_video
from recipes.tasks import TaskConfig, load_rows, prompt_key


def _task(**changes) -> TaskConfig:
    source = {"kind": "render", "mixture": {"scene": 2, "clip": 1}, "side": [112, 160]}
    return TaskConfig.model_validate({"source": source, "size": 12, "eval_size": 5, **changes})


def test_rows_have_images_clips_references_and_solutions():
    rows = load_rows(_task(columns=["kind", "asked"]))
    assert [row.index for row in rows] == list(range(12))
    assert {row.columns["kind"] for row in rows} == {"scene", "clip"}
    for row in rows:
        parts = [part["type"] for part in row.messages[0]["content"]]
        assert parts == ["image" if row.images else "video", "text"]
        assert row.reference
        assert row.solution
        if row.images:
            image = open_image(row.images[0])
            assert image.mode == "RGB"
            assert 112 <= max(image.size) <= 160
            assert isinstance(row.images[0], bytes)  # compact: a file, not pixels
        else:
            assert open_video(row.videos[0], VideoSettings(fps=2.0)).packages


def test_the_same_rows_every_time_and_no_prompt_twice():
    first, again = load_rows(_task()), load_rows(_task())
    assert first == again
    evaluation = load_rows(_task(), "eval")
    keys = [prompt_key(row) for row in (*first, *evaluation)]
    assert len(set(keys)) == len(keys) == 17
    assert load_rows(_task(seed=1)) != first


def test_prompts_with_the_same_text_differ_by_their_images():
    from dataclasses import replace

    row = load_rows(_task())[0]
    other = replace(row, images=(Image.new("RGB", (8, 8)),), videos=())
    wider = replace(row, images=(Image.new("RGB", (16, 4)),), videos=())
    path = replace(row, images=("a.png",), videos=())
    assert len({prompt_key(each) for each in (row, other, wider, path)}) == 4


def test_it_makes_as_many_rows_as_asked_and_no_more():
    with pytest.raises(ValueError, match="render makes as many rows as asked for"):
        load_rows(_task(size=0))
