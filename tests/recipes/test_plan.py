"""Estimates against hand-computed values, and against what is known of real models."""

import json
from dataclasses import replace

import pytest
import yaml

from recipes.cli import CONFIGS, load_config, run_recipe
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.models import ModelConfig
from recipes.plan import (
    CPU_CORE,
    GIB,
    Hardware,
    ModelShape,
    Work,
    latency_of,
    make_plan,
    plan_lines,
    plan_of_run,
    read_shape,
    work_of,
)
from rollouts.simulated import busy_seconds

TOY = ModelShape(layers=2, hidden=8, intermediate=16, heads=4, kv_heads=2, head_dim=2, vocab=100, tied=True)
UNIT = Hardware(name="unit", flops=1e6, bandwidth=1e6)
WORK = Work(
    prompts=3,
    group_size=4,
    prompt_tokens=10,
    response_tokens=20,
    max_model_len=64,
    max_num_seqs=8,
    micro_batch_tokens=100,
)

SMOLLM2 = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
QWEN3_8B = {
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}


def test_parameters_of_a_toy():
    # per layer: q 8x8, k 8x4, v 8x4, o 8x8 = 192; three 8x16 = 384; two norms 16 -> 592; embedding 800, last norm 8
    assert TOY.parameters == 2 * 592 + 800 + 8 == 1992
    assert TOY.kv_bytes() == 2 * 2 * 2 * 2 * 2 == 32
    # 6 x 8, q and attention 2 x 8, k and v 2 x 4, 4 x 16
    assert TOY.layer_elements == 48 + 16 + 8 + 64


@pytest.mark.parametrize(
    ("config", "parameters", "kv_bytes"),
    [(SMOLLM2, 134_515_008, 30 * 2 * 3 * 64 * 2), (QWEN3_8B, 8.19e9, 147_456)],
)
def test_parameters_of_real_models(config, parameters, kv_bytes):
    shape = read_shape(config)
    assert shape.parameters == pytest.approx(parameters, rel=1e-3)
    assert shape.kv_bytes() == kv_bytes
    assert read_shape({"text_config": config, "tie_word_embeddings": config["tie_word_embeddings"]}) == shape


def test_smollm2_is_exact():
    assert read_shape(SMOLLM2).parameters == 134_515_008


def test_a_plan_by_hand():
    plan = make_plan(TOY, WORK, UNIT)
    assert plan.train_weights == plan.train_gradients == 4 * 1992
    assert plan.train_optimizer == 8 * 1992
    assert plan.train_activations == 100 * 2 * 136 * 2  # micro-batch x layers x numbers x bytes
    assert plan.engine_weights == 2 * 1992
    assert plan.engine_kv == 8 * 64 * 32
    assert plan.generated_tokens == 240
    assert plan.trained_tokens == 240 + 30
    token = 2 * 1992 / 1e6
    step, sequence = 2 * 1992 / 1e6, token + 20 * 32 / 1e6
    assert plan.generate_s == pytest.approx(30 * token + 2 * 20 * step + 240 * sequence)
    assert plan.train_s == pytest.approx(6 * 1992 * 270 / 1e6)
    assert plan.workers == 1
    assert plan.train_total == 16 * 1992 + 54400
    assert plan.engine_total == 3984 + 16384


def test_choices_change_what_they_should():
    base = make_plan(TOY, WORK, UNIT)
    lora = make_plan(TOY, _with(adapter_rank=2), UNIT)
    # rank 2, 2 layers: q and o 8 + 8 each, k and v 8 + 4 each, three of 8 + 16
    adapters = 2 * 2 * (32 + 24 + 72)
    assert lora.train_weights == base.train_weights + 4 * adapters
    assert (lora.train_gradients, lora.train_optimizer) == (4 * adapters, 8 * adapters)
    saved = make_plan(TOY, _with(checkpointing=True), UNIT)
    assert saved.train_activations == 100 * (2 * 8 + 136) * 2
    assert saved.train_s == pytest.approx(base.train_s * 8 / 6)
    split = make_plan(TOY, _with(tensor_parallel=2), UNIT)
    assert split.engine_total * 2 == base.engine_total
    assert split.generate_s * 2 == pytest.approx(base.generate_s)
    whole = make_plan(TOY, _with(micro_batch_tokens=0), UNIT)
    assert whole.train_activations == 270 * 2 * 136 * 2


def test_slow_decoding_needs_more_workers():
    slow = Hardware(name="slow memory", flops=1e9, bandwidth=1e3)
    plan = make_plan(TOY, WORK, slow)
    assert plan.workers == round(plan.generate_s / plan.train_s) > 1


def _with(**changes):
    return Work(**{name: getattr(WORK, name) for name in WORK.__dataclass_fields__} | changes)


def test_generation_agrees_with_the_simulated_worker():
    latency = latency_of(TOY, UNIT, 20)
    assert make_plan(TOY, WORK, UNIT).generate_s == pytest.approx(
        busy_seconds([20] * 12, 30, latency, max_num_seqs=8), rel=1e-9
    )


@pytest.mark.parametrize(
    ("running", "measured_s"), [(1, 0.0346), (4, 0.0375), (16, 0.0629), (32, 0.0888), (64, 0.1725)]
)
def test_a_cpu_core_decodes_as_fast_as_was_measured(running, measured_s):
    """Step times of SmolLM2-135M, bf16, one core, contexts of 64 to 89 tokens."""
    latency = latency_of(read_shape(SMOLLM2), CPU_CORE, context=76)
    assert latency.step_s + running * latency.sequence_s == pytest.approx(measured_s, rel=0.25)


def test_the_formulas_are_printed():
    text = "\n".join(plan_lines(make_plan(TOY, WORK, UNIT), WORK, UNIT))
    assert f"{(16 * 1992 + 54400) / GIB:.2f} GiB = weights" in text
    assert "240 generated = 3 prompts x 4 responses x 20; 270 trained" in text
    assert "training 3.23 s = 6 x parameters x tokens / speed" in text


def test_several_processes_share_the_time_and_fsdp_the_memory():
    one = make_plan(TOY, WORK, UNIT)
    ddp = make_plan(TOY, replace(WORK, processes=2), UNIT)
    divided = replace(WORK, processes=2, divided=True)
    fsdp = make_plan(TOY, divided, UNIT)
    assert ddp.train_s == fsdp.train_s == one.train_s / 2
    assert (ddp.train_weights, ddp.train_optimizer) == (one.train_weights, one.train_optimizer)
    assert (fsdp.train_weights, fsdp.train_gradients) == (one.train_weights // 2, one.train_gradients // 2)
    text = "\n".join(plan_lines(fsdp, divided, UNIT))
    assert "training processes: 2, the language model divided among them (fsdp)" in text
    assert "(8 B per trained weight / 2 processes)" in text
    assert "training processes" not in "\n".join(plan_lines(one, WORK, UNIT))


def test_of_several_processes_the_first_one_speaks(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    monkeypatch.setenv("WORLD_SIZE", "4")
    argv = ["--dry-run", "--model.path", str(tmp_path)]
    options = {"default_config": CONFIGS / "hybrid_grpo.yaml", "plan": plan_of_run}
    for rank, said in (("0", True), ("3", False)):
        monkeypatch.setenv("RANK", rank)
        assert run_recipe(lambda config: 1, HybridGrpoConfig, argv=argv, **options) == 0
        assert ("# training processes: 4, each with the whole model (ddp)" in capsys.readouterr().out) == said
        status = run_recipe(lambda config: 1, HybridGrpoConfig, argv=["--no_such_key", "1"], **options)
        assert status == (2 if said else 0)
        assert ("no_such_key" in capsys.readouterr().err) == said


def test_adapters_are_not_divided():
    argv = ["--lora.rank", "4", "--trainer.parallel.kind", "fsdp"]
    with pytest.raises(ValueError, match="kind fsdp trains all weights, not adapters"):
        load_config(HybridGrpoConfig, argv, default_config=CONFIGS / "hybrid_grpo.yaml")


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="no intermediate_size"):
        read_shape({key: value for key, value in SMOLLM2.items() if key != "intermediate_size"})


def test_a_run_is_planned_from_its_config(tmp_path, monkeypatch):
    config = load_config(HybridGrpoConfig, [], default_config=CONFIGS / "hybrid_grpo.yaml")
    work = work_of(config)
    budgets = config.modes.short.max_tokens, config.modes.long.max_tokens
    assert work.response_tokens == sum(budgets) / 2
    assert work.prompt_tokens == 256 - max(budgets)
    assert (work.prompts, work.group_size) == (16, 8)
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    here = config.model_copy(update={"model": ModelConfig(path=str(tmp_path))})
    lines = plan_of_run(here)
    assert "135 M parameters" in lines[0]
    assert any(line.startswith("tokens per step: ") for line in lines)
    missing = config.model_copy(update={"model": ModelConfig(path="some/hub-name")})
    assert plan_of_run(missing) == [
        "no estimate: model.path is 'some/hub-name', and no folder of that name has a config.json"
    ]


def test_a_dry_run_shows_the_plan_in_comments(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(SMOLLM2))
    argv = ["--dry-run", "--model.path", str(tmp_path)]
    options = {"default_config": CONFIGS / "hybrid_grpo.yaml", "plan": plan_of_run, "argv": argv}
    assert run_recipe(lambda config: 1, HybridGrpoConfig, **options) == 0
    text = capsys.readouterr().out
    assert "# trainer " in text
    assert yaml.safe_load(text)["model"]["path"] == str(tmp_path)
