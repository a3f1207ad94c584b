"""`box`: bounding boxes by intersection over union (IoU).

- One reference box: 1.0 if the answer's box has an IoU of at least `threshold`, or the IoU itself with `threshold:
  null`. An answer of several different boxes has none.
- Several reference boxes: F1 = 2 * matched / (given + asked) over the largest matching of boxes with an IoU of at least
  `threshold`; with `threshold: null` the IoUs of pairs taken greedily by IoU, 2 * sum / (given + asked).
- `answer_scale: 1000` (or 1): the answer's coordinates run from 0 to this over the image, whose size in pixels the
  columns `image_width` and `image_height` give; the reference is in pixels. Without it both are in the same units.
- `box_format: xywh` is for answers and references alike. Notations: geometry.py. A box without area overlaps nothing.
"""

import json
from collections.abc import Sequence
from typing import Any

from rewards import arguments
from rewards.geometry import Shape, as_corners, find_shapes, is_box, matching, overlap, shapes_of
from rewards.overlap import f1
from rewards.registry import RewardError, reward
from rewards.structured import NOTHING, parse_json

FORMATS = ("xyxy", "xywh")


def _threshold(name: str, value: Any) -> float:
    return arguments.amount(name, value, low=1e-9, high=1.0)


def check_scale(name: str, value: Any) -> float:
    """Return `answer_scale`, above zero."""
    return arguments.amount(name, value, low=1e-9)


def _format(name: str, value: Any) -> str:
    return arguments.one_of(name, value, FORMATS)


def gold_answer(
    reference: Any, answer_scale: Any = None, image_width: Any = None, image_height: Any = None, box_format: Any = None
) -> str:
    """Return the response that states the reference itself."""
    boxes = shapes_of(parse_json(reference) if isinstance(reference, str) else reference, 4) or []
    x, y = pixel_factors(answer_scale, image_width, image_height)
    boxes = [(item[0] / x, item[1] / y, item[2] / x, item[3] / y) for item in boxes]
    return json.dumps(boxes[0] if len(boxes) == 1 else boxes)


@reward(
    "box",
    gold=gold_answer,
    validate=arguments.validator(threshold=_threshold, box_format=_format, answer_scale=check_scale),
)
def box(
    *,
    answer: str | None,
    reference: Any,
    threshold: float | None = 0.5,
    box_format: str | None = "xyxy",
    answer_scale: float | None = None,
    image_width: float | None = None,
    image_height: float | None = None,
) -> float | None:
    """Return how well the answer's boxes cover the reference's, from 0 to 1; None without a reference.

    Args:
        answer: the response without its thinking.
        reference: a box of four numbers, a list of boxes, or either as JSON text.
        threshold: least IoU of a right box, in (0, 1]; None scores the IoU itself.
        box_format: xyxy (two corners) or xywh (corner, width, height).
        answer_scale: the answer's coordinates run from 0 to this.
        image_width: in pixels, where `answer_scale` is given.
        image_height: the same.

    Raises:
        RewardError: the reference is no box, or the image's size is missing.

    Example:
        >>> box(answer='{"bbox_2d": [10, 10, 50, 50], "label": "cat"}', reference=[12, 10, 50, 52])
        1.0
    """
    if reference is None or reference == "" or reference == []:
        return None
    form = _format("box_format", box_format or "xyxy")
    limit = None if threshold is None else _threshold("threshold", threshold)
    wanted = _reference(reference, form)
    factors = pixel_factors(answer_scale, image_width, image_height)
    given = find_shapes(answer, 4) if isinstance(answer, str) else None
    if not given:
        return 0.0
    found = [as_corners((x * factors[0], y * factors[1], u * factors[0], v * factors[1]), form) for x, y, u, v in given]
    if len(wanted) == 1 and len(set(found)) > 1:
        return 0.0
    return _score(list(dict.fromkeys(found)) if len(wanted) == 1 else found, wanted, limit)


def _score(found: Sequence[Shape], wanted: Sequence[Shape], limit: float | None) -> float:
    if limit is None:
        return f1(_greedy(found, wanted), len(found), len(wanted))
    edges = [[index for index, two in enumerate(wanted) if overlap(one, two) >= limit] for one in found]
    return f1(matching(edges, len(wanted)), len(found), len(wanted))


def _greedy(found: Sequence[Shape], wanted: Sequence[Shape]) -> float:
    """Return the sum of IoUs of pairs, the best pair first."""
    pairs = sorted(
        ((overlap(one, two), i, j) for i, one in enumerate(found) for j, two in enumerate(wanted)), reverse=True
    )
    left, right, total = set[int](), set[int](), 0.0
    for value, i, j in pairs:
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            total += value
    return total


def _reference(reference: Any, form: str) -> list[Shape]:
    value = parse_json(reference) if isinstance(reference, str) else reference
    shapes = None if value is NOTHING else shapes_of(value, 4)
    boxes = [as_corners(item, form) for item in shapes or []]
    if not boxes or not all(map(is_box, boxes)):
        raise RewardError(
            f"`box` needs boxes of four numbers with an area ({form}) as reference, got {str(reference)[:80]!r}."
        )
    return boxes


def pixel_factors(scale: Any, width: Any, height: Any) -> tuple[float, float]:
    """Return what brings an answer's x and y to pixels.

    Raises:
        RewardError: a scale without the image's size.
    """
    if scale is None:
        return 1.0, 1.0
    if width is None or height is None:
        raise RewardError("`box` and `point` with `answer_scale` need the columns `image_width` and `image_height`.")
    size = [
        arguments.amount(name, value, low=1e-9) for name, value in (("image_width", width), ("image_height", height))
    ]
    return size[0] / check_scale("answer_scale", scale), size[1] / check_scale("answer_scale", scale)
