"""Settings of the video front end; free of torch and of any decoder, so that a command line can list them at once."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field, field_validator

LARGEST_PACKAGE = 6
"""Frames that one package can hold (MiniCPM-V 4.5, arXiv 2509.18154, s2.1)."""
FASTEST_FPS = 10.0


class VideoSettings(BaseModel):
    """How clips are sampled and packed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    fps: float = Field(3.0, gt=0, le=FASTEST_FPS)
    """Frames per second that are read, where the clip has as many and is short enough."""
    package: int | None = Field(None, ge=1, le=LARGEST_PACKAGE)
    """Frames per package; null = the smallest number that keeps the clip within `max_packages`."""
    max_packages: int = Field(180, ge=1)
    """Packages of one clip; a longer clip gets larger packages, then a lower frame rate."""
    largest_package: int = Field(3, ge=1, le=LARGEST_PACKAGE)
    """Largest package where `package` is null."""
    training_fps: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 10.0)
    """Frame rates drawn from in training, each equally likely; the report draws them at random up to 10 and publishes
    no distribution."""
    training_packages: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Package sizes drawn from in training, each equally likely."""
    max_bytes: int = Field(2**30, ge=2**20)
    """Memory for the pixels of one clip, in bytes; larger frames are scaled down until they fit."""

    @field_validator("training_fps", "training_packages")
    @classmethod
    def _drawable(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("the list is empty, and training draws one of its values: give at least one")
        return values

    @field_validator("training_fps")
    @classmethod
    def _fps_in_range(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [value for value in values if not 0 < value <= FASTEST_FPS]
        if wrong:
            raise ValueError(f"{wrong[0]} frames per second is outside 0 to {FASTEST_FPS:g}: take it out")
        return values

    @field_validator("training_packages")
    @classmethod
    def _packages_in_range(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [value for value in values if not 1 <= value <= LARGEST_PACKAGE]
        if wrong:
            raise ValueError(f"a package of {wrong[0]} frames is outside 1 to {LARGEST_PACKAGE}: take it out")
        return values

    def drawn(self, seed: int, sample: int | str) -> VideoSettings:
        """These settings with the frame rate and the package size of one training sample: a pure function of
        (seed, sample), the two drawn independently."""
        digest = hashlib.blake2b(f"video/{seed}/{sample}".encode(), digest_size=16).digest()
        first, second = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        fps = self.training_fps[first % len(self.training_fps)]
        package = self.training_packages[second % len(self.training_packages)]
        return self.model_copy(update={"fps": fps, "package": package})
