"""Candidates: n responses of the policy to each instruction of a round, with the same settings and different seeds.

candidates.part.jsonl   while it runs: whole calls of the engine, so that a resumed stage repeats calls exactly
candidates.jsonl        in the end: by instruction and sample
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from base_model.video_settings import VideoSettings
from recipes.rlaif.config import CandidatesConfig
from recipes.rlaif.instructions import Instruction
from rl.files import JsonLines, atomic_write_text
from rollouts.modes import Mode
from rollouts.records import Request, Rollout, Sampling, Status, request_seed

if TYPE_CHECKING:
    from recipes.rlaif.engines import Served

FILE, PART = "candidates.jsonl", "candidates.part.jsonl"
PROMPTS_PER_CALL = 16
"""Prompts whose media are in memory, and whose responses are written, at a time."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One response."""

    instruction: int
    """Index of the instruction."""
    sample: int
    """Number among the responses to it."""
    response: str = ""
    """What the policy wrote after the prompt."""
    answer: str = ""
    """The part after a think block: what is judged."""
    tokens: int = 0
    status: str = Status.FAILED
    reason: str | None = None
    """Why it is not judged, as it is counted; None = it is."""
    detail: str = ""
    """The same in a sentence."""


def make_candidates(
    folder: Path,
    rows: Sequence[Instruction],
    serve: Callable[[], Served],
    *,
    mode: Mode,
    config: CandidatesConfig,
    seed: int,
    step: int,
    video: VideoSettings,
    on_progress: OnProgress | None = None,
) -> list[Candidate]:
    """The candidates of a round, from the file where it is complete.

    Args:
        folder: The round's.
        rows: Its instructions.
        serve: Gives the policy's engine; called only when something is missing.
        mode: Mode and budget of the responses.
        config: Number and sampling.
        seed: Of the run.
        step: Number of the round; a response's seed follows from seed, step, instruction and sample.
        video: How clips are sampled.
        on_progress: Called with (done, total) responses.
    """
    if (folder / FILE).is_file():
        return read_candidates(folder)
    part = JsonLines(folder / PART)
    try:
        found = _read(folder / PART)
        done = {candidate.instruction for candidate in found}
        total = len(rows) * config.n
        for start in range(0, len(rows), PROMPTS_PER_CALL):
            call = rows[start : start + PROMPTS_PER_CALL]
            if call[0].index in done:
                continue
            made = _call(call, serve(), mode, config, (seed, step), video)
            part.append([asdict(candidate) for candidate in made])
            found += made
            if on_progress:
                on_progress(len(found), total)
    finally:
        part.close()
    order = {row.index: at for at, row in enumerate(rows)}
    found.sort(key=lambda candidate: (order[candidate.instruction], candidate.sample))
    atomic_write_text(folder / FILE, "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in found))
    (folder / PART).unlink()
    return found


def read_candidates(folder: Path) -> list[Candidate]:
    """The candidates of a round that has them all."""
    return _read(folder / FILE)


def _read(path: Path) -> list[Candidate]:
    return [Candidate(**json.loads(line)) for line in path.read_text().splitlines()]


def _call(
    rows: Sequence[Instruction],
    served: Served,
    mode: Mode,
    config: CandidatesConfig,
    seeds: tuple[int, int],
    video: VideoSettings,
) -> list[Candidate]:
    """One call of the engine: always the same for the same rows."""
    from rl.prompts import PromptMaker

    maker = PromptMaker(served.processor, video, kept_bytes=0)
    requests: list[Request] = []
    refused: list[Candidate] = []
    for row in rows:
        try:
            prompt = maker.prompt(row, mode)
            served.engine.check_prompt(prompt.ids, prompt.media)
        except ValueError as error:
            refused += [
                Candidate(instruction=row.index, sample=sample, reason="prompt cannot be asked", detail=str(error))
                for sample in range(config.n)
            ]
            continue
        requests += [
            Request(
                prompt_ids=prompt.ids,
                media=prompt.media,
                mode=mode,
                row=row.index,
                sample=sample,
                seed=request_seed(*seeds, row.index, sample),
                sampling=Sampling(temperature=config.temperature, top_p=config.top_p),
            )
            for sample in range(config.n)
        ]
    return [*refused, *(_candidate(rollout, mode, config) for rollout in served.engine.generate(requests))]


def _candidate(rollout: Rollout, mode: Mode, config: CandidatesConfig) -> Candidate:
    reason, detail = None, ""
    if rollout.status is Status.FAILED:
        reason, detail = "generation failed", "the engine gave log-probabilities that are not finite"
    elif rollout.status is Status.TRUNCATED and not config.keep_truncated:
        reason, detail = "cut off at the budget", f"it has not ended after {len(rollout.response_ids)} tokens"
    elif not rollout.answer.strip():
        reason, detail = "empty response", "there is no text" + (" after the thoughts" if mode.thinks else "")
    return Candidate(
        instruction=rollout.row,
        sample=rollout.sample,
        response=rollout.response,
        answer=rollout.answer,
        tokens=len(rollout.response_ids),
        status=str(rollout.status),
        reason=reason,
        detail=detail,
    )
