"""From data rows to requests, and from rollouts to scored groups: the trainer's only view of data, modes and
rewards.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from base_model.video_settings import VideoSettings
from rewards import RewardSet, Score
from rl.asking import Asked, Unreadable
from rl.prompts import Inputs, PromptMaker, UnreadableMediaError, prompt_text
from rl.scoring import StreamedScoring
from rollouts.modes import Mode, ModeSampler
from rollouts.records import Request, Rollout, Sampling, Status, request_seed
from rollouts.reference import ReferenceSpan, prompt_span, reference_span


class Row(Protocol):
    """A data row: what a task yields."""

    @property
    def index(self) -> int:
        """Position in the dataset."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """Chat messages of the prompt."""

    @property
    def reference(self) -> Any:
        """What rewards compare the answer with."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Further columns, for rewards that name them."""

    @property
    def images(self) -> Sequence[Any]:
        """Images in the order of the messages' parts: paths, file contents or PIL images."""

    @property
    def videos(self) -> Sequence[Any]:
        """Videos in the order of the messages' parts: paths, file contents, or frames with their times."""


class RowOrder(Protocol):
    """Which row stands at a position of the endless, reshuffled data stream."""

    def row(self, position: int) -> int:
        """Row index; a pure function of the position."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSlot:
    """One place in a step's batch: a mode, and the data position that fills it."""

    mode: Mode
    position: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredGroup:
    """The responses to one prompt in one mode, with their scores (same order, same length).

    Example:
        Two responses to row 7 in short mode, the first right:
        ``ScoredGroup(slot=..., rollouts=[r0, r1], scores=[Score(total=1.0, breakdown={"accuracy": 1.0}), ...])``
    """

    slot: PromptSlot
    rollouts: Sequence[Rollout]
    scores: Sequence[Score]
    left_out: Sequence[tuple[Rollout, Score]] = ()
    """Responses for which a reward that counts is missing: they neither train nor move the baseline."""

    @property
    def mode(self) -> str:
        """Name of the group's mode."""
        return self.slot.mode.name

    @property
    def rewards_G(self) -> list[float]:
        """Total reward of each response."""
        return [score.total for score in self.scores]


class BarePrompt(NamedTuple):
    """A prompt with its reference directly after it."""

    ids: tuple[int, ...]
    span: ReferenceSpan
    media: Callable[[], Inputs] | None = None
    """Gives what the model reads of the prompt's images and videos."""


class Environment:
    """Rows, modes, tokenizer and rewards of one run.

    Everything it draws (mode, row, sampling seed) is a pure function of (seed, step, position), so a resumed run asks
    for exactly what an uninterrupted one would have asked for.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Row],
        order: RowOrder,
        modes: ModeSampler,
        rewards: RewardSet,
        tokenizer: Any,
        sampling: Sampling,
        group_size: int,
        seed: int,
        video: VideoSettings | None = None,
    ) -> None:
        """Args:
        rows: the data.
        order: which row stands at a position of the stream.
        modes: assigns modes to prompts.
        rewards: what scores.
        tokenizer: of a language model; for a vision-language model its processor.
        sampling: how responses are drawn.
        group_size: responses per prompt.
        seed: of modes and sampling.
        video: how clips are sampled and packed.
        """
        self.rows = rows
        self.order = order
        self.modes = modes
        self.rewards = rewards
        self.prompts = PromptMaker(tokenizer, video)
        self.tokenizer = self.prompts.tokenizer
        self.sampling = sampling
        self.group_size = group_size
        self.seed = seed

    def slots(self, step: int, count: int, position: int) -> list[PromptSlot]:
        """The modes of a step's prompts, over ``count`` data positions from ``position`` on."""
        modes = self.modes.mode_batch(step, count)
        return [PromptSlot(mode=mode, position=position + i) for i, mode in enumerate(modes)]

    def requests(self, step: int, slot: PromptSlot, count: int | None = None) -> list[Request]:
        """The group's requests: one prompt, ``count`` (default: group size) seeds.

        Raises:
            UnreadableMediaError: the row's images or videos cannot be read.
        """
        row = self._row(slot)
        prompt = self.prompts.prompt(row, slot.mode)
        return [
            Request(
                prompt_ids=prompt.ids,
                media=prompt.media,
                mode=slot.mode,
                row=row.index,
                sample=sample,
                seed=request_seed(self.seed, step, slot.position, sample),
                sampling=self.sampling,
            )
            for sample in range(count or self.group_size)
        ]

    def asked(self, step: int, slots: Sequence[PromptSlot]) -> Asked:
        """The requests of all slots; a row whose media cannot be read has failed responses instead."""
        asked = Asked(group_size=self.group_size)
        for slot in slots:
            try:
                asked.add(self.requests(step, slot))
            except UnreadableMediaError as error:
                asked.fail(self._row(slot).index, slot.mode.name, str(error))
        return asked

    def media_inputs(self, slot: PromptSlot) -> Callable[[], Inputs] | None:
        """A function that gives what the model reads of the prompt's media; None where there are none."""
        return self.prompts.inputs(self._row(slot), slot.mode)

    def scoring(self, slots: Sequence[PromptSlot]) -> StreamedScoring:
        """Scores the slots' groups, as they are generated; responses the engine could not produce are left out."""
        return StreamedScoring(
            self.rewards,
            self.group_size,
            lambda number, rollout: self._sample(slots[number], rollout),
            keep=lambda rollout: rollout.status is not Status.FAILED,
        )

    def reference_span(self, slot: PromptSlot, rollout: Rollout, answer_open: str) -> ReferenceSpan | None:
        """Where the row's reference stands in a response; None without a reference, or without a place for it."""
        reference = self._row(slot).reference
        if reference is None:
            return None
        return reference_span(
            self.tokenizer,
            prompt_ids=rollout.prompt_ids,
            response_ids=rollout.response_ids,
            mode=slot.mode,
            reference=str(reference),
            answer_open=answer_open,
        )

    def bare_prompt(self, slot: PromptSlot) -> BarePrompt | None:
        """The row's prompt in short mode, with its reference directly after it: no reasoning; None without one, or
        where its media cannot be read.
        """
        row, short = self._row(slot), self.modes.config.short
        if row.reference is None:
            return None
        try:
            ids = self.prompts.prompt(row, short).ids
        except UnreadableMediaError:
            return None
        span = prompt_span(self.tokenizer, prompt_ids=ids, reference=str(row.reference))
        return BarePrompt(ids, span, self.prompts.inputs(row, short)) if span else None

    def row_index(self, slot: PromptSlot) -> int:
        """Number of the slot's row in the data."""
        return self.order.row(slot.position)

    def unreadable_record(self, step: int, prompt: Unreadable) -> dict[str, Any]:
        """The line of ``rollouts.jsonl`` for a prompt whose images or videos could not be read."""
        row = self.rows[prompt.row]
        return {
            "row": prompt.row,
            "sample": 0,
            "mode": prompt.mode,
            "prompt": prompt_text(row),
            "reference": jsonable(row.reference),
            "response": "",
            "thinking": None,
            "answer": "",
            "status": str(Status.FAILED),
            "error": prompt.reason,
            "response_tokens": 0,
            "prompt_tokens": 0,
            "rewards": {},
            "total": None,
            "step": step,
            "advantage": None,
        }

    def record(self, step: int, group: ScoredGroup, advantages_G: Sequence[float]) -> list[dict[str, Any]]:
        """The group's lines of ``rollouts.jsonl``."""
        row = self._row(group.slot)
        trained = [*zip(group.rollouts, group.scores, advantages_G, strict=True)]
        left_out = [(rollout, score, None) for rollout, score in group.left_out]
        return [
            {**rollout_record(row, rollout, score), "step": step, "advantage": advantage}
            for rollout, score, advantage in (*trained, *left_out)
        ]

    def _row(self, slot: PromptSlot) -> Row:
        return self.rows[self.order.row(slot.position)]

    def _sample(self, slot: PromptSlot, rollout: Rollout) -> dict[str, Any]:
        return reward_sample(self._row(slot), rollout)


def reward_sample(row: Row, rollout: Rollout) -> dict[str, Any]:
    """What a reward may ask for by name, for one response."""
    return {
        **row.columns,
        "images": list(row.images),
        "videos": list(row.videos),
        "prompt": prompt_text(row),
        "messages": list(row.messages),
        "response": rollout.response,
        "thinking": rollout.thinking,
        "answer": rollout.answer,
        "reference": row.reference,
        "mode": rollout.mode,
        "response_ids": list(rollout.response_ids),
        "truncated": rollout.status is Status.TRUNCATED,
    }


def scored_group(slot: PromptSlot, rollouts: Sequence[Rollout], scores: Sequence[Score]) -> ScoredGroup:
    """A group without the responses whose total is not known."""
    pairs = list(zip(rollouts, scores, strict=True))
    return ScoredGroup(
        slot=slot,
        rollouts=[rollout for rollout, score in pairs if score.complete],
        scores=[score for score in scores if score.complete],
        left_out=[(rollout, score) for rollout, score in pairs if not score.complete],
    )


def rollout_record(row: Row, rollout: Rollout, score: Score) -> dict[str, Any]:
    """One line of ``rollouts.jsonl`` or of an evaluation's samples, without step and advantage; a total that is not
    known is None.
    """
    beside: dict[str, Any] = {}
    if score.info:
        beside["reward_info"] = dict(score.info)
    if score.missing:
        beside["missing"] = list(score.missing)
    return {
        "row": rollout.row,
        "sample": rollout.sample,
        "mode": rollout.mode,
        "prompt": prompt_text(row),
        "reference": jsonable(row.reference),
        "response": rollout.response,
        "thinking": rollout.thinking,
        "answer": rollout.answer,
        "status": str(rollout.status),
        "response_tokens": len(rollout.response_ids),
        "prompt_tokens": len(rollout.prompt_ids),
        "rewards": dict(score.breakdown),
        "total": score.total if score.complete else None,
        **beside,
    }


def jsonable(value: Any) -> Any:
    """The value itself where JSON can hold it, its text otherwise (a reference may be a date or a decimal)."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value
