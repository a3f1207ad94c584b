"""The loop end to end with a real engine and a real trainer, a tiny random vision-language model: two rounds, killed in
every stage; rows and responses that cannot be used; a run that is continued.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from recipes.media_files import video_file
from recipes.render.records import Look
from recipes.render.source import render_item, row_values
from tests.recipes.runs import comparable, finish, records, start
from tests.rollouts.vision import save_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MARGIN = 0.0013
"""About the median of p_yes - p_no of this random model: half of its verdicts are rejections."""


def write_rows(folder: Path) -> Path:
    """Rows with an image, two images, a clip, text alone, and an image that is missing."""
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(("red", "blue", "green")):
        Image.new("RGB", (64 + 8 * index, 56), name).save(folder / f"{name}.png")
    clip = row_values(render_item("clip", 0, 0, look=Look(side=(112, 112))))["videos"][0]
    video = video_file(clip, folder).name
    names = ("red.png", "blue.png", "green.png")
    rows += [{"prompt": f"What is in picture {at}?", "images": [names[at % 3]]} for at in range(18)]
    rows.append({"prompt": "<image> or <image>?", "images": ["red.png", "blue.png"]})
    rows.append({"prompt": "What happens?", "videos": [video]})
    rows.append({"prompt": "Tell me."})
    rows.append({"prompt": "What is it?", "images": ["missing.png"]})
    lines = ({"images": [], "videos": [], **row} for row in rows)
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "rows.jsonl"


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    grid = {"kind": "render", "mixture": {"grid": 1}, "side": [112, 112], "cells": [2]}
    config = {
        "run": str(folder / name),
        "model": {"path": str(folder / "model")},
        "rounds": 2,
        "prompts_per_round": 19,
        "instructions": {
            "source": {"kind": "files", "train": str(folder / "rows.jsonl")},
            "images": "images",
            "videos": "videos",
        },
        "modes": {"mode": "short", "short": {"max_tokens": 10}},
        "candidates": {"n": 3, "temperature": 1.0, "keep_truncated": True},
        "labeler": {"score": {"margin": MARGIN}},
        "dpo": {
            "learner": {"learning_rate": 1e-4, "precision": "float32"},
            "trainer": {"steps": 2, "batch_pairs": 4},
            "eval_size": 2,
        },
        "engine": {
            "dtype": "float32",
            "max_model_len": 512,
            "max_num_seqs": 16,
            "kv_cache_gib": 0.25,
            "threads": 1,
            "max_images": 2,
            "max_videos": 1,
        },
        "video": {"fps": 1.0},
        "hallucination": {"labelled": {"kind": "rendered", "render": {**grid, "asked": ["caption"]}, "items": 3}},
        "held_out": {
            "task": {"source": {**grid, "short_share": 1.0, "asked": ["exists"]}, "size": 4, "eval_size": 4},
            "rewards": [{"name": "accuracy"}],
        },
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fingerprint(run: Path) -> dict[str, Any]:
    """What two runs that did the same have in common, to the bit."""
    found: dict[str, Any] = {}
    for folder in (run / "round_1", run / "round_2"):
        found[folder.name] = {
            "candidates": records(folder / "candidates.jsonl"),
            "claims": records(folder / "claims.jsonl"),
            "pairs": [{**pair, "images": [], "videos": []} for pair in records(folder / "pairs.jsonl")],
            "dpo": comparable(records(folder / "dpo" / "metrics.jsonl")),
            "chosen": json.loads((folder / "round.json").read_text())["chosen"]["step"],
        }
    return found


def kill_when(process: subprocess.Popen[str], path: Path, lines: int = 0) -> None:
    """SIGKILL the recipe, but none of what it has started, as soon as a file is there (with so many lines)."""
    for _ in range(60_000):
        if process.poll() is not None:
            output = process.stdout.read() if process.stdout else ""
            raise AssertionError(f"the run ended before {path} was there:\n{output}")
        if path.is_file() and len(path.read_bytes().splitlines()) >= lines:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_run_killed_in_every_stage_ends_like_one_that_was_not(tmp_path: Path) -> None:
    import datasets

    save_tiny(tmp_path / "model")
    write_rows(tmp_path)
    status, output = finish(str(write_config(tmp_path, "whole")), recipe="recipes.rlaif_v", timeout=600)
    assert status == 0, output
    whole = tmp_path / "whole"
    expected = fingerprint(whole)
    _check_products(whole, output)

    killed = tmp_path / "killed"
    config = str(write_config(tmp_path, "killed"))
    moments = [
        (killed / "round_1" / "candidates.part.jsonl", 1),
        (killed / "labels.jsonl", 20),
        (killed / "round_1" / "dpo" / "metrics.jsonl", 1),
    ]
    for at, (path, lines) in enumerate(moments):
        process = start(config, *(["--resume", "true"] if at else []), recipe="recipes.rlaif_v")
        kill_when(process, path, lines)
    status, output = finish(config, "--resume", "true", recipe="recipes.rlaif_v", timeout=600)
    assert status == 0, output
    assert fingerprint(killed) == expected
    keys = [label["key"] for label in records(killed / "labels.jsonl")]
    assert len(keys) == len(set(keys)) == len(records(whole / "labels.jsonl"))  # none lost, none paid twice

    table = datasets.load_dataset("json", data_files=str(killed / "round_1" / "pairs.jsonl"), split="train")
    assert table.cast_column("images", datasets.Sequence(datasets.Image()))[0]["images"] is not None

    status, output = finish(config, recipe="recipes.rlaif_v")
    assert status == 2  # a run is never overwritten silently
    assert "resume" in output


def _check_products(run: Path, output: str) -> None:
    candidates = records(run / "round_1" / "candidates.jsonl")
    assert len(candidates) == 19 * 3
    assert len({candidate["response"] for candidate in candidates}) > 19  # different seeds
    judged = records(run / "round_1" / "claims.jsonl")
    assert all((each["score"] is None) == (each["reason"] is not None) for each in judged)
    assert all(
        each["score"] == -sum(not claim["accepted"] for claim in each["claims"])
        for each in judged
        if not each["reason"]
    )
    rows = records(run / "instructions.jsonl")
    assert "missing.png" in rows[-1]["problem"]
    page = (run / "report.html").read_text()
    assert "missing.png" in page
    assert "report:" in output
    before = json.loads((run / "round_0" / "evaluation" / "figures.json").read_text())
    assert before["details"]["held_out"]["n"] == 4
    assert before["details"]["hallucination"]["responses"] == 3
    seen = {str(row["index"]): row for row in rows}
    second = {str(each["instruction"]) for each in records(run / "round_2" / "candidates.jsonl")}
    assert {"19", "20"} <= second  # the clip and the text, which the first round did not come to
    assert seen["19"]["videos"]


def test_a_loop_that_finds_no_pair_says_so_and_goes_on(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    write_rows(tmp_path)
    changes: dict[str, Any] = {"prompts_per_round": 4, "held_out": None, "hallucination": None}
    changes["candidates"] = {"n": 3, "temperature": 1.0}  # every response uses up its budget
    path = write_config(tmp_path, "run", **changes)
    status, output = finish(str(path), recipe="recipes.rlaif_v", timeout=600)
    assert status == 0, output
    assert "nothing to learn from" in output
    assert "12 responses without a score: cut off at the budget" in output
    assert not (tmp_path / "run" / "round_1" / "pairs.jsonl").exists()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["model"] == str(tmp_path / "model")
    assert "fewer than two scored responses" in (tmp_path / "run" / "report.html").read_text()
