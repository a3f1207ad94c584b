"""Files are complete or absent: errors in mid-write, a really full disk, killed processes, torn lines."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rl.files import (
    JsonLines,
    WriteError,
    atomic_directory,
    atomic_file,
    atomic_write_json,
    atomic_write_text,
    remove_directory,
    remove_leftovers,
)
from tests.conftest import RunOnSmallDisk


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_half(manager: AbstractContextManager[Path], error: BaseException) -> None:
    """Write something where an atomic writer wants it, then fail."""
    with manager as temporary:
        (temporary / "new" if temporary.is_dir() else temporary).write_text("ha")
        raise error


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_in_one_go_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a.txt", "old")
    atomic_write_text(tmp_path / "a.txt", "new ü")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new ü"
    assert names(tmp_path) == ["a.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic_write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_in_the_middle_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half"):
        write_half(atomic_file(target), RuntimeError("half"))
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_error_names_the_file_the_reason_and_the_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "gone" / "config.yaml"
    with pytest.raises(WriteError) as caught:
        atomic_write_text(missing, "x")
    message = str(caught.value)
    assert str(missing) in message
    assert "No such file or directory" in message
    assert "nothing was half-written" in message
    assert "\n" not in message


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"loss": float("nan"), "deep": [(float("inf"), 1.5)], "text": "NaN"})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=refuse_constant) == {"loss": None, "deep": [[None, 1.5]], "text": "NaN"}


# --- a directory -----------------------------------------------------------------------------------------------------


def test_a_directory_appears_complete(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "deep" / "step_1") as directory:
        (directory / "a").write_text("1")
        assert not (tmp_path / "deep" / "step_1").exists()
    assert names(tmp_path / "deep") == ["step_1"]
    assert names(tmp_path / "deep" / "step_1") == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_directory_that_fails_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "step_1"
    target.mkdir()
    (target / "old").write_text("")
    with pytest.raises(WriteError if error is OSError else error):
        write_half(atomic_directory(target), error("in the middle"))
    assert names(tmp_path) == ["step_1"]
    assert names(target) == ["old"]


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "step_1"
    target.mkdir()
    (target / "old").write_text("")
    rename = Path.rename

    def refuse_the_new_one(path: Path, to: Path) -> Path:
        if ".tmp-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse_the_new_one)
    with pytest.raises(WriteError, match="Input/output error"), atomic_directory(target) as directory:
        (directory / "new").write_text("")
    assert names(tmp_path) == ["step_1"]
    assert names(target) == ["old"]


def test_an_existing_directory_is_replaced_not_merged(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with atomic_directory(tmp_path / "step_1") as directory:
            (directory / name).write_text("")
    assert names(tmp_path) == ["step_1"]
    assert names(tmp_path / "step_1") == ["second"]


def test_leftovers_of_killed_processes_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".step_2.tmp-123").mkdir()
    (tmp_path / ".step_2.tmp-123" / "half").write_text("")
    (tmp_path / ".config.yaml.tmp-123").write_text("half")
    (tmp_path / ".step_1.old-123").mkdir()  # killed between "set aside" and "renamed": the old one comes back
    (tmp_path / ".step_3.old-123").mkdir()  # killed after the new one was in place
    (tmp_path / "step_3").mkdir()
    (tmp_path / ".hidden").write_text("not ours")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "step_1", "step_3"]


def test_clearing_a_directory_that_is_not_there(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "none")


def test_removing_a_directory(tmp_path: Path) -> None:
    (tmp_path / "step_1").mkdir()
    (tmp_path / "step_1" / "a").write_text("")
    remove_directory(tmp_path / "step_1")
    assert names(tmp_path) == []


# --- JSON lines ------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_records_are_appended_and_visible_at_once(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "m.jsonl")
    lines.append([{"step": 1, "text": "zwei\nZeilen ü"}])
    lines.append([{"step": 2}, {"step": 3, "loss": float("nan")}])
    lines.append([])
    assert read(lines.path) == [{"step": 1, "text": "zwei\nZeilen ü"}, {"step": 2}, {"step": 3, "loss": None}]


@pytest.mark.parametrize("torn", ['{"step": 3', '{"step": 3}', "x" * 200_000])
@pytest.mark.parametrize("before", ["", '{"step": 1}\n{"step": 2}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, before: str, torn: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(before + torn)
    lines = JsonLines(path)
    assert path.read_text() == before
    lines.append([{"step": 9}])
    assert read(path)[-1] == {"step": 9}


def test_keep_rewrites_byte_for_byte_and_goes_on_appending(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step":1,  "x": 1e0}\n{"step": 2}\n{"step": 3}\n')
    lines = JsonLines(path)
    assert lines.keep(lambda record: record["step"] != 2) == 1
    lines.append([{"step": 4}])
    assert path.read_text() == '{"step":1,  "x": 1e0}\n{"step": 3}\n{"step": 4}\n'
    assert lines.keep(lambda record: True) == 0
    lines.append([{"step": 5}])
    assert [record["step"] for record in read(path)] == [1, 3, 4, 5]
    assert names(tmp_path) == ["m.jsonl"]


# --- a disk that is really full --------------------------------------------------------------------------------------

FULL_DISK = """
import json, sys
from pathlib import Path
from rl.files import JsonLines, WriteError, atomic_write_text
disk = Path(sys.argv[1])
atomic_write_text(disk / "config.yaml", "old")
lines = JsonLines(disk / "metrics.jsonl")
lines.append([{"step": 1}])
try:
    atomic_write_text(disk / "config.yaml", "x" * 2_000_000)
except WriteError as error:
    print(error)
assert (disk / "config.yaml").read_text() == "old"
try:
    lines.append([{"step": 2, "text": "y" * 2_000_000}])
except WriteError as error:
    print(error)
lines.append([{"step": 3}])
assert [json.loads(line)["step"] for line in open(disk / "metrics.jsonl")] == [1, 3]
assert sorted(path.name for path in disk.iterdir()) == ["config.yaml", "metrics.jsonl"]
"""


def test_a_full_disk_is_one_sentence_and_half_writes_nothing(run_on_small_disk: RunOnSmallDisk) -> None:
    first, second = run_on_small_disk(FULL_DISK, size="1m").splitlines()
    assert "disk/config.yaml: No space left on device; nothing was half-written" in first
    assert "disk/metrics.jsonl: No space left on device; nothing was half-written" in second


LIMITED = """
import resource, sys
from pathlib import Path
from rl.files import JsonLines, WriteError, atomic_write_text
directory = Path(sys.argv[1])
lines = JsonLines(directory / "metrics.jsonl")
lines.append([{"step": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (lambda: atomic_write_text(directory / "a", "x" * 5000), lambda: lines.append([{"text": "y" * 5000}])):
    try:
        write()
    except WriteError as error:
        assert "File too large" in str(error), error
    else:
        raise SystemExit("the limit did not work")
"""


def test_a_write_that_stops_half_way_is_taken_back(tmp_path: Path) -> None:
    """The same without mounting anything: the system takes the first 1000 bytes and refuses the rest."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert names(tmp_path) == ["metrics.jsonl"]
