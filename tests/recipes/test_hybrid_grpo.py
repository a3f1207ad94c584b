"""The recipe as a user runs it: plug-in rewards, adapters, evaluation, report, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.runs import ROOT, finish, grpo_config, records, write_task
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def test_a_users_own_reward_trains_and_shows(tmp_path: Path, model: Path) -> None:
    """Three lines of Python and two of YAML; the name appears in metrics, rollouts, evaluation and report."""
    (tmp_path / "mine.py").write_text(
        "def vowels(*, response: str) -> float:\n    return sum(c in 'aeiou' for c in response) / 10\n"
    )
    config = grpo_config(
        tmp_path,
        model,
        rewards=["mine.py:vowels", {"name": "format", "weight": 0.5}],
        trainer__steps=2,
        evaluation={"metric": "vowels", "samples": 2, "k": 2},
    )
    status, output = finish(str(config))
    assert status == 0, output
    run = tmp_path / "run"
    metrics, rollouts = records(run / "metrics.jsonl"), records(run / "rollouts.jsonl")
    assert all("reward/vowels" in m and "reward/format" in m for m in metrics)
    for rollout in rollouts:
        assert rollout["rewards"]["vowels"] == sum(c in "aeiou" for c in rollout["response"]) / 10
        expected = rollout["rewards"]["vowels"] + 0.5 * rollout["rewards"]["format"]
        assert rollout["total"] == pytest.approx(expected)
    evaluation = json.loads((run / "evaluation.json").read_text())["eval"]
    assert set(evaluation) == {"short", "long"}
    assert evaluation["short"]["n"] == 2
    assert "vowels" in (run / "report.html").read_text()
    assert json.loads((run / "run.json").read_text())["finished"] is True
    assert "Report:" in output


def test_adapters_end_as_a_plain_model(tmp_path: Path, model: Path) -> None:
    config = grpo_config(tmp_path, model, lora={"rank": 4}, trainer__steps=2)
    status, output = finish(str(config))
    assert status == 0, output
    run = tmp_path / "run"
    assert (run / "checkpoints/step_2/adapter_model.safetensors").exists()
    assert all(m["engine/logprob_gap_mean"] < 0.15 for m in records(run / "metrics.jsonl"))
    status, output = (
        finish(str(config).replace("config.yaml", "eval.yaml"), recipe="recipes.evaluate")
        if _evaluation_config(tmp_path, run)
        else (1, "")
    )
    assert status == 0, output
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["eval"]["long"]["n"] == 2


def _evaluation_config(folder: Path, run: Path) -> bool:
    import yaml

    config = {
        "model": {"path": str(run)},
        "task": {
            "source": {"kind": "files", "train": str(write_task(folder))},
            "reference": "answer",
            "eval_size": 2,
        },
        "modes": {"short": {"max_tokens": 6}, "long": {"max_tokens": 12}},
        "rewards": [f"{ROOT}/tests/recipes/letters.py:letters"],
        "evaluation": {"metric": "letters"},
        "engine": {"max_model_len": 128, "max_num_seqs": 16, "kv_cache_gib": 0.05, "threads": 1},
        "out": str(folder / "out"),
    }
    (folder / "eval.yaml").write_text(yaml.safe_dump(config))
    return True


REFUSALS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown reward": ({"rewards": ["acuracy"]}, [], "accuracy"),
    "missing reward file": ({"rewards": "nowhere.yaml"}, [], "nowhere.yaml does not exist"),
    "misspelt function": ({"rewards": [f"{ROOT}/tests/recipes/letters.py:leters"]}, [], "letters"),
    "unfillable argument": ({"rewards": ["mine.py:needy"]}, [], "colour"),
    "duplicate": ({"rewards": ["format", "format"]}, [], "format"),
    "weight": ({"rewards": [{"name": "format", "weight": float("nan")}]}, [], "finite"),
    "unknown key": ({}, ["--trainer.stepz", "3"], "trainer.steps"),
    "wrong type": ({}, ["--group_size", "many"], "group_size"),
    "missing data": ({"task__source": {"kind": "files", "train": "nowhere.jsonl"}}, [], "nowhere.jsonl"),
    "missing model": ({"model": {"path": "./nowhere"}}, [], "nowhere"),
    "long context": ({"engine__max_model_len": 4096}, [], "takes 1024 tokens"),
    "long prompt": ({"engine__max_model_len": 16}, [], "row"),
    "metric": ({"evaluation": {"metric": "acc"}}, [], "evaluation.metric"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_one_sentence_before_anything_is_written(case: str, tmp_path: Path, model: Path) -> None:
    changes, arguments, expected = REFUSALS[case]
    (tmp_path / "mine.py").write_text("def needy(*, answer, colour):\n    return 1.0\n")
    status, output = finish(str(grpo_config(tmp_path, model, **changes)), *arguments)
    assert status == 2, output
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, output
    assert expected in errors[0]
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_empty_data_and_missing_references(tmp_path: Path, model: Path) -> None:
    config = grpo_config(tmp_path, model)
    (tmp_path / "sums.jsonl").write_text("")
    status, output = finish(str(config))
    assert status == 2, output
    assert "no rows" in output
    (tmp_path / "sums.jsonl").write_text('{"prompt": "What?", "answer": ""}\n{"prompt": "Who?", "answer": "me"}\n')
    status, output = finish(str(config))
    assert status == 2, output
    assert "1 rows have no reference" in output


def test_a_long_evaluation_prompt_is_refused_before_training(tmp_path: Path, model: Path) -> None:
    config = grpo_config(
        tmp_path,
        model,
        task__source={"kind": "files", "train": str(tmp_path / "sums.jsonl"), "eval": str(tmp_path / "long.jsonl")},
        evaluation={"metric": "letters"},
    )
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "why? " * 300, "answer": "so"}) + "\n")
    status, output = finish(str(config))
    assert status == 2, output
    assert "evaluation row 0: its prompt takes" in output
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_overwritten(tmp_path: Path, model: Path) -> None:
    config = grpo_config(tmp_path, model, trainer__steps=1)
    assert finish(str(config))[0] == 0
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    status, output = finish(str(config))
    assert status == 2
    assert "--resume" in output
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
    status, output = finish(str(config), "--resume", "true")
    assert status == 0
    assert "has made its 1 steps" in output
    assert (tmp_path / "run/run.json").is_file()
    status, output = finish(str(config), "--resume", "true", "--group_size", "2")
    assert status == 2
    assert "group_size" in output


def test_a_raising_reward_is_named_with_its_sample(tmp_path: Path, model: Path) -> None:
    (tmp_path / "mine.py").write_text("def broken(*, response):\n    raise KeyError('oops')\n")
    status, output = finish(str(grpo_config(tmp_path, model, rewards=["mine.py:broken"])))
    assert status != 0
    assert "broken" in output
    assert "oops" in output


def test_a_full_disk_is_one_sentence_and_leaves_no_half_checkpoint(
    tmp_path: Path, model: Path, run_on_small_disk: Callable[..., str]
) -> None:
    config = grpo_config(tmp_path, model, trainer__save_every=1)
    script = f"""
import subprocess, sys
from collections.abc import Callable
from pathlib import Path
run = Path(sys.argv[1]) / "run"
done = subprocess.run([sys.executable, "-m", "recipes.hybrid_grpo", {str(config)!r}, "--run", str(run)],
                      capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr)
print("CHECKPOINTS", sorted(p.name for p in (run / "checkpoints").iterdir()))
"""
    output = run_on_small_disk(script, size="1500k")
    assert output.startswith("2 "), output
    assert "cannot write" in output
    assert "Traceback" not in output
    kept = output.split("CHECKPOINTS")[1]
    assert ".step" not in kept, kept


def test_one_reward_file_scores_alike_in_the_trainer_in_trl_and_in_verl(tmp_path: Path, model: Path) -> None:
    from rewards.adapters.trl import trl_reward_funcs
    from rewards.adapters.verl import compute_score_batched

    (tmp_path / "mine.py").write_text(
        "def vowels(*, response: str, hint: str) -> float:\n    return sum(c in hint for c in response) / 10\n"
    )
    (tmp_path / "rewards.yaml").write_text(
        "rewards: [math, {name: format, weight: 0.2}, repetition, {name: mine.py:vowels, weight: 0.7},"
        " {name: length, weight: 0.3, args: {correct: math}}]\n"
    )
    rows = [{"prompt": f"What is {i} + {i + 3}?", "answer": str(2 * i + 3), "hint": "aeiou"} for i in range(10)]
    config = grpo_config(
        tmp_path,
        model,
        rewards="rewards.yaml",
        task__columns=["hint"],
        trainer__steps=2,
        trainer__filter=None,
    )
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, output = finish(str(config))
    assert status == 0, output
    rollouts = records(tmp_path / "run/rollouts.jsonl")
    assert len({r["total"] for r in rollouts}) > 5
    trl_total = trl_reward_funcs(tmp_path / "rewards.yaml", reference="answer", num_generations=4)[0]
    totals = trl_total(
        prompts=[r["prompt"] for r in rollouts],
        completions=[r["response"] for r in rollouts],
        completion_ids=[[0] * r["response_tokens"] for r in rollouts],
        answer=[r["reference"] for r in rollouts],
        hint=["aeiou"] * len(rollouts),
        mode=[r["mode"] for r in rollouts],
    )
    assert totals == [r["total"] for r in rollouts]
    found = compute_score_batched(
        ["sums"] * len(rollouts),
        [r["response"] for r in rollouts],
        [r["reference"] for r in rollouts],
        [
            {
                "hint": "aeiou",
                "mode": r["mode"],
                "uid": f"{r['step']}-{r['row']}",
                "response_ids": [0] * r["response_tokens"],
            }
            for r in rollouts
        ],
        rewards=str(tmp_path / "rewards.yaml"),
    )
    assert [item["score"] for item in found] == totals
    for item, rollout in zip(found, rollouts, strict=True):
        assert {name: item[name] for name in rollout["rewards"]} == rollout["rewards"]


def test_routed_rewards_are_recorded_and_evaluated(tmp_path: Path, model: Path) -> None:
    """The probability route in training and in the evaluation, beside the verifier's."""
    rows = [
        {
            "prompt": f"What is {i} + {i + 3}?",
            "answer": str(2 * i + 3) if i % 2 else f"the sum of {i} and {i + 3}, added",
        }
        for i in range(10)
    ]
    config = grpo_config(
        tmp_path,
        model,
        rewards=["routed_accuracy", {"name": f"{ROOT}/tests/recipes/letters.py:letters", "weight": 0.1}],
        trainer__steps=2,
        trainer__filter=None,
        learner__updates_per_step=1,
        evaluation={"metric": "letters"},
    )
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, output = finish(str(config))
    assert status == 0, output
    run = tmp_path / "run"
    for name in ("rollouts.jsonl", "evaluation_samples.jsonl"):
        routes = {r["reward_info"]["routed_accuracy/route"] for r in records(run / name)}
        assert routes <= {"probability", "rule:math"}
        assert "probability" in routes
    assert json.loads((run / "baselines.json").read_text())
    short = [r for r in records(run / "rollouts.jsonl") if r["mode"] == "short"]
    by_row: dict[tuple[int, int], set[float]] = {}
    for r in short:
        if r["reward_info"]["routed_accuracy/route"] == "probability" and r["answer"].strip():
            by_row.setdefault((r["step"], r["row"]), set()).add(r["rewards"]["routed_accuracy"])
    assert by_row
    assert all(max(values) - min(values) < 1e-2 for values in by_row.values()), "short mode: one prefix, one value"
