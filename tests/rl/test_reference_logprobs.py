"""Reference log-probs and the cache they are kept in: paid once, whatever happens in between."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rl.disk_cache import DiskCache, content_key, file_fingerprint
from rl.preference_learner import EncodedPair, SideLogprobs
from rl.reference_logprobs import ReferenceLogprobs

PAIRS = [EncodedPair(prompt_ids=(1, n), chosen_ids=(n, 2), rejected_ids=(n, n, 2)) for n in range(7)]
BATCHES = [range(3), range(3, 5), range(5, 7)]


class Scorer:
    """Numbers that depend on the batch, as real ones do in their last bits."""

    def __init__(self, stop_after: int = 99) -> None:
        self.calls: list[int] = []
        self.stop_after = stop_after

    def __call__(self, pairs: list[EncodedPair]) -> list[SideLogprobs]:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(len(pairs))
        return [SideLogprobs(-p.prompt_ids[1] - len(pairs) / 1e9, -2.0 * p.prompt_ids[1]) for p in pairs]  # type: ignore[arg-type]


def fill(path: Path, scorer: Scorer, model: str = "m") -> list[SideLogprobs]:
    with DiskCache(path) as cache:
        reference = ReferenceLogprobs(cache, model)
        reference.fill(PAIRS, BATCHES, scorer)  # type: ignore[arg-type]
        return reference.get(PAIRS)


def test_what_is_known_is_not_computed_again(tmp_path: Path) -> None:
    first = Scorer()
    found = fill(tmp_path / "cache.jsonl", first)
    assert first.calls == [3, 2, 2]
    again = Scorer()
    assert fill(tmp_path / "cache.jsonl", again) == found
    assert again.calls == []
    other = Scorer()
    fill(tmp_path / "cache.jsonl", other, model="another")
    assert other.calls == [3, 2, 2]


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_stopped_fill_goes_on_with_the_same_numbers(tmp_path: Path, stop_after: int) -> None:
    expected = fill(tmp_path / "whole.jsonl", Scorer())
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "cut.jsonl", Scorer(stop_after))
    rest = Scorer()
    assert fill(tmp_path / "cut.jsonl", rest) == expected
    assert rest.calls == [3, 2, 2][stop_after:]


def test_a_torn_batch_is_run_whole_and_known_numbers_stay(tmp_path: Path) -> None:
    expected = fill(tmp_path / "cache.jsonl", Scorer())
    lines = (tmp_path / "cache.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cache.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    rest = Scorer()
    assert fill(tmp_path / "cache.jsonl", rest) == expected
    assert rest.calls == [3, 2, 2]


def test_images_take_part_in_the_key(tmp_path: Path) -> None:
    with DiskCache(tmp_path / "cache.jsonl") as cache:
        reference = ReferenceLogprobs(cache, "m")
        one, other = (
            EncodedPair(prompt_ids=(1,), chosen_ids=(2,), rejected_ids=(3,), media_key=key) for key in ("a", "b")
        )
        reference.fill([one, other], [range(1), range(1, 2)], lambda own: [SideLogprobs(-len(own[0].media_key), 0.0)])
        reference.fill([other], [range(1)], lambda _own: [SideLogprobs(-7.0, -7.0)])
        assert reference.get([one, other]) == [(-1.0, 0.0), (-1.0, 0.0)]
        assert len(cache) == 4


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with DiskCache(tmp_path / "cache.jsonl") as cache, pytest.raises(ValueError, match="not finite"):
        ReferenceLogprobs(cache, "m").fill(PAIRS, BATCHES, lambda own: [SideLogprobs(math.nan, 0.0)] * len(own))
    assert (tmp_path / "cache.jsonl").read_text() == ""


def test_a_spoilt_line_costs_its_result_only(tmp_path: Path) -> None:
    with DiskCache(tmp_path / "cache.jsonl") as cache:
        cache.add({"a": 1, "b": [2]})
        cache.add({"a": 5})
    text = (tmp_path / "cache.jsonl").read_text()
    (tmp_path / "cache.jsonl").write_text("{]\n[1]\n" + text + json.dumps({"key": "a", "value": 9}) + "\n")
    with pytest.warns(UserWarning, match="2 spoilt lines"):
        cache = DiskCache(tmp_path / "cache.jsonl")
    assert (cache.get("a"), cache.get("b"), cache.get("c"), "c" in cache) == (1, [2], None, False)
    cache.close()


def test_one_process_at_a_time_and_a_dead_one_leaves_it_free(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom rl.disk_cache import DiskCache\n"
        "cache = DiskCache(sys.argv[1])\ncache.add({'paid': 1})\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    path = tmp_path / "cache.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(ValueError, match="in use by another process"):
        DiskCache(path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with DiskCache(path) as cache:
        assert cache.get("paid") == 1


def test_keys_and_fingerprints_follow_contents(tmp_path: Path) -> None:
    assert content_key("a", [1, 2]) == content_key("a", (1, 2)) != content_key("a", [12])
    (tmp_path / "x").write_text("1")
    (tmp_path / "y").write_text("2")
    before = file_fingerprint([tmp_path / "x", tmp_path / "y"])
    assert before == file_fingerprint([tmp_path / "y", tmp_path / "x"])
    (tmp_path / "y").write_text("3")
    assert before != file_fingerprint([tmp_path / "x", tmp_path / "y"])
