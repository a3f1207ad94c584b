"""Groups added one by one while others are generated: the same numbers, at the right moment."""

import asyncio
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import Outcome, RewardError, RewardSet, build
from rewards.binding import Policy
from tests.rewards.test_reward_set import make, sample
from tests.rewards.test_running import wait_until


async def jitter(answer):
    await asyncio.sleep(hash(answer) % 7 / 5000)
    return Outcome(len(answer) / 3, {"said": answer[:2]})


def threaded(answer):
    time.sleep(hash(answer) % 5 / 5000)
    return {"a": answer.count("a") + 0.1, "b": None if "b" in answer else 0.2}


async def flaky(answer):
    if answer.startswith("c"):
        raise ConnectionError("down")
    return 1.0


def relative(answer, scores):
    best = max(row["jitter"] for row in scores)
    return [row["jitter"] / (best + 1.0) for row in scores]


async def relative_async(answer):
    await asyncio.sleep(0.001)
    return [float(text == min(answer)) for text in answer]


def probable(answer, reference_probs, baseline_probs):
    if reference_probs is None:
        return None
    return min(1.0, max(0.0, sum(reference_probs) / len(reference_probs) - baseline_probs))


async def probable_async(answer, reference_probs):
    await asyncio.sleep(0)
    return 0.0 if reference_probs is None else max(reference_probs)


PROBABLE = ("answer", "reference_probs", "baseline_probs")


def everything(*, deferred=True, miss=True):
    policy = Policy(on_error="missing", max_missing=1.0)
    rewards = [
        make(relative, label="relative", group=True, fields=("answer", "scores"), weight=0.3),
        make(lambda answer: float(len(answer)), label="plain", weight=0.1),
        make(jitter, label="jitter", weight=0.7),
        make(threaded, label="threaded", parallel=True, weight=0.2),
        make(relative_async, label="relative_async", group=True, weight=0.05),
    ]
    if miss:
        rewards.append(make(flaky, label="flaky", policy=policy, weight=0.4))
    if deferred:
        rewards.append(make(probable, label="probable", fields=PROBABLE))
        rewards.append(make(probable_async, label="probable_async", fields=PROBABLE[:2], weight=0.01))
    return RewardSet(rewards)


@pytest.fixture(scope="module")
def reward_sets():
    sets = {(deferred, miss): everything(deferred=deferred, miss=miss) for deferred in (0, 1) for miss in (0, 1)}
    yield sets
    for reward_set in sets.values():
        reward_set.close()


texts = st.text("abcx", max_size=4)


@settings(max_examples=60)
@given(
    groups=st.lists(st.lists(texts, max_size=5), max_size=6),
    deferred=st.integers(0, 1),
    miss=st.integers(0, 1),
    seed=st.integers(0, 10**6),
)
def test_any_order_of_arrival_gives_the_scores_of_scoring_at_the_end(reward_sets, groups, deferred, miss, seed):
    rng = random.Random(seed)
    late = [
        [{"reference_probs": rng.choice([None, [0.5, rng.random()]]), "baseline_probs": 0.25} for _ in g]
        for g in groups
    ]
    samples = [[sample(text) for text in group] for group in groups]
    carried = [[{**s, **f} for s, f in zip(*pair, strict=True)] for pair in zip(samples, late, strict=True)]
    expected = reward_sets[deferred, miss].score(carried)
    with reward_sets[deferred, miss].begin() as batch:
        steps = [("add", i) for i in range(len(groups))]
        rng.shuffle(steps)
        waiting: list[int] = []
        for _, index in steps:
            batch.add(index, samples[index])
            waiting.append(index)
            while deferred and waiting and rng.random() < 0.5:
                ready = waiting.pop(rng.randrange(len(waiting)))
                batch.supply(ready, late[ready])
            if rng.random() < 0.2:
                time.sleep(0.001)
        for index in waiting if deferred else []:
            batch.supply(index, late[index])
        found = batch.results()
    assert repr(found) == repr(expected)  # repr: the total of an incomplete one is NaN


def test_plain_rewards_alone_give_the_same_and_are_called_in_order():
    calls = []

    def notes(answer):
        calls.append(answer)
        return 1.0

    reward_set = RewardSet([make(notes)])
    with reward_set.begin() as batch:
        batch.add(1, [sample("c"), sample("d")])
        batch.add(0, [sample("a"), sample("b")])
        assert calls == []
        assert [[score.total for score in group] for group in batch.results()] == [[1.0, 1.0]] * 2
    assert calls == ["a", "b", "c", "d"]


def test_background_rewards_start_when_their_group_is_added():
    started = threading.Event()

    async def judge(answer):
        started.set()
        return 1.0

    with RewardSet([make(judge), make(lambda answer: 2.0, label="plain")]) as reward_set:
        assert reward_set.overlaps
        with reward_set.begin() as batch:
            batch.add(3, [sample()])
            assert started.wait(5)  # nobody has asked for a result
            batch.add(0, [])
            assert [score.total for score in batch.result(3)] == [3.0]
            assert batch.result(0) == []


@pytest.mark.parametrize("asks_for_scores", [False, True])
def test_an_async_group_reward_starts_at_once_unless_it_looks_at_scores(asks_for_scores):
    started = threading.Event()

    async def pairwise(answer, scores=()):
        started.set()
        return [1.0] * len(answer)

    fields = ("answer", "scores") if asks_for_scores else ("answer",)
    rewards = [make(pairwise, label="pairs", group=True, fields=fields), make(lambda answer: 1.0, label="plain")]
    with RewardSet(rewards) as reward_set, reward_set.begin() as batch:
        batch.add(0, [sample(), sample()])
        assert started.wait(0.3 if asks_for_scores else 5) is not asks_for_scores
        assert [score.total for score in batch.result(0)] == [2.0, 2.0]
        assert started.is_set()


def test_deferred_rewards_start_when_the_fields_are_there():
    seen = []

    async def wants(answer, reference_probs):
        seen.append(reference_probs)
        return 1.0

    with RewardSet([make(wants, fields=("answer", "reference_probs"))]) as reward_set:
        assert reward_set.deferred
        with reward_set.begin() as batch:
            batch.add(0, [sample(), sample()])
            time.sleep(0.05)
            assert seen == []
            batch.supply(0, [{"reference_probs": [0.5]}, {"reference_probs": None}])
            wait_until(lambda: seen == [[0.5], None])
            assert [score.total for score in batch.result(0)] == [1.0, 1.0]


@pytest.mark.parametrize("function", [probable, probable_async])
def test_without_the_policy_there_is_one_clear_sentence(function):
    fields = PROBABLE if function is probable else PROBABLE[:2]
    reward_set = RewardSet([make(function, label="rlpr", fields=fields)])
    message = r"reward 'rlpr' asks for 'reference_probs', which only the policy can give: it runs in Tandem's trainer"
    with pytest.raises(RewardError, match=message):
        reward_set.score([[sample()]])
    with reward_set.begin() as batch:
        batch.add(0, [sample()])
        with pytest.raises(RewardError, match=message):
            batch.result(0)
    reward_set.close()


def test_an_optional_policy_field_falls_back_to_its_default_but_waits_for_the_policy():
    def maybe(answer, reference_probs=None):
        return 0.5 if reference_probs is None else sum(reference_probs)

    reward_set = RewardSet([make(maybe, fields=("answer", "reference_probs"), optional={"reference_probs"})])
    assert reward_set.score([[sample()]])[0][0].total == 0.5
    with reward_set.begin() as batch:
        batch.add(0, [sample()])
        batch.supply(0, [{"reference_probs": [2.0]}])
        assert batch.result(0)[0].total == 2.0


def test_build_fills_the_policy_fields_and_checks_gold_without_them(tmp_path):
    path = tmp_path / "routed.py"
    path.write_text(
        "from rewards import reward\n"
        f"@reward('routed_{tmp_path.name}', gold=str)\n"
        "def routed(answer, reference, reference_probs, baseline_probs):\n"
        "    if len(reference) < 3:\n"
        "        return float(answer == reference and reference != '!')\n"
        "    return None if reference_probs is None else 1.0\n"
    )
    with build([f"{path}:routed"]) as reward_set:
        assert reward_set.deferred
        reward_set.check_gold([{"reference": "12"}, {"reference": "a long one"}])
        with pytest.raises(RewardError, match="does not accept its own reference in 1 of 2 rows"):
            reward_set.check_gold([{"reference": "a long one"}, {"reference": "!"}])


def test_a_failure_in_the_background_is_told_at_the_next_call():
    async def fails(answer):
        raise ValueError("early")

    with RewardSet([make(fails)]) as reward_set, reward_set.begin() as batch:
        batch.add(0, [sample()])
        wait_until(lambda: batch._stopped is not None)
        with pytest.raises(RewardError, match="reward 'f' failed on sample 0: ValueError: early"):
            batch.add(1, [sample()])


def test_leaving_a_batch_cancels_what_is_under_way():
    state = []

    async def slow(answer):
        state.append("started")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            state.append("cancelled")
            raise
        return 1.0

    with RewardSet([make(slow)]) as reward_set:
        with reward_set.begin() as batch:
            batch.add(0, [sample()])
            wait_until(lambda: state == ["started"])
        wait_until(lambda: state == ["started", "cancelled"])


def test_one_failure_does_not_wait_for_the_others():
    async def mixed(answer):
        if answer == "bad":
            raise ValueError("no")
        await asyncio.sleep(30)
        return 1.0

    start = time.monotonic()
    with RewardSet([make(mixed)]) as reward_set, pytest.raises(RewardError, match="failed on sample 1"):
        reward_set.score([[sample("good"), sample("bad")]])
    assert time.monotonic() - start < 5
