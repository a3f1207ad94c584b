"""Group rewards in verl: a reward manager that waits for all responses to a prompt, then scores them together.

    reward.reward_manager.source=importlib
    reward.reward_manager.module.path=pkg://rewards.adapters.verl_groups
    reward.reward_manager.name=GroupRewardManager
    reward.num_workers=1
    +reward.reward_kwargs.rewards=/path/to/my_rewards.yaml

verl's reward loop (0.9.1) hands one response at a time to a worker drawn at random, and waits. With one worker all
responses of a group meet here: each call is answered when the last of its group has come. Responses belong together by
the `uid` that verl gives a prompt. Beside `rewards`, `reward_kwargs` takes `mode`, `prefilled` and `group_timeout_s`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.adapters.texts import last_text, plain
from rewards.adapters.verl import as_result, reward_set, sample_of
from rewards.registry import RewardError

RAY_CALLS = 1000
"""Calls of one worker that Ray runs at once (its default for async actors, which verl leaves)."""
TIMEOUT_S = 3600.0
"""How long the first response of a group waits for the last, in seconds."""


@dataclass(eq=False)
class _Group:
    """The responses to one prompt that have come so far, and what becomes of them."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    done: "asyncio.Future[list[dict[str, Any]]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class GroupRewardManager:
    """A reward manager of verl's reward loop (`run_single`), one instance per worker.

    Raises:
        RewardError: at the start, if the reward file cannot be used or verl's settings would split groups.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_: Any) -> None:
        self.tokenizer = tokenizer
        options = config.reward.get("reward_kwargs") or {}
        self.mode = options.get("mode")
        self.prefilled = bool(options.get("prefilled", True))
        self.timeout_s = float(options.get("group_timeout_s", TIMEOUT_S))
        self.found, self.rewards = reward_set(options.get("rewards"))
        self.size = int(config.actor_rollout_ref.rollout.n)
        self._groups: dict[str, _Group] = {}
        if self.rewards.group_names:
            _check(config, self.rewards.group_names[0])

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Return the reward of one response (a DataProto with one row, or the rows of one trajectory)."""
        item = data[-1:][0]
        loop = asyncio.get_running_loop()
        sample = await loop.run_in_executor(None, self._sample, item)
        if not self.rewards.group_names:
            results = await loop.run_in_executor(None, self._score, [sample])
            return _answer(results[0])
        return _answer(await self._with_group(str(item.non_tensor_batch["uid"]), sample))

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> Any:
        """Return the scores as verl's reward tensor, (B, T) with each at its response's last token."""
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

        return RewardManagerBase.assemble_rm_scores(data, scores)

    async def _with_group(self, uid: str, sample: dict[str, Any]) -> dict[str, Any]:
        group = self._groups.setdefault(uid, _Group())
        place = len(group.samples)
        group.samples.append(sample)
        if len(group.samples) == self.size:
            del self._groups[uid]
            await self._finish(group)
        try:
            results = await asyncio.wait_for(asyncio.shield(group.done), self.timeout_s)
        except TimeoutError:
            self._groups.pop(uid, None)
            raise RewardError(
                f"only {len(group.samples)} of {self.size} responses to prompt {uid} came within {self.timeout_s:g} s, "
                "and a group reward needs all of them: look for what stopped the others, or raise group_timeout_s."
            ) from None
        return results[place]

    async def _finish(self, group: _Group) -> None:
        try:
            results = await asyncio.get_running_loop().run_in_executor(None, self._score, group.samples)
            group.done.set_result(results)
        except Exception as error:  # every response of the group must hear of it, or it would wait for ever
            group.done.set_exception(error)

    def _score(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [as_result(self.rewards, score) for score in self.rewards.score([samples])[0]]

    def _sample(self, item: Any) -> dict[str, Any]:
        columns = item.non_tensor_batch
        ids = item.batch["responses"]
        ids = ids[: int(item.batch["attention_mask"][-ids.shape[-1] :].sum())].tolist()
        extra = dict(columns.get("extra_info") or {})
        return sample_of(
            self.found,
            self.tokenizer.decode(ids, skip_special_tokens=True),
            (columns.get("reward_model") or {}).get("ground_truth"),
            {key: columns[key] for key in columns if key not in _VERL_COLUMNS} | extra,
            columns.get("data_source"),
            mode=self.mode,
            prefilled=self.prefilled,
            prompt=last_text(plain(columns.get("raw_prompt"))),
            response_ids=ids,
            truncated=not ids or ids[-1] != self.tokenizer.eos_token_id,
        )


_VERL_COLUMNS = {"extra_info", "reward_model", "data_source", "raw_prompt", "multi_modal_data", "tools_kwargs"}
_VERL_COLUMNS |= {"tool_extra_fields", "interaction_kwargs", "uid", "index", "prompt_len", "response_len"}
"""Columns of verl's own that are no columns of the data, or are taken apart."""


def _check(config: Any, name: str) -> None:
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    if int(config.reward.num_workers) != 1:
        raise RewardError(
            f"group reward {name!r} needs a group's responses in one worker, and verl spreads them over "
            f"reward.num_workers={config.reward.num_workers}: set it to 1."
        )
    validates = bool(trainer.get("val_before_train", True)) or int(trainer.get("test_freq", -1)) > 0
    for key in ("train_batch_size", "val_batch_size")[: 1 + validates]:
        prompts = config.data.get(key)
        # The calls that Ray admits could all be waiting for a response that it does not admit.
        if prompts is None or int(prompts) * (int(rollout.n) - 1) >= RAY_CALLS:
            raise RewardError(
                f"group reward {name!r} would wait for ever: data.{key}={prompts} prompts x {rollout.n} responses are "
                f"more than one worker can hold ({RAY_CALLS} calls at once). Make {key} at most "
                f"{(RAY_CALLS - 1) // max(int(rollout.n) - 1, 1)}."
            )
    if validates and int(rollout.val_kwargs.n) != int(rollout.n):
        raise RewardError(
            f"group reward {name!r} waits for {rollout.n} responses to a prompt, and validation draws "
            f"{rollout.val_kwargs.n}: set actor_rollout_ref.rollout.val_kwargs.n={rollout.n}, or switch validation off "
            "(trainer.val_before_train=False trainer.test_freq=-1)."
        )


def _answer(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"reward_score": result["score"], "reward_extra_info": dict(result)}
