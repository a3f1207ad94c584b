"""Divide and conquer over the candidates of a round: `claims.jsonl`, one line per response with every claim, its
verdict and both probabilities, the response's score, or the reason why it has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from base_model.video_settings import VideoSettings
from recipes.rlaif.candidates import Candidate
from recipes.rlaif.config import LabelingConfig
from recipes.rlaif.instructions import Instruction
from rl.claims import Division, Verdict, response_score, verdict_record
from rl.disk_cache import DiskCache
from rl.files import atomic_write_text
from rl.labeler import LabelCounts, Labeler, LabelRequest, Media, checkpoint_identity

if TYPE_CHECKING:
    from recipes.rlaif.engines import Served

FILE = "claims.jsonl"
LABELS = "labels.jsonl"
PROMPTS_PER_CALL = 16
"""Instructions whose media are in memory at a time."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One candidate with its claims: a line of the file."""

    instruction: int
    sample: int
    response: str
    answer: str
    tokens: int
    score: float | None
    """Minus the rejected claims (or their share); None = it has none."""
    reason: str | None
    """Why it has no score, as it is counted."""
    detail: str = ""
    """The same in a sentence."""
    claims: list[dict[str, Any]] = field(default_factory=list)
    """Records of the verdicts; see `rl.claims.Verdict`."""
    dropped: list[dict[str, Any]] = field(default_factory=list)
    """Parts of the response that are no claims, with reasons."""


def conquer(
    folder: Path,
    rows: Sequence[Instruction],
    candidates: Sequence[Candidate],
    divisions: Sequence[Division | None],
    serve: Callable[[], Served],
    *,
    config: LabelingConfig,
    labels: Path,
    video: VideoSettings,
    on_progress: OnProgress | None = None,
) -> tuple[list[Judged], LabelCounts]:
    """Verdicts on all claims, written in the end; each answer is in the cache as soon as it is known.

    Args:
        folder: The round's.
        rows: Its instructions.
        candidates: Its responses.
        divisions: One for each candidate; None for those that are not judged.
        serve: Gives the labeler's engine; called only if there is a claim.
        config: How it is asked.
        labels: File of the cache.
        video: How clips are sampled.
        on_progress: Called with (done, total) candidates.

    Returns:
        The lines of the file, and what the labeler was asked now.
    """
    by_row: dict[int, list[int]] = {row.index: [] for row in rows}
    for at, candidate in enumerate(candidates):
        by_row[candidate.instruction].append(at)
    verdicts: dict[int, list[Verdict]] = {}
    counts = LabelCounts()
    if any(division is not None and division.claims for division in divisions):
        served = serve()
        with DiskCache(labels) as cache:
            labeler = Labeler(
                served.engine,
                served.processor,
                config,
                identity=checkpoint_identity(served.path, served.engine.config.dtype),
                cache=cache,
                mode=config.modes.short,
                video=video,
            )
            for start in range(0, len(rows), PROMPTS_PER_CALL):
                places, requests = _requests(rows[start : start + PROMPTS_PER_CALL], by_row, divisions)
                for at, verdict in zip(places, labeler.label(requests), strict=True):
                    verdicts.setdefault(at, []).append(verdict)
                if on_progress:
                    on_progress(min(start + PROMPTS_PER_CALL, len(rows)), len(rows))
            counts = labeler.counts
    judged = [
        _judged(candidate, division, verdicts.get(at, []), config)
        for at, (candidate, division) in enumerate(zip(candidates, divisions, strict=True))
    ]
    atomic_write_text(folder / FILE, "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in judged))
    return judged, counts


def read_claims(folder: Path) -> list[Judged]:
    """The lines of a round's file."""
    return [Judged(**json.loads(line)) for line in (folder / FILE).read_text().splitlines()]


def _requests(
    rows: Sequence[Instruction], by_row: dict[int, list[int]], divisions: Sequence[Division | None]
) -> tuple[list[int], list[LabelRequest]]:
    """The claims about some instructions' media, each with the place of its candidate."""
    places: list[int] = []
    requests: list[LabelRequest] = []
    for row in rows:
        media = Media(images=tuple(map(Path, row.images)), videos=tuple(map(Path, row.videos)))
        for at in by_row[row.index]:
            division = divisions[at]
            for claim in division.claims if division is not None else ():
                places.append(at)
                requests.append(LabelRequest(claim=claim, media=media))
    return places, requests


def _judged(
    candidate: Candidate, division: Division | None, verdicts: Sequence[Verdict], config: LabelingConfig
) -> Judged:
    reason, detail = candidate.reason, candidate.detail
    score = None
    if reason is None and division is not None:
        counted = [verdict for verdict in verdicts if config.score.counts(verdict.claim)]
        failed = [verdict for verdict in counted if verdict.accepted is None]
        if division.problem is not None:
            reason, detail = "cannot be divided", division.problem
        elif not division.claims:
            reason, detail = "no claim", "nothing in it can be true or false"
        elif not counted:
            reason, detail = "no claim that counts", "its claims are of kinds that labeler.score.kinds leaves out"
        elif failed:
            reason = "no verdict"
            detail = f"{len(failed)} of {len(counted)} claims have none; the first: {failed[0].problem}"
        else:
            score = response_score(verdicts, config.score)
    return Judged(
        instruction=candidate.instruction,
        sample=candidate.sample,
        response=candidate.response,
        answer=candidate.answer,
        tokens=candidate.tokens,
        score=score,
        reason=reason,
        detail=detail,
        claims=[verdict_record(verdict) for verdict in verdicts],
        dropped=[asdict(each) for each in division.dropped] if division is not None else [],
    )
