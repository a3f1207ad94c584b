"""The pipeline's stages: every command is one that the recipes take, stages hang together, and what is done is not done
again."""

from pathlib import Path

import pytest

from recipes import recipe_stages
from recipes.cli import CONFIGS, load_config
from recipes.evaluate import EvaluateConfig
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.new_model import NewModelConfig
from recipes.pipeline import PipelineConfig, main, models, stages, task_config, training_config
from recipes.render import RenderSource
from recipes.stage_config import StagedConfig

RECIPES = {
    "recipes.new_model": (NewModelConfig, None),
    "recipes.pretrain": (StagedConfig, "pretrain.yaml"),
    "recipes.vlm_sft": (StagedConfig, "vlm_sft.yaml"),
    "recipes.evaluate": (EvaluateConfig, "evaluate.yaml"),
    "recipes.hybrid_grpo": (HybridGrpoConfig, "hybrid_grpo.yaml"),
}


def resolved(arguments: tuple[str, ...]):
    """The configuration that a stage's command line gives."""
    config_class, default = RECIPES[arguments[0]]
    return load_config(config_class, arguments[1:], default_config=default and CONFIGS / default)


@pytest.mark.parametrize("small", [False, True])
def test_every_stage_is_a_valid_call_on_the_one_before(tmp_path: Path, small: bool) -> None:
    configs = {stage.title: resolved(stage.arguments) for stage in stages(tmp_path, small)}
    new, pretrain, *evaluations, rl = (config for title, config in configs.items() if "fine-tuning" not in title)
    (sft,) = (config for title, config in configs.items() if "fine-tuning" in title)
    assert new.out == Path(pretrain.model.path)
    assert Path(sft.model.path) == pretrain.run
    assert Path(rl.model.path) == sft.run
    assert len(evaluations) == 3
    assert [Path(config.model.path) for config in evaluations] == [m.checkpoint for m in models(tmp_path, small)[:-1]]
    assert all(config.task == rl.task == task_config(small) for config in evaluations)
    assert all(config.evaluation.by == rl.evaluation.by == "asked" for config in evaluations)


@pytest.mark.parametrize("small", [False, True])
def test_stages_train_what_the_paper_trains(small: bool) -> None:
    trained = {stage.name: set(stage.train) for stage in training_config("pretrain", small).stages}
    everything = {"resampler", "vision tower", "language model"}
    assert trained == {
        "start": everything,
        "resampler": {"resampler"},
        "vision": {"resampler", "vision tower"},
        "all": everything,
    }
    last = training_config("pretrain", small).stages[-1]
    assert "questions" in last.decay_mixture.weights
    assert "questions" not in last.mixture.weights
    general, thinking = training_config("sft", small).stages
    assert general.mixture.shares == {"text": 0.1}
    assert (general.modes.mode, thinking.modes.mode) == ("short", "hybrid")
    assert (general.random_video, thinking.random_video) == (False, True)


def test_the_small_pipeline_differs_in_size_alone() -> None:
    large, small = (training_config("pretrain", size) for size in (False, True))
    assert sum(stage.steps for stage in small.stages) < 0.2 * sum(stage.steps for stage in large.stages)
    assert small.sources == large.sources
    assert small.model == large.model


def test_what_is_evaluated_is_what_was_trained_and_never_shown() -> None:
    """Questions of fine-tuning are those of the task, on contents of the other split."""
    source = task_config(False).source
    assert isinstance(source, RenderSource)
    questions = training_config("sft", False).sources["questions"]
    assert (questions.render.asked, questions.render.mixture) == (source.asked, source.mixture)
    trained = {item.key for item, _ in zip(questions.render.items("train", 0), range(300), strict=False)}
    shown = {item.key for item, _ in zip(source.items("eval", 0), range(100), strict=False)}
    assert not trained & shown


def test_finished_stages_are_left_alone_and_broken_ones_resumed(tmp_path: Path, monkeypatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(recipe_stages, "call", lambda arguments: calls.append(list(arguments)) or 0)
    monkeypatch.setattr("recipes.pipeline_report.write_pipeline_report", lambda out, small: out / "report.html")
    todo = stages(tmp_path, small=True)
    for stage in todo[:3]:
        stage.run.mkdir(exist_ok=True, parents=True)
        stage.product.write_text("{}")
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "config.yaml").write_text("")
    assert main(PipelineConfig(out=tmp_path, small=True)) == 0
    modules = ["recipes.vlm_sft", "recipes.evaluate", "recipes.evaluate", "recipes.hybrid_grpo"]
    assert [each[0] for each in calls] == modules
    assert calls[0][-2:] == ["--resume", "true"]
    assert not any("--resume" in each for each in calls[1:])
    calls.clear()
    monkeypatch.setattr(recipe_stages, "call", lambda arguments: calls.append(list(arguments)) or 3)
    assert main(PipelineConfig(out=tmp_path, small=True)) == 3
    assert len(calls) == 1, "a stage that fails ends the pipeline"
