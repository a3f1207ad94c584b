"""Streams, splits, determinism, refusals, and the recipe that writes files."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from recipes.render import KINDS, Item, Look, RenderSource, render_item
from recipes.render.__main__ import RenderConfig, main
from recipes.render.files import check_clip_format, write_item
from recipes.render.records import content_key
from tests.recipes.render.samples import SMALL, items

ROOT = Path(__file__).parents[3]


def png(item: Item) -> list[bytes]:
    stored = []
    for image in item.images:
        image.save(memory := io.BytesIO(), format="PNG")
        stored.append(memory.getvalue())
    return stored


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_item(kind: str) -> None:
    for index in (0, 3):
        one, two = (render_item(kind, 5, index, look=SMALL) for _ in range(2))
        assert png(one) == png(two)
        assert (one.scene, one.reference, one.messages, one.regions) == (
            two.scene,
            two.reference,
            two.messages,
            two.regions,
        )
    other = render_item(kind, 6, 0, look=SMALL)
    assert (other.scene, other.reference) != (render_item(kind, 5, 0, look=SMALL).scene, "")


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from recipes.render import *\n"
        "for kind in KINDS:\n"
        "    item = render_item(kind, 7, 1, look=Look(side=(112, 160)))\n"
        "    pixels = b''.join(image.tobytes() for image in item.images)\n"
        "    print(kind, hashlib.sha256(pixels).hexdigest(), item.reference)"
    )
    outputs = set()
    for hash_seed in "12":
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_read_back_from_json_draws_the_same_image(kind: str) -> None:
    for item in items(kind)[:4]:
        again = KINDS[kind].draw(json.loads(json.dumps(item.scene)))
        assert [image.tobytes() for image in again.images] == [image.tobytes() for image in item.images]
        assert again.regions == item.regions
        assert again.times == item.times


def test_what_is_trained_on_is_never_evaluated_on() -> None:
    """Over seeds and sizes; few objects make equal contents frequent, so that the test could fail."""
    keys: dict[str, set[str]] = {"train": set(), "eval": set()}
    for split in keys:
        for seed in (0, 1):
            for side in ((112, 120), (160, 200)):
                for index in range(60):
                    item = render_item("scene", seed, index, split, Look(side=side))  # type: ignore[arg-type]
                    assert item.key == content_key("scene", KINDS["scene"].content(item.scene))
                    keys[split].add(item.key)
    assert len(keys["train"]) < 240, "no content twice: the test shows nothing"
    assert not keys["train"] & keys["eval"]


def test_a_fifth_of_the_contents_is_for_evaluation() -> None:
    from recipes.render.records import random_of
    from recipes.sources import question_split

    found = Counter()
    for index in range(400):
        scene = KINDS["scene"].plan(random_of(index), SMALL)
        found[question_split(content_key("scene", KINDS["scene"].content(scene)))] += 1
    assert 50 <= found["eval"] <= 115


def test_look_and_question_do_not_change_the_key() -> None:
    item = items("scene")[0]
    moved = {**item.scene, "ground": [0, 0, 0], "size": [999, 999]}
    assert content_key("scene", KINDS["scene"].content(moved)) == item.key


def test_items_travel_between_processes() -> None:
    for kind in ("scene", "clip"):
        item = items(kind)[0]
        again = pickle.loads(pickle.dumps(item))
        assert (again.reference, again.regions, png(again)) == (item.reference, item.regions, png(item))


def test_kinds_are_mixed_by_weight() -> None:
    source = RenderSource(mixture={"scene": 3, "clip": 1}, side=(112, 120))
    kinds = Counter(item.kind for item in islice(source.items("train", 0), 200))
    assert set(kinds) == {"scene", "clip"}
    assert 125 <= kinds["scene"] <= 175


def test_a_stream_goes_on_anywhere_and_in_many_workers() -> None:
    source = RenderSource(mixture={"scene": 1, "receipt": 1}, side=(112, 140))
    whole = [item.images[0].tobytes() for item in islice(source.items("train", 3), 12)]
    assert [item.images[0].tobytes() for item in islice(source.items("train", 3, start=5), 7)] == whole[5:]
    workers = [[item.images[0].tobytes() for item in islice(source.items("train", 3, w, 3), 4)] for w in range(3)]
    assert [workers[at % 3][at // 3] for at in range(12)] == whole


def test_short_share() -> None:
    for share, form in ((0.0, "free"), (1.0, "short")):
        made = [render_item("scene", 0, index, look=SMALL, short_share=share) for index in range(30)]
        assert {item.form for item in made if item.asked.sentence} == {form}
        assert {item.form for item in made if not item.asked.sentence} == {"free"}, "captions are never short"


def test_rows_of_the_source() -> None:
    source = RenderSource(mixture={"scene": 1, "clip": 1}, side=(112, 120))
    rows = [row.values for row in islice(source.rows("eval", 0, 8), 8)]
    assert len(rows) == 8
    for row in rows:
        media = row["prompt"][0]["content"][0]["type"]
        assert (len(row["images"]), len(row["videos"])) == ((1, 0) if media == "image" else (0, 1))
        if media == "video":
            assert len(row["videos"][0]["frames"]) == len(row["videos"][0]["times"])


def test_times_are_tenths() -> None:
    for item in items("clip"):
        assert item.times is not None
        assert len(item.times) == len(item.images)
        assert item.times[0] == 0
        assert all(abs(time * 10 - round(time * 10)) < 1e-9 for time in item.times)
        assert list(item.times) == sorted(set(item.times))


def test_sizes_are_as_asked_for() -> None:
    for kind in KINDS:
        item = render_item(kind, 0, 0, look=Look(side=(150, 151)))
        assert max(item.images[0].size) in (150, 151)
        assert {image.mode for image in item.images} == {"RGB"}
        assert len({image.size for image in item.images}) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixture": {"pages": 1}}, "there is nothing to render of kind 'pages': choose among article, table"),
        ({"mixture": {"scene": -1}}, "must not be negative"),
        ({"mixture": {"scene": 0}}, "all weights are 0"),
        ({"cells": [2, 4]}, "must name sides among 2, 3"),
        ({"palette": [11]}, "less than or equal to 10"),
        ({"side": (50, 100)}, "within 112 and 4096 pixels"),
        ({"side": (300, 200)}, "a smallest and a largest side"),
        ({"scripts": ("han",)}, "no font of matplotlib can write the script 'han': choose among latin, greek"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RenderSource(**settings)


def test_an_unknown_kind_and_a_hopeless_size_are_refused() -> None:
    with pytest.raises(ValueError, match="choose among article"):
        render_item("page", 0, 0)
    with pytest.raises(ValueError, match="fits images of 20 to 20 pixels"):
        render_item("table", 0, 0, look=Look(side=(20, 20)))


def test_the_recipe_writes_everything_and_the_same_twice(tmp_path: Path) -> None:
    source = RenderSource(side=(112, 200))
    for name in ("a", "b"):
        main(RenderConfig(out=tmp_path / name, count=14, eval_count=4, seed=1, source=source, sheet=6))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    rows = [json.loads(line) for line in (tmp_path / "a" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    held_out = [json.loads(line) for line in (tmp_path / "a" / "eval.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (len(rows), len(held_out)) == (14, 4)
    assert not {row["key"] for row in rows} & {row["key"] for row in held_out}
    for row in (*rows, *held_out):
        item = source.item(row["split"], 1, row["index"])
        stored = row["images"] or row["videos"][0]["frames"]
        assert [Image.open(tmp_path / "a" / path).tobytes() for path in stored] == [i.tobytes() for i in item.images]
        assert row["scene"] == item.scene
        assert row["reference"] == item.reference
        assert [(r["text"], tuple(r["box"])) for r in row["regions"]] == [(r.text, r.box) for r in item.regions]
    assert Image.open(tmp_path / "a" / "sheet.png").width > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_nothing_half_written_is_left_and_nothing_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RenderConfig(out=tmp_path / "a", count=3, eval_count=0, source=RenderSource(mixture={"scene": 1}), sheet=0)
    main(config)
    with pytest.raises(ValueError, match="exists, and is not overwritten"):
        main(config)
    before = (tmp_path / "a" / "train.jsonl").read_bytes()

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.render.files.write_item", fail)
    with pytest.raises(KeyboardInterrupt):
        main(config.model_copy(update={"overwrite": True}))
    assert (tmp_path / "a" / "train.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_rendered_data_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    config = RenderConfig(
        out=tmp_path, count=1, eval_count=0, source=RenderSource(mixture={"scene": 1}), overwrite=True
    )
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        main(config)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_mp4_without_pyav_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="PyAV is not installed: pip install av"):
        check_clip_format("mp4")
    with pytest.raises(ValueError, match="PyAV is not installed"):
        main(RenderConfig(out=tmp_path / "a", count=1, clips="mp4"))
    assert not (tmp_path / "a").exists()


def test_mp4_with_pyav(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    item = items("clip")[0]
    row = write_item(tmp_path, item, "mp4")
    with av.open(str(tmp_path / row["videos"][0]["path"])) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == len(item.images)
    assert [float(frame.time) for frame in frames] == pytest.approx(item.times)


def test_the_command_line() -> None:
    command = [sys.executable, "-m", "recipes.render"]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--source.mixture" in shown
    refused = subprocess.run(
        [*command, "--out", "x", "--source.scripts", "[han]"], cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "no font of matplotlib can write the script 'han'" in refused.stderr


def test_only_what_is_asked_for_is_asked() -> None:
    source = RenderSource(mixture={"grid": 1, "scene": 1}, side=(112, 120), asked=("count", "where"))
    asked = Counter((item.kind, item.asked.kind) for item in islice(source.items("train", 0), 120))
    assert set(asked) == {("grid", "count"), ("grid", "where"), ("scene", "count")}


def test_a_question_that_no_kind_has_is_refused() -> None:
    with pytest.raises(ValueError, match="with the questions wehre: correct these"):
        RenderSource(mixture={"grid": 1}, side=(112, 120), asked=("wehre",)).item("train", 0, 0)


def test_grids_have_the_cells_and_colours_asked_for() -> None:
    source = RenderSource(mixture={"grid": 1}, side=(112, 120), cells=(2,), palette=(2,))
    for item in islice(source.items("train", 0), 40):
        assert item.scene["cells"] == 2
        assert len({thing["colour"] for thing in item.scene["objects"]}) <= 2
        assert 2 <= len(item.regions) <= 4


def test_held_out_rows_of_plain_grids_are_balanced_though_no_row_comes_twice() -> None:
    """Enough contents for both answers: with few, the answer with more different questions would prevail."""
    asked = ("exists", "count", "filled")
    source = RenderSource(
        mixture={"grid": 1}, side=(112, 112), cells=(2,), shapes=("square",), asked=asked, short_share=1.0
    )
    answers: dict[str, list[str]] = {}
    for row in islice(source.rows("eval", 0, 1600), 1600):
        answers.setdefault(row.values["asked"], []).append(row.values["reference"])
    most = {name: max(map(given.count, given)) / len(given) for name, given in answers.items()}
    assert most["exists"] < 0.57, most
    assert most["filled"] < 0.57, most
    assert most["count"] < 0.42, most
