"""The run directory: what is refused, what a resumed run finds, and who may write."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rl.files import WriteError
from rl.run_directory import RunDirectory, config_differences, read_config
from tests.conftest import RunOnSmallDisk

CONFIG = {"model": "tiny", "steps": 4, "learner": {"lr": 1e-6, "betas": [0.9, 0.95]}, "modes": {"mode": "hybrid"}}


def start(path: Path, config: dict | None = None, **options: bool) -> RunDirectory:
    return RunDirectory.create(path, config or CONFIG, **{"resume": False, **options})


def make_run(path: Path, steps: int = 3) -> None:
    with start(path) as run:
        for step in range(1, steps + 1):
            run.append_metrics({"step": step, "loss": step / 2})
            run.append_rollouts([{"step": step, "sample": 0}, {"step": step, "sample": 1}])
            run.append_evaluation({"step": step})


def steps(path: Path, name: str) -> list[int]:
    return [json.loads(line)["step"] for line in (path / name).read_text().splitlines()]


# --- a new run -------------------------------------------------------------------------------------------------------


def test_a_new_run_writes_down_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "hybrid"
    with start(path) as run:
        run.write_ledger({"modes": {}})
        run.write_summary({"name": "hybrid", "finished": True})
        assert run.checkpoints == path / "checkpoints"
    assert read_config(path) == CONFIG
    facts = json.loads((path / "provenance.json").read_text())
    assert facts["versions"]["torch"].startswith("2.")
    assert facts["cpu_count"] == os.cpu_count()
    assert facts["command"] == sys.argv
    assert facts["resumptions"] == []
    assert {"started", "git", "python", "platform", "gpus"} <= facts.keys()
    assert json.loads((path / "run.json").read_text())["finished"] is True


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    start(tmp_path).close()
    assert read_config(tmp_path) == CONFIG


def test_records_are_lines(tmp_path: Path) -> None:
    make_run(tmp_path / "run", steps=2)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 1.0}\n'
    assert steps(tmp_path / "run", "rollouts.jsonl") == [1, 1, 2, 2]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_existing_run_is_refused_and_unchanged(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.name != ".lock"}
    with pytest.raises(ValueError, match=r"exists already: continue it with --resume.*--overwrite true"):
        start(tmp_path / "run", {"model": "other"})
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.name != ".lock"} == before


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_directory_that_is_no_run_is_never_touched(tmp_path: Path, options: dict) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".draft.tmp-7").write_text("more work")
    with pytest.raises(ValueError, match=r"is not empty, and is not a run"):
        start(tmp_path, **options)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".draft.tmp-7", "thesis.tex"], "no lock is left either"


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no run in .*none to resume: check the name"):
        start(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        start(tmp_path, resume=True, overwrite=True)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file, but the run needs a directory"):
        start(tmp_path / "run")


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(WriteError, match="Not a directory"):
        start(tmp_path / "runs" / "a")


def test_a_configuration_that_yaml_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON-able"):
        start(tmp_path / "run", {"path": Path("x")})


def test_reading_the_configuration_of_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run in .* \(no config.yaml\)"):
        read_config(tmp_path)


# --- overwrite -------------------------------------------------------------------------------------------------------


def test_overwrite_starts_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make_run(path)
    (path / "checkpoints" / "step_3").mkdir(parents=True)
    (path / "report.html").write_text("")
    with start(path, {"model": "other"}, overwrite=True):
        assert read_config(path) == {"model": "other"}
        assert steps(path, "metrics.jsonl") == []
        assert not (path / "checkpoints").exists()
        assert not (path / "report.html").exists()


def test_overwriting_nothing_is_a_start(tmp_path: Path) -> None:
    start(tmp_path / "run", overwrite=True).close()
    assert read_config(tmp_path / "run") == CONFIG


# --- resume ----------------------------------------------------------------------------------------------------------


def test_resume_finds_the_records_and_writes_down_that_it_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make_run(path)
    started = json.loads((path / "provenance.json").read_text())["started"]
    with start(path, resume=True) as run:
        run.append_metrics({"step": 4})
    facts = json.loads((path / "provenance.json").read_text())
    assert facts["started"] == started
    assert len(facts["resumptions"]) == 1
    assert steps(path, "metrics.jsonl") == [1, 2, 3, 4]


def test_truncate_forgets_later_records_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make_run(path)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with open(path / name, "a") as file:
            file.write('{"step": 4, "lo')
    (path / "run.json").write_text('{"finished": true}')
    with start(path, resume=True) as run:
        run.truncate_after(2)
        run.append_metrics({"step": 3, "again": True})
    assert steps(path, "metrics.jsonl") == [1, 2, 3]
    assert steps(path, "rollouts.jsonl") == [1, 1, 2, 2]
    assert steps(path, "evaluations.jsonl") == [1, 2]
    assert not (path / "run.json").exists()


def test_another_configuration_is_refused_with_every_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    other = {**CONFIG, "learner": {"lr": 2e-6, "betas": [0.9, 0.95], "clip": 0.2}, "modes": {}}
    with pytest.raises(ValueError) as caught:
        start(tmp_path / "run", other, resume=True)
    message = str(caught.value)
    assert "learner.lr was 1e-06 and is now 2e-06" in message
    assert "learner.clip was None and is now 0.2" in message
    assert "modes.mode was 'hybrid' and is now None" in message
    assert "more" not in message
    assert "model" not in message.split("(")[1].split(")")[0]
    assert read_config(tmp_path / "run") == CONFIG


def test_many_and_long_differences_are_cut(tmp_path: Path) -> None:
    with start(tmp_path / "run", {f"key{i}": i for i in range(9)} | {"text": "a" * 500}):
        pass
    with pytest.raises(ValueError) as caught:
        start(tmp_path / "run", {f"key{i}": -1 for i in range(9)} | {"text": "b" * 500}, resume=True)
    message = str(caught.value)
    assert "(key0 was 0 and is now -1; key1 was 1 and is now -1; key2 was 2 and is now -1; and 7 more)" in message
    with pytest.raises(ValueError) as caught:
        start(tmp_path / "run", {f"key{i}": i for i in range(9)} | {"text": "b" * 500}, resume=True)
    assert len(str(caught.value)) < 500


def test_the_check_says_what_create_would_say_and_touches_nothing(tmp_path: Path) -> None:
    def check(path: Path, config: dict | None = None, **options: bool) -> None:
        RunDirectory.check(path, config or CONFIG, **{"resume": False, **options})

    check(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    make_run(tmp_path / "run")
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    check(tmp_path / "run", resume=True)
    check(tmp_path / "run", {"model": "other"}, overwrite=True)
    for path, config, options, words in (
        ("run", None, {}, "exists already: continue it with --resume"),
        ("run", {"model": "other"}, {"resume": True}, "cannot be resumed with another configuration"),
        ("run", None, {"resume": True, "overwrite": True}, "exclude each other"),
        ("none", None, {"resume": True}, "there is no run in"),
        ("file", None, {}, "is a file"),
        ("folder", None, {"overwrite": True}, "is not a run"),
        ("folder", None, {"resume": True}, "is not a run"),
    ):
        with pytest.raises(ValueError, match=words):
            check(tmp_path / path, config, **options)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_keys_that_may_change_do_and_are_written_down(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    start(tmp_path / "run", {**CONFIG, "steps": 9}, resume=True).close()
    assert read_config(tmp_path / "run")["steps"] == 9


def test_a_key_inside_a_list_may_change_alone(tmp_path: Path) -> None:
    def rewards(*items: dict) -> dict:
        return {**CONFIG, "rewards": list(items)}

    judge = {"name": "judge", "retries": 0}
    start(tmp_path / "run", rewards({"name": "math"}, judge)).close()

    def resume(config: dict) -> None:
        RunDirectory.create(tmp_path / "run", config, resume=True, may_change={"rewards.N.retries"}).close()

    resume(rewards({"name": "math"}, {**judge, "retries": 3}))
    assert read_config(tmp_path / "run")["rewards"][1]["retries"] == 3
    with pytest.raises(ValueError, match=r"rewards\.1\.name was 'judge' and is now 'other'"):
        resume(rewards({"name": "math"}, {"name": "other", "retries": 3}))
    with pytest.raises(ValueError, match=r"rewards\.1\.name was 'judge' and is now None"):
        resume(rewards({"name": "math"}))


def test_the_caller_says_what_may_change(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="steps was 4 and is now 9"):
        RunDirectory.create(tmp_path / "run", {**CONFIG, "steps": 9}, resume=True, may_change={"learner.lr"})


def test_tuples_and_lists_are_the_same_configuration(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    config = {**CONFIG, "learner": {"lr": 1e-6, "betas": (0.9, 0.95)}}
    start(tmp_path / "run", config, resume=True).close()


def test_leftovers_are_cleared_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "run"
    make_run(path)
    (path / "checkpoints" / ".step_3.tmp-99").mkdir(parents=True)
    (path / ".ledger.json.tmp-99").write_text("")
    start(path, resume=True).close()
    assert list((path / "checkpoints").iterdir()) == []
    assert not (path / ".ledger.json.tmp-99").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_start_that_was_killed_before_the_configuration_can_be_repeated(tmp_path: Path, resume: bool) -> None:
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / "provenance.json").write_text("{}")
    (tmp_path / ".config.yaml.tmp-1").write_text("half")
    start(tmp_path, resume=resume).close()
    assert read_config(tmp_path) == CONFIG


def test_differences_of_nested_configurations() -> None:
    assert config_differences({"a": {"b": 1, "c": {}}, "d": 1}, {"a": {"b": 2}, "d": 1}) == {
        "a.b": (1, 2),
        "a.c": ({}, None),
    }


# --- one process at a time -------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from rl.run_directory import RunDirectory
run = RunDirectory.create(sys.argv[1], {"model": "tiny"}, resume=False)
print("ready", flush=True)
time.sleep(60)
"""


def test_two_processes_cannot_have_the_same_run_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(ValueError, match=rf"in use by another process \(process id {holder.pid}\)"):
                start(path, {"model": "tiny"}, **options)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    start(path, {"model": "tiny"}, resume=True).close()


def test_the_lock_is_given_back_on_close_and_after_a_refusal(tmp_path: Path) -> None:
    with start(tmp_path / "run"), pytest.raises(ValueError, match="in use"):
        start(tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="another configuration"):
        start(tmp_path / "run", {"model": "other"}, resume=True)
    start(tmp_path / "run", resume=True).close()


FORKING_HOLDER = """
import multiprocessing, os, sys, time
from rl.run_directory import RunDirectory

def live():
    print(os.getpid(), flush=True)
    time.sleep(60)

run = RunDirectory.create(sys.argv[1], {"model": "tiny"}, resume=False)
multiprocessing.get_context("fork").Process(target=live).start()
time.sleep(60)
"""


def test_a_forked_child_that_outlives_the_run_does_not_keep_its_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", FORKING_HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    orphan = int(holder.stdout.readline())
    try:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE
        start(tmp_path / "run", {"model": "tiny"}, resume=True).close()
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_a_forked_child_leaves_the_parents_lock_alone(tmp_path: Path) -> None:
    with start(tmp_path / "run"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
        child.start()
        child.join()
        with pytest.raises(ValueError, match="in use"):
            start(tmp_path / "run", resume=True)


FULL_DISK = """
import sys
from pathlib import Path
from rl.files import WriteError
from rl.run_directory import RunDirectory
path = Path(sys.argv[1]) / "run"
try:
    RunDirectory.create(path, {"text": "x" * 2_000_000}, resume=False)
except WriteError as error:
    print(error)
assert not (path / "config.yaml").exists()
RunDirectory.create(path, {"text": "x"}, resume=False)
"""


def test_a_full_disk_at_the_start_leaves_no_half_run(run_on_small_disk: RunOnSmallDisk) -> None:
    message = run_on_small_disk(FULL_DISK, size="1m")
    assert "run/config.yaml: No space left on device; nothing was half-written" in message
