"""What is wrong with the rows of a dataset, row by row and between rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from recipes.near_duplicates import NearIndex, Sketch, normalised, sketch
from recipes.row_media import media_key

if TYPE_CHECKING:
    from recipes.samples.media import MediaSettings
    from recipes.tasks import Row
    from rewards import RewardSet

Reason = Literal[
    "unreadable",
    "bad_media",
    "no_reference",
    "bad_reference",
    "conflicting_references",
    "too_long",
    "in_eval",
    "near_eval",
    "duplicate",
    "near_duplicate",
    "always_solved",
    "never_solved",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
MOST_REFERENCES = 20
"""Different references of one prompt that are compared; more are taken to disagree."""


@dataclass(kw_only=True, slots=True)
class Entry:
    """What is remembered of a row: all that is needed to compare it with others."""

    place: str
    """Where it stands (`data.jsonl, line 3`)."""
    key: bytes = b""
    """Equal for rows with the same prompt; empty for a row without one."""
    context: int = 0
    """Differs for rows whose pictures or choices do."""
    text: Sketch | None = None
    reference: Any = None
    reasons: dict[Reason, str] = field(default_factory=dict)
    """Reason -> detail."""

    def is_dropped(self, drop: Collection[Reason]) -> bool:
        """Whether one of its reasons drops it."""
        return any(reason in drop for reason in self.reasons)


def make_entry(
    row: Row, values: Mapping[str, Any], place: str, identity_columns: Sequence[str], *, near: bool
) -> Entry:
    """The entry of a row that could be read.

    Args:
        row: The row.
        values: The raw row.
        place: Where it stands.
        identity_columns: Columns that tell rows with the same prompt apart.
        near: Whether near duplicates will be looked for.
    """
    text = normalised("\n".join(f"{message['role']}: {_text(message['content'])}" for message in row.messages))
    identity = _text([values[name] for name in identity_columns if values.get(name) is not None])
    identity += "\0".join(map(media_key, (*row.images, *row.videos)))
    digest = hashlib.blake2b(f"{identity}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    context = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Entry(
        place=place,
        key=digest,
        context=int.from_bytes(context, "big"),
        text=sketch(text) if near else None,
        reference=row.reference,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=repr, sort_keys=True)


def is_blank(value: Any) -> bool:
    """Whether a reference is missing."""
    return value is None or (isinstance(value, str) and not value.strip())


# ---- within a row ----


def check_references(entries: Sequence[Entry], rows: Sequence[Row | None], rewards: RewardSet) -> None:
    """Marks the rows whose own reference their verifier does not give full marks.

    Many rows are asked at once and divided only where one of them fails, so that a clean dataset is fast.
    """
    asked = [
        (entry, row)
        for entry, row in zip(entries, rows, strict=True)
        if row is not None and not is_blank(row.reference)
    ]
    _check_half(asked, rewards)


def _check_half(asked: Sequence[tuple[Entry, Row]], rewards: RewardSet) -> None:
    if not asked:
        return
    try:
        rewards.check_gold([gold_row(row) for _, row in asked])
    except Exception as error:  # a user's own `gold` may raise anything, for one row of many
        if len(asked) > 1:
            middle = len(asked) // 2
            _check_half(asked[:middle], rewards)
            _check_half(asked[middle:], rewards)
        else:
            entry = asked[0][0]
            said = str(error).partition(" in 1 of 1 rows")[0]
            entry.reasons["bad_reference"] = f"{said}: {_short(_text(entry.reference))}"


def gold_row(row: Row) -> dict[str, Any]:
    """What `check_gold` asks of a row."""
    from rl.prompts import prompt_text

    media = {"images": list(row.images), "videos": list(row.videos)}
    return {**row.columns, **media, "prompt": prompt_text(row), "reference": row.reference}


def mark_solved(
    entry: Entry, counts: Mapping[str, Sequence[int]], *, min_rollouts: int, always_from: float, never_to: float
) -> None:
    """Marks a row that was solved always, or never, in every mode in which it was sampled often enough."""
    known = {mode: (n, solved) for mode, (n, solved) in counts.items() if n >= min_rollouts}
    if not known:
        return
    detail = ", ".join(f"{mode}: {solved} of {n}" for mode, (n, solved) in sorted(known.items()))
    if all(solved >= always_from * n for n, solved in known.values()):
        entry.reasons["always_solved"] = detail
    elif all(solved <= never_to * n for n, solved in known.values()):
        entry.reasons["never_solved"] = detail


# ---- between rows ----


def mark_groups(entries: Sequence[Entry], drop: Collection[Reason]) -> None:
    """Marks rows with the same prompt: all of them where their references disagree, all but the first otherwise.

    The first is the first one that is not dropped for another reason.
    """
    groups: dict[bytes, list[int]] = {}
    for index, entry in enumerate(entries):
        if entry.key:
            groups.setdefault(entry.key, []).append(index)
    for group in groups.values():
        if len(group) > 1:
            _mark_conflict([entries[index] for index in group])
            first = next((index for index in group if not entries[index].is_dropped(drop)), group[0])
            for index in group:
                if index != first:
                    entries[index].reasons["duplicate"] = f"the prompt of row {first}"


def _mark_conflict(group: Sequence[Entry]) -> None:
    known = [entry for entry in group if not is_blank(entry.reference)]
    different = distinct_references(entry.reference for entry in known)
    if len(different) > 1:
        shown = ", ".join(_short(text) for text in different[:3]) + (", ..." if len(different) > 3 else "")
        for entry in known:
            entry.reasons["conflicting_references"] = f"the same prompt has the answers {shown}"


def distinct_references(references: Iterable[Any]) -> list[str]:
    """The references that are not the same answer, as texts: `1/2` and `0.5` are, as the `math` verifier compares."""
    from rewards.math import gold_answer, math

    texts = dict.fromkeys(_text(reference).strip() for reference in references)
    different: list[str] = []
    for text in texts:
        if len(different) >= MOST_REFERENCES:
            break
        if not any(math(answer=gold_answer(text), reference=other) == 1.0 for other in different):
            different.append(text)
    return different


def mark_near(entries: Sequence[Entry], threshold: float, drop: Collection[Reason]) -> None:
    """Marks rows that nearly repeat an earlier one, among those that nothing else drops."""
    index = NearIndex(threshold)
    for at, entry in enumerate(entries):
        if entry.text is None or "duplicate" in entry.reasons or entry.is_dropped(drop):
            continue
        found = index.find(entry.text, entry.context)
        if found is None:
            index.add(at, entry.text, entry.context)
        else:
            entry.reasons["near_duplicate"] = f"{found[1]:.0%} of the prompt of row {found[0]}"


class EvaluationPrompts:
    """The prompts of the evaluation split, which training rows must not repeat."""

    def __init__(self, threshold: float | None) -> None:
        self._index = None if threshold is None else NearIndex(threshold)
        self._places: dict[bytes, str] = {}
        self._near_places: list[str] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, entry: Entry) -> None:
        """Remember an evaluation row."""
        if entry.key in self._places:
            return
        self._places[entry.key] = entry.place
        if self._index is not None and entry.text is not None:
            self._index.add(len(self._near_places), entry.text, entry.context)
            self._near_places.append(entry.place)

    def mark(self, entry: Entry) -> None:
        """Mark a training row whose prompt is evaluated on, or nearly so."""
        if entry.key in self._places:
            entry.reasons["in_eval"] = f"the prompt of {self._places[entry.key]}"
        elif self._index is not None and entry.text is not None:
            found = self._index.find(entry.text, entry.context)
            if found is not None:
                entry.reasons["near_eval"] = f"{found[1]:.0%} of the prompt of {self._near_places[found[0]]}"


def longest_prompt(tokenizer: Any, modes: Sequence[Any]) -> Callable[[Row], int]:
    """A function that gives a row's prompt in tokens, with chat template and prefill, in the mode where it is longest.

    Args:
        tokenizer: Tokenizer of transformers.
        modes: The modes of `rollouts.modes`.
    """
    from rollouts.prompts import render_prompt

    return lambda row: max(len(render_prompt(tokenizer, row.messages, mode)) for mode in modes)


def longest_media_prompt(processor: Any, modes: Sequence[Any]) -> Callable[[Row], int]:
    """As `longest_prompt`, for rows with images or videos, whose blocks count.

    Args:
        processor: Processor of transformers.
        modes: The modes of `rollouts.modes`.
    """
    from base_model.vlm.media import open_image, open_video
    from rollouts.prompts import render_media_prompt

    def tokens(row: Row) -> int:
        images, videos = [open_image(each) for each in row.images], [open_video(each) for each in row.videos]
        return max(len(render_media_prompt(processor, row.messages, images, videos, mode).ids) for mode in modes)

    return tokens


def media_problem(row: Row, settings: MediaSettings) -> str | None:
    """What is wrong with the first image or video of a row that cannot be used; None if all can. Every image is
    decoded, of a video a few frames."""
    from base_model.video_settings import VideoSettings
    from recipes.samples.media import open_image, open_video
    from recipes.samples.sample import Rejected

    try:
        for at, image in enumerate(row.images, start=1):
            open_image(image, settings, f"image {at}")
        for at, video in enumerate(row.videos, start=1):
            open_video(video, VideoSettings(fps=1.0, max_packages=8, package=1), f"video {at}")
    except Rejected as error:
        return str(error)
    return None


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
