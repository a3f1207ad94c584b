"""The next step's responses, generated in a thread of their own while the current step is trained.

    trainer's thread                                        the thread here
    take(k): waits for step k's responses                   (was generating them)
    new weights into the engine, start(k + 1)          -->  engine.generate, groups to the rewards as they are finished
    rewards and update of step k, checkpoint
    take(k + 1)                                        <--  done

The engine answers one call at a time: whoever else wants it calls `wait` first. Prompts are made in the trainer's
thread, so that whatever draws random numbers does so in the order of a run without this.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rl.asking import Asked
from rl.environment import Environment, PromptSlot
from rl.scoring import StreamedScoring
from rollouts.engine import Engine
from rollouts.records import Rollout


class Batch:
    """One step's prompts, on their way to be responses."""

    def __init__(self, step: int, slots: Sequence[PromptSlot], environment: Environment) -> None:
        self.step = step
        self.asked: Asked = environment.asked(step, slots)
        self.scoring: StreamedScoring = environment.scoring(slots)
        self.answers: list[Rollout] = []
        """Of the engine: without the prompts that could not be asked."""
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self, engine: Engine) -> None:
        """Generate in the background."""
        self._thread = threading.Thread(target=self._generate, args=(engine,), daemon=True, name="generate-ahead")
        self._thread.start()

    def _generate(self, engine: Engine) -> None:
        try:
            on_result = self.asked.placed(self.scoring.on_result)
            self.answers = engine.generate(self.asked.requests, on_result=on_result)
        except BaseException as error:  # raised in the trainer's thread, which waits for it
            self._error = error

    def wait(self) -> None:
        """Returns when all responses are there; raises what generating them raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def responses(self) -> list[Rollout]:
        """All responses of the step, in the order of its prompts."""
        self.wait()
        return self.asked.responses(self.answers)


class Ahead:
    """At most one step's responses that the trainer has not taken yet."""

    def __init__(self, engine: Engine, environment: Environment) -> None:
        self._engine = engine
        self._environment = environment
        self._batch: Batch | None = None
        self._saved: Mapping[str, Any] | None = None

    def start(self, step: int, slots: Sequence[PromptSlot]) -> None:
        """Generate a step's responses in the background, with the weights that the engine has now."""
        assert self._batch is None, "a step's responses are on their way already"
        self._batch = Batch(step, slots, self._environment)
        self._batch.begin(self._engine)

    def take(self, step: int, slots: Sequence[PromptSlot]) -> Batch:
        """The step's responses: those that were started or saved for it, else generated now."""
        if self._saved is not None and self._saved["step"] == step:
            self._batch = Batch(step, slots, self._environment)
            self._batch.answers = [Rollout.from_dict(answer) for answer in self._saved["answers"]]
        elif self._batch is None:
            self.start(step, slots)
        self._saved = None
        assert self._batch is not None
        assert self._batch.step == step
        self.wait()
        batch, self._batch = self._batch, None
        return batch

    def wait(self) -> None:
        """Returns when the engine is free."""
        if self._batch is not None:
            self._batch.wait()

    def state_dict(self) -> dict[str, Any] | None:
        """What has been generated ahead, JSON-able: no later policy would sample it again. Waits for the rest of it."""
        self.wait()
        if self._batch is None:
            return None
        return {"step": self._batch.step, "answers": [answer.to_dict() for answer in self._batch.answers]}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Takes over what an earlier run has generated ahead."""
        self._saved = state

    def close(self) -> None:
        """Give up what nobody will take. The engine's owner ends a call that is still under way."""
        if self._batch is not None:
            with suppress(Exception):
                self._batch.scoring.__exit__(None, None, None)
            self._batch = None
