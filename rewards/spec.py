"""One reward of a run, as the YAML names it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class RewardSpec(BaseModel):
    """One reward of the composite: a plain name, or a mapping with `name` and what else is to be said."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    """Registered name, `package.module:function` or `path/file.py:function` (relative to the YAML's folder)."""
    weight: float | None = None
    """Factor of this reward in the total; None takes the weight given in the decorator (1 without one)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Constants passed to the function's keyword arguments."""
    label: str | None = None
    """Name in metrics, rollouts and report; None takes the reward's own. Needed to use one reward twice."""
    timeout_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Longest time of one call, in seconds; null = no limit."""
    retries: int = Field(0, ge=0)
    """Times that a failed call is made again."""
    retry_wait_s: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Seconds before the first repetition; doubled for each further one, up to a minute."""
    concurrency: int | None = Field(None, ge=1)
    """Calls under way at the same time; null = 64 if async, twice the cores if parallel, 1 if isolated."""
    on_error: Literal["stop", "missing"] = "stop"
    """What a call that failed for good does: stop the run, or leave this response without a score."""
    max_missing: float = Field(0.1, ge=0, le=1)
    """Largest share of a batch's responses that may be left without a score before the run stops after all."""
    isolate: bool = False
    """Run in a worker process that can be killed, with a memory limit."""
    memory_mb: int = Field(1024, ge=16)
    """Memory that the calls in an isolated process may add to what it has when it is ready, in MiB."""
    style: Literal["tandem", "trl", "trl_text", "verl"] | None = None
    """Whose calling convention the function has; None = told from its arguments (trl gets messages, trl_text text)."""
    standardise: bool | None = None
    """Count (R - mean) / std over the responses to the same prompt instead of R, which is then recorded as
    `<label>_raw`; None takes what the decorator says (off without one)."""

    @field_validator("label")
    @classmethod
    def _plain_label(cls, label: str | None) -> str | None:
        if label is not None and (not label or "/" in label or label == "total"):
            raise ValueError(f"a label must be a name without '/' and other than 'total', got {label!r}")
        return label

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data
