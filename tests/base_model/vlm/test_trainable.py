"""What trains in each stage: exactly the parts named, with their learning rates."""

import pytest

from base_model.trainable import parameter_groups, part_of, part_states, set_trainable
from base_model.training_settings import PARTS, OptimizerSettings, PartName
from base_model.vlm.presets import parts as part_sizes
from tests.base_model.vlm.small import tiny
from tests.tiny import make_tiny_model

STAGES: list[list[PartName]] = [["resampler"], ["resampler", "vision tower"], list(PARTS), ["language model"]]


@pytest.mark.parametrize("trained", STAGES)
def test_exactly_the_named_parts_train(trained: list[PartName]) -> None:
    model, _ = tiny()
    states = set_trainable(model, trained)
    assert {part for part, state in states.items() if state.trainable} == set(trained)
    assert {part: state.parameters for part, state in states.items()} == {
        part: size.parameters for part, size in part_sizes(model).items()
    }
    prefixes = {"vpm.": "vision tower", "resampler.": "resampler", "llm.": "language model"}
    for name, parameter in model.named_parameters():
        part = next(part for prefix, part in prefixes.items() if name.startswith(prefix))
        assert parameter.requires_grad == (part in trained), name
    set_trainable(model, list(PARTS))
    assert all(state.parameters == state.trainable for state in part_states(model).values())


def test_a_part_that_is_not_there_is_refused(tmp_path) -> None:
    from base_model.packed_lm import load_packed

    text = load_packed(make_tiny_model(tmp_path)).causal_lm
    with pytest.raises(ValueError, match="resampler is to train, but the model has language model"):
        set_trainable(text, ["resampler"])
    with pytest.raises(ValueError, match="nothing is to train"):
        set_trainable(text, [])
    assert set(set_trainable(text, ["language model"])) == {"language model"}


def test_groups_hold_every_trained_parameter_once_at_its_rate() -> None:
    model, _ = tiny()
    set_trainable(model, ["resampler", "vision tower"])
    settings = OptimizerSettings.model_validate(
        {"learning_rate": 1e-3, "learning_rates": {"vision tower": 1e-4}, "weight_decay": 0.1}
    )
    groups = parameter_groups(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert sorted(name for name, _ in grouped) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    for name, group in grouped:
        assert group["lr"] == {"vision tower": 1e-4, "resampler": 1e-3}[part_of(name)]
        assert group["weight_decay"] == (0.1 if dict(model.named_parameters())[name].ndim > 1 else 0.0)
