"""`length`: the smooth length reward of MiniCPM-o 4.5, within a group; correct answers gain by being shorter.

    s     = (0.5 - (l - l_min) / (l_max - l_min)) * min(1, (l_max - l_min) / tau)
    r_len = s where the response is correct, else min(0, s)

l = tokens of a response, l_min and l_max over its group. The second factor lets a group of nearly equal lengths be. The
paper switches it on late (after 480 steps): start a second run from a checkpoint with it added.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rewards.registry import group_reward


def _check(args: Mapping[str, Any], names: Collection[str]) -> None:
    correct = args.get("correct", "accuracy")
    if correct not in names:
        raise ValueError(
            f"`correct` names the reward that decides whether a response is right, and {correct!r} is none of this "
            f"run's ({', '.join(names)}). Add it, or set `args: {{correct: NAME}}`."
        )
    tau = args.get("tau", 1.0)
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not tau > 0:
        raise ValueError(f"`tau` must be a number of tokens above 0, got {tau!r}.")


@group_reward("length", weight=0.2, validate=_check)
def length(
    *,
    response_ids: Sequence[Sequence[int]],
    scores: Sequence[Mapping[str, float | None]],
    correct: str = "accuracy",
    threshold: float = 0.5,
    tau: float = 128.0,
) -> list[float]:
    """Return the length reward of each response of a group, in [-0.5, 0.5].

    Args:
        response_ids: [G] token ids of each response.
        scores: [G] what the per-response rewards gave.
        correct: name of the reward that says whether a response is right.
        threshold: from this value of it on, it is.
        tau: spread of lengths, in tokens, from which on the reward has full strength.

    Returns:
        [G] rewards.

    Example:
        >>> length(response_ids=[[1] * 10, [1] * 210], scores=[{"accuracy": 1.0}] * 2)
        [0.5, -0.5]
    """
    lengths_G = [len(ids) for ids in response_ids]
    spread = max(lengths_G) - min(lengths_G)
    if spread == 0:
        return [0.0] * len(lengths_G)
    strength = min(1.0, spread / tau)
    smooth_G = [(0.5 - (item - min(lengths_G)) / spread) * strength for item in lengths_G]
    right_G = [(row.get(correct) or 0.0) >= threshold for row in scores]
    return [value if right else min(0.0, value) for value, right in zip(smooth_G, right_G, strict=True)]
