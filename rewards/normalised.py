"""`normalised`: 1.0 if the final answer is the reference up to case, articles, punctuation and blanks, else 0.0.

The rule of SQuAD's exact match, but with decimal points, signs and operators kept: `1.5` is not `15`, `-3` is not `3`.
"""

from typing import Any

from rewards.exact import gold_answer, references, statements
from rewards.registry import reward
from rewards.text import normalise


@reward("normalised", gold=gold_answer)
def normalised(*, answer: str | None, reference: Any) -> float | None:
    """Return 1.0 if the final answer says the reference in other spelling, 0.0 if not, None without a reference.

    Args:
        answer: the response without its thinking.
        reference: the right answer; a list gives several, any of which is right.

    Example:
        >>> normalised(answer="It's the answer: the Eiffel  Tower!", reference="eiffel tower")
        1.0
    """
    wanted = {normalise(item) for item in references(reference)} - {""}
    if not wanted:
        return None
    return float(any(normalise(item) in wanted for item in statements(answer)))
