"""Parts of the RLAIF-V loop that need no engine: selection, instructions, media as files, pairs, division, costs."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from base_model.vlm.media import open_image, open_video
from recipes.cli import CONFIGS, load_config
from recipes.media_files import image_file, video_file
from recipes.render.records import Look
from recipes.render.source import png, render_item, row_values
from recipes.rlaif.config import EndpointDividerConfig, RlaifVConfig, SelectionConfig
from recipes.rlaif.costs import counted, read_costs
from recipes.rlaif.division import CACHE, divide
from recipes.rlaif.feedback import Judged
from recipes.rlaif.instructions import Instruction, read_instructions, round_slice, write_instructions
from recipes.rlaif.labelled import FileLabels, labelled_rows
from recipes.rlaif.pairing import make_pairs
from recipes.rlaif.selection import Figures, choose, refusal
from recipes.rlaif.training import checkpoints, trained_steps
from recipes.tasks import TaskConfig
from rl.preference_pairs import PairConfig
from rollouts.modes import ShortMode
from tests.rollouts.fake_endpoint import fake_endpoint

DATA = Path(os.environ.get("TANDEM_DEV_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def figures(chair_i: float | None, words: float = 10.0, accuracy: float | None = 0.5, step: int = 1) -> Figures:
    return Figures(
        checkpoint=f"step_{step}",
        step=step,
        chair_i=chair_i,
        chair_s=chair_i,
        words=words,
        accuracy=accuracy,
        details={},
    )


BEFORE = figures(0.4, step=0)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([figures(0.3, step=1), figures(0.2, step=2), figures(0.25, step=3)], 2),
        ([figures(0.2, step=1), figures(0.2, step=2)], 2),  # of equals the later one
        ([figures(0.1, words=8.4, step=1), figures(0.3, step=2)], 2),  # a gain bought with shorter answers
        ([figures(0.1, words=11.6, step=1)], 0),
        ([figures(0.1, words=8.6, accuracy=0.48, step=1)], 1),  # just within both bounds
        ([figures(0.1, accuracy=0.47, step=1)], 0),
        ([figures(None, words=0, step=1)], 0),
        ([figures(0.4, step=1)], 0),
        ([], 0),
    ],
)
def test_the_best_checkpoint_within_the_bounds_goes_on(found: list[Figures], chosen: int) -> None:
    assert choose(found, BEFORE, BEFORE, SelectionConfig()).step == chosen


def test_bounds_are_those_of_the_first_model_not_of_the_round() -> None:
    start = figures(0.3, words=9.0, step=5)
    drifted = figures(0.2, words=8.0)
    assert refusal(drifted, start, SelectionConfig()) is None
    assert refusal(drifted, BEFORE, SelectionConfig()) == "its responses are 20% shorter"
    assert choose([drifted], start, BEFORE, SelectionConfig()) is start


def test_without_labelled_images_the_last_eligible_checkpoint_goes_on() -> None:
    first = figures(None, words=0, step=0)
    found = [figures(None, 0, 0.5, 1), figures(None, 0, 0.55, 2), figures(None, 0, 0.4, 3)]
    assert choose(found, first, first, SelectionConfig()).step == 2
    assert choose([], first, first, SelectionConfig()) is first


def test_rounds_take_instructions_in_turn_and_from_the_beginning_again() -> None:
    rows = [Instruction(index=at, place=str(at), problem="broken" if at == 1 else None) for at in range(5)]
    taken = [[row.index for row in round_slice(rows, number, 3)] for number in (1, 2, 3)]
    assert taken == [[0, 2, 3], [4, 0, 2], [3, 4, 0]]
    assert [row.index for row in round_slice(rows, 2, 100)] == [0, 2, 3, 4]


def test_bad_rows_stay_with_their_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    rows = [
        {"image": "red.png"},
        {"image": "missing.png"},
        {"image": "broken.png"},
        {"image": "../outside.png"},
        {"image": "red.png"},  # the same again
        {"other": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskConfig.model_validate(
        {
            "source": {"kind": "files", "train": tmp_path / "rows.jsonl"},
            "prompt": "<image>\nDescribe it.",
            "images": "image",
        }
    )
    found = write_instructions(task, tmp_path)
    assert [row.problem is None for row in found] == [True, False, False, False, False]
    assert found[0].images == (str(tmp_path / "red.png"),)
    assert found[0].messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "Describe it."}]
    assert "missing.png" in str(found[1].problem)
    assert found == read_instructions(tmp_path / "instructions.jsonl")
    (tmp_path / "rows.jsonl").unlink()
    assert write_instructions(task, tmp_path) == found  # a resumed run does not read the source again


def test_nothing_to_ask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "missing.png"}\n')
    task = TaskConfig.model_validate(
        {
            "source": {"kind": "files", "train": tmp_path / "rows.jsonl"},
            "prompt": "<image>\nDescribe it.",
            "images": "image",
        }
    )
    with pytest.raises(ValueError, match=r"none of the 1 rows .*missing\.png"):
        write_instructions(task, tmp_path)


def test_images_and_clips_in_memory_become_files_with_the_same_pixels(tmp_path: Path) -> None:
    picture = render_item("grid", 0, 0, look=Look(side=(112, 112))).images[0]
    path = image_file(png(picture), tmp_path)
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(picture))
    assert image_file(picture, tmp_path) == path  # kept once
    assert image_file(path, tmp_path / "none") == path
    for index in range(3):
        clip = row_values(render_item("clip", 0, index, look=Look(side=(112, 150))))["videos"][0]
        (frames, times), (own, own_times) = (open_video(each) for each in (clip, video_file(clip, tmp_path)))
        assert own_times == [pytest.approx(package) for package in times]
        pixels = [[np.asarray(frame) for package in packages for frame in package] for packages in (frames, own)]
        assert all(np.array_equal(*pair) for pair in zip(*pixels, strict=True))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("handle", [b"no image", "none.png"])
def test_what_is_no_image_is_refused(tmp_path: Path, handle: Any) -> None:
    with pytest.raises(ValueError):
        image_file(handle, tmp_path)


def judged(instruction: int, sample: int, text: str, score: float | None) -> Judged:
    return Judged(
        instruction=instruction,
        sample=sample,
        response=text,
        answer=text,
        tokens=3,
        score=score,
        reason=None if score is not None else "no claim",
    )


def test_pairs_are_loadable_with_their_images_and_videos(tmp_path: Path) -> None:
    import datasets

    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    clip = row_values(render_item("clip", 0, 0, look=Look(side=(112, 112))))["videos"][0]
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    rows = [
        Instruction(
            index=4, place="a", messages=({"role": "user", "content": parts},), images=(str(tmp_path / "red.png"),)
        ),
        Instruction(
            index=7,
            place="b",
            messages=({"role": "user", "content": [{"type": "video"}, parts[1]]},),
            videos=(str(video_file(clip, tmp_path)),),
        ),
        Instruction(index=9, place="c", messages=({"role": "user", "content": "Tell me."},)),
        Instruction(index=10, place="d", messages=({"role": "user", "content": "Once more."},)),
    ]
    found = [judged(row, sample, f"{row} {sample}", -float(sample)) for row in (4, 7, 9) for sample in (0, 1)]
    found += [judged(10, 0, "equal", 0.0), judged(10, 1, "equal", 0.0), judged(4, 2, "", None)]
    statistics = make_pairs(tmp_path, rows, found, mode=ShortMode(), config=PairConfig(), seed=0, step=1)
    assert statistics["pairs"] == 3
    assert statistics["without_pair"]["identical texts"] == 1
    table = datasets.load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train")
    assert table["instruction"] == [4, 7, 9]
    assert table[0]["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": "4 0"}]}]
    pictures = table.cast_column("images", datasets.Sequence(datasets.Image()))
    assert pictures[0]["images"][0].size == (40, 30)
    assert pictures[2]["images"] == []
    assert open_video(table[1]["videos"][0])[0]


def test_no_pair_leaves_no_pairs_file(tmp_path: Path) -> None:
    rows = [Instruction(index=0, place="a", messages=({"role": "user", "content": "Tell me."},))]
    (tmp_path / "pairs.jsonl").write_text("old")
    found = [judged(0, sample, f"{sample}", -1.0) for sample in range(3)]
    statistics = make_pairs(tmp_path, rows, found, mode=ShortMode(), config=PairConfig(), seed=0, step=1)
    assert statistics["pairs"] == 0
    assert statistics["without_pair"]["scores too close"] == 1
    assert not (tmp_path / "pairs.jsonl").exists()


def divider(url: str) -> EndpointDividerConfig:
    return EndpointDividerConfig.model_validate(
        {
            "kind": "endpoint",
            "endpoint": {"url": url, "model": "m", "retries": 0, "give_up_after": 3, "timeout_s": 5.0},
            "division": {"attempts": 2},
        }
    )


def no_engine() -> Any:
    raise AssertionError("an endpoint needs no engine")


def test_an_endpoint_divides_each_text_once_and_its_failures_are_recorded(tmp_path: Path) -> None:
    texts = ["It rains.", "malformed", "status 400", "It rains.", " "]
    with fake_endpoint() as server:
        found, usage = divide(texts, divider(server.url), tmp_path, no_engine)
        assert [len(each.claims) for each in found] == [1, 0, 0, 1, 0]
        assert found[0] == found[3]
        assert found[0].claims[0].question == "Is it true that It rains.?"
        assert all(each.problem for each in (found[1], found[2], found[4]))
        assert usage.requests == 1 + 2 + 2
        again, usage = divide([*texts, "It snows."], divider(server.url), tmp_path, no_engine)
        assert again[0] == found[0]
        assert usage.requests == 2 + 2 + 1  # only what failed before, and what is new
    assert len((tmp_path / CACHE).read_text().splitlines()) == 2


def test_a_dead_endpoint_is_a_reason_and_not_the_end(tmp_path: Path) -> None:
    found, usage = divide([f"text {at}" for at in range(9)], divider("http://127.0.0.1:9/v1"), tmp_path, no_engine)
    assert all("cannot be reached" in (each.problem or "") or "not sent" in (each.problem or "") for each in found)
    assert usage.failed == usage.requests


def test_costs_of_an_interrupted_stage_add_up(tmp_path: Path) -> None:
    def interrupted() -> None:
        with counted(tmp_path, 1, "conquer") as cost:
            cost["asked"] = 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with counted(tmp_path, 1, "conquer") as cost:
        cost |= {"asked": 4, "cached": 3}
    with counted(tmp_path, 1, "candidates"):
        pass
    found = read_costs(tmp_path)
    assert [each["stage"] for each in found] == ["candidates", "conquer"]
    assert (found[1]["asked"], found[1]["cached"]) == (7, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": {"mode": "hybrid"}}, "modes.mode is hybrid"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"divider": {"kind": "model", "modes": {"mode": "hybrid"}}}, "divider.modes.mode is hybrid"),
        ({"candidates": {"n": 1}}, "greater than or equal to 2"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"model": {"path": "m"}, "instructions": {"source": {"kind": "render"}}, **changes}
    with pytest.raises(ValueError, match=message):
        RlaifVConfig.model_validate(given)


@pytest.mark.parametrize("name", ["rlaif_v.yaml", "rlaif_v_rendered.yaml"])
def test_the_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(RlaifVConfig, [str(CONFIGS / name)])
    assert config.rounds >= 2


@pytest.mark.parametrize(
    ("name", "column", "kind"), [("mm_photo_claims.jsonl", "image", "images"), ("mm_video.jsonl", "video", "videos")]
)
def test_photos_and_clips_of_the_development_data_can_be_asked(
    tmp_path: Path, name: str, column: str, kind: str
) -> None:
    """One of the clips ends in corrupt frames."""
    if not (DATA / name).is_file():
        pytest.skip("the development data is not here")
    source = {"kind": "files", "train": DATA / name}
    task = TaskConfig.model_validate({"source": source, "prompt": f"<{column}>\nDescribe it.", kind: column})
    rows = write_instructions(task, tmp_path)
    assert rows
    assert [row.problem for row in rows] == [None] * len(rows)
    assert all(len(getattr(row, kind)) == 1 for row in rows)


def test_photos_with_object_labels_are_counted() -> None:
    if not (DATA / "mm_photo_claims.jsonl").is_file():
        pytest.skip("the development data is not here")
    config = FileLabels(kind="files", path=DATA / "mm_photo_claims.jsonl", synonyms={"Cat": ["kitten"]})
    rows = labelled_rows(config)
    kitten = next(row for row in rows if "kitty" in str(row.images[0]))
    counts = kitten.count("A kitten next to a table.")
    assert (counts.mentioned, counts.hallucinated, counts.present, counts.covered) == (1, 0, 1, 1)


def test_the_steps_of_a_runs_models(tmp_path: Path) -> None:
    for name in ("checkpoints/step_20", "checkpoints/step_100", "checkpoints/step_3.part", "model"):
        (tmp_path / name).mkdir(parents=True)
    whole = checkpoints(tmp_path, merged=False)
    assert [path.name for path in whole] == ["step_20", "step_100"]
    assert [trained_steps(path) for path in whole] == [20, 100]
    assert [trained_steps(path) for path in checkpoints(tmp_path, merged=True)] == [100]
