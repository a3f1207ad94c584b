"""One reward of a run, as the YAML names it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RewardSpec(BaseModel):
    """One reward of the composite: a plain name, or `{name, weight, args, label, standardise}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Registered name, `package.module:function` or `path/file.py:function` (relative to the YAML's folder)."""
    weight: float | None = None
    """Factor of this reward in the total; None takes the weight given in the decorator (1 without one)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Constants passed to the function's keyword arguments."""
    label: str | None = None
    """Name in metrics, rollouts and report; None takes the reward's own. Needed to use one reward twice."""
    standardise: bool | None = None
    """Count (R - mean) / std over the responses to the same prompt instead of R, which is then recorded as
    `<label>_raw`; None takes what the decorator says (off without one)."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data
