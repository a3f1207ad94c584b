"""The labeler of "divide and conquer": a checkpoint in vLLM answers a claim's question about an image or video.

RLAIF-V (arXiv 2405.17220, section 3.2): p_yes and p_no are probabilities of the first answer token, each summed over
the spellings of its word, from the softmax over the whole vocabulary. A claim is accepted iff p_yes > p_no + margin.

    requests -> keys (media, question, labeler) -> known ones from the cache
                the others, by media: opened once -> prompts -> engine.next_logprobs -> cache, one by one -> verdicts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base_model.video_settings import VideoSettings
from rl.claim_times import Span, claim_span, frames_around
from rl.claims import Claim, ClaimKind, Verdict, judge
from rl.disk_cache import DiskCache, content_key, file_fingerprint
from rl.labeler_config import LabelerConfig
from rl.media_content import media_hash
from rl.question_prompts import QuestionPrompts, answer_tokens
from rollouts.engine import Engine
from rollouts.modes import Mode, ShortMode
from rollouts.records import PromptMedia

OnProgress = Callable[[int, int], None]
PIXELS_PER_CALL = 2**28
"""Pixels of opened images and videos that one call to the engine holds at most, but for a single larger one."""
QUESTIONS_PER_CALL = 2048


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
    """Claims about one image share one object, so that it is read, opened and computed once."""


@dataclass(kw_only=True, slots=True)
class LabelCounts:
    """What labelling has cost so far."""

    asked: int = 0
    """Questions that the model answered."""
    cached: int = 0
    """Questions whose answer was known, from the cache or from an equal question of the same call."""
    failed: int = 0
    """Questions without an answer; see the verdict's problem."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question as it is asked."""

    given: str
    """The part of it that a model wrote."""
    text: str
    media: Media
    span: Span | None
    """The part of the videos that is shown; None = all."""


class Labeler:
    """Answers claims with one checkpoint.

    Example::

        with VLLMEngine(folder, engine_config) as engine, DiskCache(run / "labels.jsonl") as cache:
            labeler = Labeler(engine, load_processor(folder), LabelerConfig(), cache=cache,
                              identity=checkpoint_identity(folder, engine_config.dtype))
            verdicts = labeler.label([LabelRequest(claim=claim, media=media) for claim in division.claims])
            score = response_score(verdicts, labeler.config.score)
    """

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
            ValueError: A mode that thinks (its first token is no answer), or a tokenizer that begins yes and no alike.
        """
        self.config = config or LabelerConfig()
        self.counts = LabelCounts()
        mode = mode or ShortMode()
        if mode.thinks:
            raise ValueError(
                f"mode {mode.name!r} thinks first, and the labeler reads the first token: take another one"
            )
        self._engine, self._cache = engine, cache
        self._video = video or VideoSettings()
        self._prompts = QuestionPrompts(processor, mode)
        self._tokens = answer_tokens(self._prompts.tokenizer)
        settings = (mode.model_dump(mode="json", exclude={"name", "max_tokens"}), self._video.model_dump(mode="json"))
        self._identity = [identity, *settings, self._tokens]

    def label(self, requests: Sequence[LabelRequest], on_progress: OnProgress | None = None) -> list[Verdict]:
        """A verdict on each claim, in order. An answer is in the cache as soon as it is known.

        What cannot be asked (media that cannot be read, a prompt that is too long, a question with the model's own
        special tokens) or has no finite answer gives a verdict with a `problem`; the rest goes on.

        Raises:
            EngineError: vLLM failed.
            WriteError: The cache cannot be written.
        """
        questions = [self._question(request) for request in requests]
        return self._verdicts([request.claim for request in requests], questions, on_progress)

    def judge_whole(
        self, responses: Sequence[tuple[str, Media]], on_progress: OnProgress | None = None
    ) -> list[Verdict]:
        """One judgement on each whole response (text, media), to compare with divide and conquer; the verdict's claim
        has the response as text and what was asked as question. Cached and failing as in `label`.
        """
        asked = [self.config.whole.replace("{response}", response) for response, _ in responses]
        claims = [
            Claim(text=response, question=text, kind=ClaimKind.OTHER)
            for (response, _), text in zip(responses, asked, strict=True)
        ]
        questions = [
            _Question(response, text, media, None) for (response, media), text in zip(responses, asked, strict=True)
        ]
        return self._verdicts(claims, questions, on_progress)

    def _question(self, request: LabelRequest) -> _Question:
        claim, media = request.claim, request.media
        span = (claim_span(claim.text) or claim_span(claim.question)) if media.videos else None
        return _Question(claim.question, self.config.question.replace("{question}", claim.question), media, span)

    # -- what is known, and what has to be asked -----------------------------------------------------------------------

    def _verdicts(
        self, claims: Sequence[Claim], questions: Sequence[_Question], on_progress: OnProgress | None
    ) -> list[Verdict]:
        hashes = _MediaHashes()
        answers: dict[str, tuple[float, float] | str] = {}
        keys: list[str | None] = []
        problems: dict[int, str] = {}
        missing: dict[str, _Question] = {}
        for index, question in enumerate(questions):
            key: str | None = None
            try:
                self._prompts.check(question.given)
                key = self._key(question, hashes)
            except (ValueError, OSError) as error:
                problems[index] = _sentence(error)
            keys.append(key)
            if key is None:
                continue
            known = self._cache.get(key) if self._cache is not None else None
            if known is not None:
                answers[key] = (float(known[0]), float(known[1]))
            elif key not in missing:
                missing[key] = question
        answers |= self._ask(missing, on_progress)
        verdicts = []
        for index, (claim, key) in enumerate(zip(claims, keys, strict=True)):
            answer = problems[index] if key is None else answers[key]
            verdicts.append(self._verdict(claim, answer))
        self._count(verdicts, sum(not isinstance(answers[key], str) for key in missing))
        return verdicts

    def _key(self, question: _Question, hashes: _MediaHashes) -> str:
        span = None if question.span is None else [*question.span, self.config.window]
        return content_key("label", self._identity, hashes.of(question.media), span, question.text)

    def _verdict(self, claim: Claim, answer: tuple[float, float] | str) -> Verdict:
        if isinstance(answer, str):
            return Verdict(claim=claim, p_yes=None, p_no=None, accepted=None, problem=answer)
        return judge(claim, *answer, self.config.score)

    def _count(self, verdicts: Sequence[Verdict], asked: int) -> None:
        failed = sum(verdict.accepted is None for verdict in verdicts)
        self.counts.asked += asked
        self.counts.failed += failed
        self.counts.cached += len(verdicts) - failed - asked

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask(
        self, missing: dict[str, _Question], on_progress: OnProgress | None
    ) -> dict[str, tuple[float, float] | str]:
        """Answers by key, or the reason why there is none; media are opened for as many questions as fit one call."""
        answers: dict[str, tuple[float, float] | str] = {}
        batch: list[_Prepared] = []
        pixels = 0

        def flush() -> None:
            answers.update(self._answers(batch, len(answers), len(missing), on_progress))
            batch.clear()

        for group in _groups(missing):
            prepared, size = self._prepared(group, missing)
            answers.update({item.key: item.problem for item in prepared if item.problem is not None})
            if batch and (pixels + size > PIXELS_PER_CALL or len(batch) + len(prepared) > QUESTIONS_PER_CALL):
                flush()
                pixels = 0
            batch += [item for item in prepared if item.problem is None]
            pixels += size
        if batch:
            flush()
        return answers

    def _prepared(self, keys: Sequence[str], missing: dict[str, _Question]) -> tuple[list[_Prepared], int]:
        """Prompts of questions about the same media, and the pixels that they hold."""
        question = missing[keys[0]]
        try:
            images, videos = self._opened(question)
            prompts = self._prompts.prompts([missing[key].text for key in keys], images, videos)
        except (ValueError, OSError) as error:
            return [_Prepared(key, problem=_sentence(error)) for key in keys], 0
        prepared = []
        for key, prompt in zip(keys, prompts, strict=True):
            try:
                self._engine.check_prompt(prompt.ids, prompt.media)
            except ValueError as error:
                prepared.append(_Prepared(key, problem=_sentence(error)))
            else:
                prepared.append(_Prepared(key, prompt.ids, prompt.media))
        frames = [frame for video in videos for package in video.packages for frame in package]
        return prepared, sum(image.width * image.height for image in (*images, *frames))

    def _opened(self, question: _Question) -> tuple[list[Any], list[Any]]:
        from base_model.vlm.media import open_image, open_video

        images = [open_image(handle) for handle in question.media.images]
        videos = [open_video(handle, self._video) for handle in question.media.videos]
        if question.span is not None:
            videos = [frames_around(video, question.span, self.config.window) for video in videos]
        return images, videos

    def _answers(
        self, batch: Sequence[_Prepared], before: int, total: int, on_progress: OnProgress | None
    ) -> dict[str, tuple[float, float] | str]:
        answers: dict[str, tuple[float, float] | str] = {}

        def take(index: int, logprobs: list[float]) -> None:
            key, answer = batch[index].key, self._probabilities(logprobs)
            answers[key] = answer
            if self._cache is not None and not isinstance(answer, str):
                self._cache.add({key: list(answer)})

        self._engine.next_logprobs(
            [item.ids for item in batch],
            [(*self._tokens.yes, *self._tokens.no)] * len(batch),
            on_progress and (lambda done, _batch: on_progress(before + done, total)),
            [item.media for item in batch],
            take,
        )
        return answers

    def _probabilities(self, logprobs: Sequence[float]) -> tuple[float, float] | str:
        """p_yes and p_no."""
        if any(map(math.isnan, logprobs)):
            return "the labeler's probabilities are not finite: its weights are damaged, or need another dtype"
        values = [math.exp(value) for value in logprobs]
        many = len(self._tokens.yes)
        return math.fsum(values[:many]), math.fsum(values[many:])


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A question ready to be asked, or the reason why it cannot be."""

    key: str
    ids: tuple[int, ...] = ()
    media: PromptMedia | None = None
    problem: str | None = None


class _MediaHashes:
    """Content hashes, each computed once per object."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Media, list[list[str]]]] = {}

    def of(self, media: Media) -> list[list[str]]:
        """Hashes of the images and of the videos. Raises ValueError and OSError."""
        if id(media) not in self._known:  # the object is kept, so that its number stays its own
            hashes = [[media_hash(handle) for handle in handles] for handles in (media.images, media.videos)]
            self._known[id(media)] = media, hashes
        return self._known[id(media)][1]


def _groups(missing: dict[str, _Question]) -> Iterator[list[str]]:
    """Keys of the questions that see the same, in the order of their first."""
    groups: dict[tuple[int, Span | None], list[str]] = {}
    for key, question in missing.items():
        groups.setdefault((id(question.media), question.span), []).append(key)
    yield from groups.values()


def _sentence(error: Exception) -> str:
    """A reason without the paths' folders, as short as a record wants it."""
    if isinstance(error, OSError):
        return f"an image or video cannot be read: {error.strerror or error}"
    return str(error)[:500]


def checkpoint_identity(folder: Path, dtype: str) -> str:
    """Identifies a checkpoint's weights, tokenizer, processor and the number format that they run in.

    Args:
        folder: Directory of the checkpoint.
        dtype: The engine's.
    """
    names = ("*.safetensors", "config.json", "tokenizer*.json", "*processor*.json", "chat_template*")
    return f"{dtype}:{file_fingerprint([path for name in names for path in folder.glob(name)])}"
