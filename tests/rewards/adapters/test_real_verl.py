"""verl's own code calls the reward file: its loader, its reward loop's worker, its batch manager. Needs verl."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
from verl.workers.reward_manager.batch import BatchRewardManager

from tests.rewards.adapters.batches import groups, write_rewards
from tests.rewards.adapters.test_verl import expected_of, extra_info
from tests.tiny import make_tiny_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    make_tiny_tokenizer().save_pretrained(path)
    return path


def config_of(tokenizer_path, **reward):
    """Return verl's config as far as its reward loop reads it, with the keys of reward.yaml."""
    custom = {"path": None, "name": "compute_score"}
    manager = {"source": "register", "name": "naive", "module": {"path": None, "name": "custom_reward_manager"}}
    defaults = {"num_workers": 1, "custom_reward_function": custom, "reward_manager": manager}
    return OmegaConf.create(
        {
            "reward": {**defaults, "reward_model": {"enable": False}, "sandbox_fusion": {"url": None}, **reward},
            "actor_rollout_ref": {
                "model": {"path": str(tokenizer_path), "tokenizer_path": None},
                "rollout": {"n": 4, "val_kwargs": {"n": 4}},
            },
            "data": {"train_batch_size": 16, "val_batch_size": 16},
            "trainer": {"val_before_train": True, "test_freq": -1, "experiment_name": "test"},
        }
    )


def function_of(path, name="compute_score"):
    return {"path": "pkg://rewards.adapters.verl", "name": name, "reward_kwargs": {"rewards": str(path)}}


def data_of(items, **columns) -> DataProto:
    """Return the batch as agent loops hand it over: one prompt token, right-padded responses."""
    width = max(len(item.rollout.response_ids) for item in items)
    rows = [torch.tensor(item.rollout.response_ids) for item in items]
    responses = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
    mask = torch.stack([torch.arange(width + 1) < 1 + len(row) for row in rows]).long()
    prompts = torch.ones(len(items), 1, dtype=torch.long)
    fields = {
        "uid": [f"uid-{item.row.index}" for item in items],
        "data_source": ["test/sums"] * len(items),
        "reward_model": [{"style": "rule", "ground_truth": item.row.reference} for item in items],
        "extra_info": [extra_info(item) for item in items],
        "hint": [item.row.columns["hint"] for item in items],
    } | columns
    arrays = {key: np.array(values, dtype=object) for key, values in fields.items()}
    raw = np.empty(len(items), dtype=object)
    raw[:] = [item.row.messages for item in items]
    batch = TensorDict({"prompts": prompts, "responses": responses, "attention_mask": mask}, batch_size=len(items))
    return DataProto(batch=batch, non_tensor_batch={**arrays, "raw_prompt": raw})


@pytest.mark.parametrize("manager", ["naive", "dapo"])
@pytest.mark.parametrize("function", ["compute_score", "compute_score_async"])
def test_the_reward_loop(tmp_path, tokenizer_path, manager, function):
    path = write_rewards(tmp_path, group=False)
    managers = {"source": "register", "name": manager, "module": {"path": None, "name": None}}
    items = [item for group in groups() for item in group]
    expected = [item for group in expected_of(path) for item in group]

    async def together() -> list[dict]:
        custom = function_of(path, function)
        worker = RewardLoopWorker(config_of(tokenizer_path, custom_reward_function=custom, reward_manager=managers))
        return await worker.compute_score_batch(data_of(items))

    results = asyncio.run(together())
    assert [result["reward_score"] for result in results] == [item["score"] for item in expected]
    assert [result["reward_extra_info"] for result in results] == expected


def test_the_reward_loop_with_group_rewards(tmp_path, tokenizer_path):
    path = write_rewards(tmp_path, group=True)
    module = {"path": "pkg://rewards.adapters.verl_groups", "name": None}
    managers = {"source": "importlib", "name": "GroupRewardManager", "module": module}
    config = config_of(tokenizer_path, reward_manager=managers, reward_kwargs={"rewards": str(path)})
    order = [5, 0, 11, 3, 8, 1, 6, 2, 9, 4, 7, 10]
    items = [item for group in groups() for item in group]
    expected = [item for group in expected_of(path) for item in group]
    data = data_of([items[i] for i in order])

    async def together() -> list[dict]:
        return await RewardLoopWorker(config).compute_score_batch(data)

    results = asyncio.run(together())
    assert [result["reward_extra_info"] for result in results] == [expected[i] for i in order]
    scores = [result["reward_score"] for result in results]
    tensor = load_reward_manager(config, make_tiny_tokenizer()).assemble_rm_scores(data, scores)
    last = [len(items[i].rollout.response_ids) - 1 for i in order]
    assert torch.equal(tensor[torch.arange(12), last], torch.tensor(scores))
    assert tensor.count_nonzero() == sum(score != 0 for score in scores)


def test_the_batch_manager(tmp_path, tokenizer_path):
    path = write_rewards(tmp_path, group=True)
    items = [item for group in groups() for item in group]
    extras = [{**extra_info(item), "response_ids": list(item.rollout.response_ids)} for item in items]
    config = config_of(tokenizer_path, custom_reward_function=function_of(path, "compute_score_batched"))
    manager = BatchRewardManager(make_tiny_tokenizer(), 0, get_custom_reward_fn(config))
    result = manager(data_of(items, extra_info=extras), return_dict=True)
    expected = [item for group in expected_of(path) for item in group]
    assert result["reward_extra_info"]["score"] == [item["score"] for item in expected]
    assert result["reward_tensor"].sum(dim=1).tolist() == pytest.approx([item["score"] for item in expected])
