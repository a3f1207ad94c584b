"""The `rewards` key of a recipe: a list of rewards, or the name of a reward file that holds one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator, Field, Tag

from rewards.spec import RewardSpec

if TYPE_CHECKING:
    from recipes.tasks import TaskConfig
    from rewards.reward_file import RewardFile
    from rollouts.modes import ModesConfig


def _kind(value: object) -> str:
    return "file" if isinstance(value, str | Path) else "list"


RewardsKey = Annotated[
    Annotated[list[RewardSpec], Field(min_length=1), Tag("list")] | Annotated[Path, Tag("file")],
    Discriminator(_kind),
]
"""Rewards of a recipe; told apart by their type, so that a mistake in the list is named as one of the list."""


def reward_specs(
    rewards: Sequence[RewardSpec] | Path, modes: ModesConfig | None, base_dir: Path | None
) -> list[RewardSpec]:
    """Return the rewards, read from their file where one is named.

    Args:
        rewards: the recipe's key.
        modes: the recipe's modes, which the file's must not contradict; None = no modes.
        base_dir: the folder of the recipe's YAML, in which the file is looked for first, then in the current folder.

    Raises:
        RewardError: the file cannot be used, or splits a mode's responses in another way than the recipe.
    """
    if not isinstance(rewards, Path):
        return list(rewards)
    from rewards.reward_file import read_reward_file

    beside = (base_dir or Path()) / rewards
    path = beside if beside.is_file() else rewards
    found = read_reward_file(path)
    if modes is not None:
        _check_modes(found, modes, path)
    return found.rewards


def reward_columns(task: TaskConfig) -> set[str]:
    """What a reward may ask for by name beside the response's own fields."""
    return {*task.columns, "images", "videos"}


def _check_modes(found: RewardFile, modes: ModesConfig, path: Path) -> None:
    from rewards import RewardError

    if "modes" not in found.model_fields_set:
        return
    for mode in modes.active():
        tags = found.modes.get(mode.name)
        wrong = [key for key in (tags.model_fields if tags else ()) if getattr(tags, key) != getattr(mode, key)]
        if wrong:
            raise RewardError(
                f"mode {mode.name!r} has {wrong[0]} {getattr(tags, wrong[0])!r} in the reward file {path} and "
                f"{getattr(mode, wrong[0])!r} in the recipe: the same responses would be split in two ways. Make them "
                "equal."
            )
