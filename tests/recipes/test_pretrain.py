"""Training in stages: what each stage trains, that it learns, and that an interrupted run goes on exactly."""

import json
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from base_model.stage_trainer import newest_checkpoint
from recipes.stage_config import Stage, StagedConfig
from recipes.stages import run_stages
from rl.run_directory import RunDirectory
from tests.recipes.runs import comparable, records
from tests.tiny import make_tiny_model

SCENES = {"kind": "rendered", "render": {"mixture": {"scene": 1}, "side": [112, 112]}}
STAGES: list[dict[str, Any]] = [
    {"name": "resampler", "train": ["resampler"], "mixture": {"weights": {"captions": 1}}, "steps": 3},
    {
        "name": "all",
        "train": ["resampler", "vision tower", "language model"],
        "mixture": {"weights": {"captions": 1}, "shares": {"text": 0.4}},
        "decay_mixture": {"weights": {"questions": 1}},
        "modes": {"mode": "hybrid"},
        "steps": 4,
        "gradient_accumulation": 2,
        "learning_rates": {"vision tower": 1e-4},
        "schedule": {"kind": "wsd", "warmup_steps": 1, "decay_steps": 2, "final_share": 0.2},
    },
]


def _config(folder: Path, model: Path, name: str, **changes: Any) -> StagedConfig:
    config = {
        "run": str(folder / name),
        "model": {"path": str(model)},
        "sources": {
            "captions": SCENES | {"task": "caption"},
            "questions": SCENES | {"task": "qa"},
            "text": {"kind": "rendered", "task": "text", "render": {"side": [112, 160]}},
        },
        "stages": [{"tokens_per_batch": 512, "learning_rate": 3e-3, **stage} for stage in STAGES],
        "evaluation": {"samples": 3, "every": 2},
        "window": 6,
        "save_every": 2,
        "precision": "float32",
        **changes,
    }
    return StagedConfig.model_validate(config)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from base_model.vlm.presets import build
    from tests.base_model.vlm.small import SHRUNK
    from tests.tiny import QWEN3_CHAT_TEMPLATE, make_tiny_tokenizer

    path = tmp_path_factory.mktemp("model")
    made, processor = build("tiny", make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE), **SHRUNK)
    made.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.mark.slow
def test_stages_train_their_parts_and_resume_exactly(tmp_path: Path, model: Path) -> None:
    import torch
    from safetensors.torch import load_file

    run_stages(_config(tmp_path, model, "whole"))
    weights = [load_file(model / "model.safetensors")]
    weights += [load_file(tmp_path / f"whole/checkpoints/step_{step}/model.safetensors") for step in (3, 7)]
    changed = [{n.split(".")[0] for n in a if not torch.equal(a[n], b[n])} for a, b in pairwise(weights)]
    assert changed == [{"resampler"}, {"resampler", "vpm", "llm"}]
    metrics = records(tmp_path / "whole/metrics.jsonl")
    assert [m["step"] for m in metrics] == list(range(1, 8))
    assert [m["lr/language model"] for m in metrics[3:]] == pytest.approx([1.5e-3, 3e-3, 1.8e-3, 6e-4])
    assert [m["lr/vision tower"] for m in metrics[3:]] == pytest.approx([5e-5, 1e-4, 6e-5, 2e-5])
    assert metrics[-1]["samples/questions"] > 0
    assert "samples/questions" not in metrics[3]
    evaluations = records(tmp_path / "whole/evaluations.jsonl")
    assert [e["step"] for e in evaluations] == [2, 3, 5, 7]
    assert evaluations[-1]["loss/captions"] < 0.9 * evaluations[0]["loss/captions"]

    # Cut in the middle of the second stage: what came later is taken away, and worker processes make the samples.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step_7")
    shutil.rmtree(tmp_path / "cut/trainer/all/checkpoint-4")
    (tmp_path / "cut/config.yaml").write_text((tmp_path / "cut/config.yaml").read_text().replace("/whole", "/cut"))
    run_stages(_config(tmp_path, model, "cut", workers=1, resume=True))
    cut = load_file(tmp_path / "cut/checkpoints/step_7/model.safetensors")
    assert all(torch.equal(weights[-1][name], cut[name]) for name in cut)
    assert comparable(records(tmp_path / "cut/metrics.jsonl")) == comparable(metrics)
    assert records(tmp_path / "cut/evaluations.jsonl") == evaluations


@pytest.mark.slow
def test_an_interrupted_run_saves_after_its_step(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(run: RunDirectory, record: dict[str, Any]) -> None:
        append(run, record)
        if record["step"] == 1:
            signal.raise_signal(signal.SIGINT)

    append = RunDirectory.append_metrics
    monkeypatch.setattr(RunDirectory, "append_metrics", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stages(_config(tmp_path, model, "run", save_every=0, evaluation={"samples": 0}))
    # The signal of step 1 comes when its metrics are written: step 2 is the one that is finished.
    assert [record["step"] for record in records(tmp_path / "run/metrics.jsonl")] == [1, 2]
    assert newest_checkpoint(tmp_path / "run/trainer/resampler") == tmp_path / "run/trainer/resampler/checkpoint-2"
    assert not (tmp_path / "run/run.json").exists()


def test_a_language_model_alone_has_no_resampler_to_train(tmp_path: Path) -> None:
    text = make_tiny_model(tmp_path / "text")
    with pytest.raises(ValueError, match="stage resampler trains the resampler, but text is a language model alone"):
        run_stages(_config(tmp_path, text, "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixture": {"weights": {}}}, "needs numbers of 0 or more, and one above 0"),
        ({"decay_mixture": {"weights": {"captions": 1}}}, "decay_mixture needs a decay phase"),
        ({"schedule": {"warmup_steps": 9}}, "take more than its 3 steps"),
        ({"train": ["tower"]}, "Input should be 'resampler', 'vision tower' or 'language model'"),
    ],
)
def test_impossible_stages_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Stage.model_validate(STAGES[0] | changes)


def test_a_stage_draws_from_known_sources_only() -> None:
    given = {"run": "r", "model": {"path": "m"}, "sources": {"ocr": SCENES}, "stages": STAGES[:1]}
    with pytest.raises(ValidationError, match="stage resampler draws from 'captions', which is not among the sources"):
        StagedConfig.model_validate(given)


def test_the_shipped_configuration_is_the_reports() -> None:
    """Parts, order and rates of MiniCPM-V 4.5 (arXiv 2509.18154, section 3)."""
    from recipes.cli import CONFIGS

    stages = StagedConfig.model_validate(yaml.safe_load((CONFIGS / "pretrain.yaml").read_text())).stages
    assert [set(stage.train) for stage in stages] == [
        {"resampler"},
        {"resampler", "vision tower"},
        {"resampler", "vision tower", "language model"},
    ]
    last = stages[-1]
    rates = [last.learning_rate * last.schedule.factor(step, last.steps) for step in (last.steps // 2, last.steps - 1)]
    assert rates == pytest.approx([5e-5, 1e-5])
    assert json.loads(last.model_dump_json())["schedule"]["kind"] == "wsd"
