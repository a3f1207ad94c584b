"""The labeler of "divide and conquer": a checkpoint in vLLM answers a claim's question about an image or video.

RLAIF-V (arXiv 2405.17220, section 3.2): p_yes and p_no are probabilities of the first answer token, each summed over
the spellings of its word, from the softmax over the whole vocabulary. A claim is accepted iff p_yes > p_no + margin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.video_settings import VideoSettings
from rl.claims import Claim, ScoreConfig, Verdict
from rl.disk_cache import DiskCache
from rollouts.engine import Engine
from rollouts.modes import Mode

OnProgress = Callable[[int, int], None]


class LabelerConfig(BaseModel):
    """How a labeler is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    question: str = "{question}\nAnswer with yes or no."
    """What is asked of one claim; {question} stands for its question."""
    whole: str = "Is every statement in this description true?\n{response}\nAnswer with yes or no."
    """What is asked of a whole response by the holistic judge; {response} stands for it."""
    window: float = Field(1.0, ge=0)
    """A claim that names a time of a video sees the frames within this many seconds of it, and always the nearest one
    before and after; one that names none sees the whole video."""
    score: ScoreConfig = ScoreConfig()
    """Margin, and whether the score is divided by the number of claims."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """What a claim is about: handles as data rows have them (paths, bytes, PIL images, {frames, times})."""

    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRequest:
    """One claim to be checked."""

    claim: Claim
    media: Media = Media()
    """Claims about one image share one object, so that it is opened and computed once."""


@dataclass(kw_only=True, slots=True)
class LabelCounts:
    """What labelling has cost so far."""

    asked: int = 0
    """Questions that the model answered."""
    cached: int = 0
    """Questions whose answer was known, from the cache or from an equal question of the same call."""
    failed: int = 0
    """Questions without an answer; see the verdict's problem."""


class Labeler:
    """Answers claims with one checkpoint.

    Example::

        with VLLMEngine(folder, engine_config) as engine, DiskCache(run / "labels.jsonl") as cache:
            labeler = Labeler(engine, load_processor(folder), LabelerConfig(), cache=cache,
                              identity=checkpoint_identity(folder, engine_config.dtype))
            verdicts = labeler.label([LabelRequest(claim=claim, media=media) for claim in division.claims])
            score = response_score(verdicts, labeler.config.score)
    """

    counts: LabelCounts

    def __init__(
        self,
        engine: Engine,
        processor: Any,
        config: LabelerConfig | None = None,
        *,
        identity: str,
        cache: DiskCache | None = None,
        mode: Mode | None = None,
        video: VideoSettings | None = None,
    ) -> None:
        """Args:
        engine: vLLM with the checkpoint; it may be the policy's own.
        processor: The checkpoint's processor, or the tokenizer of a language model.
        config: How it is asked.
        identity: What tells the weights in the engine from all others; see `checkpoint_identity`.
        cache: Where answers are kept; None = nowhere.
        mode: Template options and prefill of the prompt; the short mode if None.
        video: How clips are sampled and packed; the defaults if None.

        Raises:
            ValueError: a template without its place, or a tokenizer without a token for yes or no.
        """
        raise NotImplementedError

    def label(self, requests: Sequence[LabelRequest], on_progress: OnProgress | None = None) -> list[Verdict]:
        """A verdict on each claim, in order. An answer is in the cache as soon as it is known.

        What cannot be asked (media that cannot be read, a prompt that is too long, a question with the model's own
        special tokens) or has no finite answer gives a verdict with a `problem`; the rest goes on.

        Raises:
            EngineError: vLLM failed.
        """
        raise NotImplementedError

    def judge_whole(
        self, responses: Sequence[tuple[str, Media]], on_progress: OnProgress | None = None
    ) -> list[Verdict]:
        """One judgement on each whole response (text, media), to compare with divide and conquer; the verdict's claim
        has the response as text and the prompt's words as question. Cached and failing as in `label`.
        """
        raise NotImplementedError


def checkpoint_identity(folder: Path, dtype: str) -> str:
    """Identifies a checkpoint's weights, tokenizer, processor and the number format that they run in."""
    raise NotImplementedError
