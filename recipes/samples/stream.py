"""The training data of a run: a mixture of sources as one numbered stream of samples, raw or as token ids.

    data:
      sources:
        captions: {kind: rendered, task: caption}
        pages: {kind: rendered, task: document}
        mine: {kind: qa, data: my/questions.jsonl, question: question, answer: answer}
        text: {kind: rendered, task: text}
      weights: {captions: 2, pages: 1, mine: [[0.8, 0], [1.0, 2]]}   # mine comes in over the last fifth of the run
      shares: {text: 0.1}

Sample i is a pure function of (settings, seed, i), so a run resumes at any position and any number of worker processes
may make the samples: give `EncodedStream`, a map-style dataset of torch, to a `DataLoader` with a sequential order and
`num_workers` (rendering and cutting images takes tens of milliseconds a sample; the order does not depend on workers).
A sample that is refused is replaced by another one of the same source, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.video_settings import VideoSettings
from recipes.samples.files import CaptionFiles, ChatFiles, InterleavedFiles, OcrFiles, QaFiles, VideoFiles
from recipes.samples.media import MediaSettings
from recipes.samples.mixture import Pick, Plan, Weight
from recipes.samples.rendered import RenderedSamples
from recipes.samples.sample import Reason, Rejected, Sample
from recipes.sources import Split
from rollouts.modes import ModesConfig, stable_hash

if TYPE_CHECKING:
    from base_model.training_example import TrainingExample

SampleSource = Annotated[
    RenderedSamples | QaFiles | CaptionFiles | InterleavedFiles | OcrFiles | VideoFiles | ChatFiles,
    Field(discriminator="kind"),
]
ATTEMPTS = 32
"""Rows that may be refused one after the other before the stream gives up."""
_ENOUGH = 50
"""Rows of a source that must have been tried before their share of bad ones counts."""


class DataConfig(BaseModel):
    """What a stage of pre-training or fine-tuning learns from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    sources: dict[str, SampleSource] = Field(min_length=1)
    """Name -> source; `kind` is rendered, qa, caption, interleaved, ocr, video or chat."""
    weights: dict[str, Weight] = {}
    """Name -> how many samples come from a source, relative to the others; 1 where nothing is said. A list of points
    [share of the run that is over, weight] changes it evenly from point to point."""
    shares: dict[str, Weight] = {}
    """Name -> share of all samples, such as {text: 0.1}; the other sources divide what is left by weight."""
    media: MediaSettings = MediaSettings()
    """Which images and videos of files are taken."""
    video: VideoSettings = VideoSettings()
    """How clips are cut into frames and packages; in training rate and package size are drawn for each sample."""
    max_bad: float = Field(0.1, ge=0, le=1)
    """Largest share of a source's rows that may be refused (too long ones included) before the run stops."""

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        for key, named in (("weights", self.weights), ("shares", self.shares)):
            for name in named:
                if name not in self.sources:
                    raise ValueError(f"{key} names {name!r}, and the sources are {', '.join(self.sources)}")
        both = sorted(set(self.weights) & set(self.shares))
        if both:
            raise ValueError(f"{both[0]!r} has a weight and a share: give it one of the two")
        self._plan(0, 10**6, "train")
        return self

    def _plan(self, seed: int, total: int | None, split: Split) -> Plan:
        """The plan over the sources that have this split."""
        names = [name for name, source in self.sources.items() if source.has(split)]
        weights = {name: self.weights.get(name, 1.0) for name in names if name not in self.shares}
        return Plan(weights, {name: self.shares[name] for name in names if name in self.shares}, seed, total)

    def open(self, seed: int, *, total: int | None = None, split: Split = "train") -> SampleStream:
        """The numbered samples of a split; nothing is read or rendered before one is asked for.

        Args:
            seed: Of the run.
            total: Samples of the run, along which weights change; needed where one does.
            split: train or eval; sources without evaluation data are left out there.

        Raises:
            ValueError: a file is missing, no source has this split, or the weights cannot be met.
        """
        return SampleStream(self, seed, total, split)


class OpenSource(Protocol):
    """Samples of one source and split by position."""

    def sample(self, position: int, attempt: int = 0) -> Sample:
        """The sample at a position, or at further attempts another one in its place. Raises Rejected, ValueError."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Rows that a sample stands in for."""

    source: str
    reason: Reason
    detail: str
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbered:
    """A sample of the stream."""

    index: int
    source: str
    sample: Sample
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A sample of the stream as token ids."""

    index: int
    """Its number in the stream."""
    source: str
    """Name of its source."""
    task: str
    mode: str
    """short or long."""
    example: TrainingExample
    refused: tuple[Refused, ...] = ()
    """What was refused at this place; give it to a `FilterReport`."""


class SampleStream:
    """Samples by number. Copies in worker processes read and count for themselves."""

    def __init__(self, config: DataConfig, seed: int, total: int | None, split: Split) -> None:
        self.total = total
        self._config = config
        self._opened: dict[str, OpenSource] = {
            name: source.open(split, stable_hash("source", seed, name, bits=31), config.media, config.video)
            for name, source in config.sources.items()
            if source.has(split)
        }
        if not self._opened:
            raise ValueError(f"no source has data for {split}: give one with eval_data, or a rendered one.")
        self._plan = config._plan(seed, total, split)
        self._tried: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    def pick(self, index: int) -> Pick:
        """Source and position of sample `index`."""
        return self._plan.pick(index)

    def counts(self, index: int) -> dict[str, int]:
        """How many of the samples before `index` come from each source."""
        return self._plan.counts(index)

    def sample(self, index: int) -> Numbered:
        """Sample `index`, as it is. Raises ValueError as `encoded`."""
        return self._taken(index, lambda sample: sample)[0]

    def encoded(
        self, index: int, processor: Any, modes: ModesConfig | None = None, *, max_tokens: int | None = None
    ) -> Encoded:
        """Sample `index` as token ids; see `encode_sample`.

        Raises:
            ValueError: too many rows of a source are refused, or the processor cannot show the sample.
        """
        from recipes.samples.encode import encode_sample

        found, example = self._taken(index, lambda s: encode_sample(processor, s, modes, max_tokens=max_tokens))
        sample = found.sample
        return Encoded(
            index=index, source=found.source, task=sample.task, mode=sample.mode, example=example, refused=found.refused
        )

    def _taken(self, index: int, use: Any) -> tuple[Numbered, Any]:
        """The first sample for this place that is not refused, and what `use` makes of it."""
        name, position = self._plan.pick(index)
        first: Rejected | None = None
        for attempt in range(ATTEMPTS):
            try:
                sample = self._opened[name].sample(position, attempt)
                made = use(sample)
            except Rejected as error:
                if attempt == 0:
                    first = error
                last = error
                continue
            self._count(name, first)
            return Numbered(index=index, source=name, sample=sample, refused=self._refused(name, first)), made
        raise ValueError(f"{ATTEMPTS} rows of {name} were refused one after the other; the last one: {last}")

    def _refused(self, name: str, first: Rejected | None) -> tuple[Refused, ...]:
        skipped = getattr(self._opened[name], "take_duplicates", int)()
        found = [Refused(source=name, reason="duplicate", detail="", count=skipped)] if skipped else []
        if first:
            found.append(Refused(source=name, reason=first.reason, detail=str(first)))
        return tuple(found)

    def _count(self, name: str, first: Rejected | None) -> None:
        """Raises ValueError when too many rows of a source were refused."""
        self._tried[name] += 1
        self._bad[name] += first is not None
        tried, bad = self._tried[name], self._bad[name]
        if first and tried >= _ENOUGH and bad > self._config.max_bad * tried:
            raise ValueError(
                f"{bad} of {tried} rows of {name} were refused, more than max_bad {self._config.max_bad:g} allows; the "
                f"last one: {first} Repair the data, or raise max_bad."
            )


class EncodedStream:
    """A stream as a map-style dataset of torch: `stream[i]` is sample i as an `Encoded`.

    Args:
        stream: The samples; its `total` is the length of the dataset, unless `length` says another.
        processor: See `encode_sample`.
        modes: See `encode_sample`.
        max_tokens: See `encode_sample`.
        length: Number of samples.
    """

    def __init__(
        self,
        stream: SampleStream,
        processor: Any,
        modes: ModesConfig | None = None,
        *,
        max_tokens: int | None = None,
        length: int | None = None,
    ) -> None:
        size = stream.total if length is None else length
        if size is None:
            raise ValueError("the stream has no end, and a dataset needs a length: give the samples of the run.")
        self.stream, self.processor, self.modes = stream, processor, modes
        self.max_tokens = max_tokens
        self._length = size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Encoded:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self.stream.encoded(index, self.processor, self.modes, max_tokens=self.max_tokens)


@dataclass(slots=True)
class FilterReport:
    """What was refused and why, by source."""

    seen: Counter[str] = field(default_factory=Counter)
    counts: dict[tuple[str, Reason], int] = field(default_factory=dict)
    first: dict[tuple[str, Reason], str] = field(default_factory=dict)

    def add(self, sources: str, refused: Iterable[Refused]) -> None:
        """Counts one sample of a source and what it stands in for."""
        self.seen[sources] += 1
        for each in refused:
            key = (each.source, each.reason)
            self.counts[key] = self.counts.get(key, 0) + each.count
            self.first.setdefault(key, each.detail)

    def lines(self) -> list[str]:
        """One line for each source and reason; empty when nothing was refused."""
        return [
            f"{source}: {count} of {self.seen[source]} rows left out: {reason.replace('_', ' ')}"
            + (f" (the first: {self.first[source, reason]})" if self.first[source, reason] else "")
            for (source, reason), count in sorted(self.counts.items())
        ]

    def state(self) -> Mapping[str, Any]:
        """The counts as plain JSON."""
        return {
            "seen": dict(self.seen),
            "refused": [[*key, count, self.first[key]] for key, count in self.counts.items()],
        }
