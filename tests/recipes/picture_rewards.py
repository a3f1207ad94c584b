"""A reward that asks for the images and videos of its prompt, as a user would write it."""

from typing import Any

from rewards import reward


@reward("sees_media", weight=0.01)
def sees_media(*, images: list[Any], videos: list[Any], prompt: str) -> float:
    """Whether what the prompt shows was handed over."""
    return float(len(images) == prompt.count("<image>") and len(videos) == prompt.count("<video>"))
