"""`point`: points inside a reference box, or near a reference point.

- Reference of four numbers (x1, y1, x2, y2): 1.0 if the answer's point lies in the box, its edge included.
- Reference of two numbers: 1.0 if the answer's point lies within `radius`, in the reference's units.
- Several references: F1 = 2 * matched / (given + asked) over the largest matching of points with references.

An answer of several different points for one reference has none. Coordinates: `answer_scale`, `image_width` and
`image_height` as for `box`; notations: geometry.py.
"""

import json
import math
from typing import Any

from rewards import arguments
from rewards.box import check_scale, pixel_factors
from rewards.geometry import Shape, find_shapes, is_box, matching, shapes_of
from rewards.overlap import f1
from rewards.registry import RewardError, reward
from rewards.structured import NOTHING, parse_json


def _radius(name: str, value: Any) -> float:
    return arguments.amount(name, value)


def gold_answer(reference: Any, answer_scale: Any = None, image_width: Any = None, image_height: Any = None) -> str:
    """Return the response that states the reference itself: of a box, its middle."""
    x, y = pixel_factors(answer_scale, image_width, image_height)
    points = []
    for shape in _shapes(reference) or []:
        middle = shape if len(shape) == 2 else ((shape[0] + shape[2]) / 2, (shape[1] + shape[3]) / 2)
        points.append((middle[0] / x, middle[1] / y))
    return json.dumps(points[0] if len(points) == 1 else points)


@reward("point", gold=gold_answer, validate=arguments.validator(radius=_radius, answer_scale=check_scale))
def point(
    *,
    answer: str | None,
    reference: Any,
    radius: float | None = None,
    answer_scale: float | None = None,
    image_width: float | None = None,
    image_height: float | None = None,
) -> float | None:
    """Return 1.0 if the answer's point hits the reference, 0.0 if not (F1 for several); None without a reference.

    Args:
        answer: the response without its thinking.
        reference: a box, a point, a list of either, or these as JSON text.
        radius: how far from a reference point is still right; asked for where the reference is a point.
        answer_scale: the answer's coordinates run from 0 to this.
        image_width: in pixels, where `answer_scale` is given.
        image_height: the same.

    Raises:
        RewardError: the reference is neither box nor point, or is a point and `radius` is missing.

    Example:
        >>> point(answer="<point>30 40</point>", reference=[10, 10, 50, 50])
        1.0
    """
    if reference is None or reference == "" or reference == []:
        return None
    wanted = _reference(reference, radius)
    factors = pixel_factors(answer_scale, image_width, image_height)
    given = find_shapes(answer, 2) if isinstance(answer, str) else None
    if not given:
        return 0.0
    found = [(x * factors[0], y * factors[1]) for x, y in given]
    if len(wanted) == 1:
        return float(len(set(found)) == 1 and _hits(found[0], wanted[0], radius))
    edges = [[index for index, item in enumerate(wanted) if _hits(one, item, radius)] for one in found]
    return f1(matching(edges, len(wanted)), len(found), len(wanted))


def _hits(found: Shape, wanted: Shape, radius: float | None) -> bool:
    if len(wanted) == 2:
        assert radius is not None
        return math.dist(found, wanted) <= radius
    return wanted[0] <= found[0] <= wanted[2] and wanted[1] <= found[1] <= wanted[3]


def _shapes(reference: Any) -> list[Shape] | None:
    value = parse_json(reference) if isinstance(reference, str) else reference
    if value is NOTHING:
        return None
    return shapes_of(value, 2) if _flat(value, 2) else shapes_of(value, 4) or shapes_of(value, 2)


def _flat(value: Any, size: int) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == size and not any(isinstance(i, list | tuple) for i in value)
    )


def _reference(reference: Any, radius: float | None) -> list[Shape]:
    shapes = _shapes(reference)
    if not shapes or not all(len(item) == 2 or is_box(item) for item in shapes):
        raise RewardError(f"`point` needs a box or a point as reference, got {str(reference)[:80]!r}.")
    if any(len(item) == 2 for item in shapes):
        if radius is None:
            raise RewardError(f"`point` needs a `radius` in `args` where the reference is a point, here {shapes[0]}.")
        _radius("radius", radius)
    return shapes
