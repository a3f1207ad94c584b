"""Rendered data on disk: one JSONL file for each split, PNG images, clips, and a contact sheet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recipes.render.records import Item

if TYPE_CHECKING:
    from PIL.Image import Image

ClipFormat = Literal["frames", "mp4"]


def check_clip_format(clips: ClipFormat) -> None:
    """Raises ValueError if clips cannot be written this way here."""
    if clips == "mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ValueError(
                "clips cannot be written as MP4, since PyAV is not installed: pip install av, or take clips: frames."
            ) from None


def write_item(root: Path, item: Item, clips: ClipFormat) -> dict[str, Any]:
    """Writes the media of an item below `root`, and returns its row for the JSONL file, with paths relative to it."""
    name = f"{item.split}-{item.index:06d}"
    images, videos = [], []
    if item.times is None:
        images.append(_save(root, f"images/{name}.png", item.images[0]))
    elif clips == "frames":
        frames = [_save(root, f"clips/{name}/{at:03d}.png", image) for at, image in enumerate(item.images)]
        videos.append({"frames": frames, "times": list(item.times)})
    else:
        videos.append({"path": _save_mp4(root, f"clips/{name}.mp4", item), "times": list(item.times)})
    return {
        "id": f"{item.kind}-{item.seed}-{name}",
        "kind": item.kind,
        "seed": item.seed,
        "index": item.index,
        "split": item.split,
        "messages": list(item.messages),
        "reference": item.reference,
        "solution": item.solution,
        "form": item.form,
        "images": images,
        "videos": videos,
        "asked": {"kind": item.asked.kind, "args": item.asked.args},
        "regions": [dataclasses.asdict(region) for region in item.regions],
        "scene": item.scene,
        "key": item.key,
    }


def json_line(row: dict[str, Any]) -> str:
    """A row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _save(root: Path, name: str, image: Image) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
    return name


def _save_mp4(root: Path, name: str, item: Item) -> str:
    """A clip as H.264; sides that are odd lose a column or row, which that codec needs."""
    import av

    path, images = root / name, item.images
    path.parent.mkdir(parents=True, exist_ok=True)
    wide, high = (side // 2 * 2 for side in images[0].size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=item.scene["rate"])
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_image(image.crop((0, 0, wide, high)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return name


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items for the contact sheet, those of a kind together."""
    return sorted(items[:count], key=lambda item: item.kind)
