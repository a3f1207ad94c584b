"""Generation one step ahead of training: whose weights sample what, what overlaps, and that a resumed run is the same.

The workers are fake: the tokens of a response depend on its seed and on the bytes of the weights that made it.
"""

import json
import os
import signal
import threading
import zlib
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from recipes.cli import CONFIGS, load_config
from recipes.hybrid_grpo import HybridGrpoConfig
from rl.ahead import Ahead
from rl.config import TrainerConfig
from rollouts import EngineConfig, EngineError, VLLMEngine
from rollouts.pool import EnginePool
from rollouts.pool_config import PoolConfig
from rollouts.records import Rollout, Status
from tests.recipes.runs import comparable
from tests.rl.small_run import lines, make_trainer
from tests.rollouts import fake_worker
from tests.tiny import make_tiny_model

ENGINE = {"dtype": "float32", "max_model_len": 128, "max_num_seqs": 16, "kv_cache_gib": 0.05, "threads": 1}
STEPS = 5


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def make_engine(model_path, monkeypatch):
    """Makes engines of fake workers, and closes them; records whose weights each call had."""
    fake_worker.install(monkeypatch.setattr)
    engines = []

    def make(workers=1):
        if workers == 1:
            engines.append(Watched(model_path, EngineConfig(**ENGINE)))
        else:
            engines.append(WatchedPool(model_path, PoolConfig(workers=workers, **ENGINE)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


class Watching:
    """Notes the weights of each load and what each call of generate was about."""

    before = staticmethod(lambda: None)

    def load_weights(self, named_tensors, version):
        super().load_weights(named_tensors, version)
        self.prints = {**getattr(self, "prints", {}), version: fingerprint(self._image.path)}

    def generate(self, requests, *arguments, **options):
        self.before()
        return super().generate(requests, *arguments, **options)


class Watched(Watching, VLLMEngine):
    """One engine."""


class WatchedPool(Watching, EnginePool):
    """A pool."""


def fingerprint(path):
    return zlib.crc32(Path(path).read_bytes())


def trainer_of(path, engine, model_path, **settings):
    """Fake log-probabilities are not the model's, so the check at the start is told to accept that."""
    options = {"steps": STEPS, "staleness": 1, "max_logprob_gap": 100.0, **settings}
    learner = options.pop("learner", {"importance_cap": 2.0})
    return make_trainer(path, engine, model_path, learner=learner, **options)


def finish(trainer):
    """Train, and leave the run directory to others."""
    try:
        return trainer.train()
    finally:
        trainer.run.close()


def whole(path):
    """Everything of a run that must not depend on interruptions."""
    return comparable(lines(path / "metrics.jsonl")), lines(path / "rollouts.jsonl"), (path / "ledger.json").read_text()


def test_each_step_is_sampled_with_the_weights_before_the_last_update(make_engine, model_path, tmp_path):
    engine, seen = make_engine(), []
    generate = engine.generate

    def watched(requests, *arguments, **options):
        seen.append((requests, engine.version, generate(requests, *arguments, **options)))
        return seen[-1][2]

    engine.generate = watched
    trainer_of(tmp_path / "run", engine, model_path).train()
    _check, *steps = seen
    assert [version for _, version, _ in steps] == [0, 0, 1, 2, 3]
    for requests, version, rollouts in steps:
        for request, rollout in zip(requests, rollouts, strict=True):
            count = len(rollout.response_ids)
            expected = fake_worker.expected_ids(request.seed, engine.prints[version], count)
            assert list(rollout.response_ids) == expected
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert [m["rollouts/staleness"] for m in metrics] == [0, 1, 1, 1, 1]
    names = {"engine/kl", "engine/importance_mean", "engine/importance_truncated", "engine/logprob_gap_mean"}
    assert all(names <= m.keys() for m in metrics)


def test_what_is_asked_for_does_not_depend_on_the_mode(make_engine, model_path, tmp_path):
    """Same rows, modes and seeds; the first step, which nothing is stale in, is the same in all its numbers."""
    trainer_of(tmp_path / "ahead", make_engine(), model_path).train()
    trainer_of(tmp_path / "default", make_engine(), model_path, staleness=0).train()
    ours, others = whole(tmp_path / "ahead"), whole(tmp_path / "default")
    for mine, other in zip(ours[1], others[1], strict=True):
        assert [mine[name] for name in ("step", "row", "mode", "sample")] == [
            other[name] for name in ("step", "row", "mode", "sample")
        ]
    assert ours[0][0] == others[0][0] | {"rollouts/staleness": 0.0}
    assert "rollouts/staleness" not in others[0][0]
    assert ours[1] != others[1]


def test_the_next_step_is_generated_while_one_is_trained(make_engine, model_path, tmp_path):
    """An update waits for the next step's generation to have begun, and that one for the update."""
    engine = make_engine()
    trainer = trainer_of(tmp_path / "run", engine, model_path, steps=3)
    updating, generating = threading.Event(), threading.Event()
    update, calls = trainer.learner.update, []

    def before():
        calls.append(threading.current_thread().name)
        if len(calls) == 3:  # after the check and the first step
            generating.set()
            assert updating.wait(60)

    def waiting(*arguments):
        updating.set()
        assert generating.wait(60)
        return update(*arguments)

    engine.before, trainer.learner.update = before, waiting
    assert trainer.train() == 3
    assert calls == ["MainThread", "generate-ahead", "generate-ahead", "generate-ahead"]


def test_an_engine_that_fails_ahead_ends_the_run(make_engine, model_path, tmp_path):
    engine = make_engine()
    trainer, calls = trainer_of(tmp_path / "run", engine, model_path), []

    def before():
        calls.append(1)
        if len(calls) == 4:
            raise EngineError("no engine any more")

    engine.before = before
    with pytest.raises(EngineError, match="no engine any more"):
        trainer.train()
    assert [m["step"] for m in lines(tmp_path / "run/metrics.jsonl")] == [1, 2]


class Stopped(Exception):
    """Stands for the end of the process."""


def stopping(step):
    def on_step(done, _metrics):
        if done == step:
            raise Stopped

    return {"on_step": on_step}


def test_a_resumed_run_ends_like_one_that_never_stopped(make_engine, model_path, tmp_path):
    """Ended after step 4, of which nothing was saved: it goes on from step 3 and the responses in flight then."""
    settings = {"save_every": 3}
    straight = trainer_of(tmp_path / "a", make_engine(), model_path, **settings)
    straight.train()
    with pytest.raises(Stopped):
        finish(trainer_of(tmp_path / "b", make_engine(), model_path, hooks=stopping(4), **settings))
    resumed = trainer_of(tmp_path / "b", make_engine(), model_path, resume=True, **settings)
    assert resumed.resume() == 3
    assert resumed.train() == STEPS
    assert whole(tmp_path / "a") == whole(tmp_path / "b")
    assert_equal_weights(straight, resumed)


def test_ctrl_c_in_the_middle_of_a_step_loses_nothing(make_engine, model_path, tmp_path):
    straight = trainer_of(tmp_path / "a", make_engine(), model_path)
    straight.train()
    learned = []

    def on_progress(_done, _total, what):
        if what == "learn":
            learned.append(1)
            if len(learned) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = trainer_of(tmp_path / "b", make_engine(), model_path, hooks={"on_progress": on_progress})
    assert finish(stopped) == 2
    resumed = trainer_of(tmp_path / "b", make_engine(), model_path, resume=True)
    assert resumed.resume() == 2
    resumed.train()
    assert whole(tmp_path / "a") == whole(tmp_path / "b")
    assert_equal_weights(straight, resumed)


def assert_equal_weights(trainer, other):
    theirs = other.learner.weights()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trainer.learner.weights().items())


def test_evaluations_see_the_newest_weights_and_change_nothing(make_engine, model_path, tmp_path):
    plain = trainer_of(tmp_path / "a", make_engine(), model_path)
    plain.train()
    engine, versions = make_engine(), []
    evaluating = trainer_of(
        tmp_path / "b",
        engine,
        model_path,
        eval_every=2,
        hooks={"evaluate": lambda step: versions.append((step, engine.version)) or {}},
    )
    evaluating.train()
    assert versions == [(2, 2), (4, 4)]
    assert whole(tmp_path / "a") == whole(tmp_path / "b")


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_resumed_pool_knows_the_lengths_that_it_has_seen(make_engine, model_path, tmp_path, staleness):
    """So it gives each worker the requests that it would have had; evaluations and checks teach it nothing."""
    settings = {"staleness": staleness, "save_every": 2, "eval_every": 2, "steps": 3}

    def run(name, engine, stop=None, resume=False):
        def evaluate(_step):
            requests = trainer.environment.requests(9, trainer.environment.slots(9, 1, 0)[0], 3)
            engine.generate(requests)
            return {}

        hooks = {"evaluate": evaluate, **(stopping(stop) if stop else {})}
        trainer = trainer_of(tmp_path / name, engine, model_path, resume=resume, hooks=hooks, **settings)
        if resume:
            trainer.resume()
        finish(trainer)
        return engine.lengths.means

    straight = run("a", make_engine(3))
    with pytest.raises(Stopped):
        run("b", make_engine(3), stop=2)
    assert run("b", make_engine(3), resume=True) == straight
    assert whole(tmp_path / "a") == whole(tmp_path / "b")


def test_a_response_goes_through_json_unchanged():
    rollout = Rollout(
        row=7, sample=0, mode="long", prompt_ids=(1, 504), response_ids=(11, 12, 2), logprobs=(-0.1, -1 / 3, 0.0),
        response="é</think>7", thinking="é", answer="7", answer_start=2, status=Status.TRUNCATED, policy_version=3,
    )  # fmt: skip
    assert Rollout.from_dict(json.loads(json.dumps(rollout.to_dict()))) == rollout


def test_only_one_step_ahead_and_no_filter():
    with pytest.raises(ValidationError, match="staleness is 2, but responses are generated at most one step ahead"):
        TrainerConfig(staleness=2)
    with pytest.raises(ValidationError, match="staleness is 1 and filter is set"):
        TrainerConfig(staleness=1, filter={})


def test_the_recipe_corrects_stale_responses_unless_told_otherwise():
    def cap(*arguments):
        config = load_config(HybridGrpoConfig, list(arguments), default_config=CONFIGS / "hybrid_grpo.yaml")
        return config.learner.importance_cap

    assert cap() is None
    assert cap("--trainer.staleness", "1") == 2.0
    assert cap("--trainer.staleness", "1", "--learner.importance_cap", "1.5") == 1.5
    assert cap("--trainer.staleness", "1", "--learner.importance_cap", "null") is None
    with pytest.raises(ValueError, match="staleness is 2, but responses are generated at most one step ahead"):
        cap("--trainer.staleness", "2")


def test_nothing_to_save_where_nothing_is_ahead():
    assert Ahead(None, None).state_dict() is None
