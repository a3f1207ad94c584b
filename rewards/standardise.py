"""Standardising a reward within a group: how many standard deviations a response lies above its group's mean.

    R~_i = (R_i - mean(R)) / std(R)

Source: the preference term of MiniCPM-V 4.5 (arXiv 2509.18154 s2.4). The paper says neither which standard deviation
nor what happens without spread. Here it is the unbiased one, without an epsilon, and a group whose standard deviation
is below 1e-6 gives 0: the deviation and the threshold of the code released with RLPR (arXiv 2506.18254).
"""

import math
from collections.abc import Sequence

NO_SPREAD = 1e-6
"""A group whose unbiased standard deviation is below this is without spread: what is left is rounding."""


def standardise(values: Sequence[float | None]) -> list[float | None]:
    """Return the standardised values of one group.

    Args:
        values: [G] one reward of each response; None where it does not apply.

    Returns:
        [G] mean 0 and unbiased standard deviation 1 over those that apply; all 0.0 without spread or for a single one.

    Example:
        >>> standardise([1.0, 2.0, 3.0])
        [-1.0, 0.0, 1.0]
    """
    known = [value for value in values if value is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)) if len(known) > 1 else 0.0
    if std < NO_SPREAD:
        return [None if value is None else 0.0 for value in values]
    return [None if value is None else (value - mean) / std for value in values]
