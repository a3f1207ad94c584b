"""Pairs as the report shows them: the image or frames of the clip, both responses, each claim with its verdict."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from base_model.video_settings import VideoSettings
from recipes.report import clipped, printable
from recipes.rlaif.feedback import Judged
from recipes.rlaif.instructions import Instruction
from recipes.rlaif.run_files import Round
from recipes.run_records import number
from rl.prompts import content_text

SIDE = 224
"""Pixels of a thumbnail's longer side."""
FRAMES = 6
"""Frames of a clip that are shown."""


def shown_pairs(each: Round, rows: Mapping[int, Instruction], video: VideoSettings, count: int) -> list[dict[str, Any]]:
    """Pairs of a round, evenly spaced from the largest to the smallest gap.

    Args:
        each: The round.
        rows: Instructions by index.
        video: How clips are sampled.
        count: Pairs at most.
    """
    judged = {(one.instruction, one.sample): one for one in each.judged}
    ordered = sorted(each.pairs, key=_gap, reverse=True)
    step = max(1.0, (len(ordered) - 1) / max(1, count - 1))
    chosen = [ordered[round(at * step)] for at in range(min(count, len(ordered)))]
    return [_shown(pair, rows[pair["instruction"]], judged, video) for pair in chosen]


def thumbnails(row: Instruction, video: VideoSettings) -> list[dict[str, str]]:
    """Images, and some frames of each clip, as data URIs with captions; what cannot be read any more is named."""
    from base_model.vlm.media import open_image, open_video

    found = []
    for path in row.images:
        try:
            found.append({"uri": _uri(open_image(path)), "caption": ""})
        except (ValueError, OSError) as error:
            found.append({"uri": "", "caption": printable(str(error))})
    for path in row.videos:
        try:
            packages, times = open_video(path, video)
        except (ValueError, OSError) as error:
            found.append({"uri": "", "caption": printable(str(error))})
            continue
        frames = [
            (frame, time)
            for package, own in zip(packages, times, strict=True)
            for frame, time in zip(package, own, strict=True)
        ]
        step = max(1.0, (len(frames) - 1) / (FRAMES - 1))
        for at in range(min(FRAMES, len(frames))):
            frame, time = frames[round(at * step)]
            found.append({"uri": _uri(frame), "caption": f"{time:.1f} s"})
    return found


def _shown(
    pair: Mapping[str, Any], row: Instruction, judged: Mapping[tuple[int, int], Judged], video: VideoSettings
) -> dict[str, Any]:
    sides = []
    for name in ("chosen", "rejected"):
        one = judged[row.index, pair[f"{name}_sample"]]
        text, cut = clipped(one.response)
        sides.append(
            {
                "name": name,
                "score": f"{one.score:g}",
                "words": len(one.response.split()),
                "text": text,
                "cut": cut,
                "claims": [_claim(record) for record in one.claims],
                "dropped": [
                    {"text": printable(str(part["text"])), "reason": printable(str(part["reason"]))}
                    for part in one.dropped
                ],
            }
        )
    prompt = "\n".join(content_text(message["content"]) for message in row.messages)
    return {
        "place": printable(row.place),
        "prompt": clipped(prompt)[0],
        "gap": f"{_gap(pair):g}",
        "media": thumbnails(row, video),
        "sides": sides,
    }


def _claim(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": printable(str(record["claim"]["text"])),
        "question": printable(str(record["claim"]["question"])),
        "kind": printable(str(record["claim"]["kind"])),
        "accepted": record["accepted"],
        "p_yes": _probability(record, "p_yes"),
        "p_no": _probability(record, "p_no"),
    }


def _probability(record: Mapping[str, Any], key: str) -> str:
    value = number(record, key)
    return "-" if value is None else f"{value:.3f}"


def _gap(pair: Mapping[str, Any]) -> float:
    return float(pair["chosen_score"]) - float(pair["rejected_score"])


def _uri(image: Any) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    content = BytesIO()
    small.save(content, format="PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
