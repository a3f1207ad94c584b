"""What the recipes' own configs refuse, and the sentence that says so."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from recipes.benchmark.config import BenchmarkConfig
from recipes.check_data import CheckDataConfig
from recipes.cli import CONFIGS, load_config
from recipes.compare import CompareConfig
from recipes.config_keys import alternatives, is_model, item_type, nearest
from recipes.demo import DemoConfig
from recipes.evaluate import EvaluateConfig
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.sft import SftConfig
from rewards.spec import RewardSpec

RECIPES = (
    BenchmarkConfig, CheckDataConfig, CompareConfig, DemoConfig, EvaluateConfig, HybridGrpoConfig, SftConfig
)  # fmt: skip


def refusal(tmp_path: Path, text: str) -> str:
    """What hybrid_grpo says of a YAML file, without the file's name."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_config(HybridGrpoConfig, [str(path)], default_config=CONFIGS / "hybrid_grpo.yaml")
    return str(caught.value).replace(f" (from {path})", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rewards: []", "'rewards' is [], and must be at least 1 item long."),
        ("task: {columns: accuracy}", "'task.columns' is 'accuracy', and must be a list."),
        (
            "rewards: [3]",
            "'rewards.0' is 3, and must be a mapping with the keys name, weight, args, label, timeout_s, retries, "
            "retry_wait_s, concurrency, on_error, max_missing, isolate, memory_mb, style, standardise.",
        ),
        ("modes: {short: {name: ''}}", "'modes.short.name' is '', and must be at least 1 character long."),
        ("modes: {mode: both}", "'modes.mode' is 'both', and must be one of 'short', 'long', 'hybrid'."),
        ("modes: {short: {template_kwargs: 3}}", "'modes.short.template_kwargs' is 3, and must be a mapping."),
        ("group_size: 1", "'group_size' is 1, and must be at least 2."),
        ("trainer: {steps: 1.5}", "'trainer.steps' is 1.5, and must be a whole number."),
        ("sampling: {top_p: 2}", "'sampling.top_p' is 2, and must be at most 1."),
        ("learner: {clip_low: -0.5}", "'learner.clip_low' is -0.5, and must be at least 0."),
        ("learner: {adam_beta2: 1}", "'learner.adam_beta2' is 1, and must be less than 1."),
        ("sampling: {temperature: 0}", "'sampling.temperature' is 0, and must be greater than 0."),
        ("engine: {block_size: 40}", "engine: block_size is 40, and must be a multiple of 16 (of 32 on CPU)."),
        (
            "lora: 3",
            "'lora' is 3, and must be a mapping with the keys rank, alpha, dropout, target_modules, or null.",
        ),
        ("model: smollm", "'model' is 'smollm', and must be a mapping with the keys path, trust_remote_code."),
        ("task: {source: 3}", "'task.source' is 3, and must be a mapping with `kind` and the keys of that kind."),
        (
            "task: {source: {train: x}}",
            "unknown key 'task.source.train': it belongs to another kind of this section; set `kind` too.",
        ),
        ("run: null", "'run' is null, and must be a path."),
        ("resume: perhaps", "'resume' is 'perhaps', and must be true or false."),
        ("trainer: {lr: 3}", "unknown key 'trainer.lr': --help lists every key."),
    ],
)
def test_every_sentence_reads_well(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


# ---- true and false are no numbers ----


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trainer: {steps: true}", "'trainer.steps' is true, and must be a whole number."),
        ("group_size: true", "'group_size' is true, and must be a whole number."),
        ("learner: {learning_rate: true}", "'learner.learning_rate' is true, and must be a number."),
        ("rewards: [format, {name: format, weight: false}]", "'rewards.1.weight' is false, and must be a number."),
        ("modes: {long_share: yes}", "'modes.long_share' is 'yes', and must be a number."),
        (
            "task: {source: {kind: reasoning_gym, datasets: [{name: chain_sum, weight: true}]}}",
            "'task.source.datasets.0.weight' is true, and must be a number.",
        ),
        ("learner: {importance_cap: true}", "'learner.importance_cap' is true, and must be a number."),
    ],
)
def test_booleans_are_no_numbers(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


def test_booleans_on_the_command_line_and_beside_other_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'steps' is true \(from the command line\), and must be a whole number"):
        load_config(BenchmarkConfig, ["--steps", "true"])
    assert refusal(tmp_path, "group_size: true\ntrainer: {steps: 0}").splitlines() == [
        "'group_size' is true, and must be a whole number.",
        "'trainer.steps' is 0, and must be at least 1.",
    ]


def test_integers_stay_fine_for_floats_and_booleans_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "learner: {learning_rate: 1}\nsampling: {temperature: 2}\ngradient_checkpointing: true\n"
        "rewards: [{name: format, weight: 3, args: {flag: true}}]\n"
    )
    config = load_config(HybridGrpoConfig, [str(path)], default_config=CONFIGS / "hybrid_grpo.yaml")
    assert (config.learner.learning_rate, config.sampling.temperature) == (1.0, 2.0)
    assert (config.gradient_checkpointing, config.rewards[0].weight) == (True, 3.0)
    assert config.rewards[0].args == {"flag": True}


# ---- numbers are finite ----


def models(annotation: Any) -> set[type[BaseModel]]:
    """Every config class under an annotation."""
    found: set[type[BaseModel]] = set()
    for option in alternatives(annotation):
        if is_model(option):
            found |= {option, *(m for f in option.model_fields.values() for m in models(f.annotation))}
        elif (inner := item_type(option)) is not None:
            found |= models(inner)
    return found


def test_no_recipe_takes_a_number_that_is_not_finite() -> None:
    """`rewards.registry.check_weight` refuses a weight itself, with the reward's name."""
    every = set.union(*(models(recipe) for recipe in RECIPES)) - {RewardSpec}
    assert len(every) > 20
    tried = 0
    for model in every:
        for name, field in model.model_fields.items():
            if float in alternatives(field.annotation):
                for value in (math.inf, -math.inf, math.nan):
                    with pytest.raises(ValueError) as caught:
                        model.model_validate({name: value})
                    errors = caught.value.errors()  # type: ignore[attr-defined]
                    assert any(error["loc"][:1] == (name,) for error in errors), (model, name, value)
                    tried += 1
    assert tried > 60


@pytest.mark.parametrize("key", ["sampling.temperature", "learner.clip_high", "engine.kv_cache_gib"])
@pytest.mark.parametrize("value", [".inf", ".nan", "1e999"])
def test_infinities_are_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"'{key}' is (inf|nan).* must be a finite number"):
        load_config(HybridGrpoConfig, [f"--{key}", value], default_config=CONFIGS / "hybrid_grpo.yaml")


def test_an_infinite_weight_is_refused_by_the_rewards() -> None:
    import rewards

    argv = ["--rewards.0.weight", ".inf"]
    config = load_config(HybridGrpoConfig, argv, default_config=CONFIGS / "hybrid_grpo.yaml")
    with pytest.raises(ValueError, match="weight must be a finite number, got inf"):
        rewards.build(config.rewards)


# ---- hints ----


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("trainer.stepz", ["trainer.steps"]),
        ("trainr.stepz", ["trainer.steps"]),
        ("rewards.0.wieght", ["rewards.N.weight"]),
        ("modes.shrt.max_tokens", ["modes.short.max_tokens"]),
        ("learner.warmup", ["learner.warmup_steps"]),
        ("learning_rate", ["learner.learning_rate"]),
        ("trainer_steps", ["trainer.steps"]),
        ("size", ["task.size"]),
        ("temperature", ["sampling.temperature", "evaluation.temperature"]),
        ("lr", []),  # not `lora`
        ("trainer.lr", []),  # not `trainer.filter`
        ("learner.lr", []),
        ("evaluation.name", []),  # not `evaluation.samples`
        ("model.kind", []),  # not `task.source.kind`
        ("trainer.seed", []),  # not `trainer.steps`
        ("name", []),  # in too many places
        ("qqq.rrr", []),
    ],
)
def test_hints_stay_within_the_section(key: str, expected: list[str]) -> None:
    assert nearest(key, HybridGrpoConfig) == expected
