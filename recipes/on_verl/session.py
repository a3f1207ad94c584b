"""Everything Tandem knows of a run on verl: prompts, rewards, filter, ledger and records, in verl's trainer process.

begin(step) -> ask(slots): what the agent loops need of each prompt
    -> responses as verl stored them -> score(slots, responses): groups with rewards
    -> write(step, ...): metrics.jsonl, rollouts.jsonl, ledger.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.on_verl.metrics import step_line
from recipes.on_verl.scorer import ServerScorer
from rl.advantages import batch_advantages
from rl.environment import Environment, PromptSlot, ScoredGroup, scored_group
from rl.files import atomic_write_json
from rl.filtering import StdFilter
from rl.late_scoring import LateScoring
from rl.reference import BASELINES, ReferenceProbs
from rl.run_directory import RunDirectory, read_config
from rl.trainer import step_metrics, unknown_initial_policy
from rl.trainer_state import TrainerState
from rollouts.records import Rollout, Status
from rollouts.response_records import end_of_turn_ids, make_rollout

STATE = "tandem.json"
"""File of the state beside verl's shards; a checkpoint without it is not complete."""
STOP = "stop"
"""File in the run directory that asks the run to end after its step: the user's Ctrl-C reaches the starting process,
and not this one.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One response as verl stored it."""

    sample: int
    ids: list[int]
    logprobs: list[float]


class Session:
    """One run, from the start of verl's trainer process to its end."""

    def __init__(self, run: Path, base_dir: Path | None) -> None:
        """Args:
        run: the run directory, which the starting process holds.
        base_dir: folder of the user's YAML file.

        Raises:
            ValueError: what the recipe itself would refuse.
        """
        import rewards
        from base_model.checkpoints import load_processor
        from recipes.hybrid_grpo import HybridGrpoConfig, build_environment
        from recipes.models import resolve_model
        from recipes.reward_keys import reward_columns, reward_specs
        from recipes.tasks import load_rows

        self.config = HybridGrpoConfig.model_validate(read_config(run))
        self.run = RunDirectory.attach(run)
        model_path = resolve_model(self.config.model)
        processor = load_processor(model_path, trust_remote_code=self.config.model.trust_remote_code)
        specs = reward_specs(self.config.rewards, self.config.modes, base_dir)
        self.rewards = rewards.build(specs, reward_columns(self.config.task), base_dir)
        self.rewards.save_failures_in(run)
        rows = load_rows(self.config.task, "train")
        self.environment: Environment = build_environment(self.config, rows, self.rewards, processor)
        self.stop_ids = end_of_turn_ids(model_path, self.environment.tokenizer)
        self.scorer = ServerScorer()
        trainer = self.config.trainer
        self.reference = ReferenceProbs(
            config=trainer.reference,
            environment=self.environment,
            current=self.scorer,
            initial=unknown_initial_policy,
            path=run / BASELINES,
        )
        self.state = TrainerState(filter=StdFilter(trainer.filter) if trainer.filter else None)
        self.slots: list[PromptSlot] = []
        """Prompts that are to be generated next."""
        self._done: tuple[list[ScoredGroup], list[ScoredGroup]] | None = None
        self._clock = time.perf_counter()

    @property
    def stop_requested(self) -> bool:
        """Whether the run is to end after this step, with a checkpoint."""
        return (self.run.path / STOP).exists()

    def foresee(self) -> None:
        """Baselines of the initial policy for all steps, where a reward asks for them."""
        if self.rewards.deferred:
            count = self.config.trainer.prompts_per_step
            steps = [self.environment.slots(step + 1, count, step * count) for step in range(self.config.trainer.steps)]
            self.reference.foresee(steps, lambda _done, _total: None)

    def begin(self, step: int) -> None:
        """Draw the step's prompts."""
        self.slots = self.state.next_slots(self.environment, step, self.config.trainer.prompts_per_step)

    def ask(self, step: int, slot: PromptSlot) -> dict[str, Any]:
        """What an agent loop needs to ask for the slot's responses."""
        requests = self.environment.requests(step, slot)
        ids = requests[0].prompt_ids
        return {
            "prompt_ids": list(ids),
            "max_tokens": min(slot.mode.max_tokens, self.config.engine.max_model_len - len(ids)),
            "seeds": [request.seed for request in requests],
            "stop_token_ids": list(self.stop_ids),
        }

    def score(
        self, step: int, slots: Sequence[PromptSlot], responses: Sequence[Sequence[Response]]
    ) -> list[ScoredGroup]:
        """Groups with their rewards; a response that is missing, or unusable, is left out of its group."""
        rollouts = [
            rollout
            for slot, own in zip(slots, responses, strict=True)
            for rollout in self._rollouts(step, slot, {response.sample: response for response in own})
        ]
        with self.environment.scoring(slots) as scoring:
            if not self.rewards.deferred:
                groups = scoring.finish(rollouts)
                return [scored_group(slot, *group) for slot, group in zip(slots, groups, strict=True)]
            late = LateScoring(scoring, slots, kept := scoring.collect(rollouts), self.reference, self.environment)
            numbers = [number for number, group in enumerate(kept) if group]
            found = dict(zip(numbers, self.scorer([late.train_group(n) for n in numbers]), strict=True))
            return [
                late.finish(number, found[number]) if number in found else scored_group(slot, [], [])
                for number, slot in enumerate(slots)
            ]

    def collected(self, accepted: list[ScoredGroup], generated: list[ScoredGroup]) -> None:
        """Keep the step's groups until `write`."""
        self._done = accepted, generated

    def write(self, step: int, verl_metrics: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """Write a completed step down.

        Args:
            step: its number.
            verl_metrics: what verl measured.
            seconds: verl's phases.
        """
        assert self._done is not None, f"step {step} has no groups"
        accepted, generated = self._done
        scale = self.config.trainer.scale_rewards
        advantages = [a.tolist() for a in batch_advantages([g.rewards_G for g in accepted], scale=scale)]
        self.state.count_tokens(generated, accepted, advantages)
        self.state.step = step
        now, before = time.perf_counter(), self._clock
        self._clock = now
        line = step_line(verl_metrics, seconds, now - before) | {
            **step_metrics(generated, self.rewards.may_miss),
            "groups/generated": float(len(generated)),
            "groups/trained": float(sum(any(own) for own in advantages)),
            **self.state.ledger.metrics(),
            "step": step,
        }
        for group, own in zip(accepted, advantages, strict=True):
            self.run.append_rollouts(self.environment.record(step, group, own))
        self.run.append_metrics(line)
        self.run.write_ledger(self.state.ledger.to_dict())
        self._done = None

    def save(self, folder: Path) -> None:
        """Write the state beside verl's shards."""
        self.run.sync()
        atomic_write_json(folder / STATE, self.state.to_dict())

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint; what the run has recorded of later steps is forgotten."""
        self.state.load_dict(json.loads((folder / STATE).read_text()))
        self.run.truncate_after(self.state.step)
        self.run.write_ledger(self.state.ledger.to_dict())

    def start_clock(self) -> None:
        """The first step starts now."""
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Give files and reward processes back."""
        self.run.close()
        self.rewards.close()

    def _rollouts(self, step: int, slot: PromptSlot, found: Mapping[int, Response]) -> list[Rollout]:
        """The group's rollouts, one per request."""
        rollouts = []
        for request in self.environment.requests(step, slot):
            response = found.get(request.sample)
            ids = response.ids if response else []
            rollout = make_rollout(
                self.environment.tokenizer,
                request,
                ids,
                response.logprobs if response else [],
                stopped=bool(ids) and ids[-1] in self.stop_ids,
                policy_version=step - 1,
            )
            rollouts.append(rollout if ids else _failed(rollout))
        return rollouts


def _failed(rollout: Rollout) -> Rollout:
    from dataclasses import replace

    return replace(rollout, status=Status.FAILED)
