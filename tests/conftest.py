"""What all tests share: accelerate begins anew for each file, and a disk that really fills up (a small tmpfs in a mount
namespace of its own, which vanishes with the process)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RunOnSmallDisk = Callable[..., str]


@pytest.fixture(autouse=True, scope="module")
def _accelerate_begins_anew() -> Iterator[None]:
    """accelerate keeps its precision for the whole process: one file's trainer would refuse the next file's."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state()


@pytest.fixture
def run_on_small_disk(tmp_path: Path) -> RunOnSmallDisk:
    """Run a Python script that is given a directory on a disk of `size`; it must succeed; returns its output."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()

    def run(script: str, *, size: str) -> str:
        mount_and_exec = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount_and_exec, str(mount_point)]
        program = [sys.executable, "-c", script, str(mount_point)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        options = {"env": environment, "cwd": Path(__file__).parents[1], "timeout": 300}
        done = subprocess.run([*command, *program], capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(mount_point)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this system does not let a test mount a small tmpfs (user namespaces are off)")
    return run
