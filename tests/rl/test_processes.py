"""Two training processes against one: the same gradients, weights, log-probs and checkpoints."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rl.processes import Processes
from tests.recipes.runs import ROOT
from tests.rl import several_processes
from tests.rl.several_processes import CASES, make_learner
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow
NAMES = list(CASES)


def start(folder: Path, *names: str, rank: int, port: int) -> subprocess.Popen[str]:
    launch = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.rl.several_processes", str(folder), *names]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **launch, **place},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(folder: Path, *names: str, timeout_s: float = 400) -> list[tuple[int, str]]:
    """Two processes; (status, output) of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [start(folder, *names, rank=rank, port=port) for rank in (0, 1)]
    try:
        outputs = [child.communicate(timeout=timeout_s)[0] for child in children]
        return [(child.returncode, output) for child, output in zip(children, outputs, strict=True)]
    finally:
        for child in children:
            child.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All cases, in one process and in two."""
    from tests.base_model.vlm.small import shared

    folder = tmp_path_factory.mktemp("processes")
    make_tiny_model(folder / "models/text")
    make_tiny_model(folder / "models/untied", tied=False)
    shared()[0].save_pretrained(folder / "models/vision")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in NAMES:
        if not name.endswith("_resumed"):
            several_processes.train(folder, name, make_learner(folder, CASES[name], Processes()))
    (folder / "ddp/1/checkpoints/step_2").symlink_to(folder / "ddp_begun/1/checkpoints/step_2")
    (first, output), (second, other) = launch(folder, *NAMES, "unexpected", "asked", "killed")
    assert (first, second) == (1, -signal.SIGKILL), output + other
    (folder / "output.txt").write_text(output)
    yield folder
    torch.set_num_threads(threads)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.name}:{name}": tensor
        for file in sorted(checkpoint.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_same(two: Path, one: Path, *, double: bool = False) -> None:
    """Names, dtypes and values. The first moment is a sum of gradients; Adam divides it by their size, so a weight
    whose gradient is rounding alone (the bias of keys in an attention) moves at random in float32 and is left out.
    """
    mine, theirs = tensors(two), tensors(one)
    assert {n: (t.dtype, t.shape) for n, t in mine.items()} == {n: (t.dtype, t.shape) for n, t in theirs.items()}
    bound = 1e-9 if double else 1e-5
    for name, tensor in mine.items():
        other = theirs[name]
        squares = mine.get(f"optimizer.safetensors:{name.split(':', 1)[1]}|exp_avg_sq")
        if squares is not None and not double:
            tensor, other = tensor[squares > 1e-13], other[squares > 1e-13]
        torch.testing.assert_close(tensor, other, atol=bound, rtol=1e-5, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_resumed")])
def test_two_processes_train_as_one(folder: Path, name: str) -> None:
    """Weights, moments and file names of the checkpoint, every metric and log-prob, and the weights for the engine."""
    case = CASES[name]
    one, two = folder / name / "1", folder / name / "2"
    checkpoint = f"checkpoints/step_{case.last}"
    assert_same(two / checkpoint, one / checkpoint, double=case.dtype is torch.float64)
    assert sorted(p.name for p in (two / checkpoint).iterdir()) == sorted(p.name for p in (one / checkpoint).iterdir())
    mine, theirs = (json.loads((side / "metrics.json").read_text()) for side in (two, one))
    for own, other in zip(mine, theirs, strict=True):
        assert own == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert_pushed(two)


def assert_pushed(run: Path) -> None:
    """What the engine gets is what the checkpoint holds."""
    pushed = load_file(run / "pushed.safetensors")
    saved = load_file(next((run / "checkpoints").iterdir()) / "model.safetensors") if not adapters(run) else {}
    for name, tensor in saved.items():
        assert torch.equal(pushed[name], tensor), name


def adapters(run: Path) -> bool:
    return run.parent.name == "ddp_adapters"


@pytest.mark.parametrize("name", ["ddp_resumed", "fsdp_resumed"])
def test_a_run_begun_by_one_process_is_continued_by_two(folder: Path, name: str) -> None:
    assert_same(folder / name / "2/checkpoints/step_3", folder / "ddp/1/checkpoints/step_3")


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_run_begun_by_two_processes_is_continued_by_one(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "models").symlink_to(folder / "models")
    learner = make_learner(tmp_path, CASES[name], Processes())
    begun = folder / f"{name}_begun/2/checkpoints/step_2"
    out = several_processes.train(tmp_path, "ddp_resumed", learner, start=begun)
    assert_same(out / "checkpoints/step_3", folder / "ddp/1/checkpoints/step_3")


def test_the_end_of_one_process_ends_the_other_with_a_sentence(folder: Path) -> None:
    """The launch's last case: process 1 is killed in the middle of an update."""
    output = (folder / "output.txt").read_text()
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: another of the 2 training processes has ended, and the run cannot go on without it (noticed by process "
        "0): see its message, if it left one; continue with --resume true"
    ]
    assert "Traceback" not in output


def test_asking_another_process_to_end_is_told_to_the_first(folder: Path) -> None:
    assert (folder / "asked").read_text() == "True"


def test_a_launch_that_the_learner_does_not_expect_is_refused(folder: Path) -> None:
    for rank in (0, 1):
        text = (folder / f"unexpected_{rank}").read_text()
        assert text.startswith("training was launched in 2 processes, but this trainer runs in one")
