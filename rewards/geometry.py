"""Boxes and points of a response: the notations that vision-language models use, and how much two boxes overlap.

Read are JSON (`[x1, y1, x2, y2]`, `{"bbox_2d": [...]}`, `{"point_2d": [...]}`, lists of these, `{"x": .., "y":
..}`), `<box>..</box>`, `<point>..</point>` and `<|box_start|>..<|box_end|>` with four or two numbers in any
brackets, and plain `(x1, y1, x2, y2)`. Where there are tags, only what stands in them counts.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.extract import visible
from rewards.structured import MAX_CHARS, NOTHING, between, find_json, stated

Shape = tuple[float, ...]
MAX_SHAPES = 200
"""An answer of more boxes or points is spraying."""
_TAGS = {
    4: (("<box>", "</box>"), ("<|box_start|>", "<|box_end|>"), ("<bbox>", "</bbox>")),
    2: (("<point>", "</point>"), ("<|point_start|>", "<|point_end|>"), ("<|box_start|>", "<|box_end|>")),
}
_KEYS = {
    4: ("bbox_2d", "bbox", "box_2d", "box", "bounding_box", "boundingbox", "coordinates"),
    2: ("point_2d", "point", "coordinate", "coordinates", "click", "position"),
}
_NAMED = {
    4: (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")),
    2: (("x", "y"),),
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_GROUP = re.compile(r"[(\[]([-+\d.eE,\s]{1,200})[)\]]")
_LIMIT = 1e9


def find_shapes(answer: str, size: int) -> list[Shape] | None:
    """Return the boxes (size 4) or points (size 2) of a response; None where none can be read.

    Args:
        answer: the response without its thinking.
        size: numbers of one shape.
    """
    text = visible(answer)
    if len(text) > MAX_CHARS:
        return None
    for opening, closing in _TAGS[size]:
        inner = between(text, opening, closing)
        if inner:
            return _tagged(inner, size)
    value = find_json(answer)
    if value is not NOTHING:
        return shapes_of(value, size)
    groups = [_numbers(match[1]) for match in _GROUP.finditer(stated(answer))]
    fitting = [group for group in groups if group is not None and len(group) == size]
    return fitting[-MAX_SHAPES - 1 :] or None


def _tagged(parts: Sequence[str], size: int) -> list[Shape] | None:
    found: list[Shape] = []
    for part in parts[: MAX_SHAPES + 1]:
        numbers = _numbers(part)
        if numbers is None or len(numbers) % size or not numbers:
            return None
        found.extend(numbers[start : start + size] for start in range(0, len(numbers), size))
    return found


def _numbers(text: str) -> Shape | None:
    """Return the numbers of a text that holds nothing else but brackets, commas and blanks."""
    if len(text) > 20 * MAX_SHAPES or re.sub(r"[\s,;()\[\]]+", "", _NUMBER.sub("", text)):
        return None
    values = tuple(float(item) for item in _NUMBER.findall(text))
    return values if all(_fits(value) for value in values) else None


def _fits(value: Any) -> bool:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and math.isfinite(value) and abs(value) <= _LIMIT


def shapes_of(value: Any, size: int) -> list[Shape] | None:
    """Return the shapes of a JSON value: one, or a list; None where it holds anything else."""
    one = _shape(value, size)
    if one is not None:
        return [one]
    if isinstance(value, Mapping):
        inner = [item for item in value.values() if isinstance(item, list | tuple)]
        return shapes_of(inner[0], size) if len(inner) == 1 else None
    if not isinstance(value, list | tuple) or len(value) > MAX_SHAPES:
        return None
    found = [_shape(item, size) for item in value]
    return [item for item in found if item is not None] if all(item is not None for item in found) else None


def _shape(value: Any, size: int) -> Shape | None:
    if isinstance(value, Mapping):
        lowered = {str(key).casefold(): item for key, item in value.items()}
        for names in _NAMED[size]:
            if all(name in lowered for name in names):
                return _shape([lowered[name] for name in names], size)
        given = [lowered[key] for key in _KEYS[size] if key in lowered]
        return _shape(given[0], size) if len(given) == 1 and not isinstance(given[0], Mapping) else None
    if not isinstance(value, list | tuple):
        return None
    if len(value) == 1 and isinstance(value[0], list | tuple) and size == 4:
        return _shape(value[0], size)
    if len(value) == 2 and size == 4 and all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        value = [*value[0], *value[1]]
    return tuple(float(item) for item in value) if len(value) == size and all(map(_fits, value)) else None


def as_corners(box: Shape, box_format: str) -> Shape:
    """Return a box as (x1, y1, x2, y2)."""
    if box_format == "xyxy":
        return box
    x, y, width, height = box
    return (x, y, x + width, y + height)


def is_box(box: Shape) -> bool:
    """Return whether a box (x1, y1, x2, y2) has an area."""
    return box[2] > box[0] and box[3] > box[1]


def overlap(first: Shape, second: Shape) -> float:
    """Return the intersection over union of two boxes (x1, y1, x2, y2); 0.0 for one without area.

    Example:
        >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
        0.3333333333333333
    """
    if not is_box(first) or not is_box(second):
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(first) + _area(second) - shared)


def _area(box: Shape) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def matching(edges: Sequence[Sequence[int]], size: int) -> int:
    """Return the size of a largest matching of a bipartite graph, by augmenting paths.

    Args:
        edges: per left node, the right nodes it may be matched with.
        size: the number of right nodes.
    """
    partner = [-1] * size

    def augment(left: int, seen: set[int]) -> bool:
        for right in edges[left]:
            if right not in seen:
                seen.add(right)
                if partner[right] < 0 or augment(partner[right], seen):
                    partner[right] = left
                    return True
        return False

    return sum(augment(left, set()) for left in range(len(edges)))
