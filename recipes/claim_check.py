"""Checks a labeler: its verdicts on claims against a person's labels, or against the renderer's ground truth per kind
of claim, and divide-and-conquer against one judgement of the whole response.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from base_model.video_settings import VideoSettings
from recipes.cli import run_recipe
from recipes.evaluate import run_of
from recipes.labelled_claims import LabelledClaim, LabelledResponse, RenderedClaims, read_claims, rendered_responses
from recipes.models import ModelConfig
from rl.labeler_config import LabelerConfig
from rollouts.engine import EngineConfig
from rollouts.modes import ShortMode

if TYPE_CHECKING:
    from recipes.verdict_accuracy import CheckedVerdict
    from rl.claims import Verdict
    from rl.labeler import Labeler


class ClaimCheckConfig(BaseModel):
    """Which labeler, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: ModelConfig
    """The labeler: a checkpoint folder, or a run directory (its newest checkpoint)."""
    claims: list[Path] = []
    """Files of rows with an image or video and `claims`, a list of {claim, label}; see docs/hallucination.md."""
    rendered: RenderedClaims | None = None
    """Captions of rendered pictures and clips, right and wrong ones, whose truth is known."""
    labeler: LabelerConfig = LabelerConfig()
    """Templates, margin, window of video claims."""
    mode: ShortMode = ShortMode()
    """Prefill of the prompt; the token after it is the answer."""
    engine: EngineConfig = EngineConfig()
    """vLLM."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed."""
    out: Path | None = None
    """Folder for claim_check.json, claim_check.jsonl and the cache of labels; null = the run that the checkpoint
    belongs to."""

    @model_validator(mode="after")
    def _has_claims(self) -> ClaimCheckConfig:
        if not self.claims and self.rendered is None:
            raise ValueError(
                "there is nothing to check: name files of labelled claims (claims), or rendered ones "
                "(--rendered.items 100)"
            )
        return self


def main(config: ClaimCheckConfig) -> None:
    """Label, compare, print the tables, write them down."""
    from base_model.checkpoints import load_processor
    from recipes.console import StepBar, say
    from recipes.models import resolve_model
    from recipes.verdict_accuracy import accuracy_table, table_lines
    from rl.disk_cache import DiskCache
    from rl.labeler import Labeler, checkpoint_identity
    from rollouts.engine import VLLMEngine, check_block_size

    check_block_size(config.engine)
    files = {path: list(read_claims(path)) for path in config.claims}
    responses = list(rendered_responses(config.rendered)) if config.rendered else []
    checkpoint = resolve_model(config.model)
    out = config.out or run_of(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    with (
        DiskCache(out / "labels.jsonl") as cache,
        VLLMEngine(checkpoint, config.engine) as engine,
        StepBar("label", 1) as bar,
    ):
        labeler = Labeler(
            engine,
            load_processor(checkpoint, trust_remote_code=config.model.trust_remote_code),
            config.labeler,
            identity=checkpoint_identity(checkpoint, config.engine.dtype),
            cache=cache,
            mode=config.mode,
            video=config.video,
        )
        checked: list[tuple[LabelledClaim, Verdict]] = []
        for path, claims in files.items():
            found = _labelled(labeler, claims, bar)
            checked += zip(claims, found, strict=True)
            results[str(path)] = {"claims": accuracy_table(_pairs(claims, found))}
        if responses:
            claims = [claim for response in responses for claim in response.claims]
            found = _labelled(labeler, claims, bar)
            checked += zip(claims, found, strict=True)
            results["rendered"] = {
                "claims": accuracy_table(_pairs(claims, found)),
                "responses": _compared(labeler, responses, found),
            }
    for name, result in results.items():
        say(f"{checkpoint} on {name}:")
        for line in table_lines(result["claims"]):
            say(line)
        _say_comparison(result.get("responses"))
    counts = labeler.counts
    say(f"{counts.asked} questions asked, {counts.cached} known already, {counts.failed} without an answer")
    _write(out, checkpoint, config, results, checked, counts)
    say(f"written to {out / 'claim_check.json'} and {out / 'claim_check.jsonl'}")


def _labelled(labeler: Labeler, claims: Sequence[LabelledClaim], bar: Any) -> list[Verdict]:
    """Verdicts in order; a claim whose media are known to be missing is not asked about."""
    from rl.claims import Verdict
    from rl.labeler import LabelRequest

    asked = [claim for claim in claims if claim.problem is None]
    labeler.counts.failed += len(claims) - len(asked)
    requests = [LabelRequest(claim=claim.claim, media=claim.media) for claim in asked]
    verdicts = iter(labeler.label(requests, lambda done, total: bar.note(done, total, "label")))
    return [
        next(verdicts)
        if claim.problem is None
        else Verdict(claim=claim.claim, p_yes=None, p_no=None, accepted=None, problem=claim.problem)
        for claim in claims
    ]


def _pairs(claims: Sequence[LabelledClaim], verdicts: Sequence[Verdict]) -> list[CheckedVerdict]:
    from recipes.verdict_accuracy import CheckedVerdict

    return [
        CheckedVerdict(verdict=verdict, truth=claim.truth, group=claim.group)
        for claim, verdict in zip(claims, verdicts, strict=True)
    ]


def _compared(
    labeler: Labeler, responses: Sequence[LabelledResponse], verdicts: Sequence[Verdict]
) -> dict[str, Any] | None:
    """Divide and conquer against the holistic judge; `verdicts` are those of all claims, response by response."""
    from recipes.holistic_comparison import compare_judgements
    from rl.claims import response_score

    rest = iter(verdicts)
    scores = [response_score([next(rest) for _ in response.claims], labeler.config.score) for response in responses]
    whole = labeler.judge_whole([(response.text, response.media) for response in responses])
    return compare_judgements([response.faultless for response in responses], scores, whole)


def _say_comparison(found: dict[str, Any] | None) -> None:
    from recipes.console import say
    from recipes.holistic_comparison import comparison_lines

    for line in comparison_lines(found) if found else ():
        say(line)


def _write(
    out: Path,
    checkpoint: Path,
    config: ClaimCheckConfig,
    results: dict[str, Any],
    checked: Sequence[tuple[LabelledClaim, Verdict]],
    counts: Any,
) -> None:
    from dataclasses import asdict

    from rl.claims import verdict_record
    from rl.files import atomic_write_json, atomic_write_text

    records = (
        {"place": claim.place, "truth": claim.truth, "group": claim.group, **verdict_record(verdict)}
        for claim, verdict in checked
    )
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    atomic_write_text(out / "claim_check.jsonl", "".join(lines))
    summary = {"checkpoint": str(checkpoint), "labeler": config.labeler.model_dump(mode="json"), **asdict(counts)}
    atomic_write_json(out / "claim_check.json", {**summary, "results": results})


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, ClaimCheckConfig, doc=__doc__))
