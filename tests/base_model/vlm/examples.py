"""Training examples of every kind, from random pictures."""

from typing import Any

from base_model.training_example import TrainingExample
from tests.base_model.vlm.small import picture, video

IMAGE, VIDEO = "(<image>./</image>)", "(<video>./</video>)"


def example(processor: Any, text: str, *, spans: int = 1, images: list[Any] | None = None, videos: Any = None) -> Any:
    """An example of some text, whose last tokens are the targets, in one or several runs of three."""
    out = processor(text, images=images, videos=videos)
    ids = tuple(out["input_ids"][0].tolist())
    inputs = {name: value for name, value in out.items() if name not in ("input_ids", "attention_mask")}
    starts = range(len(ids) - 4 * spans + 1, len(ids), 4)
    return TrainingExample(ids=ids, target_spans=tuple((at, at + 3) for at in starts), inputs=inputs or None)


def mixed_examples(processor: Any) -> list[TrainingExample]:
    """Text, an image, two images in slices, a video in packages, several turns."""
    turns = f"{IMAGE}\nHow many? 3 of them. And what colour? It is blue, and the other one is red."
    return [
        example(processor, "The sum of 3 and 4 is 7, and that of 1 and 2 is 3."),
        example(processor, f"{IMAGE}\nWhat is it? A red circle.", images=[picture(100, 80)]),
        example(processor, f"{IMAGE}{IMAGE} Both are blue.", images=[picture(250, 120, 1), picture(90, 200, 2)]),
        example(processor, f"{VIDEO}\nIt moves to the left.", videos=[video([3, 2, 1], seed=5)]),
        example(processor, turns, spans=4, images=[picture(60, 150, 3)]),
    ]
