"""Rewards that sleep, raise, return nonsense, block, eat memory or die: stopped, named, counted; in every form."""

import asyncio
import contextlib
import json
import logging
import math
import os
import threading
import time
from pathlib import Path

import pytest

import rewards.event_loop
from rewards import RewardError, RewardSet, build
from rewards.binding import Policy
from rewards.calls import FAILED_FILE
from rewards.event_loop import BLOCKED_S, MAX_STUCK
from rewards.outcome import Outcome
from tests.rewards.test_reward_set import make, sample

FILE = Path(__file__).parent / "misbehaving.py"
QUICK_S = 6.0
"""Far below the 30 s that the misbehaving rewards would take."""


def spec(function, **keys):
    return {"name": f"{FILE}:{function}", "label": "bad", **keys}


def responses(*answers):
    own = {"prompt": "", "thinking": None, "reference": "1", "mode": "short", "response_ids": [], "truncated": False}
    return [{**own, "response": answer, "answer": answer} for answer in answers]


GROUP = [responses("a", "b", "c")]

FAILURES = [
    (
        "sleeps",
        {"timeout_s": 0.3},
        r"'bad' timed out on sample 0: no answer within 0.3 s \(the call goes on, its result",
    ),
    ("sleeps_async", {"timeout_s": 0.3}, r"reward 'bad' timed out on sample \d: no answer within 0.3 s"),
    ("sleeps", {"timeout_s": 0.3, "isolate": True}, r"reward 'bad' timed out on sample 0: no answer within 0.3 s"),
    ("sleeps_async", {"timeout_s": 0.3, "isolate": True}, r"'bad' timed out on sample 0: no answer within 0.3 s"),
    ("blocks_async", {"timeout_s": 0.3, "isolate": True}, r"'bad' timed out on sample 0: no answer within 0.3 s"),
    ("holds_the_interpreter", {"timeout_s": 0.3, "isolate": True}, r"'bad' timed out on sample 0"),
    ("raises", {}, r"reward 'bad' failed on sample 0: KeyError: 'a' \(.*misbehaving\.py:\d+\)"),
    ("raises", {"timeout_s": 5}, r"reward 'bad' failed on sample 0: KeyError: 'a' \(.*misbehaving\.py:\d+\)"),
    ("raises_async", {}, r"reward 'bad' failed on sample \d: KeyError: '[abc]' \(.*misbehaving\.py:\d+\)"),
    ("raises", {"isolate": True}, r"reward 'bad' failed on sample 0: KeyError: 'a' \(.*misbehaving\.py:\d+\)"),
    ("raises_async", {"isolate": True}, r"reward 'bad' failed on sample 0: KeyError: 'a' \(.*misbehaving\.py:\d+\)"),
    ("exits", {}, r"reward 'bad' failed on sample 0: SystemExit: 0"),
    ("exits_async", {}, r"reward 'bad' failed on sample \d: SystemExit: 0"),
    ("exits", {"isolate": True}, r"reward 'bad' failed on sample 0: SystemExit: 0"),
    ("gives_nan", {}, r"reward 'bad' returned nan for sample 0; a reward must be finite"),
    ("gives_nan_async", {}, r"reward 'bad' returned nan for sample \d; a reward must be finite"),
    ("gives_nan", {"isolate": True}, r"reward 'bad' returned nan for sample 0; a reward must be finite"),
    ("eats", {"isolate": True, "memory_mb": 128}, r"'bad' ran out of memory on sample 0: its calls may add 128 MiB"),
    ("dies", {"isolate": True}, r"reward 'bad' died on sample 0: its process ended with status 3"),
    ("segfaults", {"isolate": True}, r"reward 'bad' died on sample 0: its process was ended by SIGSEGV"),
    ("killed", {"isolate": True}, r"'bad' died on sample 0: its process was ended by SIGKILL \(the machine may be out"),
    ("floods", {"isolate": True}, r"'bad' failed on sample 0: it answered with more than 16 MiB"),
]


@pytest.mark.parametrize(("function", "keys", "message"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_failure_stops_with_name_sample_and_file(tmp_path, function, keys, message):
    start = time.monotonic()
    with build([spec(function, **keys)]) as reward_set:
        reward_set.save_failures_in(tmp_path)
        with pytest.raises(RewardError, match=message) as caught:
            reward_set.score(GROUP)
    assert time.monotonic() - start < QUICK_S
    assert str(caught.value).endswith(f"; sample and traceback are in {tmp_path / FAILED_FILE}.")
    assert "\n" not in str(caught.value)
    saved = json.loads((tmp_path / FAILED_FILE).read_text())
    assert saved["reward"] == "bad"
    assert saved["sample"]["answer"] in "abc"
    assert str(caught.value).startswith(saved["error"])
    if "raises" in function:
        assert saved["traceback"][-1].startswith("KeyError")
        assert any("misbehaving.py" in line for line in saved["traceback"])
    assert [path.name for path in tmp_path.iterdir()] == [FAILED_FILE]


@pytest.mark.parametrize(("function", "keys", "message"), FAILURES, ids=lambda value: str(value)[:40])
def test_a_failure_can_be_counted_as_missing_and_is_never_zero(function, keys, message, caplog):
    with (
        build([spec(function, **keys, on_error="missing", max_missing=1.0), "format"]) as reward_set,
        caplog.at_level(logging.WARNING),
    ):
        [scores] = reward_set.score([responses("a", "b")])
    for score in scores:
        assert score.missing == ("bad",)
        assert score.breakdown["bad"] is None
        assert score.breakdown["format"] is not None
        assert math.isnan(score.total)
        assert not score.complete
    assert caplog.text.count("counted as missing") == 1


@pytest.mark.parametrize("keys", [{}, {"isolate": True}], ids=["here", "isolated"])
@pytest.mark.parametrize("function", ["too_few", "too_few_async"])
def test_a_group_reward_with_too_few_values(function, keys, tmp_path):
    path = tmp_path / "mine.py"
    text = (
        f"from rewards import group_reward\nfrom tests.rewards import misbehaving\n@group_reward('{tmp_path.name}')\n"
    )
    text += f"def bad(answer):\n    return misbehaving.{function}(answer)\n"
    path.write_text(text.replace("def", "async def").replace("return", "return await") if "async" in function else text)
    one = {"name": f"{path}:bad", "label": "bad", **keys}
    message = "group reward 'bad' returned 2 values for group 0 of 3 responses"
    with build([one]) as reward_set:
        reward_set.save_failures_in(tmp_path)
        with pytest.raises(RewardError, match=message):
            reward_set.score(GROUP)
    assert [row["answer"] for row in json.loads((tmp_path / FAILED_FILE).read_text())["group"]] == ["a", "b", "c"]
    with build([{**one, "on_error": "missing", "max_missing": 1.0}]) as reward_set:
        assert [score.missing for score in reward_set.score(GROUP)[0]] == [("bad",)] * 3


def test_an_async_reward_that_blocks_the_loop_is_named_and_cannot_hang_the_run(tmp_path, caplog):
    start = time.monotonic()
    message = r"'bad' has blocked the event loop .* on sample 0 for .*misbehaving\.py:\d+.*its timeout_s of 0\.5"
    one = spec("blocks_async", timeout_s=0.5, on_error="missing", max_missing=1.0)
    with caplog.at_level(logging.WARNING), build([one]) as reward_set:
        reward_set.save_failures_in(tmp_path)
        with pytest.raises(RewardError, match=message):
            reward_set.score(GROUP)
    saved = json.loads((tmp_path / FAILED_FILE).read_text())
    assert saved["sample"]["answer"] == "a"
    assert any("misbehaving.py" in line for line in saved["traceback"])
    assert time.monotonic() - start < QUICK_S
    assert "reward 'bad' blocks the event loop of all async rewards" in caplog.text


def test_a_block_is_traced_to_the_reward_whose_helper_task_it_is(caplog):
    """The loop is shared: not the reward that waits, but the one that blocks is named, also through its own tasks."""

    async def innocent(answer):
        await asyncio.sleep(0.01)
        return 1.0

    async def helper():
        time.sleep(BLOCKED_S + 0.6)

    async def guilty(answer):
        await asyncio.gather(helper(), innocent(answer))
        return 1.0

    with (
        caplog.at_level(logging.WARNING),
        RewardSet([make(innocent, label="innocent"), make(guilty, label="guilty")]) as reward_set,
    ):
        [scores] = reward_set.score([[sample()]])
    assert scores[0].total == 2.0  # without a time-out it is only slow
    assert "reward 'guilty' blocks" in caplog.text
    assert "innocent" not in caplog.text


def test_an_async_call_out_of_time_is_cancelled_and_does_not_count_as_stuck():
    cancelled = []

    async def slow(answer):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(answer)
            raise

    policy = Policy(timeout_s=0.02, retries=1, retry_wait_s=0.0, on_error="missing", max_missing=1.0)
    with RewardSet([make(slow, policy=policy)]) as reward_set:
        [scores] = reward_set.score([[sample()] * (MAX_STUCK + 4)])
        assert [score.missing for score in scores] == [("f",)] * (MAX_STUCK + 4)
        assert cancelled == ["a"] * 2 * (MAX_STUCK + 4)


def test_a_coroutine_that_refuses_to_be_cancelled_is_left_behind():
    release = threading.Event()

    async def stubborn(answer):
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
        return 1.0

    start = time.monotonic()
    with RewardSet([make(stubborn, policy=Policy(timeout_s=0.2))]) as reward_set:
        with pytest.raises(RewardError, match="timed out on sample 0"):
            reward_set.score([[sample()]])
        release.set()
    assert time.monotonic() - start < QUICK_S


def test_the_end_of_the_loop_does_not_hang_the_run():
    """sys.exit() in a task that a user's coroutine started goes through the event loop itself."""

    async def bomb():
        raise SystemExit(1)

    async def starts_a_task(answer):
        task = asyncio.create_task(bomb())
        await asyncio.sleep(20)
        return float(task.done())

    with (
        RewardSet([make(starts_a_task)]) as reward_set,
        pytest.raises(RewardError, match=r"event loop of the async rewards ended: SystemExit\(1\)"),
    ):
        reward_set.score([[sample()]])


def test_late_results_of_threads_are_dropped_and_too_many_stuck_threads_stop_the_run():
    release = threading.Event()
    policy = Policy(timeout_s=0.02, on_error="missing", max_missing=1.0)

    def stuck(answer):
        release.wait(20)
        return 1.0

    with RewardSet([make(stuck, policy=policy)]) as reward_set:
        [scores] = reward_set.score([[sample()] * 3])
        assert [score.missing for score in scores] == [("f",)] * 3
        with pytest.raises(RewardError, match=rf"{MAX_STUCK + 1} of its calls are still running.*isolate: true would"):
            reward_set.score([[sample()] * (MAX_STUCK + 5)])
        release.set()
        wait_until(lambda: reward_set._background._loop._stuck["f"] == 0)


def wait_until(holds, limit_s=5.0):
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("form", ["inline", "threads", "async"])
def test_retries_with_doubled_waits(form, monkeypatch):
    waits, calls = [], []
    real_sleep = asyncio.sleep

    async def note(seconds, *rest):
        waits.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(rewards.event_loop.asyncio, "sleep", note)
    monkeypatch.setattr("rewards.calls.time.sleep", waits.append)

    def flaky(answer):
        calls.append(answer)
        if len(calls) < 4:
            raise ConnectionError(f"no {len(calls)}")
        return float("nan") if len(calls) == 4 else 1.0

    async def flaky_async(answer):
        return flaky(answer)

    def one(retries):
        policy = Policy(retries=retries, retry_wait_s=0.5, timeout_s=9.0 if form == "threads" else None)
        return RewardSet([make(flaky_async if form == "async" else flaky, policy=policy)])

    with one(4) as reward_set:
        assert reward_set.score([[sample()]])[0][0].total == 1.0
    assert calls == ["a"] * 5
    assert [item for item in waits if item] == [0.5, 1.0, 2.0, 4.0]
    calls.clear()
    with one(2) as reward_set, pytest.raises(RewardError, match=r"ConnectionError: no 3 .*\(attempt 3\)"):
        reward_set.score([[sample()]])


def test_waits_are_bounded():
    assert Policy(retries=8, retry_wait_s=1.0).waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_retries_of_an_isolated_reward(tmp_path):
    keys = {"isolate": True, "retries": 1, "retry_wait_s": 0.01, "args": {"folder": str(tmp_path)}}
    with build([spec("fails_once_per", **keys)]) as reward_set:
        assert [score.total for score in reward_set.score(GROUP)[0]] == [1.0] * 3


@pytest.mark.parametrize(("concurrency", "expected"), [(None, 6), (3, 3), (1, 1)])
def test_concurrency_of_async_calls_is_limited(concurrency, expected):
    now, most = 0, 0

    async def judge(answer):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return 1.0

    with RewardSet([make(judge, policy=Policy(concurrency=concurrency))]) as reward_set:
        reward_set.score([[sample()] * 3, [sample()] * 3])
    assert most == expected


def test_different_async_rewards_run_at_the_same_time():
    """Each waits until the other has been called: one after the other, they would never end."""
    both = {"x": asyncio.Event(), "y": asyncio.Event()}

    def meets(own, other):
        async def reward(answer):
            both[own].set()
            await asyncio.wait_for(both[other].wait(), 5)
            return 1.0

        return make(reward, label=own)

    with RewardSet([meets("x", "y"), meets("y", "x")]) as reward_set:
        assert reward_set.score([[sample()]])[0][0].total == 2.0


def test_plain_rewards_start_no_thread():
    with RewardSet([make(lambda answer: 1.0), make(lambda answer: [1.0], label="g", group=True)]) as reward_set:
        before = threading.active_count()
        reward_set.score([[sample()]])
        assert threading.active_count() == before
        assert not reward_set.overlaps


def test_closing_leaves_no_thread_and_no_descriptor():
    async def waits(answer):
        await asyncio.sleep(0)
        return 1.0

    others = set(threading.enumerate())

    def threads():
        return [item for item in threading.enumerate() if item.name.startswith("reward") and item not in others]

    for _ in range(2):
        before = len(os.listdir("/proc/self/fd"))
        with RewardSet([make(waits), make(lambda answer: 1.0, label="p", parallel=True)]) as reward_set:
            reward_set.score([[sample()] * 5])
            assert threads()
        wait_until(lambda: not threads())
        assert len(os.listdir("/proc/self/fd")) == before


# -- missing scores ----------------------------------------------------------------------------------------------------


def some_fail(answer):
    if answer == "bad":
        raise ConnectionError("judge is down")
    return float(len(answer))


def missing_set(*, weight=1.0, max_missing=1.0, more=()):
    policy = Policy(on_error="missing", max_missing=max_missing)
    return RewardSet([make(some_fail, label="judge", weight=weight, policy=policy), *more])


def test_a_weightless_missing_score_leaves_the_total_alone():
    [scores] = missing_set(weight=0.0, more=[make(lambda answer: 1.0, label="x")]).score([[sample("bad"), sample("a")]])
    assert [score.total for score in scores] == [1.0, 1.0]
    assert [score.missing for score in scores] == [("judge",), ()]


def test_none_is_not_missing():
    policy = Policy(on_error="missing", max_missing=0.0)
    [[score]] = RewardSet([make(lambda answer: None, policy=policy)]).score([[sample()]])
    assert score.missing == ()
    assert score.total == 0.0


def test_a_response_without_its_score_is_out_of_the_group_for_group_rewards():
    seen = []

    def rank(answer, scores):
        seen.append((answer, scores))
        return [float(len(answer))] * len(answer)

    rank_reward = make(rank, label="rank", group=True, fields=("answer", "scores"))
    [scores] = missing_set(more=[rank_reward]).score([[sample("aa"), sample("bad"), sample("a")]])
    assert seen == [(["aa", "a"], [{"judge": 2.0}, {"judge": 1.0}])]
    assert [score.breakdown["rank"] for score in scores] == [2.0, None, 2.0]
    assert [score.complete for score in scores] == [True, False, True]
    assert scores[1].missing == ("judge",)
    # with nobody left, the group reward is not called at all
    assert not missing_set(more=[rank_reward]).score([[sample("bad")]])[0][0].complete
    assert len(seen) == 1


@pytest.mark.parametrize(("limit", "stops"), [(0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_the_limit_on_missing_scores(limit, stops, tmp_path):
    groups = [[sample("a"), sample("a")], [sample("bad"), sample("a")]]
    reward_set = missing_set(max_missing=limit)
    reward_set.save_failures_in(tmp_path)
    if not stops:
        assert reward_set.score(groups)[1][0].missing == ("judge",)
        return
    message = (
        rf"'judge' has no score for 1 of 4 responses, more than its max_missing of {limit:g} allows; the last .*down"
    )
    with pytest.raises(RewardError, match=message):
        reward_set.score(groups)
    assert json.loads((tmp_path / FAILED_FILE).read_text())["sample"] == {"answer": "bad"}


# -- outcomes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"isolate": True}], ids=["here", "isolated"])
def test_facts_are_recorded_beside_the_value(tmp_path, keys):
    path = tmp_path / "routed.py"
    path.write_text(
        "from rewards import Outcome\n"
        "def routed(answer):\n"
        "    return Outcome(None if answer == 'a' else {'x': 2.0}, {'route': answer, 'long': 'y' * 600})\n"
    )
    with build([{"name": f"{path}:routed", "weight": 0.5, **keys}]) as reward_set:
        [first, second] = reward_set.score([responses("a", "b")])[0]
    assert (first.total, first.breakdown) == (0.0, {"routed": None})
    assert (second.total, second.breakdown) == (1.0, {"routed/x": 2.0})
    assert second.info == {"routed/route": "b", "routed/long": "y" * 500 + "..."}


def test_facts_of_a_group_reward():
    group = make(lambda answer: [Outcome(1.0, {"n": str(len(answer))}), 2.0], group=True)
    [scores] = RewardSet([group]).score([[sample(), sample()]])
    assert [score.info for score in scores] == [{"f/n": "2"}, {}]


@pytest.mark.parametrize("returned", [Outcome(1.0, {"n": 3}), Outcome(float("inf")), {"missing": 1.0}, Outcome("x")])
def test_bad_outcomes_are_refused(returned):
    with pytest.raises(RewardError, match=r"reward 'f' returned .* for sample 0"):
        RewardSet([make(lambda answer: returned)]).score([[sample()]])


# -- what is saved -----------------------------------------------------------------------------------------------------


def test_any_sample_can_be_saved(tmp_path):
    def fails(answer):
        raise ValueError("no")

    reward_set = RewardSet([make(fails)])
    reward_set.save_failures_in(tmp_path / "not" / "there")
    odd = sample("\ud800", image=object(), probs=[0.5, float("nan")], nested={1: (b"x", None)})
    with pytest.raises(RewardError, match=r"failed_reward\.json"):
        reward_set.score([[odd]])
    saved = json.loads((tmp_path / "not" / "there" / FAILED_FILE).read_text(), parse_constant=pytest.fail)["sample"]
    assert saved["answer"] == "\ud800"
    assert saved["probs"] == [0.5, "nan"]
    assert saved["nested"] == {"1": ["b'x'", None]}
    assert saved["image"].startswith("<object")


def test_a_folder_that_cannot_be_written_does_not_hide_the_failure(tmp_path):
    (tmp_path / "file").write_text("")

    def fails(answer):
        raise ValueError("the real reason")

    reward_set = RewardSet([make(fails)])
    reward_set.save_failures_in(tmp_path / "file")
    with pytest.raises(RewardError, match=r"the real reason .*could not be written"):
        reward_set.score([[sample()]])
