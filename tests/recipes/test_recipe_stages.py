"""A stage ends with the job that called it: otherwise two of them would write to one run after a kill."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.recipes.runs import ENVIRONMENT, ROOT


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_stage_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"from recipes.recipe_stages import call; call(['tests.recipes.sleeper', '--out', {str(file)!r}])"
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stage = int(file.read_text())
    assert alive(stage)
    os.kill(job.pid, 9)
    job.wait()
    deadline = time.monotonic() + 30
    while alive(stage):
        assert time.monotonic() < deadline, "the stage outlives its caller"
        time.sleep(0.05)
