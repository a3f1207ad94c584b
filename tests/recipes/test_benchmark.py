"""The benchmark: what it computes from steps, what it refuses, and a real run against TRL on a tiny model."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from recipes.benchmark import session
from recipes.benchmark.__main__ import main
from recipes.benchmark.config import BenchmarkConfig, Job, Shape, context_length
from recipes.benchmark.processes import Child, ChildError, child_environment
from recipes.benchmark.session import PHASES, PhaseClock, with_other
from recipes.benchmark.summary import check_equal_work, noise, spread, summarise
from recipes.benchmark.table import remarks, shape_table
from recipes.benchmark.workload import even_share, make_prompts
from tests.tiny import make_tiny_model, make_tiny_tokenizer

ROOT = Path(__file__).parents[2]
SHAPE = Shape(prompt=67, response=64)
EXPECTED = (32 * 67, 32 * 64)
TINY_RUN = ["--shapes", "[{prompt: 20, response: 6}]", "--prompts", "2", "--group_size", "4", "--threads", "1"]


def _record(seconds: float, cpu: float, **more: Any) -> dict[str, Any]:
    phases = with_other({"generate": (seconds / 2, cpu / 2), "learn": (seconds / 4, cpu / 4)}, seconds, cpu)
    tokens = {"prompt": EXPECTED[0], "response": EXPECTED[1], "positions": 5000, "prompts_digest": "a"}
    record = {"seconds": seconds, "cpu_seconds": cpu, "phases": phases, "tokens": tokens, "memory_gib": seconds}
    return {**record, "busy_elsewhere": 0.0, **more}


def _job(model: Path, work_dir: Path) -> Job:
    return Job(
        reference_tokens=10,
        model=str(model),
        prompt=20,
        response=6,
        prompts=2,
        group_size=4,
        total_steps=2,
        threads=1,
        max_model_len=128,
        precision="float32",
        enforce_eager=True,
        peer_micro_batch=3,
        work_dir=str(work_dir),
    )


# ---- arithmetic ----


def test_medians_and_ratios_of_pairs() -> None:
    ours = [_record(2.0, 4.0), _record(1.0, 2.0), _record(4.0, 3.0)]
    theirs = [_record(6.0, 8.0), _record(5.0, 8.0), _record(8.0, 9.0)]
    figures = summarise(SHAPE, ours, theirs)
    assert (figures["prompt"], figures["response"], figures["steps"]) == (67, 64, 3)
    assert (figures["seconds"], figures["seconds_min"], figures["seconds_max"]) == (2.0, 1.0, 4.0)
    assert (figures["cpu_seconds"], figures["peer_cpu_seconds"]) == (3.0, 8.0)
    assert figures["peer_seconds"] == 6.0
    # Pairs: 6/2 = 3, 5/1 = 5, 8/4 = 2 (wall); 8/4 = 2, 8/2 = 4, 9/3 = 3 (CPU).
    assert (figures["speedup"], figures["speedup_min"], figures["speedup_max"]) == (3.0, 2.0, 5.0)
    assert (figures["cpu_speedup"], figures["cpu_speedup_min"], figures["cpu_speedup_max"]) == (3.0, 2.0, 4.0)
    assert figures["phases"]["generate"] == {"seconds": 1.0, "cpu_seconds": 1.5}
    assert figures["phases"]["other"] == {"seconds": 0.5, "cpu_seconds": 0.75}
    assert (figures["memory_gib"], figures["peer_memory_gib"]) == (4.0, 8.0)


def test_without_a_peer_there_is_no_ratio() -> None:
    figures = summarise(SHAPE, [_record(2.0, 4.0)], None)
    assert figures["seconds"] == 2.0
    assert not [key for key in figures if key.startswith("peer_") or "speedup" in key]


def test_other_is_what_the_phases_leave_and_never_negative() -> None:
    phases = with_other({"generate": (1.0, 2.0), "learn": (2.0, 1.0)}, 3.5, 2.9)
    assert list(phases) == list(PHASES)
    assert phases["other"]["seconds"] == pytest.approx(0.5)
    assert phases["other"]["cpu_seconds"] == 0.0  # ticks of 10 ms can make the parts exceed the whole
    assert phases["sync"] == {"seconds": 0.0, "cpu_seconds": 0.0}


def test_noise_is_half_the_spread_over_the_median() -> None:
    figures = spread("seconds", [1.8, 2.0, 2.6])
    assert figures == {"seconds": 2.0, "seconds_min": 1.8, "seconds_max": 2.6}
    assert noise(figures, "seconds") == pytest.approx(0.2)


def test_phases_inside_phases_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(session.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(session, "cpu_seconds", lambda: 10 * now[0])

    class Engine:
        def sync(self, seconds: float) -> str:
            now[0] += seconds
            return "done"

    clock, engine = PhaseClock(), Engine()
    clock.wrap(engine, "sync", "sync")
    with clock.phase("generate"):
        now[0] += 1.0
        assert engine.sync(2.0) == "done"
        now[0] += 4.0
    now[0] += 8.0
    with clock.phase("generate"):
        now[0] += 16.0
    assert clock.take() == {"generate": (21.0, 210.0), "sync": (2.0, 20.0)}
    assert clock.take() == {}


# ---- equal work ----


def test_equal_work_is_accepted() -> None:
    check_equal_work({"tandem": [_record(1, 1)], "trl": [_record(2, 2)]}, EXPECTED)
    check_equal_work({"tandem": [_record(1, 1)]}, EXPECTED)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({"prompt": EXPECTED[0], "response": 2000, "prompts_digest": "a"}, "trl trained on 2144 and 2000"),
        ({"prompt": 67 * 4, "response": EXPECTED[1], "prompts_digest": "a"}, "trl trained on 268 and 2048"),
        ({"prompt": EXPECTED[0], "response": EXPECTED[1], "prompts_digest": "b"}, "different prompts"),
    ],
)
def test_unequal_work_is_refused(tokens: dict[str, Any], message: str) -> None:
    ours, theirs = [_record(1, 1)] * 2, [_record(2, 2), _record(2, 2, tokens=tokens)]
    with pytest.raises(ValueError, match=f"counted step 2.*{message}"):
        check_equal_work({"tandem": ours, "trl": theirs}, EXPECTED)


def test_equal_but_wrong_work_is_refused() -> None:
    with pytest.raises(ValueError, match="should have trained on 2144 prompt and 1 response"):
        check_equal_work({"tandem": [_record(1, 1)], "trl": [_record(2, 2)]}, (EXPECTED[0], 1))


# ---- workload ----


@pytest.mark.parametrize("tokens", [1, 20, 67, 300])
def test_prompts_have_exactly_the_length_and_differ(tokens: int) -> None:
    tokenizer = make_tiny_tokenizer()
    texts = make_prompts(tokenizer, tokens, 6)
    assert [len(tokenizer(text)["input_ids"]) for text in texts] == [tokens] * 6
    assert len(set(texts)) > 1
    assert texts == make_prompts(tokenizer, tokens, 8)[:6]


def test_reward_is_the_share_of_even_ids() -> None:
    assert even_share(response_ids=[2, 3, 4, 8]) == 0.75
    assert even_share(response_ids=[]) == 0.0


# ---- table ----


def test_table_fits_a_terminal_and_tells_the_ratio() -> None:
    figures = summarise(SHAPE, [_record(12.25, 24.5)] * 3, [_record(24.5, 49.0)] * 2 + [_record(49.0, 98.0)])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(shape_table(figures, "trl"))
    text = capture.get()
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["step"] == ["12.25", "24.50", "24.50", "49.00", "2.00x", "2.00x"]
    assert rows["largest"] == ["12.25", "24.50", "49.00", "98.00", "4.00x", "4.00x"]
    assert "…" not in text


def test_remarks_name_what_to_distrust() -> None:
    processes = {"tandem": {"threads": 2, "precision": "bfloat16"}, "trl": {"threads": 2, "precision": "bfloat16"}}
    report = {"model": "m", "peer": "trl", "prompts": 4, "group_size": 8, "threads": 2, "warmup": 1}
    report |= {"enforce_eager": True}
    quiet = {**summarise(SHAPE, [_record(1.0, 1.0)] * 3, [_record(2.0, 2.0)] * 3), "processes": processes}
    text = "\n".join(remarks({**report, "shapes": [quiet]}))
    assert "training in bfloat16 over" in text
    assert "noisy" not in text
    assert "other programs" not in text
    busy = _record(2.0, 2.0, busy_elsewhere=1.5)
    noisy = {**summarise(SHAPE, [_record(1.0, 1.0), _record(2.0, 1.0)], [busy] * 2), "processes": processes}
    text = "\n".join(remarks({**report, "shapes": [noisy]}))
    assert "vary by +-33%" in text  # (2 - 1) / (2 x 1.5)
    assert "other programs kept 1.5 cores busy" in text


# ---- refusals ----


def test_absent_peer_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"trl, which is not installed.*pip install trl.*--peer none"):
        main(BenchmarkConfig(peer="trl"))


def test_output_without_a_folder_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        main(BenchmarkConfig(peer="none", json_path=tmp_path / "absent" / "x.json"))


def test_shape_longer_than_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
    with pytest.raises(ValueError, match=r"prompt 100 and response 64 are 164 tokens, but .* takes 128"):
        context_length(tmp_path, [Shape(prompt=100, response=64)])
    assert context_length(tmp_path, [Shape(prompt=64, response=64)]) == 128


def test_job_survives_the_journey(tmp_path: Path) -> None:
    job = _job(tmp_path, tmp_path)
    assert Job.from_json(job.to_json()) == job
    assert job.batch == 8


def test_both_libraries_get_the_same_environment() -> None:
    environment = child_environment(threads=3)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["MALLOC_MMAP_THRESHOLD_"] == environment["MALLOC_TRIM_THRESHOLD_"] == "34359738368"
    assert environment["GOMP_SPINCOUNT"] == "1000"


def test_help_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "import recipes.benchmark.__main__ as m, recipes.benchmark.measure, recipes.benchmark.table\n"
        "assert not {'torch', 'transformers', 'vllm', 'trl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---- processes ----


@pytest.mark.slow
def test_dead_child_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        Child("tandem", _job(tmp_path / "absent", tmp_path), timeout_s=120) as child,
        pytest.raises(ChildError, match=r"(?s)tandem process ended with status 1.*last lines.*not a checkpoint"),
    ):
        child.ready()
    assert not psutil.pid_exists(child.pid)


def test_silent_child_is_given_up(tmp_path: Path) -> None:
    with (
        Child("tandem", _job(tmp_path / "absent", tmp_path), timeout_s=0.2) as child,
        pytest.raises(ChildError, match=r"silent for 0.2 s; raise timeout_s"),
    ):
        child.ready()
    assert not psutil.pid_exists(child.pid)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_interrupt_leaves_no_process(tmp_path: Path, stop: signal.Signals) -> None:
    """Ctrl-C ends everything; when the parent is killed outright, the kernel does."""
    model = make_tiny_model(tmp_path / "model")
    command = [sys.executable, "-m", "recipes.benchmark", "--peer", "none", "--model", str(model), *TINY_RUN]
    process = subprocess.Popen(
        [*command, "--steps", "2000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs the tests behind
    )
    assert process.stdout is not None
    assert "CPU s" in process.stdout.readline()  # the first step is done: every process is there
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2, "the trainer's process and its engine"
    process.send_signal(stop)
    expected = 130 if stop is signal.SIGINT else -signal.SIGKILL
    assert process.wait(timeout=60) == expected
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


# ---- the real thing ----


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL, the peer, is not installed")
def test_tiny_model_against_trl(tmp_path: Path) -> None:
    """Both libraries really train, on the same prompts and as many tokens, and the figures are complete."""
    model, out = make_tiny_model(tmp_path / "model"), tmp_path / "figures.json"
    command = [sys.executable, "-m", "recipes.benchmark", "--peer", "trl", "--model", str(model), *TINY_RUN]
    started = time.time()
    done = subprocess.run(
        [*command, "--steps", "1", "--warmup", "1", "--json", str(out)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "20+6 Tandem:" in done.stdout
    assert "ratio" in done.stdout
    report = json.loads(out.read_text())
    assert (report["peer"], report["threads"], report["group_size"]) == ("trl", 1, 4)
    assert {"torch", "trl", "transformers"} <= set(report["versions"])
    (figures,) = report["shapes"]
    assert (figures["prompt"], figures["response"], figures["steps"]) == (20, 6, 1)
    assert figures["processes"]["tandem"] == figures["processes"]["trl"]
    assert figures["processes"]["tandem"]["threads"] == 1
    # 2 prompts x 4 responses; Tandem computes each prompt once, TRL once per response.
    assert figures["tokens"] == {"prompt": 8 * 20, "response": 8 * 6, "positions": 2 * 20 + 8 * 6, "views": 0}
    assert figures["peer_tokens"] == {"prompt": 8 * 20, "response": 8 * 6, "positions": 8 * 26, "views": 0}
    for prefix in ("", "peer_"):
        seconds = figures[prefix + "seconds"]
        assert 0 < seconds < time.time() - started
        assert figures[prefix + "seconds_min"] == seconds == figures[prefix + "seconds_max"]
        assert figures[prefix + "cpu_seconds"] > 0
        assert 0.2 < figures[prefix + "memory_gib"] < 20
        phases = figures[prefix + "phases"]
        assert set(phases) == set(PHASES)
        assert all(phases[name]["seconds"] > 0 for name in ("generate", "reward", "learn", "sync"))
        assert sum(phase["seconds"] for phase in phases.values()) == pytest.approx(seconds, rel=1e-6)
    assert figures["speedup"] == pytest.approx(figures["peer_seconds"] / figures["seconds"])


def test_the_usage_is_what_one_types() -> None:
    done = subprocess.run([sys.executable, "-m", "recipes.benchmark", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m recipes.benchmark [config.yaml] [--key value ...]\n")
