"""Where a step's time goes: what is computed from timed steps, that the split is true, and real runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModelForCausalLM

from base_model.flops import ONCE, FlopCount
from base_model.packed_lm import load_packed
from base_model.packing import GroupLayout, TokenGroup
from base_model.training_settings import PARTS
from recipes.benchmark.config import BenchmarkConfig
from recipes.benchmark.measure import libraries
from recipes.benchmark.profile import PHASES, profile_figures, profile_table
from recipes.benchmark.profile_chart import draw_profiles
from recipes.benchmark.profile_child import time_learner
from recipes.benchmark.session import PhaseClock
from recipes.new_model import write_model
from rl import learner as learner_module
from rl.config import LearnerConfig
from rl.learner import Learner, TrainGroup
from tests.base_model.vlm.small import tiny
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parents[2]
MACHINE = {"matmul_fp32": 100.0, "matmul_bf16": 200.0, "bandwidth": 10.0}


def _record(forward: float, generate: float, seconds: float, checkpoint: float = 0.0) -> dict[str, Any]:
    profile = {
        "forward": {"seconds": forward, "cpu_seconds": forward / 2},
        "generate": {"seconds": generate, "cpu_seconds": generate},
    }
    counts = {"forward": {"tokens": 7.0, "flop": 40.0, "bytes": 10.0}}
    if checkpoint:
        profile["checkpoint"] = {"seconds": checkpoint, "cpu_seconds": checkpoint}
        counts["checkpoint"] = {"tokens": 0.0, "flop": 0.0, "bytes": 500.0}
    return {"profile": profile, "counts": counts, "seconds": seconds, "cpu_seconds": seconds}


# ---- arithmetic ----


def test_phases_are_medians_and_add_up_to_the_step() -> None:
    records = [_record(2.0, 4.0, 7.0), _record(1.0, 6.0, 8.0), _record(4.0, 5.0, 20.0, checkpoint=10.0)]
    figures = profile_figures(records, MACHINE, save_every=50)
    phases, step = figures["phases"], figures["step"]
    assert list(phases) == list(PHASES)
    assert (phases["forward"]["seconds"], phases["forward"]["cpu_seconds"]) == (2.0, 1.0)
    assert phases["generate"]["seconds"] == 5.0
    assert phases["other"]["seconds"] == 1.0  # 7 - 6, 8 - 7, 20 - 19: the checkpoint belongs to no other phase
    assert (phases["checkpoint"]["seconds"], phases["checkpoint"]["bytes"]) == (0.2, 10.0)  # one in 50 steps
    assert step["seconds"] == pytest.approx(2.0 + 5.0 + 0.2 + 1.0)
    assert sum(phase["of_step"] for phase in phases.values()) == pytest.approx(1.0)
    # 40 operations and 10 bytes in 2 s, on a machine of 100 and 200 operations and 10 bytes per second.
    assert phases["forward"]["of_fp32"] == pytest.approx(0.2)
    assert phases["forward"]["of_bf16"] == pytest.approx(0.1)
    assert phases["forward"]["of_bandwidth"] == pytest.approx(0.5)
    assert step["of_bf16"] == pytest.approx(40 / 8.2 / 200)
    assert phases["checkpoint"]["of_bandwidth"] == 0.0
    assert figures["update"]["of_bf16"] == pytest.approx(40 / 2.0 / 200)
    assert figures["update"]["of_bf16_by_cpu"] == pytest.approx(40 / 1.0 / 200)
    two_threads = profile_figures(records, MACHINE, 50, threads=2)
    assert two_threads["update"]["of_bf16_by_cpu"] == pytest.approx(40 / 0.5 / 200)
    assert phases["score"]["seconds"] == phases["score"]["of_step"] == 0.0


def test_table_fits_a_terminal_and_leaves_out_what_a_phase_does_not_do() -> None:
    records = [_record(1234.5, 4.0, 2000.0), _record(1234.5, 4.0, 2000.0, checkpoint=9.0)]
    profile = profile_figures(records, {"matmul_fp32": 1e11, "matmul_bf16": 2e11, "bandwidth": 2e10}, 50)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(profile_table({"prompt": 67, "response": 64, "profile": profile}))
    text = capture.get()
    assert "…" not in text
    assert "100 GFLOP/s in fp32, 200 in bf16, 20.0 GB/s" in " ".join(text.split())
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["generate"][:2] == ["4.00", "4.00"]
    assert len(rows["score"]) == 3  # seconds, CPU seconds and the share alone
    assert rows["forward"][:2] == ["1234", "617"]
    assert set(PHASES) < set(rows)


def test_a_chart_of_every_shape_is_drawn(tmp_path: Path) -> None:
    profile = profile_figures([_record(2.0, 4.0, 7.0, checkpoint=1.0)], MACHINE, 50)
    shapes = [{"prompt": 67, "response": 64, "profile": profile}, {"prompt": 300, "response": 24, "profile": profile}]
    draw_profiles({"shapes": shapes}, tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.format == "PNG"
        assert image.width > 800
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_a_profile_runs_no_other_library() -> None:
    assert libraries(BenchmarkConfig(profile=True)) == ["tandem"]
    assert libraries(BenchmarkConfig(profile=True, peer="probability")) == ["probability"]
    assert BenchmarkConfig(profile=True, images=2).images == 2
    with pytest.raises(ValueError, match="only a profile is drawn: add --profile"):
        BenchmarkConfig(plot_path=Path("x.png"))


# ---- the split ----


def test_every_second_of_an_update_is_counted_where_it_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that goes on by itself nowhere, and by known steps inside of the layers, the loss and so on."""
    now = [0.0]

    def spend(seconds: float) -> None:
        now[0] += seconds

    learner = Learner(load_packed(make_tiny_model(tmp_path)), LearnerConfig(precision="float32"), total_steps=1)
    decoder = learner.packed.causal_lm.model
    decoder.register_forward_hook(lambda *_: spend(1.0))
    decoder.layers[0].register_full_backward_hook(lambda *_: spend(4.0))
    learner.optimizer.register_step_post_hook(lambda *_: spend(8.0))
    for name, seconds in (("policy_loss", 2.0), ("pack", 16.0)):
        plain = getattr(learner_module, name)

        def slow(*args: Any, plain: Any = plain, seconds: float = seconds, **kwargs: Any) -> Any:
            spend(seconds)
            return plain(*args, **kwargs)

        monkeypatch.setattr(learner_module, name, slow)
    clock = PhaseClock(lambda: (now[0], 10 * now[0]))
    time_learner(clock, learner)
    group = TrainGroup(
        tokens=TokenGroup(prompt=[5, 6, 7], responses=[[8, 9], [10]]),
        advantages_G=(1.0, -1.0),
        engine_logprobs=((-1.0, -1.0), (-1.0,)),
    )
    learner.update([group])
    spent = {"pack": 16.0, "forward": 1.0, "head": 2.0, "backward": 4.0, "optimizer": 8.0}
    assert clock.take() == {name: (seconds, 10 * seconds) for name, seconds in spent.items()}


# ---- the real thing ----


def _profile(model: Path, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "recipes.benchmark", "--profile", "--model", str(model), "--threads", "1"]
    command += ["--prompts", "2", "--group_size", "4", "--steps", "2", "--shapes", "[{prompt: 20, response: 6}]"]
    done = subprocess.run(
        [*command, "--json", str(out / "figures.json"), "--plot", str(out / "chart.png"), *options],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "backward" in done.stdout
    assert "by its CPU seconds" in done.stdout
    assert (out / "chart.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((out / "figures.json").read_text())
    profile = report["shapes"][0]["profile"]
    assert all(value > 0 for value in profile["machine"].values())
    phases = profile["phases"]
    assert sum(phase["seconds"] for phase in phases.values()) == pytest.approx(profile["step"]["seconds"])
    assert all(phases[name]["seconds"] > 0 for name in PHASES if name != "score")
    assert all(phases[name]["of_bf16"] > 0 for name in ("generate", "forward", "head", "backward"))
    # Under 5 % where steps take seconds; these take a tenth of one, on a machine that may be busy.
    assert phases["other"]["of_step"] < 0.5
    return report["shapes"][0]


@pytest.mark.slow
def test_profile_of_a_text_model_counts_what_was_computed(tmp_path: Path) -> None:
    """With the probability reward, so that a policy scores references as well."""
    model = make_tiny_model(tmp_path / "model")
    phases = _profile(model, tmp_path, "--peer", "probability")["profile"]["phases"]
    packed, responses = 2 * 20 + 8 * 6, 8 * 6
    tokens = {"generate": responses, "reward": responses, "forward": packed, "head": responses, "backward": packed}
    assert {name: phases[name]["tokens"] for name in tokens} == tokens
    count = FlopCount(AutoModelForCausalLM.from_pretrained(model), PARTS)
    layout = [GroupLayout(prompt=20, responses=(6,) * 4)] * 2
    assert phases["generate"]["flop"] == count.generation(layout)
    assert phases["head"]["flop"] == count.head_step(responses)
    assert phases["backward"]["flop"] == 2 * phases["forward"]["flop"]
    assert phases["score"]["tokens"] == 8 * 10  # one reference of ten tokens after each response
    assert phases["score"]["seconds"] > 0
    weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(model).parameters())
    assert phases["optimizer"]["bytes"] == 40 * weights
    assert phases["sync"]["bytes"] == 14 * weights


@pytest.mark.slow
def test_profile_of_a_vision_language_model_counts_its_tower(tmp_path: Path) -> None:
    model, processor = tiny()
    with torch.no_grad():
        write_model(model, processor, tmp_path / "model")
    figures = _profile(tmp_path / "model", tmp_path, "--images", "1", "--image_side", "112")
    phases = figures["profile"]["phases"]
    assert figures["tokens"]["views"] == 2  # once per prompt
    prompt = figures["tokens"]["prompt"] // 8
    layout = [GroupLayout(prompt=prompt, responses=(6,) * 4)] * 2
    tower = phases["forward"]["flop"] - FlopCount(model, PARTS).language(layout, ONCE)
    assert tower > 2 * 2 * 64 * sum(w.numel() for w in model.vpm.encoder.parameters())  # 64 patches, two images
    assert phases["generate"]["flop"] == pytest.approx(FlopCount(model, PARTS).generation(layout) + tower)
