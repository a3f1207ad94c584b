"""The DPO loop: take pairs, update, evaluate, write everything down; resumable at every checkpoint.

    pairs of the step -> learner.update (reference log-probs from the cache) -> metrics.jsonl [-> checkpoints/step_N]

Before the first step the reference log-probs of every pair are computed with the policy as it was loaded, which is the
reference (RLAIF-V, arXiv 2405.17220; Rafailov et al., arXiv 2305.18290).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rl.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from rl.interrupt import InterruptGuard
from rl.preference_config import PreferenceTrainerConfig
from rl.preference_learner import EncodedPair, PairScore, PreferenceLearner
from rl.random_state import seed_everything
from rl.reference_logprobs import ReferenceLogprobs
from rl.run_directory import RunDirectory
from rl.timing import PhaseTimer, peak_memory_gib


class Order(Protocol):
    """Which pair comes at which position of an endless run through the data."""

    def rows(self, position: int, count: int) -> list[int]:
        """The indices of `count` pairs from a position on."""
        ...


Evaluate = Callable[[Sequence[PairScore]], dict[str, Any]]
"""(scores of the held-out pairs) -> figures of an evaluation."""


class PreferenceTrainer:
    """Runs the loop over encoded pairs."""

    def __init__(
        self,
        *,
        config: PreferenceTrainerConfig,
        learner: PreferenceLearner,
        reference: ReferenceLogprobs,
        pairs: Sequence[EncodedPair],
        eval_pairs: Sequence[EncodedPair],
        order: Order,
        seed: int,
        run: RunDirectory,
        tokenizer: Any,
        evaluate: Evaluate,
        on_step: Callable[[int, dict[str, float]], None] = lambda _step, _metrics: None,
        on_progress: Callable[[int, int, str], None] = lambda _done, _total, _what: None,
    ) -> None:
        """Args:
        config: The loop's settings.
        learner: Updates the policy; it must still have the reference's weights.
        reference: The reference policy's log-probs.
        pairs: What is trained on.
        eval_pairs: What is evaluated on; may be empty.
        order: Of the training pairs.
        seed: Of dropout.
        run: Where everything is written.
        tokenizer: Saved with every checkpoint; for a vision-language model its processor.
        evaluate: Makes figures of the held-out pairs' scores.
        on_step: Called with (step, metrics) after each step.
        on_progress: Called with (done, total, what) within long work.
        """
        self.config = config
        self.learner = learner
        self.reference = reference
        self.pairs = pairs
        self.eval_pairs = eval_pairs
        self.order = order
        self.seed = seed
        self.run = run
        self.tokenizer = tokenizer
        self._evaluate = evaluate
        self._on_step = on_step
        self._progress = on_progress
        self.steps = config.total_steps(len(pairs))
        self.step = 0

    def prepare(self) -> int:
        """Compute the reference log-probs that are not known yet, with the weights as they were loaded; returns the
        number of pairs that were run. To be called before `resume`.
        """
        assert self.step == 0
        run = 0
        for pairs, what in ((self.pairs, "reference"), (self.eval_pairs, "reference of held-out pairs")):
            batches = self.learner.micro_batches(pairs)
            run += self.reference.fill(
                pairs,
                batches,
                self.learner.logprobs,
                lambda done, total, what=what: self._progress(done, total, what),  # type: ignore[misc]
            )
        return run

    def resume(self) -> int:
        """Continue from the newest complete checkpoint, or from the start when there is none; returns completed
        steps.
        """
        checkpoint = latest_checkpoint(self.run.path)
        if checkpoint is not None:
            optimisation = self.learner.optimisation
            state = load_checkpoint(checkpoint, model=self.learner.model, optimizer=optimisation.optimizer)
            optimisation.scheduler.load_state_dict(state["scheduler"])
            self.step = state["step"]
        self.run.truncate_after(self.step or -1)  # the evaluation before the first step is made again too
        return self.step

    def train(self) -> int:
        """Run to the last step, or to the end of the step in which the user interrupts; returns completed steps."""
        with InterruptGuard() as guard:
            if self.step == 0:
                self._write_evaluation()
            while self.step < self.steps and not guard.requested:
                metrics = self._run_step(self.step + 1)
                self.step += 1
                self.run.append_metrics(metrics)
                every = self.config.eval_every
                if self.step == self.steps or (every and self.step % every == 0):
                    self._write_evaluation()
                done = self.step == self.steps or guard.requested
                if done or (self.config.save_every and self.step % self.config.save_every == 0):
                    self.save()
                self._on_step(self.step, metrics)
        return self.step

    def save(self) -> None:
        """Write a checkpoint of the completed steps."""
        self.run.sync()
        save_checkpoint(
            self.run.path,
            step=self.step,
            model=self.learner.model,
            tokenizer=self.tokenizer,
            optimizer=self.learner.optimisation.optimizer,
            state={"scheduler": self.learner.optimisation.scheduler.state_dict()},
            keep_last=self.config.keep_last,
        )

    def scores(self) -> list[PairScore]:
        """The held-out pairs under the current weights."""
        return self.learner.evaluate(self.eval_pairs, self.reference.get(self.eval_pairs))

    def _run_step(self, step: int) -> dict[str, float]:
        seed_everything("preference step", self.seed, step)
        timer = PhaseTimer()
        size = self.config.batch_pairs
        pairs = [self.pairs[i] for i in self.order.rows((step - 1) * size, size)]
        with timer.phase("learn"):
            learned = self.learner.update(pairs, self.reference.get(pairs))
        epoch = step * size / len(self.pairs)
        timing = {**timer.metrics(), "memory/peak_gib": peak_memory_gib()}
        return {"step": step, "epoch": epoch, **learned, **timing}

    def _write_evaluation(self) -> None:
        if self.eval_pairs:
            self.run.append_evaluation({"step": self.step, "eval": self._evaluate(self.scores())})
