"""Tandem's side: the real trainer, engine, rewards and run directory; only the prompts are given as ids of an exact
length, and responses run to their budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from base_model.checkpoints import load_processor
from base_model.packed_lm import PackedCausalLM, load_packed
from base_model.packing import PackedBatch
from recipes.benchmark.config import Job
from recipes.benchmark.profile_child import StepProfile, machine_peaks
from recipes.benchmark.repeated import RepeatedLearner
from recipes.benchmark.session import PHASES, Session, TokenCount
from recipes.benchmark.workload import make_image, make_prompts
from rewards import build
from rl.config import LearnerConfig, TrainerConfig
from rl.environment import BarePrompt, Environment, PromptSlot
from rl.learner import Learner
from rl.prompts import Prompt
from rl.run_directory import RunDirectory
from rl.trainer import Trainer
from rollouts.engine import EngineConfig, VLLMEngine
from rollouts.modes import ModeSampler, ModesConfig, ShortMode
from rollouts.records import Request, Rollout, Sampling, request_seed
from rollouts.reference import ReferenceSpan


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A prompt of the workload, as the environment sees rows."""

    index: int
    messages: Sequence[Mapping[str, Any]]
    reference: Any = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[Any] = ()
    videos: Sequence[Any] = ()


class _InOrder:
    """Rows one after the other: the peer is given them in the same order."""

    def row(self, position: int) -> int:
        """Row index; a pure function of the position."""
        return position


class FixedLengths(Environment):
    """Requests with the row's text alone as the prompt (no chat template, unless there are images) and responses of a
    forced length.
    """

    def requests(self, step: int, slot: PromptSlot, count: int | None = None) -> list[Request]:
        """As in ``Environment``."""
        row = self.rows[self.order.row(slot.position)]
        prompt = (
            self.prompts.prompt(row, slot.mode)
            if row.images
            else Prompt(tuple(self.tokenizer(row.messages[-1]["content"])["input_ids"]))
        )
        return [
            Request(
                prompt_ids=prompt.ids,
                media=prompt.media,
                mode=slot.mode,
                row=row.index,
                sample=sample,
                seed=request_seed(self.seed, step, slot.position, sample),
                sampling=self.sampling,
                ignore_eos=True,
            )
            for sample in range(count or self.group_size)
        ]

    def reference_span(self, slot: PromptSlot, rollout: Rollout, answer_open: str) -> ReferenceSpan | None:
        """In place of the response's last tokens: random text has no answer of its own."""
        span = self._reference(slot)
        return replace(span, keep=max(0, len(rollout.response_ids) - len(span.tokens)))

    def bare_prompt(self, slot: PromptSlot) -> BarePrompt | None:
        """As in ``Environment``, without a chat template."""
        return BarePrompt(self.requests(0, slot, 1)[0].prompt_ids, self._reference(slot), None)

    def _reference(self, slot: PromptSlot) -> ReferenceSpan:
        tokens = tuple(self.tokenizer(self.rows[self.order.row(slot.position)].reference)["input_ids"])
        return ReferenceSpan(keep=0, tokens=tokens, scored=tuple(range(len(tokens))))


class _EnoughError(Exception):
    """The parent wants no more steps."""


def run(session: Session, job: Job, library: str = "tandem") -> None:
    """Train until the parent stops asking for steps.

    Args:
        session: the conversation with the parent.
        job: what to do.
        library: tandem; probability = with the probability reward beside the other one; repeated = without a shared
            prefix in the update.
    """
    config = EngineConfig(
        threads=job.threads,
        max_model_len=job.max_model_len,
        enforce_eager=job.enforce_eager,
        max_images=job.images,
        max_videos=0,
    )
    directory = RunDirectory.create(Path(job.work_dir) / library, {}, resume=False)
    rewards = build(["recipes.benchmark.workload:even_share", *(["probability"] if library == "probability" else [])])
    kind = RepeatedLearner if library == "repeated" else Learner
    with directory, rewards, VLLMEngine(job.model, config) as engine:
        trainer = _trainer(session, job, directory, rewards, engine, kind, config.max_num_seqs)
        engine.wait_ready()
        peaks = {"machine": machine_peaks(trainer.learner.device)} if job.profile else {}
        precision = str(trainer.learner.dtype).removeprefix("torch.")
        session.ready(threads=torch.get_num_threads(), precision=precision, **peaks)
        if session.next_step():
            try:
                trainer.train()
            except _EnoughError:
                return


def _trainer(
    session: Session,
    job: Job,
    run: RunDirectory,
    rewards: Any,
    engine: VLLMEngine,
    learner: type[Learner],
    sequences: int,
) -> Trainer:
    packed = load_packed(job.model)
    count_work(session.tokens, packed)
    processor = load_processor(job.model)
    # One step more than is asked for: the last one would write a checkpoint, which is no part of a step, unless that
    # is to be measured as well.
    steps = job.total_steps + (not job.profile)
    profiles: list[StepProfile] = []
    trainer = Trainer(
        config=TrainerConfig(steps=steps, prompts_per_step=job.prompts, save_every=0),
        environment=_environment(job, steps, rewards, processor),
        engine=_Noting(session, engine),
        learner=learner(packed, LearnerConfig(precision=job.precision), total_steps=steps),
        run=run,
        tokenizer=processor,
        on_step=lambda _step, metrics: _on_step(session, metrics, profiles),
    )
    if job.profile:
        profiles.append(StepProfile(trainer, sequences))
    return trainer


def _environment(job: Job, steps: int, rewards: Any, processor: Any) -> FixedLengths:
    tokenizer = getattr(processor, "tokenizer", processor)
    texts = make_prompts(tokenizer, job.prompt, job.prompts * steps)
    references = make_prompts(tokenizer, job.reference_tokens, len(texts), seed=1)
    return FixedLengths(
        rows=[
            _Row(
                index=i,
                messages=[{"role": "user", "content": _content(text, job.images)}],
                reference=reference,
                images=[make_image(job.image_side, seed=i * job.images + n) for n in range(job.images)],
            )
            for i, (text, reference) in enumerate(zip(texts, references, strict=True))
        ],
        order=_InOrder(),
        modes=ModeSampler(ModesConfig(mode="short", short=ShortMode(max_tokens=job.response)), seed=0),
        rewards=rewards,
        tokenizer=processor,
        sampling=Sampling(),
        group_size=job.group_size,
        seed=0,
    )


class _Noting:
    """The engine, with the prompts of every call noted."""

    def __init__(self, session: Session, engine: VLLMEngine) -> None:
        self._session = session
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Request], on_progress: Any = None, on_result: Any = None) -> Any:
        """As in ``VLLMEngine``."""
        self._session.tokens.asked([request.prompt_ids for request in requests])
        return self._engine.generate(requests, on_progress, on_result)


def _content(text: str, images: int) -> Any:
    """A user's message."""
    return [*[{"type": "image"}] * images, {"type": "text", "text": text}] if images else text


def count_work(count: TokenCount, packed: PackedCausalLM) -> None:
    """Count the tokens and views of images of every forward pass from here on."""
    packed.register_forward_pre_hook(lambda _module, args: _count(count, args[0]))
    tower = getattr(packed.causal_lm, "vpm", None)
    if tower is not None:
        tower.register_forward_pre_hook(lambda _module, args: _count_views(count, args[0]))


def _count_views(count: TokenCount, views: Sequence[Any]) -> None:
    count.views += len(views)


def _count(count: TokenCount, batch: PackedBatch) -> None:
    count.forwarded(
        prompt=sum(group.prompt * len(group.responses) for group in batch.layout),
        response=len(batch.targets_T),
        positions=batch.input_ids.numel(),
    )


def _on_step(session: Session, metrics: Mapping[str, float], profiles: Sequence[StepProfile]) -> None:
    named = [name for name in PHASES if f"time/{name}" in metrics]
    phases = {name: (metrics[f"time/{name}"], metrics[f"time/{name}_cpu"]) for name in named}
    session.report(phases, profiles[0].take(metrics) if profiles else None)
    if not session.next_step():
        raise _EnoughError
