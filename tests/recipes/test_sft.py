"""The warm-up: what is trained, that both modes are learnt, and that it resumes exactly."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from base_model.sft import collate_packed
from recipes.tasks import Row
from recipes.warmup import AnswerFormat, sft_examples
from rollouts.modes import ModeSampler, ModesConfig
from tests.recipes.runs import finish, records
from tests.tiny import make_tiny_model, make_tiny_tokenizer

ROWS = [
    Row(
        index=i,
        messages=({"role": "user", "content": f"{i} + 4"},),
        reference=i + 4,
        solution=f"{i} + 4 = {i + 4}",
        columns={},
    )
    for i in range(6)
]


@pytest.mark.parametrize("mode", ["short", "long"])
def test_the_prefill_is_given_and_never_trained(mode: str) -> None:
    tokenizer = make_tiny_tokenizer()
    sampler = ModeSampler(ModesConfig.model_validate({"mode": mode}), 0)
    examples = sft_examples(ROWS, sampler, tokenizer, AnswerFormat(answer="It is {reference}."), max_length=200)
    for row, example in zip(ROWS, examples, strict=True):
        prompt, target = tokenizer.decode(example.prompt_ids), tokenizer.decode(example.response_ids)
        answer = f"It is {row.reference}.<|im_end|>"
        if mode == "long":
            assert prompt.endswith("<|im_start|>assistant\n<think>\n")
            assert target == f"{row.solution}\n</think>\n\n{answer}"
        else:
            assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
            assert target == answer
    batch = collate_packed(examples)["batch"]
    assert batch.targets_T.tolist() == [t for e in examples for t in e.response_ids]


def test_too_long_rows_are_refused_by_number() -> None:
    sampler = ModeSampler(ModesConfig.model_validate({"mode": "long"}), 0)
    with pytest.raises(ValueError, match=r"row 0 takes \d+ tokens in long mode"):
        sft_examples(ROWS, sampler, make_tiny_tokenizer(), AnswerFormat(), max_length=10)


def _config(folder: Path, model: Path, name: str, **changes: Any) -> Path:
    data = folder / "rows.jsonl"
    rows = [
        {"prompt": f"{a} + {b}", "answer": str(a + b), "work": f"{a} + {b} = {a + b}"}
        for a in range(4)
        for b in range(4)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "run": str(folder / name),
        "model": {"path": str(model)},
        "task": {
            "source": {"kind": "files", "train": str(data)},
            "prompt": "prompt",
            "reference": "answer",
            "solution": "work",
            "eval_size": 0,
        },
        "steps": 12,
        "batch_rows": 4,
        "learning_rate": 5e-3,
        "warmup_steps": 2,
        "save_every": 4,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_the_warm_up_learns_and_resumes_exactly(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = make_tiny_model(tmp_path / "model")
    status, output = finish(str(_config(tmp_path, model, "whole")), recipe="recipes.sft")
    assert status == 0, output
    losses = [m["loss"] for m in records(tmp_path / "whole/metrics.jsonl")]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert json.loads((tmp_path / "whole/run.json").read_text())["mode"] == "none"

    # The same run, cut after its second checkpoint: what came later is taken away, then it goes on.
    status, output = finish(str(_config(tmp_path, model, "cut")), recipe="recipes.sft")
    assert status == 0, output
    import shutil

    shutil.rmtree(tmp_path / "cut/trainer/checkpoint-12")
    shutil.rmtree(tmp_path / "cut/checkpoints")
    status, output = finish(str(tmp_path / "cut.yaml"), "--resume", "true", recipe="recipes.sft")
    assert status == 0, output
    whole = load_file(tmp_path / "whole/checkpoints/step_12/model.safetensors")
    cut = load_file(tmp_path / "cut/checkpoints/step_12/model.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert [m["loss"] for m in records(tmp_path / "cut/metrics.jsonl")] == losses


@pytest.mark.slow
def test_gradient_accumulation_divides_by_the_tokens_of_the_whole_step(tmp_path: Path) -> None:
    """Two packed batches of 4 rows make the same step as one of 8."""
    model = make_tiny_model(tmp_path / "model")
    one = _config(tmp_path, model, "one", batch_rows=8, steps=2, save_every=0, precision="float32")
    two = _config(tmp_path, model, "two", gradient_accumulation=2, steps=2, save_every=0, precision="float32")
    losses = []
    for path, name in ((one, "one"), (two, "two")):
        status, output = finish(str(path), recipe="recipes.sft")
        assert status == 0, output
        losses.append([m["loss"] for m in records(tmp_path / name / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_rows_without_a_solution_are_refused(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    path = _config(tmp_path, model, "none")
    config = yaml.safe_load(path.read_text())
    del config["task"]["solution"]
    path.write_text(yaml.safe_dump(config))
    status, output = finish(str(path), recipe="recipes.sft")
    assert status == 2
    assert "worked solution" in output
    assert not (tmp_path / "none").exists()
