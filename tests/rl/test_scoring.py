"""Groups scored while others are generated, and responses without a score: with an engine that only pretends."""

import asyncio
import json
import math
import threading
from types import SimpleNamespace

import pytest

from recipes.evaluation import EvaluationConfig, evaluate_policy
from recipes.tasks import EpochOrder, Row
from rewards import Outcome, RewardError, RewardSet, Score
from rewards.binding import Policy
from rl.config import ReferenceConfig, TrainerConfig
from rl.environment import Environment, PromptSlot, ScoredGroup, rollout_record, scored_group
from rl.run_directory import RunDirectory
from rl.scoring import StreamedScoring
from rl.trainer import Trainer, step_metrics
from rollouts.modes import LongMode, ModeSampler, ModesConfig, ShortMode
from rollouts.records import Rollout, Sampling, Status
from tests.rewards.test_reward_set import make

MODES = ModesConfig(mode="hybrid", short=ShortMode(max_tokens=5), long=LongMode(max_tokens=11))
ROWS = [Row(index=i, messages=({"role": "user", "content": f"Say {i}"},), columns={}) for i in range(5)]
FIELDS = ("response",)


def rollout(request, *, status=Status.FINISHED):
    text = f"{request.mode.name} {request.row} {request.sample}"
    ids = tuple(range(2 + (request.seed + request.sample) % 4))
    return Rollout(
        row=request.row,
        sample=request.sample,
        mode=request.mode.name,
        prompt_ids=request.prompt_ids,
        response_ids=ids,
        logprobs=(-0.5,) * len(ids),
        response=text,
        thinking=None,
        answer=text,
        answer_start=0,
        status=status,
        policy_version=0,
    )


class FakeEngine:
    """Answers in reverse order; before each answer it waits for `pace`."""

    version = 0

    def __init__(self, pace=lambda index: None, failed=()):
        self._pace = pace
        self._failed = failed
        self.streamed = []

    def generate(self, requests, on_progress=None, on_result=None):
        self.streamed.append(on_result is not None)
        rollouts = [
            rollout(r, status=Status.FAILED if i in self._failed else Status.FINISHED) for i, r in enumerate(requests)
        ]
        for index in reversed(range(len(requests))):
            self._pace(index)
            if on_result is not None:
                on_result(index, rollouts[index])
        return rollouts

    def load_weights(self, named_tensors, version):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class FakeLearner:
    """Takes note of what it is given."""

    def __init__(self):
        self.given = []

    def update(self, groups):
        self.given.append(groups)
        return {}

    def weights(self):
        return {}


class FakeTokenizer:
    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"]

    def __call__(self, text, **_):
        return {"input_ids": [1, 2, 3]}

    def encode(self, text, **_):
        return [1, 2, 3]


def environment(rewards, monkeypatch):
    monkeypatch.setattr("rl.prompts.render_text", lambda tokenizer, messages, mode: "prompt")
    return Environment(
        rows=ROWS,
        order=EpochOrder(len(ROWS), 0),
        modes=ModeSampler(MODES, 0),
        rewards=rewards,
        tokenizer=FakeTokenizer(),
        sampling=Sampling(),
        group_size=3,
        seed=0,
    )


def trainer(path, engine, rewards, monkeypatch):
    return Trainer(
        config=TrainerConfig(steps=2, prompts_per_step=4, save_every=0),
        environment=environment(rewards, monkeypatch),
        engine=engine,
        learner=FakeLearner(),
        run=RunDirectory.create(path, {}, resume=False),
        tokenizer=None,
    )


def take_steps(subject, steps=2):
    for step in range(1, steps + 1):
        metrics, groups, advantages = subject._step(step)
        subject._write(step, metrics, groups, advantages)
    return metrics


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def value(response):
    return (sum(map(ord, response)) % 7) / 7


async def judge(response):
    await asyncio.sleep(0.001)
    return Outcome(value(response), {"said": response[-1]})


def test_a_slow_judge_scores_the_first_group_while_the_last_is_generated(tmp_path, monkeypatch):
    """The engine does not go on before the judge has answered for the first finished group, and the judge takes its
    time: were it called only after generation, both would wait for ever.
    """
    judged, events = threading.Event(), []

    async def slow_judge(response):
        await asyncio.sleep(0.05)
        events.append(("judged", response))
        judged.set()
        return 1.0

    def pace(index):
        if index == 8:  # the last group of three (9, 10, 11) is complete
            assert judged.wait(10)
        events.append(("generated", index))

    with RewardSet([make(slow_judge, label="judge", fields=FIELDS)]) as rewards:
        engine = FakeEngine(pace)
        take_steps(trainer(tmp_path / "run", engine, rewards, monkeypatch), steps=1)
    first_judged = next(i for i, event in enumerate(events) if event[0] == "judged")
    assert (
        events.index(("generated", 9)) < first_judged < events.index(("generated", 8)) < events.index(("generated", 0))
    )
    assert engine.streamed == [True]


def test_a_streamed_run_writes_what_a_sequential_one_writes(tmp_path, monkeypatch):
    """Same lines in the same order, same numbers, with an async judge and with the same judge as a plain function."""

    def plain(response):
        return Outcome(value(response), {"said": response[-1]})

    found = []
    for name, function in (("streamed", judge), ("plain", plain)):
        with RewardSet([make(function, label="judge", fields=FIELDS)]) as rewards:
            engine = FakeEngine(failed={1, 7})
            metrics = take_steps(trainer(tmp_path / name, engine, rewards, monkeypatch))
            assert engine.streamed == [name == "streamed"] * 2
        timeless = {key: item for key, item in metrics.items() if not key.startswith(("time/", "memory/"))}
        found.append(((tmp_path / name / "rollouts.jsonl").read_text(), timeless))
    assert found[0] == found[1]
    lines = [json.loads(line) for line in found[0][0].splitlines()]
    assert len(lines) == 2 * (12 - 2)
    assert lines[0]["reward_info"] == {"judge/said": lines[0]["response"][-1]}
    assert "missing" not in lines[0]


def test_responses_without_a_score_neither_train_nor_move_the_baseline(tmp_path, monkeypatch):
    async def sometimes(response):
        if response.endswith("1") and "short" in response:
            raise ConnectionError("down")
        return value(response)

    policy = Policy(on_error="missing", max_missing=0.5)
    with RewardSet([make(sometimes, label="judge", fields=FIELDS, policy=policy)]) as rewards:
        subject = trainer(tmp_path / "run", FakeEngine(), rewards, monkeypatch)
        metrics = take_steps(subject, steps=1)
    lines = records(tmp_path / "run/rollouts.jsonl")
    lost = [line for line in lines if line["advantage"] is None]
    assert len(lines) == 12
    assert len(lost) == 2
    for line in lost:
        assert (line["total"], line["rewards"], line["missing"]) == (None, {"judge": None}, ["judge"])
    assert metrics["reward/judge/missing"] == pytest.approx(2 / 12)
    kept = [line["total"] for line in lines if line not in lost]
    assert metrics["reward/total"] == pytest.approx(sum(kept) / 10)
    assert metrics["reward/judge"] == metrics["reward/total"]
    [groups] = subject.learner.given
    assert sorted(len(group.advantages_G) for group in groups) == [2, 2, 3, 3]
    assert all(math.isfinite(advantage) for group in groups for advantage in group.advantages_G)
    for group in groups:
        assert sum(group.advantages_G) == pytest.approx(0.0, abs=1e-6)
    # what was sampled was paid for, whether or not it could be scored
    assert subject.state.ledger.total.responses == 12
    assert subject.state.ledger.rl_tokens == sum(line["response_tokens"] for line in lines)
    assert metrics["response_tokens/short"] == pytest.approx(
        sum(line["response_tokens"] for line in lines if line["mode"] == "short") / 6
    )


def test_groups_without_any_score_are_not_trained(tmp_path, monkeypatch):
    async def for_long_only(response):
        if "short" in response:
            raise ConnectionError("down")
        return value(response)

    policy = Policy(on_error="missing", max_missing=0.5)
    with RewardSet([make(for_long_only, label="judge", fields=FIELDS, policy=policy)]) as rewards:
        subject = trainer(tmp_path / "run", FakeEngine(), rewards, monkeypatch)
        take_steps(subject, steps=1)
    assert {line["mode"] for line in records(tmp_path / "run/rollouts.jsonl")} == {"long"}
    assert subject.state.ledger.total.responses == 12
    assert subject.state.ledger.modes["short"].prompt == 2 * 3


def test_too_many_missing_scores_stop_the_run(tmp_path, monkeypatch):
    async def never(response):
        raise ConnectionError("down")

    policy = Policy(on_error="missing", max_missing=0.5)
    with RewardSet([make(never, label="judge", fields=FIELDS, policy=policy)]) as rewards:
        subject = trainer(tmp_path / "run", FakeEngine(), rewards, monkeypatch)
        with pytest.raises(RewardError, match="'judge' has no score for 12 of 12 responses, more than its max_missing"):
            take_steps(subject, steps=1)
    assert records(tmp_path / "run/rollouts.jsonl") == []


def test_a_failing_reward_stops_the_generation(tmp_path, monkeypatch):
    generated = []

    async def fails(response):
        raise ValueError("broken")

    def pace(index):
        generated.append(index)
        if len(generated) > 3:  # the first group of three is with the reward
            threading.Event().wait(0.05)

    with RewardSet([make(fails, label="judge", fields=FIELDS)]) as rewards:
        subject = trainer(tmp_path / "run", FakeEngine(pace), rewards, monkeypatch)
        with pytest.raises(RewardError, match=r"reward 'judge' failed on sample \d: ValueError: broken"):
            take_steps(subject, steps=1)
    assert len(generated) < 12


def test_metrics_without_missing_rewards_have_no_such_key():
    slot = PromptSlot(mode=MODES.short, position=0)
    group = ScoredGroup(slot=slot, rollouts=[], scores=[])
    assert not [key for key in step_metrics([group]) if "missing" in key]


def test_a_score_of_weight_zero_that_is_missing_leaves_the_response_in_its_group():
    scores = [Score(total=1.0, breakdown={"x": None}, missing=("x",)), Score(total=math.nan, breakdown={"y": None})]
    asked = SimpleNamespace(mode=MODES.short, row=0, sample=0, seed=0, prompt_ids=(1,))
    rollouts = [rollout(asked), rollout(asked)]
    group = scored_group(PromptSlot(mode=MODES.short, position=0), rollouts, scores)
    assert group.rewards_G == [1.0]
    assert group.left_out == [(rollouts[1], scores[1])]
    record = rollout_record(ROWS[0], rollouts[0], scores[0])
    assert (record["total"], record["missing"]) == (1.0, ["x"])
    assert "reward_info" not in record


def test_deferred_fields_reach_the_rewards_through_supply():
    def likely(response, reference_probs):
        return None if reference_probs is None else sum(reference_probs)

    rewards = RewardSet([make(likely, label="likely", fields=("response", "reference_probs"))])
    asked = [SimpleNamespace(mode=MODES.short, row=0, sample=i, seed=0, prompt_ids=(1,)) for i in range(4)]
    rollouts = [rollout(request) for request in asked]
    with StreamedScoring(rewards, 2, lambda number, r: {"response": r.response}) as scoring:
        assert scoring.on_result is None
        assert scoring.collect(rollouts) == [rollouts[:2], rollouts[2:]]
        scoring.supply(0, [{"reference_probs": [0.25, 0.5]}, {"reference_probs": None}])
        with pytest.raises(RewardError, match="asks for 'reference_probs'"):
            scoring.finish(rollouts)
        scoring.supply(1, [{"reference_probs": [1.0]}] * 2)
        groups = scoring.finish(rollouts)
    assert [[score.total for score in scores] for _, scores in groups] == [[0.75, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("lost", [False, True])
def test_an_evaluation_streams_too_and_counts_missing_answers_as_neither_right_nor_wrong(monkeypatch, lost):
    async def accuracy(response):
        if lost and response.endswith("0 1"):
            raise ConnectionError("down")
        return float("0" in response[-1])

    monkeypatch.setattr("rl.prompts.render_text", lambda tokenizer, messages, mode: "prompt")
    policy = Policy(on_error="missing", max_missing=0.5)
    with RewardSet([make(accuracy, label="accuracy", fields=FIELDS, policy=policy)]) as rewards:
        engine = FakeEngine()
        summary, lines = evaluate_policy(
            engine=engine,
            tokenizer=FakeTokenizer(),
            rows=ROWS[:2],
            modes=MODES,
            rewards=rewards,
            reference=ReferenceConfig(),
            config=EvaluationConfig(samples=2, k=2),
        )
    assert engine.streamed == [True]
    assert [(line["mode"], line["row"], line["sample"]) for line in lines] == [
        (mode, row, sample) for mode in ("short", "long") for row in (0, 1) for sample in (0, 1)
    ]
    for figures in summary.values():
        assert figures["n"] == 2
        assert figures["missing"] == (0.25 if lost else 0.0)
        assert figures["accuracy"] == (0.75 if lost else 0.5)
        assert figures["pass_at_k"] == 1.0
    assert [line["total"] for line in lines].count(None) == (2 if lost else 0)
    json.dumps(lines, allow_nan=False)
