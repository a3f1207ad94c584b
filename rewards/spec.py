"""One reward of a run, as the YAML names it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RewardSpec(BaseModel):
    """One reward of the composite: a plain name, or `{name, weight, args, label, style}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Registered name, `package.module:function` or `path/file.py:function` (relative to the YAML's folder)."""
    weight: float | None = None
    """Factor of this reward in the total; None takes the weight given in the decorator (1 without one)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Constants passed to the function's keyword arguments."""
    label: str | None = None
    """Name in metrics, rollouts and report; None takes the reward's own. Needed to use one reward twice."""

    style: Literal["tandem", "trl", "trl_text", "verl"] | None = None
    """Whose calling convention the function has; None = told from its arguments (trl gets messages, trl_text text)."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data
