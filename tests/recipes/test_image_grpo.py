"""Hybrid GRPO on rendered images and clips, end to end: real engine, a tiny random vision-language model."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import hybrid_grpo
from recipes.hybrid_grpo import HybridGrpoConfig
from tests.recipes.runs import comparable, records
from tests.rollouts.vision import save_tiny

_TRAINER = {"steps": 2, "prompts_per_step": 3, "save_every": 1, "check_prompts": 2}
REWARDS = [
    {"name": "tests/recipes/letters.py:letters"},
    {"name": "tests/recipes/picture_rewards.py:sees_media"},
    {"name": "probability"},
]


def _config(folder: Path, model: Path, **changes: Any) -> HybridGrpoConfig:
    return HybridGrpoConfig.model_validate(
        {
            "run": folder,
            "model": {"path": str(model)},
            "task": {
                "source": {"kind": "render", "mixture": {"scene": 2, "clip": 1}, "side": [112, 150]},
                "size": 6,
                "eval_size": 2,
            },
            "modes": {"short": {"max_tokens": 6}, "long": {"max_tokens": 9}},
            "rewards": REWARDS,
            "group_size": 3,
            "learner": {"learning_rate": 1e-3, "precision": "float32", "micro_batch_tokens": 400},
            "trainer": _TRAINER,
            "engine": {
                "dtype": "float32",
                "max_model_len": 512,
                "max_num_seqs": 8,
                "kv_cache_gib": 0.25,
                "threads": 1,
                "max_images": 2,
                "max_videos": 1,
            },
            "evaluation": {"metric": "letters"},
            "video": {"fps": 2.0},
            **changes,
        }
    )


def _fingerprint(run: Path) -> dict[str, Any]:
    checkpoint = run / "checkpoints" / "step_2"
    return {
        "metrics": comparable(records(run / "metrics.jsonl")),
        "rollouts": records(run / "rollouts.jsonl"),
        "evaluation": records(run / "evaluation_samples.jsonl"),
        "weights": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_learns_from_images_and_resumes_exactly(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    hybrid_grpo.main(_config(tmp_path / "whole", tmp_path / "model"))
    whole = _fingerprint(tmp_path / "whole")
    run = tmp_path / "whole"
    shutil.rmtree(run / "checkpoints/step_2")  # as it was after one step: step 2 is made once more
    for name in ("run.json", "evaluation.json", "evaluation_samples.jsonl"):
        (run / name).unlink()
    hybrid_grpo.main(_config(run, tmp_path / "model", resume=True))
    assert _fingerprint(run) == whole

    assert max(metrics["engine/logprob_gap_max"] for metrics in whole["metrics"]) < 1e-3
    assert all(metrics["groups/trained"] == 3 for metrics in whole["metrics"])
    prompts = [record["prompt"] for record in whole["rollouts"]]
    assert len(prompts) == 2 * 3 * 3
    assert {prompt.split("\n")[0] for prompt in prompts} == {"<image>", "<video>"}
    assert all(record["rewards"]["sees_media"] == 1.0 for record in whole["rollouts"])
    assert all(record["rewards"]["probability"] is not None for record in whole["rollouts"])
    _check_baselines(run, tmp_path / "model")
    summary = json.loads((tmp_path / "whole/evaluation.json").read_text())["eval"]
    assert {mode: figures["n"] for mode, figures in summary.items()} == {"short": 2, "long": 2}

    from base_model.packed_lm import load_packed

    trained, start = (
        load_packed(path).model.state_dict() for path in (tmp_path / "whole/checkpoints/step_2", tmp_path / "model")
    )
    for part in ("vpm.", "resampler.", "llm."):
        moved = [name for name in start if name.startswith(part) and not torch.equal(trained[name], start[name])]
        assert len(moved) > 5, part
    assert (tmp_path / "whole/checkpoints/step_2/preprocessor_config.json").is_file()


def _check_baselines(run: Path, path: Path) -> None:
    """The references' probabilities that the run kept are those of a plain forward pass with the images."""
    from base_model.checkpoints import load_processor
    from base_model.vlm import MiniCPMV
    from recipes.tasks import load_rows
    from rl.prompts import PromptMaker
    from rollouts.reference import prompt_span

    config = _config(run, path)
    rows = load_rows(config.task)
    maker, model = PromptMaker(load_processor(path), config.video), MiniCPMV.from_pretrained(path).eval()
    known = json.loads((run / "baselines.json").read_text())
    assert len(known) == 6
    for number, probs in known.items():
        row = rows[int(number)]
        ids = maker.prompt(row, config.modes.short).ids
        span = prompt_span(maker.tokenizer, prompt_ids=ids, reference=row.reference)
        inputs = maker.inputs(row, config.modes.short)()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*ids, *span.tokens]]), **inputs).logits[0, len(ids) - 1 : -1]
        own = logits.softmax(-1).gather(1, torch.tensor(span.tokens)[:, None])[:, 0][list(span.scored)]
        torch.testing.assert_close(torch.tensor(probs), own, atol=1e-6, rtol=1e-3)
