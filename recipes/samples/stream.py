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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.video_settings import VideoSettings
from recipes.samples.encode import encode_sample
from recipes.samples.files import CaptionFiles, ChatFiles, InterleavedFiles, OcrFiles, QaFiles, VideoFiles
from recipes.samples.media import MediaSettings, Opening
from recipes.samples.mixture import Plan, Weight
from recipes.samples.rendered import RenderedSamples
from recipes.samples.sample import Reason, Rejected, Sample
from recipes.sources import Split
from rollouts.modes import ModeSampler, ModesConfig, stable_hash

if TYPE_CHECKING:
    from base_model.training_example import TrainingExample

SampleSource = Annotated[
    RenderedSamples | QaFiles | CaptionFiles | InterleavedFiles | OcrFiles | VideoFiles | ChatFiles,
    Field(discriminator="kind"),
]
Made = TypeVar("Made")
BAD: frozenset[Reason] = frozenset({"malformed", "path_refused", "media_missing", "media_unreadable"})
"""Reasons that say that the data is broken; the others are filters doing their work."""
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
    """How clips are cut into frames and packages."""
    random_video: bool = True
    """Whether each training clip gets a frame rate and a package size of its own, drawn from video.training_fps and
    video.training_packages."""
    max_bad: float = Field(0.1, ge=0, le=1)
    """Largest share of a source's rows that may be bad (malformed, media missing or unreadable) before the run stops;
    what filters leave out does not count."""

    @model_validator(mode="after")
    def _known_names(self) -> DataConfig:
        for key, named in (("weights", self.weights), ("shares", self.shares)):
            for name in named:
                if name not in self.sources:
                    raise ValueError(f"{key} names {name!r}, and the sources are {', '.join(self.sources)}")
        both = sorted(set(self.weights) & set(self.shares))
        if both:
            raise ValueError(f"{both[0]!r} has a weight and a share: give it one of the two")
        self._plan(self.sources, 0, 10**6)
        return self

    def _plan(self, names: Iterable[str], seed: int, total: int | None) -> Plan:
        """The plan over these sources."""
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
        sources = OpenSources(
            self.sources,
            split,
            seed,
            media=self.media,
            video=self.video,
            random_video=self.random_video,
            max_bad=self.max_bad,
        )
        if not sources.names:
            raise ValueError(f"no source has data for {split}: give one with eval_data, or a rendered one.")
        return SampleStream(self._plan(sources.names, seed, total), sources, total)


class OpenSource(Protocol):
    """Samples of one source and split by position."""

    def sample(self, position: int, attempt: int = 0) -> Sample:
        """The sample at a position, or at further attempts another one in its place. Raises Rejected, ValueError."""

    def take_duplicates(self) -> int:
        """Equal rows left out since the last call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Rows that a sample stands in for."""

    source: str
    reason: Reason
    detail: str
    count: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A sample as token ids."""

    source: str
    """Name of its source."""
    position: int
    """Its position in the source."""
    task: str
    mode: str
    """Name of the mode it is trained in."""
    example: TrainingExample
    refused: tuple[Refused, ...] = ()
    """What was refused at this place; give it to a `FilterReport`."""


class OpenSources:
    """Samples by source and position: the place of one that is refused is taken by another of its source.

    Copies in worker processes read and count for themselves; what they give depends on (seed, source, position) alone.

    Args:
        sources: Name -> source; those without data of the split are left out.
        split: train or eval.
        seed: Of the run; every source draws from a seed of its own, by its name.
        media: Which images and videos of files are taken.
        video: How clips are read.
        random_video: Whether each training clip gets a frame rate and a package size of its own.
        max_bad: Largest share of a source's rows that may be bad; see `BAD`.

    Raises:
        ValueError: a file is missing.
    """

    def __init__(
        self,
        sources: Mapping[str, SampleSource],
        split: Split,
        seed: int,
        *,
        media: MediaSettings | None = None,
        video: VideoSettings | None = None,
        random_video: bool = True,
        max_bad: float = 0.1,
    ) -> None:
        self._seed, self._max_bad = seed, max_bad
        self._opened: dict[str, OpenSource] = {
            name: source.open(
                Opening(
                    split=split,
                    seed=stable_hash("source", seed, name, bits=31),
                    media=media or MediaSettings(),
                    video=video or VideoSettings(),
                    random_video=random_video,
                )
            )
            for name, source in sources.items()
            if source.has(split)
        }
        self._tried: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """The sources that have data of the split."""
        return tuple(self._opened)

    def sample(self, source: str, position: int) -> tuple[Sample, tuple[Refused, ...]]:
        """The sample at a position, and what was refused there. Raises ValueError as `encoded`."""
        return self._taken(source, position, lambda sample: sample)

    def encoded(
        self,
        source: str,
        position: int,
        processor: Any,
        modes: ModesConfig | None = None,
        *,
        max_tokens: int | None = None,
    ) -> Encoded:
        """The sample at a position as token ids.

        Args:
            source: Its name.
            position: From 0 on, without end; files start again, in another order.
            processor: See `encode_sample`.
            modes: Mode of the samples that have a worked solution; hybrid draws one by (seed, source, position). None =
                short.
            max_tokens: Longer samples are refused.

        Raises:
            ValueError: too many rows of the source are bad, or the processor cannot show the sample.
        """
        modes = modes or ModesConfig(mode="short")
        mode = ModeSampler(modes, self._seed).mode(stable_hash(source, bits=31), position)

        def encode(sample: Sample) -> tuple[Sample, TrainingExample]:
            return sample, encode_sample(processor, sample, modes, mode=mode, max_tokens=max_tokens)

        (sample, example), refused = self._taken(source, position, encode)
        thinks = mode.thinks and bool(sample.thinking)
        name = (modes.long if thinks else modes.short).name
        return Encoded(source=source, position=position, task=sample.task, mode=name, example=example, refused=refused)

    def _taken(self, name: str, position: int, use: Callable[[Sample], Made]) -> tuple[Made, tuple[Refused, ...]]:
        """What `use` makes of the first sample for this place that is not refused."""
        first: Rejected | None = None
        for attempt in range(ATTEMPTS):
            try:
                made = use(self._opened[name].sample(position, attempt))
            except Rejected as error:
                first, last = first or error, error
                continue
            self._count(name, first)
            return made, self._refused(name, first)
        raise ValueError(f"{ATTEMPTS} rows of {name} were refused one after the other; the last one: {last}")

    def _refused(self, name: str, first: Rejected | None) -> tuple[Refused, ...]:
        """Every row is reported once: at its own position, and not where it would have stood in for another one."""
        skipped = self._opened[name].take_duplicates()
        found = [Refused(source=name, reason="duplicate", detail="", count=skipped)] if skipped else []
        if first:
            found.append(Refused(source=name, reason=first.reason, detail=str(first)))
        return tuple(found)

    def _count(self, name: str, first: Rejected | None) -> None:
        """Raises ValueError when too many rows of a source are bad."""
        is_bad = first is not None and first.reason in BAD
        self._tried[name] += 1
        self._bad[name] += is_bad
        tried, bad = self._tried[name], self._bad[name]
        if is_bad and tried >= _ENOUGH and bad > self._max_bad * tried:
            raise ValueError(
                f"{bad} of {tried} rows of {name} cannot be read, more than the share of {self._max_bad:g} that "
                f"max_bad allows; the last one: {first}"
            )


class SampleStream:
    """The samples of a mixture by number."""

    def __init__(self, plan: Plan, sources: OpenSources, total: int | None = None) -> None:
        self.plan, self.sources, self.total = plan, sources, total

    def sample(self, index: int) -> tuple[Sample, tuple[Refused, ...]]:
        """Sample `index`, and what was refused there."""
        return self.sources.sample(*self.plan.pick(index))

    def encoded(
        self, index: int, processor: Any, modes: ModesConfig | None = None, *, max_tokens: int | None = None
    ) -> Encoded:
        """Sample `index` as token ids; see `OpenSources.encoded`."""
        return self.sources.encoded(*self.plan.pick(index), processor, modes, max_tokens=max_tokens)


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

    def add(self, source: str, refused: Iterable[Refused]) -> None:
        """Counts one sample of a source and what it stands in for."""
        self.seen[source] += 1
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
