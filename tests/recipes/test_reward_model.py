"""The reward model: it learns real pairs, ranks as it should, resumes exactly, and refuses what it cannot read."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.pairs import Pair, hold_out, read_pairs
from recipes.reward_model import RewardModelConfig, main, require_trl
from recipes.tasks import Row
from rewards import build
from rl.environment import reward_sample
from rollouts.modes import Mode, ModesConfig
from rollouts.prompts import split_response
from rollouts.records import Rollout, Status
from tests.recipes.preference_pairs import loop_pairs, write_pairs
from tests.recipes.runs import finish, records
from tests.tiny import make_tiny_model, make_tiny_tokenizer


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    config = {
        "run": str(folder / name),
        "model": {"path": str(folder / "base")},
        "pairs": str(folder / "pairs.jsonl"),
        "eval_size": 60,
        "epochs": 2,
        "batch_pairs": 8,
        "learning_rate": 2e-3,
        "warmup_steps": 4,
        "precision": "float32",
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def train(folder: Path, name: str, **changes: Any) -> None:
    """The recipe in this process."""
    main(RewardModelConfig.model_validate(yaml.safe_load(write_config(folder, name, **changes).read_text())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, a base model, and the reward model trained from them."""
    folder = tmp_path_factory.mktemp("reward_model")
    make_tiny_model(folder / "base", spread=0.05)
    write_pairs(folder / "pairs.jsonl", loop_pairs(220))
    status, output = finish(str(write_config(folder, "judge")), recipe="recipes.reward_model")
    assert status == 0, output
    return folder


@pytest.mark.slow
def test_the_trained_model_prefers_the_chosen_side_on_held_out_pairs(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    evaluation = json.loads((folder / "judge/evaluation.json").read_text())
    assert evaluation["n"] >= 60
    assert evaluation["ci_low"] > 0.5, evaluation
    assert evaluation["margin"] > 0
    samples = records(folder / "judge/evaluation_samples.jsonl")
    right = [row["reward_chosen"] > row["reward_rejected"] for row in samples]
    assert sum(right) / len(right) == evaluation["accuracy"]
    trained_on = json.loads((folder / "judge/run.json").read_text())["pairs"]
    assert trained_on == 220 - len(samples)
    metrics = records(folder / "judge/metrics.jsonl")
    assert metrics[-1]["step"] == len(metrics) == 2 * -(-trained_on // 8)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert json.loads((folder / "judge/provenance.json").read_text())["versions"]["trl"]

    # An ordinary checkpoint: loaded without this project, it gives the very scores that were written down.
    model = AutoModelForSequenceClassification.from_pretrained(folder / "judge/model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "judge/model")
    row = samples[0]
    turns = [*row["prompt"], {"role": "assistant", "content": row["chosen"]}]
    ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
    assert model(ids).logits.item() == pytest.approx(row["reward_chosen"], abs=1e-4)


@pytest.mark.slow
def test_what_it_prefers_comes_from_the_pairs(folder: Path) -> None:
    """Trained on the same pairs turned round, the model prefers loops on held-out prompts."""
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in loop_pairs(160)]
    write_pairs(folder / "turned.jsonl", turned)
    train(folder, "turned", pairs=str(folder / "turned.jsonl"))
    evaluation = json.loads((folder / "turned/evaluation.json").read_text())
    assert evaluation["ci_low"] > 0.5, evaluation


def samples(row: dict[str, Any], mode: Mode, thoughts: list[str], answers: list[str]) -> list[dict[str, Any]]:
    """What the trainer makes of responses that were sampled in a mode."""
    tokenizer = make_tiny_tokenizer()
    found = []
    for thought, answer in zip(thoughts, answers, strict=True):
        text = f"{thought}\n{mode.think_close}\n\n{answer}" if mode.thinks else answer
        ids = tuple(tokenizer(text)["input_ids"])
        rollout = Rollout(
            row=0,
            sample=len(found),
            mode=mode.name,
            prompt_ids=(1,),
            response_ids=ids,
            logprobs=(-1.0,) * len(ids),
            status=Status.FINISHED,
            policy_version=0,
            cached_tokens=0,
            **split_response(tokenizer, ids, mode)._asdict(),
        )
        turns = ({"role": "user", "content": row["prompt"]},)
        found.append(reward_sample(Row(index=0, messages=turns, reference="unknown", columns={}), rollout))
    return found


@pytest.mark.slow
def test_the_preference_reward_changes_the_ranking_it_should(folder: Path) -> None:
    """Without it the answers tie; with it worked ones lead, and in long mode what was thought makes no difference."""
    specs = [{"name": "math"}, {"name": "preference", "args": {"model": str(folder / "judge"), "device": "cpu"}}]
    modes, groups = ModesConfig(), []
    for row in (row for row in loop_pairs(40, seed=77) if isinstance(row["prompt"], str)):
        answers = [row["chosen"], row["rejected"], row["chosen"]]
        thoughts = ["First, I add.", "Hm.", "No idea. " * 9]
        groups += [samples(row, mode, thoughts, answers) for mode in (modes.short, modes.long)]
    with build(specs[:1]) as rewards:
        assert all(len({item.total for item in group}) == 1 for group in rewards.score(groups))
    with build(specs) as rewards:
        scores = rewards.score(groups)
    led = [worked.total > looping.total for worked, looping, _ in scores]
    assert sum(led) > 0.9 * len(led)
    for short, long in zip(scores[::2], scores[1::2], strict=True):
        assert long[0] == long[2]
        assert short == long


@pytest.mark.slow
def test_it_resumes_exactly(folder: Path) -> None:
    from safetensors.torch import load_file

    write_pairs(folder / "few.jsonl", loop_pairs(40))
    few = {"pairs": str(folder / "few.jsonl"), "eval_size": 8, "save_every": 4}
    for name in ("whole", "cut"):
        train(folder, name, **few)
    # cut after the first checkpoint: what came later is taken away, then it goes on
    shutil.rmtree(folder / "cut/model")
    shutil.rmtree(folder / "cut/trainer/checkpoint-8")
    train(folder, "cut", resume=True, **few)
    assert records(folder / "cut/metrics.jsonl") == records(folder / "whole/metrics.jsonl")
    whole, cut = (load_file(folder / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(whole[key].equal(cut[key]) for key in whole)


@pytest.mark.slow
def test_adapters_are_folded_into_the_final_model(folder: Path) -> None:
    write_pairs(folder / "few.jsonl", loop_pairs(40))
    changes = {"pairs": str(folder / "few.jsonl"), "eval_size": 8, "lora": {"rank": 4}, "epochs": 1}
    train(folder, "lora", **changes)
    assert not (folder / "lora/model/adapter_config.json").exists()
    assert json.loads((folder / "lora/evaluation.json").read_text())["n"] >= 8


# ---- the pairs ----


def refusal(folder: Path, *rows: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:
        read_pairs([write_pairs(folder / "bad.jsonl", [{"prompt": "p", "chosen": "c", "rejected": "r"}, *rows])])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_forms_are_read_alike(tmp_path: Path) -> None:
    plain = {"prompt": "p", "chosen": "c", "rejected": "r", "images": [], "gap": 2}
    part = [{"type": "text", "text": "c"}]
    messages = {
        "prompt": [{"role": "user", "content": "p"}],
        "chosen": [{"role": "assistant", "content": part}],
        "rejected": [{"role": "assistant", "content": "r"}],
    }
    first, second = read_pairs([write_pairs(tmp_path / "pairs.jsonl", [plain, messages])])
    assert (first.messages, first.chosen, first.rejected) == (second.messages, second.chosen, second.rejected)
    assert first.messages == ({"role": "user", "content": "p"},)


def test_rows_that_are_no_pairs_of_texts_are_refused_by_line(tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "c", "rejected": "r"}
    assert "line 2 has no 'rejected'" in refusal(tmp_path, {"prompt": "p", "chosen": "c"})
    assert "line 2 has 'images', and a reward model is trained on text only" in refusal(
        tmp_path, {**good, "images": ["a.png"]}
    )
    image = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "p"}]}]
    assert "line 2: `prompt` must be text" in refusal(tmp_path, {**good, "prompt": image})
    two = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    assert "'chosen' must be text, or a list of one assistant message" in refusal(tmp_path, {**good, "chosen": two})
    assert "'chosen' must be text" in refusal(tmp_path, {**good, "chosen": 7})
    assert "`prompt` must be text" in refusal(tmp_path, {**good, "prompt": two})


def test_whole_prompts_are_held_out_and_stay_so_when_rows_are_added() -> None:
    def pair(prompt: int, number: int) -> Pair:
        turns = ({"role": "user", "content": str(prompt)},)
        return Pair(messages=turns, chosen=f"a{number}", rejected="b", place="")

    pairs = [pair(prompt, number) for prompt in range(20) for number in range(2)]
    train, held = hold_out(pairs, 7, seed=0)
    assert len(held) == 8
    assert not {p.prompt_key for p in train} & {p.prompt_key for p in held}
    assert sorted(p.place + p.prompt_key + p.chosen for p in [*train, *held]) == sorted(
        p.place + p.prompt_key + p.chosen for p in pairs
    )
    _, more = hold_out([*pairs, pair(99, 0)], 7, seed=0)
    assert len({p.prompt_key for p in more} - {p.prompt_key for p in held}) <= 1
    with pytest.raises(ValueError, match="leave none to train on"):
        hold_out(pairs, 40, seed=0)


def test_a_missing_trl_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ValueError, match=r"TRL is not installed: run `pip install trl==1\.16\.0`"):
        require_trl()


def test_the_recipe_refuses_before_anything_is_made(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "base")
    few = {"max_length": 32, "eval_size": 2}
    with pytest.raises(ValueError, match=r"pairs\.jsonl: there is no such file"):
        train(tmp_path, "none", **few)
    write_pairs(tmp_path / "pairs.jsonl", loop_pairs(6))
    with pytest.raises(ValueError, match="none of the 4 pairs can be trained on"):
        train(tmp_path, "none", **few)
    with pytest.raises(ValueError, match="every prompt of eval_pairs is trained on as well"):
        train(tmp_path, "none", eval_pairs=str(tmp_path / "pairs.jsonl"))
    assert not (tmp_path / "none").exists()
