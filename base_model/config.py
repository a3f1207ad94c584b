"""Settings of the base model; free of torch, so that a command line can list them at once."""

from pydantic import BaseModel, ConfigDict


class LoraSettings(BaseModel):
    """Low-rank adapters (peft) on the linear layers; everything else is frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    rank: int = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """Scale: the update is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the adapters' input; 0 = off."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: names, or all-linear."""
