"""How good a response is: the registry, the loader, the built-in rewards and the composite.

A user's whole plug-in, in a file of their own:

    from rewards import reward

    @reward("concise", weight=0.2)
    def concise(*, answer: str, mode: str) -> float:
        return float(len(answer) < 200) if mode == "short" else 0.0

It is named in YAML as `path/file.py:concise`. See docs/rewards.md.
"""

from typing import TYPE_CHECKING, Any

from rewards.registry import Reward, RewardError, group_reward, reward

if TYPE_CHECKING:
    from rewards.outcome import Outcome, Score
    from rewards.reward_set import RewardSet, build
    from rewards.spec import RewardSpec

__all__ = ["Outcome", "Reward", "RewardError", "RewardSet", "RewardSpec", "Score", "build", "group_reward", "reward"]

_LAZY = {"RewardSpec": "rewards.spec", "Outcome": "rewards.outcome", "Score": "rewards.outcome"}
_LAZY |= {"RewardSet": "rewards.reward_set", "build": "rewards.reward_set"}


def __getattr__(name: str) -> Any:
    """Import pydantic and asyncio only when a set is built: a user's reward file needs the two decorators alone."""
    if name not in _LAZY:
        raise AttributeError(f"module 'rewards' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
