"""The pipeline's page from made-up runs: tables by hand, pictures with every model's answers, hostile text shown as
text."""

import json
import re
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from recipes.pipeline import models, training_config
from recipes.pipeline_report import part_sizes, write_pipeline_report

HOSTILE = "<script>alert(1)</script>\u202e"


def figures(accuracy: float, n: int = 40) -> dict[str, float]:
    low, high = max(0.0, accuracy - 0.1), min(1.0, accuracy + 0.1)
    return {"n": n, "accuracy": accuracy, "ci_low": low, "ci_high": high, "response_tokens": 7.5}


def write_evaluation(folder: Path, accuracy: float, answer: str) -> None:
    """Two families; row 0 is answered rightly by a good model alone."""
    folder.mkdir(parents=True, exist_ok=True)
    by = {"count": figures(accuracy, 30), "where": figures(accuracy / 2, 10)}
    summary = {mode: figures(accuracy) | {"by": by} for mode in ("short", "long")}
    (folder / "evaluation.json").write_text(json.dumps({"eval": summary}))
    lines = [
        {
            "row": row,
            "sample": 0,
            "mode": mode,
            "prompt": "user: How many?",
            "reference": "3",
            "response": f"{answer} {row}",
            "rewards": {"accuracy": float(accuracy > 0.5 and row == 0)},
        }
        for row in range(4)
        for mode in ("short", "long")
    ]
    (folder / "evaluation_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_training(run: Path, name: str) -> None:
    run.mkdir(parents=True)
    records, step = [], 0
    for stage in training_config(name, True).stages:
        for at in range(stage.steps):
            step += 1
            loss = 3.0 - 2.0 * at / stage.steps
            records.append({"step": step, "stage": stage.name, "loss": loss, "samples": 10, "time/step": 0.5})
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / "run.json").write_text(json.dumps({"mode": "none", "steps": step, "seconds": step / 2, "finished": True}))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pipeline"
    (out / "model").mkdir(parents=True)
    weights = {"vpm.a": (3, 4), "resampler.b": (5,), "llm.c": (2, 2), "llm.d": (1,)}
    save_file(
        {name: numpy.zeros(shape, numpy.float32) for name, shape in weights.items()}, out / "model/model.safetensors"
    )
    for name in ("pretrain", "sft"):
        write_training(out / name, name)
    for model, accuracy in zip(models(out, True), (0.1, 0.3, 0.4, 0.9), strict=True):
        write_evaluation(model.evaluation, accuracy, f"{HOSTILE} {model.title}")
    rl = [
        {"step": s, "reward/short/accuracy": 0.1 * s, "tokens/generated": 100 * s, "time/step": 2.0} for s in (1, 2, 3)
    ]
    (out / "rl" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rl))
    (out / "rl" / "run.json").write_text(json.dumps({"mode": "hybrid", "steps": 3, "seconds": 6.0, "finished": True}))
    return write_pipeline_report(out, True).read_text()


def cells(page: str, first: str) -> list[str]:
    """The cells of the table row that starts with a text."""
    row = next(row for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL) if f">{first}<" in row.split("</td>")[0])
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)]


def test_stages_with_what_they_trained(page: str) -> None:
    assert cells(page, "pre-training: resampler")[1:6] == ["resampler", "5", "5", "50", "2 s"]
    assert cells(page, "pre-training: vision")[1:3] == ["resampler, vision tower", "17"]
    start = cells(page, "pre-training: start")
    assert start[2:5] == ["22", "40", "400"]
    assert start[6] == "2.77 → 1.27"  # means of the first and of the last ten steps
    assert cells(page, "GRPO")[2:4] == ["22", "3"]


def test_accuracy_of_every_model_and_family(page: str) -> None:
    assert cells(page, "pre-trained")[1:] == ["10.0 [0.0, 20.0]", "10.0 [0.0, 20.0]", "7.5", "7.5"]
    assert cells(page, "hybrid GRPO")[1] == "90.0 [80.0, 100.0]"
    assert cells(page, "count")[1] == "short"
    assert cells(page, "where")[2] == "5.0 [0.0, 15.0] of 10"


def test_pictures_with_the_answers_of_all_models(page: str) -> None:
    pictures = re.findall(r'<div class="example">\s*<img src="data:image/png;base64,[^"]{200,}"', page)
    assert len(pictures) == 4
    first = page.split('<div class="example">')[1]
    assert first.count(">right<") == 2, "the picture on which the models differ comes first"
    assert first.count(">wrong<") == 6


def test_hostile_answers_are_text_and_nothing_is_loaded_from_outside(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[U+202E]" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)


def test_a_pipeline_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    for name in ("pretrain", "sft"):
        write_training(tmp_path / name, name)
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"holds no evaluation\.json"):
        write_pipeline_report(tmp_path, True)


def test_sizes_of_parts(tmp_path: Path) -> None:
    save_file({"llm.a": numpy.zeros((2, 3), numpy.float32)}, tmp_path / "model.safetensors")
    assert part_sizes(tmp_path / "model.safetensors") == {"vision tower": 0, "resampler": 0, "language model": 6}
