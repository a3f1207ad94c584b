"""Learning rates over the steps, against values worked out by hand."""

import pytest
from pydantic import ValidationError

from base_model.training_settings import OptimizerSettings, Schedule


def _factors(steps: int, **fields: object) -> list[float]:
    schedule = Schedule.model_validate(fields)
    return [round(schedule.factor(step, steps), 4) for step in range(steps)]


def test_warm_up_stable_decay() -> None:
    factors = _factors(10, kind="wsd", warmup_steps=3, decay_steps=4, final_share=0.2)
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_final_share() -> None:
    # (1 + cos(pi p)) / 2 at p = 1/4, 1/2, 3/4, 1, between 1 and 0.1
    assert _factors(5, kind="cosine", warmup_steps=1, final_share=0.1) == [0.5, 0.8682, 0.55, 0.2318, 0.1]


def test_constant() -> None:
    assert _factors(3, kind="constant", warmup_steps=1) == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("fields", [{"kind": "wsd"}, {"kind": "cosine", "decay_steps": 5}])
def test_a_decay_phase_belongs_to_wsd(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="wsd needs a decay phase"):
        Schedule.model_validate(fields)


def test_parts_have_rates_of_their_own() -> None:
    settings = OptimizerSettings.model_validate({"learning_rate": 1e-3, "learning_rates": {"vision tower": 1e-4}})
    assert settings.rate("vision tower") == 1e-4
    assert settings.rate("resampler") == 1e-3
    with pytest.raises(ValidationError, match="leave the part out of `train`"):
        OptimizerSettings.model_validate({"learning_rates": {"resampler": 0}})
