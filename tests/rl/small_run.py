"""A small hybrid run on a tiny model with a reward that random text tells apart, for tests of the loop."""

import json
from pathlib import Path
from typing import Any

import rewards
from base_model.packed_lm import load_packed
from recipes.tasks import EpochOrder, Row
from rewards import reward
from rl.config import LearnerConfig, TrainerConfig
from rl.environment import Environment
from rl.learner import Learner
from rl.run_directory import RunDirectory
from rl.trainer import Trainer
from rollouts.modes import LongMode, ModeSampler, ModesConfig, ShortMode
from rollouts.records import Sampling

MODES = ModesConfig(mode="hybrid", short=ShortMode(max_tokens=5), long=LongMode(max_tokens=11))


@reward("letter_share")
def letter_share(*, response: str) -> float:
    """A signal that random text has."""
    return sum(c.isalpha() for c in response) / max(1, len(response))


@reward("never_differs")
def never_differs(*, response: str) -> float:
    """No signal at all."""
    return 1.0


def make_trainer(
    path: Path,
    engine: Any,
    model_path: Path,
    *,
    reward_name: str = "letter_share",
    learner_temperature: float = 1.0,
    modes: ModesConfig = MODES,
    group_size: int = 4,
    learner: dict[str, Any] | None = None,
    resume: bool = False,
    hooks: dict[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """A trainer over five rows, in float32.

    Args:
        path: the run directory.
        engine: of the model at ``model_path``.
        model_path: where the learner's weights come from.
        reward_name: one of the above.
        learner_temperature: another one than the engine's makes them disagree.
        modes: of the prompts.
        group_size: responses per prompt.
        learner: further settings of the learner.
        resume: whether the run directory is there already.
        hooks: further arguments of the trainer.
        **settings: of the trainer.
    """
    rows = [Row(index=i, messages=({"role": "user", "content": f"Say {i}"},), columns={}) for i in range(5)]
    environment = Environment(
        rows=rows,
        order=EpochOrder(len(rows), 0),
        modes=ModeSampler(modes, 0),
        rewards=rewards.build([reward_name], [], None),
        tokenizer=engine.tokenizer,
        sampling=Sampling(),
        group_size=group_size,
        seed=0,
    )
    packed = load_packed(model_path, temperature=learner_temperature)
    updates = LearnerConfig(**{"learning_rate": 1e-3, "precision": "float32", **(learner or {})})
    config = TrainerConfig(**{"steps": 3, "prompts_per_step": 4, "save_every": 0, **settings})
    return Trainer(
        config=config,
        environment=environment,
        engine=engine,
        learner=Learner(packed, updates, total_steps=3),
        run=RunDirectory.create(path, {}, resume=resume),
        tokenizer=engine.tokenizer,
        **(hooks or {}),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
