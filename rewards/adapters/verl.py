"""A reward file as verl's reward function.

    reward.custom_reward_function.path=pkg://rewards.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.rewards=/path/to/my_rewards.yaml

(or the environment variable TANDEM_REWARDS, in the environment of Ray's workers). verl calls it once per response, with
text only. Rewards that compare the responses of a group need `rewards.adapters.verl_groups.GroupRewardManager`, or the
batch form below where the version of verl has a reward manager named `batch`.

verl decodes without special tokens: where a think tag is one special token, the text that arrives here has lost it.
"""

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from rewards.adapters.texts import plain
from rewards.binding import MAX_ASYNC
from rewards.registry import RewardError
from rewards.reward_file import RewardFile, read_reward_file
from rewards.reward_set import RewardSet, Score
from rewards.samples import make_sample

ENVIRONMENT = "TANDEM_REWARDS"
GROUP_KEYS = ("uid", "index")
"""Keys of `extra_info` that say which prompt a response of a batch belongs to, the first that is there."""
OF_RESPONSE = ("prompt", "response_ids", "truncated")
"""Facts that verl does not pass, taken from `extra_info` where somebody has put them there."""

_lock = threading.Lock()


def compute_score(
    data_source: Any,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    rewards: str | None = None,
    mode: str | None = None,
    prefilled: bool = True,
    **_: Any,
) -> dict[str, float | None]:
    """Score one response, as verl calls it.

    Args:
        data_source: verl's; rewards get it as the column `data_source`.
        solution_str: the response.
        ground_truth: the right answer (`reference`).
        extra_info: further columns, for rewards that name them; `mode` is the response's mode.
        rewards: the reward file; None = the environment variable TANDEM_REWARDS.
        mode: the mode of responses whose `extra_info` has none; None = told from the think tags.
        prefilled: whether the prompt opens the think block; see `rewards.adapters.trl`.

    Returns:
        `score`, the total, and the unweighted value of each reward under its name (None = does not apply).

    Raises:
        RewardError: the file cannot be used, holds a group reward, or a reward fails.
    """
    found, built = reward_set(rewards)
    if built.group_names:
        raise RewardError(
            f"group reward {built.group_names[0]!r} compares all responses to a prompt, and verl's compute_score sees "
            "one: use the reward manager rewards.adapters.verl_groups:GroupRewardManager (docs/rewards.md), or take "
            "it out of the reward file."
        )
    sample = sample_of(found, solution_str, ground_truth, extra_info, data_source, mode=mode, prefilled=prefilled)
    return as_result(built, built.score([[sample]])[0][0])


async def compute_score_async(*args: Any, **kwargs: Any) -> dict[str, float | None]:
    """As `compute_score`, for rewards that wait for a service: up to 64 responses are scored at once per worker."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), partial(compute_score, *args, **kwargs))


def compute_score_batched(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    rewards: str | None = None,
    mode: str | None = None,
    prefilled: bool = True,
    **_: Any,
) -> list[dict[str, float | None]]:
    """Score a batch, as verl's reward manager `batch` calls it; group rewards see the whole group.

    The responses to a prompt are those with the same `uid`, or else `index`, in `extra_info`, data source and mode;
    they need not stand side by side. Other arguments and the results, one per response, are those of `compute_score`.
    """
    found, built = reward_set(rewards)
    samples = [
        sample_of(found, text, truth, extra, source, mode=mode, prefilled=prefilled)
        for source, text, truth, extra in zip(data_sources, solution_strs, ground_truths, extra_infos, strict=True)
    ]
    places: dict[Any, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(_group_key(built, sample), []).append(place)
    scores = built.score([[samples[place] for place in group] for group in places.values()])
    results: dict[int, dict[str, float | None]] = {}
    for group, found_scores in zip(places.values(), scores, strict=True):
        results |= {place: as_result(built, score) for place, score in zip(group, found_scores, strict=True)}
    return [results[place] for place in range(len(samples))]


def reward_set(path: str | None) -> tuple[RewardFile, RewardSet]:
    """Return the reward file and its rewards, loaded once per process.

    Raises:
        RewardError: none is named, or it cannot be used.
    """
    name = path or os.environ.get(ENVIRONMENT)
    if not name:
        raise RewardError(
            "no reward file is named: add reward_kwargs.rewards=/path/to/my_rewards.yaml to custom_reward_function, or "
            f"set the environment variable {ENVIRONMENT}."
        )
    with _lock:  # verl scores from several threads
        return _load(Path(name).expanduser().resolve())


def sample_of(
    found: RewardFile,
    text: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None,
    data_source: Any,
    *,
    mode: str | None,
    prefilled: bool,
    **known: Any,
) -> dict[str, Any]:
    """Return the sample of a response as verl describes it."""
    columns = {str(key): plain(value) for key, value in (extra_info or {}).items()}
    known = {key: columns[key] for key in OF_RESPONSE if key in columns} | known
    return make_sample(
        text,
        mode=columns.get("mode", mode),
        modes=found.modes,
        prefilled=prefilled,
        columns={**columns, "data_source": plain(data_source)},
        reference=plain(ground_truth),
        **known,
    )


def as_result(rewards: RewardSet, score: Score) -> dict[str, float | None]:
    """Return a score as verl takes it: the same keys for every response."""
    return {"score": score.total, **{name: score.value(name) for name in rewards.names}}


@cache
def _load(path: Path) -> tuple[RewardFile, RewardSet]:
    found = read_reward_file(path)
    built = found.build()
    if "score" in built.names:
        raise RewardError("a reward is named 'score', which verl calls the total: give it another `label`.")
    return found, built


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=MAX_ASYNC, thread_name_prefix="tandem-reward")


def _group_key(rewards: RewardSet, sample: Mapping[str, Any]) -> Any:
    key = next((sample[name] for name in GROUP_KEYS if sample.get(name) is not None), None)
    if key is None and rewards.group_names:
        raise RewardError(
            f"group reward {rewards.group_names[0]!r} compares the responses to a prompt, and `extra_info` does not "
            "say which these are: give every row of the data an `index` of its own in extra_info."
        )
    return (str(sample["data_source"]), sample["mode"], str(key))
