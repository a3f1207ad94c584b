"""A user's reward file, as it would lie outside the project."""

from rewards import reward


@reward("letters")
def letters(*, response: str, mode: str) -> float:
    """Any signal a random model can follow: the share of letters, more in long mode."""
    return sum(c.isalpha() for c in response) / max(len(response), 1) + 0.1 * (mode == "long")
