"""What a run has cost in tokens, by mode: the numbers the comparison of short, long and hybrid runs stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class ModeTokens:
    """Running totals of one mode."""

    prompt: int = 0
    """Prompt tokens, each prompt once per group (that is how often it is computed)."""
    generated: int = 0
    """Response tokens sampled for training, those of filtered or signal-free groups included."""
    trained: int = 0
    """Response tokens the loss was computed on."""
    responses: int = 0
    """Responses sampled."""

    def __add__(self, other: ModeTokens) -> ModeTokens:
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return ModeTokens(**sums)


class TokenLedger:
    """Counts tokens by mode; its state goes into every checkpoint, so a resumed run counts on.

    Example::

        ledger.add_group("long", prompt_tokens=40, generated_lengths=[90, 120], trained_lengths=[90])
        ledger.state_dict()  # {"modes": {"long": {"prompt": 40, "generated": 210, "trained": 90, "responses": 2}}}
    """

    def __init__(self) -> None:
        self.modes: dict[str, ModeTokens] = {}

    def add_group(
        self, mode: str, *, prompt_tokens: int, generated_lengths: Sequence[int], trained_lengths: Sequence[int] = ()
    ) -> None:
        """Count one group.

        Args:
            mode: The mode its prompt was given.
            prompt_tokens: Tokens of the prompt, prefill included.
            generated_lengths: Tokens of every sampled response.
            trained_lengths: Tokens of those the loss was computed on; empty for a group that was filtered or has no
                signal.
        """
        generated, trained = sum(generated_lengths), sum(trained_lengths)
        assert trained <= generated, f"{trained} tokens trained of {generated} generated"
        group = ModeTokens(prompt_tokens, generated, trained, len(generated_lengths))
        self.modes[mode] = self.modes.get(mode, ModeTokens()) + group

    @property
    def total(self) -> ModeTokens:
        """All modes together."""
        return sum(self.modes.values(), ModeTokens())

    @property
    def rl_tokens(self) -> int:
        """The cost of the run as the papers count it: response tokens generated for training, in all modes."""
        return self.total.generated

    def metrics(self) -> dict[str, int]:
        """Cumulative `tokens/...` entries of `metrics.jsonl`."""
        by_mode = {f"tokens/{mode}/generated": tokens.generated for mode, tokens in sorted(self.modes.items())}
        return {"tokens/generated": self.rl_tokens, "tokens/trained": self.total.trained, **by_mode}

    def to_dict(self) -> dict[str, Any]:
        """The content of `ledger.json`."""
        return {**self.state_dict(), "total": asdict(self.total)}

    def state_dict(self) -> dict[str, Any]:
        """The counts, as JSON-able values."""
        return {"modes": {mode: asdict(tokens) for mode, tokens in sorted(self.modes.items())}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict` (or from the content of `ledger.json`)."""
        self.modes = {mode: ModeTokens(**tokens) for mode, tokens in state["modes"].items()}
