"""Settings of the labeler; free of torch, so that a command line can list them at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rl.claims import ScoreConfig


class LabelerConfig(BaseModel):
    """How a labeler is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    question: str = "{question} Answer with yes or no."
    """What is asked of one claim; {question} stands for its question."""
    whole: str = "{response}\n\nIs every statement in this description true? Answer with yes or no."
    """What is asked of a whole response by the holistic judge; {response} stands for it."""
    window: float = Field(1.0, ge=0)
    """A claim that names a time of a video sees the frames within this many seconds of it, and always the nearest one
    before and after; one that names none sees the whole video."""
    score: ScoreConfig = ScoreConfig()
    """Margin, and whether the score is divided by the number of claims."""

    @field_validator("question", "whole")
    @classmethod
    def _has_place(cls, value: str, info: Any) -> str:
        place = "{question}" if info.field_name == "question" else "{response}"
        if value.count(place) != 1:
            raise ValueError(f"{value!r} must hold {place} once, where the text goes that is asked about")
        return value
