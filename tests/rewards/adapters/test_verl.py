"""verl's reward functions made of a reward file: the scores are Tandem's, the contract is verl's."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from rewards import RewardError
from rewards.adapters.verl import compute_score, compute_score_async, compute_score_batched
from rewards.adapters.verl_groups import GroupRewardManager
from rewards.reward_file import read_reward_file
from tests.rewards.adapters.batches import groups, tandem_groups, write_rewards
from tests.tiny import make_tiny_tokenizer

NAMES = ["accuracy", "format", "repetition", "concise", "two_parts", "length"]


def extra_info(item) -> dict:
    """Return what a verl dataset keeps beside a row, with the mode that its dataset class has drawn."""
    prompt = item.row.question
    return {"index": item.row.index, "split": "train", "mode": item.mode.name, "prompt": prompt, **item.row.columns}


def call_of(item) -> dict:
    """Return the keyword arguments with which verl's reward loop calls compute_score."""
    return {
        "data_source": "test/sums",
        "solution_str": item.rollout.response,
        "ground_truth": np.str_(item.row.reference),
        "extra_info": {**extra_info(item), "num_turns": 2, "rollout_reward_scores": {}},
    }


def expected_of(path) -> list[list[dict]]:
    """Return what Tandem gives, as verl takes it."""
    built = read_reward_file(path).build(["hint"])
    return [
        [{"score": score.total, **{name: score.value(name) for name in built.names}} for score in group]
        for group in built.score(tandem_groups())
    ]


def test_one_response_at_a_time(tmp_path, monkeypatch):
    path = write_rewards(tmp_path, group=False)
    expected = expected_of(path)
    calls = [[call_of(item) for item in group] for group in groups()]
    assert [[compute_score(**call, rewards=str(path)) for call in group] for group in calls] == expected
    monkeypatch.setenv("TANDEM_REWARDS", str(path))
    flat = [call for group in calls for call in group]

    async def together() -> list[dict]:
        return await asyncio.gather(*(compute_score_async(**call, reward_router_address="x") for call in flat))

    assert asyncio.run(together()) == [item for group in expected for item in group]


def test_a_shuffled_batch_with_group_rewards(tmp_path):
    path = write_rewards(tmp_path, group=True)
    expected = [item for group in expected_of(path) for item in group]
    items = [item for group in groups() for item in group]
    order = [5, 0, 11, 3, 8, 1, 6, 2, 9, 4, 7, 10]
    extras = [{**extra_info(item), "response_ids": np.array(item.rollout.response_ids)} for item in items]
    results = compute_score_batched(
        data_sources=np.array(["test/sums"] * 12, dtype=object),
        solution_strs=[items[i].rollout.response for i in order],
        ground_truths=[items[i].row.reference for i in order],
        extra_infos=np.array([extras[i] for i in order], dtype=object),
        rewards=str(path),
    )
    assert results == [expected[i] for i in order]
    assert len({result["length"] for result in results}) > 3
    assert list(results[0]) == ["score", *NAMES]


def test_several_threads_call_a_plain_function_one_at_a_time(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [slow.py:slow]")
    (tmp_path / "slow.py").write_text(
        "import time\ninside = 0\ndef slow(answer):\n    global inside\n    inside += 1\n    time.sleep(0.002)\n"
        "    worst, inside = inside, inside - 1\n    return worst\n"
    )
    with ThreadPoolExecutor(8) as threads:
        calls = [
            threads.submit(compute_score, "s", "7", "7", None, rewards=str(tmp_path / "r.yaml")) for _ in range(40)
        ]
        assert {call.result()["score"] for call in calls} == {1.0}


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("rewards: [accuracy, length]", "group reward 'length' compares all responses .*GroupRewardManager"),
        ("rewards: [{name: format, label: score}]", "'score', which verl calls the total"),
        ("rewards: [n.py:n]", "'n' needs 'response_ids', which this sample lacks"),
    ],
)
def test_refused(tmp_path, yaml, message):
    (tmp_path / "n.py").write_text("def n(response_ids):\n    return len(response_ids)\n")
    (tmp_path / "r.yaml").write_text(yaml)
    with pytest.raises(RewardError, match=message):
        compute_score("s", "7", "7", {}, rewards=str(tmp_path / "r.yaml"))


def test_refused_without_a_file_or_an_index(tmp_path, monkeypatch):
    monkeypatch.delenv("TANDEM_REWARDS", raising=False)
    with pytest.raises(RewardError, match=r"no reward file is named: add reward_kwargs\.rewards"):
        compute_score("s", "7", "7")
    path = str(write_rewards(tmp_path, group=True))
    with pytest.raises(RewardError, match="give every row of the data an `index`"):
        compute_score_batched(["s"], ["7"], ["7"], [None], rewards=path)


# ---- the reward manager, on records of the shape that verl's reward loop hands it ----


class Item(SimpleNamespace):
    """A DataProto of one row: `data[-1:]` is itself, `data[0]` its item."""

    def __getitem__(self, key):
        return self


def config(
    path, *, workers=1, n=4, val_n=4, val_before_train=True, test_freq=-1, batch=333, val_batch=64, **options
) -> SimpleNamespace:
    """Return the part of verl's config that the manager reads."""
    reward = {"reward_kwargs": {"rewards": str(path), **options}}
    rollout = SimpleNamespace(n=n, val_kwargs=SimpleNamespace(n=val_n))
    return SimpleNamespace(
        reward=SimpleNamespace(get=reward.get, num_workers=workers),
        actor_rollout_ref=SimpleNamespace(rollout=rollout),
        data={"train_batch_size": batch, "val_batch_size": val_batch},
        trainer={"val_before_train": val_before_train, "test_freq": test_freq},
    )


def data_of(item) -> Item:
    ids = np.array([*item.rollout.response_ids, 0, 0])
    mask = np.array([1, 1, *[1] * len(item.rollout.response_ids), 0, 0])
    columns = {
        "uid": f"uid-{item.row.index}",
        "raw_prompt": np.array(item.row.messages),
        "data_source": "test/sums",
        "reward_model": {"style": "rule", "ground_truth": item.row.reference},
        "extra_info": {"mode": item.mode.name, "index": item.row.index},
        "hint": item.row.columns["hint"],
    }
    return Item(batch={"responses": ids, "attention_mask": mask}, non_tensor_batch=columns)


def run_all(manager, items) -> list[dict]:
    async def together() -> list[dict]:
        return await asyncio.gather(*(manager.run_single(data_of(item)) for item in items))

    return asyncio.run(together())


@pytest.mark.parametrize("group", [True, False])
def test_the_manager_gathers_groups(tmp_path, group):
    path = write_rewards(tmp_path, group=group)
    expected = [item for group in expected_of(path) for item in group]
    items = [item for group in groups() for item in group]
    order = [5, 0, 11, 3, 8, 1, 6, 2, 9, 4, 7, 10]
    manager = GroupRewardManager(config(path), make_tiny_tokenizer(), None, reward_router_address=None)
    results = run_all(manager, [items[i] for i in order])
    assert [result["reward_score"] for result in results] == [expected[i]["score"] for i in order]
    assert [result["reward_extra_info"] for result in results] == [expected[i] for i in order]


def test_a_group_that_is_never_complete(tmp_path):
    path = write_rewards(tmp_path, group=True)
    manager = GroupRewardManager(config(path, group_timeout_s=0.2), make_tiny_tokenizer())
    with pytest.raises(RewardError, match=r"only 3 of 4 responses to prompt uid-0 came within 0\.2 s"):
        run_all(manager, groups()[0][:3])


def test_a_reward_that_fails_fails_its_whole_group(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [accuracy, bad.py:bad]")
    (tmp_path / "bad.py").write_text(
        "from rewards import group_reward\n@group_reward('bad')\ndef bad(answer):\n    return 1 / 0\n"
    )
    manager = GroupRewardManager(config(tmp_path / "r.yaml"), make_tiny_tokenizer())

    async def together() -> list:
        calls = (manager.run_single(data_of(item)) for item in groups()[0])
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = asyncio.run(together())
    assert len(errors) == 4
    assert all(isinstance(error, RewardError) and "ZeroDivisionError" in str(error) for error in errors)


def test_settings_that_would_split_groups(tmp_path):
    path = write_rewards(tmp_path, group=True)
    with pytest.raises(RewardError, match=r"reward\.num_workers=8: set it to 1"):
        GroupRewardManager(config(path, workers=8), None)
    with pytest.raises(RewardError, match=r"validation draws 1: set .*val_kwargs\.n=4"):
        GroupRewardManager(config(path, val_n=1), None)
    with pytest.raises(RewardError, match=r"train_batch_size=334 .* at most 333"):
        GroupRewardManager(config(path, batch=334), None)
    with pytest.raises(RewardError, match=r"val_batch_size=None .* at most 333"):
        GroupRewardManager(config(path, val_batch=None), None)
    GroupRewardManager(config(path, val_n=1, val_batch=None, val_before_train=False), None)
