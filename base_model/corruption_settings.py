"""Settings of document corruption: which regions of a page are corrupted, how often to which level, and by what.

The report (MiniCPM-V 4.5, arXiv 2509.18154, s2.2) fixes the three levels: low = mild noise, still legible, so that
the task is OCR; moderate = single characters are unreliable, so that OCR must be combined with context; high = fully
masked, so that only context and knowledge are left. Every region gets its level independently, and levels are mixed
within a batch. It publishes neither operators nor strengths nor probabilities. The defaults are therefore choices:

- Levels are equally likely. With 30 % of the regions chosen, 10 % of the regions are hidden whole and 20 % disturbed:
  of the order of the 15 % of BERT (arXiv 1810.04805, s3.1), so that most of the page remains as context. Models of
  pixels alone hide far more (75 %, MAE, arXiv 2111.06377), but their target is the picture, not one right text.
- Lengths are relative to the height of a line of text, since legibility is: the same blur that hides a footnote leaves
  a headline readable.
- Strengths were set with a reader that knows the font, the place and the shape of every character, and takes the
  best-correlated one of 45 (the tests hold it). On text 28 pixels high it reads 100 % at the low level, 62 % at the
  moderate level and 2 %, which is chance, at the high level. People and models read less than it under noise.
- At the high level nothing but fills can be configured, so that no setting leaves a trace of the text. There are
  several fills, so that a model cannot learn one look of a gap.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LevelName = Literal["low", "moderate", "high"]
OperatorName = Literal["noise", "speckle", "blur", "pixelate", "contrast", "erode", "dilate", "mask"]
FillName = Literal["grey", "white", "black", "noise", "surround"]
LARGEST: dict[str, float] = {
    "noise": 2.0, "speckle": 1.0, "blur": 4.0, "pixelate": 4.0, "contrast": 1.0, "erode": 1.0, "dilate": 1.0,
    "mask": 1.0,
}  # fmt: skip
"""Largest strength of each operator; what a strength means is said in base_model.vlm.corruption_operators."""


class LevelSettings(BaseModel):
    """One level made of operators."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    weight: float = Field(1.0, ge=0)
    """Share of the chosen regions that get this level, relative to the other levels' weights."""
    operators: dict[OperatorName, tuple[float, float]]
    """Operator -> smallest and largest strength; a strength is drawn evenly between the two."""
    at_least: int = Field(1, ge=1)
    """Fewest different operators applied to a region."""
    at_most: int = Field(2, ge=1)
    """Most different operators applied to a region."""

    @field_validator("operators")
    @classmethod
    def _strengths(cls, operators: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for name, (low, high) in operators.items():
            if not 0 <= low <= high <= LARGEST[name]:
                raise ValueError(
                    f"{name} from {low:g} to {high:g} is not a range within 0 to {LARGEST[name]:g}: "
                    "give the smaller strength first"
                )
        return operators

    @model_validator(mode="after")
    def _enough(self) -> LevelSettings:
        if not self.at_least <= self.at_most <= len(self.operators):
            raise ValueError(
                f"at_least {self.at_least}, at_most {self.at_most} and {len(self.operators)} operators do not go "
                "together: the three must ascend"
            )
        return self


class LowSettings(LevelSettings):
    """The low level: still legible."""

    operators: dict[OperatorName, tuple[float, float]] = {
        "noise": (0.02, 0.10),
        "speckle": (0.005, 0.03),
        "blur": (0.02, 0.06),
        "contrast": (0.2, 0.6),
        "erode": (0.1, 0.4),
        "dilate": (0.1, 0.4),
    }
    """Operator -> smallest and largest strength; a strength is drawn evenly between the two."""


class ModerateSettings(LevelSettings):
    """The moderate level: single characters are unreliable."""

    operators: dict[OperatorName, tuple[float, float]] = {
        "noise": (0.5, 1.2),
        "speckle": (0.4, 0.75),
        "blur": (0.08, 0.13),
        "pixelate": (0.12, 0.22),
        "mask": (0.25, 0.5),
    }
    """Operator -> smallest and largest strength; a strength is drawn evenly between the two."""


class MaskSettings(BaseModel):
    """The high level: the region is filled, whatever it held."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    weight: float = Field(1.0, ge=0)
    """Share of the chosen regions that get this level, relative to the other levels' weights."""
    fills: tuple[FillName, ...] = get_args(FillName)
    """What a region is filled with, each equally likely; surround = the median colour just outside its box."""

    @field_validator("fills")
    @classmethod
    def _some(cls, fills: tuple[FillName, ...]) -> tuple[FillName, ...]:
        if not fills:
            raise ValueError(f"no fill is given: name at least one of {', '.join(get_args(FillName))}")
        return fills


class CorruptionSettings(BaseModel):
    """How the regions of a page are corrupted."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    region_share: float = Field(0.3, ge=0, le=1)
    """Probability with which a region is chosen, independently of the others."""
    min_regions: int = Field(1, ge=0)
    """Fewest regions chosen on a page that has as many, so that no page is drawn in vain."""
    low: LowSettings = LowSettings()
    """Mild: still legible."""
    moderate: ModerateSettings = ModerateSettings()
    """Heavy: single characters are unreliable."""
    high: MaskSettings = MaskSettings()
    """Fully masked."""

    @model_validator(mode="after")
    def _some_level(self) -> CorruptionSettings:
        if not math.fsum(self.weights) > 0:
            raise ValueError("all three level weights are 0, so no region can get a level: set one above 0")
        return self

    @property
    def weights(self) -> tuple[float, float, float]:
        """Weights of low, moderate, high."""
        return self.low.weight, self.moderate.weight, self.high.weight
