"""The hybrid GRPO loop: sample, score, compare within the group, update, push the weights, write everything down.

One step, as data::

    slots (mode, data position) -> requests -> engine.generate -> rewards -> advantages -> learner.update
        -> engine.load_weights -> metrics.jsonl, rollouts.jsonl, ledger.json [-> checkpoints/step_N]

With ``staleness: 1`` the weights go to the engine before a step's update, and the next step's responses are generated
from them meanwhile (``rl.ahead``).

How this follows the MiniCPM-V 4.5 report (arXiv 2509.18154, section 2.4):

1. Modes are drawn per prompt, so every group is of one mode and is compared within itself.
2. There is no KL term and no entropy bonus.
3. Not published there and taken from RLPR (arXiv 2506.18254) as defaults: token-mean loss, clip 0.2 / 0.27, groups
   without spread untrained, the optional filter on the group's standard deviation.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from base_model.packing import TokenGroup
from rl.advantages import batch_advantages
from rl.ahead import Ahead
from rl.asking import Unreadable
from rl.checkpoint import latest_checkpoint
from rl.config import Scale, TrainerConfig
from rl.environment import Environment, PromptSlot, ScoredGroup, scored_group
from rl.filtering import StdFilter
from rl.interrupt import InterruptGuard
from rl.late_scoring import LateScoring
from rl.learner import Learner, TrainGroup
from rl.metrics import Max, Mean, Metrics, Sum, merge, to_floats
from rl.reference import BASELINES, BranchLogprobs, ReferenceProbs
from rl.run_directory import RunDirectory
from rl.scoring import StreamedScoring
from rl.timing import PhaseTimer, peak_memory_gib
from rl.trainer_state import TrainerState
from rollouts.engine import Engine
from rollouts.records import Rollout, Status

Progress = Callable[[int, int, str], None]
"""(done, total, what) within a step, for a progress bar."""


class _Learned(NamedTuple):
    """One step's outcome."""

    accepted: list[ScoredGroup]
    generated: list[ScoredGroup]  # with those that the filter turned away
    advantages: list[list[float]]  # of the accepted groups
    metrics: dict[str, float]


class Trainer:
    """Runs the loop over an environment, an engine and a learner, none of which know each other."""

    def __init__(
        self,
        *,
        config: TrainerConfig,
        environment: Environment,
        engine: Engine,
        learner: Learner,
        run: RunDirectory,
        tokenizer: Any,
        on_step: Callable[[int, dict[str, float]], None] | None = None,
        on_progress: Progress | None = None,
        evaluate: Callable[[int], dict[str, Any]] | None = None,
        initial_policy: Callable[[], BranchLogprobs] | None = None,
    ) -> None:
        """Args:
        config: the loop's settings.
        environment: rows, modes and rewards.
        engine: produces responses.
        learner: updates the policy.
        run: where everything is written.
        tokenizer: saved with every checkpoint; for a vision-language model its processor.
        on_step: called with (step, metrics) after each step.
        on_progress: called within a step.
        evaluate: makes an evaluation at a step.
        initial_policy: loads the policy that the run started from, for rewards that compare with it; needed only where
            a resumed run meets data that its start did not foresee.
        """
        self.config = config
        self.environment = environment
        self.engine = engine
        self.learner = learner
        self.run = run
        self.tokenizer = tokenizer
        self._on_step = on_step or (lambda _step, _metrics: None)
        self._progress = on_progress or (lambda _done, _total, _what: None)
        self._evaluate = evaluate
        self.reference = ReferenceProbs(
            config=config.reference,
            environment=environment,
            current=lambda groups: learner.branch_logprobs(groups),
            initial=initial_policy or unknown_initial_policy,
            path=run.path / BASELINES,
        )
        self.state = TrainerState(filter=StdFilter(config.filter) if config.filter else None)
        self._unreadable: list[Unreadable] = []  # prompts of the step
        self._ahead = Ahead(engine, environment) if config.staleness else None
        self._engine_state: Mapping[str, Any] | None = None  # of the checkpoint

    def resume(self) -> int:
        """Continue from the newest complete checkpoint, or from the start when there is none; returns completed
        steps.
        """
        checkpoint = latest_checkpoint(self.run.path)
        if checkpoint is not None:
            state = self.learner.load(checkpoint)
            self.state.load_dict(state["trainer"])
            self._engine_state = state.get("engine")
            if self._ahead is not None:
                self._ahead.load_state_dict(state.get("ahead"))
        self.run.truncate_after(self.state.step)
        return self.state.step

    def train(self) -> int:
        """Run to the configured step, or to the end of the step in which the user interrupts; returns completed
        steps.
        """
        self.check_engine()
        if self._engine_state is not None:
            self.engine.load_state_dict(self._engine_state)  # the check has changed it, as at the start of the run
        if self.environment.rewards.deferred and not self.state.step:
            self._foresee_baselines()
        try:
            return self._train()
        finally:
            if self._ahead is not None:
                self._ahead.close()

    def _train(self) -> int:
        with InterruptGuard() as guard:
            while self.state.step < self.config.steps and not (guard.requested or self.learner.interrupted):
                step = self.state.step + 1
                metrics, groups, advantages = self._step(step)
                self.state.step = step
                self._write(step, metrics, groups, advantages)
                done = step == self.config.steps or guard.requested or self.learner.interrupted
                if done or (self.config.save_every and step % self.config.save_every == 0):
                    self.save()
                self._on_step(step, metrics)
                self._maybe_evaluate(step)
        return self.state.step

    def save(self) -> None:
        """Write a checkpoint of the completed steps."""
        self.run.sync()
        ahead = self._ahead.state_dict() if self._ahead is not None else None
        self.learner.save(
            self.run.path,
            step=self.state.step,
            tokenizer=self.tokenizer,
            state={"trainer": self.state.to_dict(), "engine": self.engine.state_dict(), "ahead": ahead},
            keep_last=self.config.keep_last,
        )

    def check_engine(self) -> float:
        """Push the weights and compare both sides' log-probs of a few fresh samples; returns the mean gap in nats.

        Raises:
            ValueError: the mean gap is above ``max_logprob_gap``: training would follow another policy than it samples.
        """
        self._push_weights()
        slots = self.environment.slots(0, self.config.check_prompts, 0)
        rollouts = self.engine.generate([self.environment.requests(0, slot, 1)[0] for slot in slots])
        pairs = [(slot, r) for slot, r in zip(slots, rollouts, strict=True) if r.status is not Status.FAILED]
        trainer_T = self.learner.logprobs([self._token_group(slot, [r]) for slot, r in pairs])
        engine_T = torch.tensor([p for _, r in pairs for p in r.logprobs])
        gap = float((trainer_T - engine_T).abs().mean())
        if not gap <= self.config.max_logprob_gap:
            raise ValueError(
                f"engine and trainer differ by {gap:.3f} nats per token on average (limit "
                f"{self.config.max_logprob_gap}): they do not run the same policy; use a model that both support, "
                "or the same precision on both sides (engine.dtype, learner.precision)"
            )
        return gap

    def _token_group(self, slot: PromptSlot, rollouts: Sequence[Rollout]) -> TokenGroup:
        """Responses to one prompt, with its media."""
        media = self.environment.media_inputs(slot)
        return TokenGroup(
            prompt=rollouts[0].prompt_ids,
            responses=[r.response_ids for r in rollouts],
            inputs=None if media is None else media(),
        )

    def _foresee_baselines(self) -> None:
        count = self.config.prompts_per_step
        steps = [self.environment.slots(step + 1, count, step * count) for step in range(self.config.steps)]
        self.reference.foresee(steps, lambda done, total: self._progress(done, total, "baselines"))

    def _step(self, step: int) -> tuple[dict[str, float], list[ScoredGroup], list[list[float]]]:
        _seed_everything(self.environment.seed, step)
        self._unreadable = []
        timer = PhaseTimer()
        learn = self._learn_and_score if self._scores_while_learning else self._score_and_learn
        accepted, generated, advantages, learned = learn(step, timer)
        with timer.phase("sync"):
            if self._ahead is None and any(any(advantages_G) for advantages_G in advantages):
                self._push_weights(step)
        self.state.count_tokens(generated, accepted, advantages)
        metrics = {
            "step": float(step),
            **step_metrics(generated, self.environment.rewards.may_miss),
            **learned,
            **(self._staleness(step, generated) if self._ahead is not None else {}),
            "groups/generated": float(len(generated)),
            "groups/trained": float(sum(any(advantages_G) for advantages_G in advantages)),
            **({"groups/unreadable": float(len(self._unreadable))} if self._unreadable else {}),
            **self.state.ledger.metrics(),
            **timer.metrics(),
            "memory/peak_gib": peak_memory_gib(),
        }
        return metrics, accepted, advantages

    @property
    def _scores_while_learning(self) -> bool:
        """Whether rewards that wait for the policy can be read from the update's own forward pass."""
        needs_all = self.config.filter is not None or self.config.scale_rewards == "batch"
        return self.environment.rewards.deferred and not needs_all

    def _score_and_learn(self, step: int, timer: PhaseTimer) -> _Learned:
        """Every reward first, then the update."""
        accepted, generated = self._collect(step, timer)
        advantages = [a.tolist() for a in batch_advantages([g.rewards_G for g in accepted], scale=self._scale)]
        train_groups = [self._train_group(g, a) for g, a in zip(accepted, advantages, strict=True)]
        with timer.phase("learn"):
            self._progress(0, 1, "learn")
            learned = self.learner.update(train_groups)
        return _Learned(accepted, generated, advantages, learned)

    def _learn_and_score(self, step: int, timer: PhaseTimer) -> _Learned:
        """The rewards that wait for the policy are known in the middle of the update; see ``rl.late_scoring``."""
        slots = self._next_slots(step)
        with self._generation(step, slots, timer) as (scoring, rollouts):
            with timer.phase("reward"):
                groups = scoring.collect(rollouts)
                late = LateScoring(scoring, slots, groups, self.reference, self.environment)
            scored = [scored_group(slot, [], []) for slot in slots]
            advantages: list[list[float]] = [[] for _ in slots]

            def settle(number: int, logprobs: Sequence[Sequence[float]]) -> tuple[float, ...]:
                group = scored[number] = late.finish(number, logprobs)
                advantages[number] = batch_advantages([group.rewards_G], scale=self._scale)[0].tolist()
                return late.for_all_responses(number, group, advantages[number])

            numbers = [number for number, group in enumerate(groups) if group]
            train_groups = [late.train_group(number) for number in numbers]
            with timer.phase("learn"):
                self._progress(0, 1, "learn")
                known = [
                    group if group.branches else replace(group, advantages_G=settle(number, []))
                    for number, group in zip(numbers, train_groups, strict=True)
                ]
                learned = self.learner.update(known, lambda at, logprobs: settle(numbers[at], logprobs))
        accepted = [scored[number] for number in numbers]
        return _Learned(accepted, scored, [advantages[number] for number in numbers], learned)

    @property
    def _scale(self) -> Scale:
        return self.config.scale_rewards

    def _train_group(self, group: ScoredGroup, advantages_G: Sequence[float]) -> TrainGroup:
        return TrainGroup(
            tokens=TokenGroup(prompt=group.rollouts[0].prompt_ids, responses=[r.response_ids for r in group.rollouts]),
            advantages_G=tuple(advantages_G),
            engine_logprobs=tuple(tuple(r.logprobs) for r in group.rollouts),
            media=self.environment.media_inputs(group.slot),
        )

    def _next_slots(self, step: int) -> list[PromptSlot]:
        return self.state.next_slots(self.environment, step, self.config.prompts_per_step)

    def _collect(self, step: int, timer: PhaseTimer) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """The step's groups, and all that were generated for it."""
        return self.state.collect(step, self._next_slots(step), lambda slots: self._rollout(step, slots, timer))

    def _rollout(self, step: int, slots: Sequence[PromptSlot], timer: PhaseTimer) -> list[ScoredGroup]:
        """Generate and score."""
        with self._generation(step, slots, timer) as (scoring, rollouts), timer.phase("reward"):
            self._progress(0, 1, "reward")
            if self.environment.rewards.deferred:
                return self._score_with_policy(slots, scoring, scoring.collect(rollouts))
            groups = scoring.finish(rollouts)
        return [scored_group(slot, *group) for slot, group in zip(slots, groups, strict=True)]

    def _score_with_policy(
        self, slots: Sequence[PromptSlot], scoring: StreamedScoring, groups: Sequence[Sequence[Rollout]]
    ) -> list[ScoredGroup]:
        """Score groups whose rewards ask for the policy's probabilities, by a forward pass of their own."""
        late = LateScoring(scoring, slots, groups, self.reference, self.environment)
        numbers = [number for number, group in enumerate(groups) if group]
        found = self.learner.branch_logprobs([late.train_group(number) for number in numbers])
        logprobs = dict(zip(numbers, found, strict=True))
        return [
            late.finish(number, logprobs[number]) if number in logprobs else scored_group(slot, [], [])
            for number, slot in enumerate(slots)
        ]

    @contextmanager
    def _generation(
        self, step: int, slots: Sequence[PromptSlot], timer: PhaseTimer
    ) -> Iterator[tuple[StreamedScoring, list[Rollout]]]:
        """What scores the step's responses, and these."""
        if self._ahead is None:
            with self.environment.scoring(slots) as scoring:
                yield scoring, self._generate(step, slots, scoring, timer)
            return
        with timer.phase("generate"):
            self._progress(0, 1, "generate")
            batch = self._ahead.take(step, slots)
        with batch.scoring:
            with timer.phase("sync"):
                self._give_engine_weights(step - 1)
            if step < self.config.steps:
                following = self.environment.slots(step + 1, self.config.prompts_per_step, self.state.position)
                self._ahead.start(step + 1, following)
            self._unreadable.extend(batch.asked.unreadable)
            yield batch.scoring, batch.responses()

    def _generate(
        self, step: int, slots: Sequence[PromptSlot], scoring: StreamedScoring, timer: PhaseTimer
    ) -> list[Rollout]:
        """All responses; rewards that run in the background start while other groups are still generated."""
        with timer.phase("generate"):
            asked = self.environment.asked(step, slots)
            self._unreadable.extend(asked.unreadable)
            rollouts = self.engine.generate(
                asked.requests,
                on_progress=lambda done, total: self._progress(done, total, "generate"),
                on_result=asked.placed(scoring.on_result),
            )
            return asked.responses(rollouts)

    def _push_weights(self, version: int | None = None) -> None:
        self.engine.load_weights(self.learner.weights().items(), self.state.step if version is None else version)

    def _give_engine_weights(self, version: int) -> None:
        if self.engine.version != version:
            self._push_weights(version)

    @staticmethod
    def _staleness(step: int, groups: Sequence[ScoredGroup]) -> dict[str, float]:
        """Updates between the policy that sampled and the one that the step begins with; the larger one if mixed."""
        ages = [float(step - 1 - rollout.policy_version) for group in groups for rollout in group.rollouts]
        return {"rollouts/staleness": max(ages)} if ages else {}

    def _write(
        self, step: int, metrics: dict[str, float], groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
    ) -> None:
        for group, advantages_G in zip(groups, advantages, strict=True):
            self.run.append_rollouts(self.environment.record(step, group, advantages_G))
        self.run.append_rollouts([self.environment.unreadable_record(step, prompt) for prompt in self._unreadable])
        self.run.append_metrics({**metrics, "step": step})
        self.run.write_ledger(self.state.ledger.to_dict())

    def _maybe_evaluate(self, step: int) -> None:
        if self._evaluate and self.config.eval_every and step % self.config.eval_every == 0:
            if self._ahead is not None:
                self._ahead.wait()
                self._give_engine_weights(step)
            state = self.engine.state_dict()
            evaluation = self._evaluate(step)
            self.engine.load_state_dict(state)  # a run that is resumed here does not evaluate again
            self.run.append_evaluation({"step": step, "rl_tokens": self.state.ledger.rl_tokens, "eval": evaluation})


def step_metrics(groups: Sequence[ScoredGroup], may_miss: Sequence[str] = ()) -> dict[str, float]:
    """Means over every generated response, in all and by mode: rewards, length, truncation, entropy estimate.

    ``entropy/<mode>`` is the mean of -log p over sampled tokens, an unbiased estimate of the policy's entropy per
    token. ``reward/<name>/missing`` is the share of responses without a score, for the rewards of ``may_miss``.
    """
    return to_floats(merge(*(_group_metrics(group, may_miss) for group in groups)))


def _group_metrics(group: ScoredGroup, may_miss: Sequence[str]) -> Metrics:
    mode = group.mode
    rollouts = [*group.rollouts, *(rollout for rollout, _ in group.left_out)]
    scores = [*group.scores, *(score for _, score in group.left_out)]
    metrics: Metrics = {
        "reward/total": Mean.of(group.rewards_G),
        f"reward/{mode}/total": Mean.of(group.rewards_G),
        f"response_tokens/{mode}": Mean.of(len(r.response_ids) for r in rollouts),
        f"truncated/{mode}": Mean.of(r.status is Status.TRUNCATED for r in rollouts),
        f"entropy/{mode}": Mean.of(-p for r in rollouts for p in r.logprobs),
        f"groups/{mode}": Sum(1.0),
        "rollouts/max_tokens": Max(max((float(len(r.response_ids)) for r in rollouts), default=-math.inf)),
    }
    for name in sorted({name for score in scores for name in score.breakdown}):
        values = [score.breakdown[name] for score in scores if score.breakdown.get(name) is not None]
        metrics[f"reward/{name}"] = metrics[f"reward/{mode}/{name}"] = Mean.of(v for v in values if v is not None)
    for name in may_miss:
        metrics[f"reward/{name}/missing"] = Mean.of(name in score.missing for score in scores)
    return metrics


def unknown_initial_policy() -> BranchLogprobs:
    """Refuse to score with the initial policy. Raises ValueError."""
    raise ValueError(
        "a reward compares with the policy that the run started from, for data that the start of the run did not "
        "foresee, and that policy is not known here; use reference.baseline: current"
    )


def _seed_everything(seed: int, step: int) -> None:
    """Every generator restarts at each step (dropout is the only user), so its state never needs to be saved."""
    value = int.from_bytes(hashlib.sha256(f"step:{seed}:{step}".encode()).digest()[:4], "big")
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
