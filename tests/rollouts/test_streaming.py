"""Results that arrive while others are generated: both ends of the connection, without vLLM."""

import contextlib
import threading
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import ClassVar

import pytest

import rollouts.engine
import rollouts.worker
from rollouts import EngineError, VLLMEngine
from rollouts.process import WorkerDiedError, WorkerProcess
from rollouts.wire import WireResult
from rollouts.worker import Worker
from tests.rollouts.conftest import CONFIG, make_requests


class FakeVLLM:
    """Finishes requests in the order it is told to, one per step."""

    def __init__(self, order):
        self._order = order
        self._names = []

    def reset_prefix_cache(self):
        return True

    def add_request(self, name, prompt, params):
        self._names.append(name)

    def has_unfinished_requests(self):
        return bool(self._order)

    def step(self):
        index = self._order.pop(0)
        [name] = [name for name in self._names if name.endswith(f"-{index}")]
        completion = SimpleNamespace(
            token_ids=(index, 2), logprobs=SimpleNamespace(logprobs=[-1.0, -float(index)]), finish_reason="stop"
        )
        return [SimpleNamespace(request_id=name, outputs=[completion], num_cached_tokens=None)]


def result(index):
    return WireResult(ids=[index, 2], logprobs=[-1.0, -float(index)], stopped=True, cached_tokens=0)


def serve(order, *messages):
    """What a worker sends in answer to messages."""
    sent = []
    inbox = list(messages)

    def receive():
        if not inbox:
            raise EOFError
        return inbox.pop(0)

    worker = Worker.__new__(Worker)
    worker._connection = SimpleNamespace(send=sent.append, recv=receive)
    worker._engine = FakeVLLM(order)
    worker._calls = 0
    worker._most_requests = 16
    worker.serve()
    return [message for message in sent if message[0] not in ("ready", "progress")]


@pytest.fixture
def _no_vllm(monkeypatch):
    monkeypatch.setattr(rollouts.worker, "_sampling_params", lambda request: request)


REQUESTS = [SimpleNamespace(prompt_ids=(1,), max_tokens=budget, media=None) for budget in (5, 9, 7)]


@pytest.mark.usefixtures("_no_vllm")
def test_the_worker_sends_each_result_as_it_finishes():
    sent = serve([2, 0, 1], ("generate", REQUESTS, True))
    assert sent == [("part", 2, result(2)), ("part", 0, result(0)), ("part", 1, result(1)), ("result", None)]


@pytest.mark.usefixtures("_no_vllm")
def test_without_streaming_the_answer_is_one_message():
    assert serve([2, 0, 1], ("generate", REQUESTS)) == [("result", [result(0), result(1), result(2)])]


class ScriptedProcess(WorkerProcess):
    """The parent's side, real but for the process: scripts say what comes down the pipe; the end of one is a death."""

    scripts: ClassVar[list[list[tuple]]] = []
    asked: ClassVar[list[tuple]] = []

    def __init__(self, *_):
        self._connection, self._theirs = Pipe()
        self._script = self.scripts.pop(0)
        self._theirs.send(("ready",))
        threading.Thread(target=self._play, daemon=True).start()

    def _play(self):
        self.asked.append(self._theirs.recv())
        with contextlib.suppress(BrokenPipeError):  # the engine has had enough of this worker
            for message in self._script:
                self._theirs.send(message)
        if not self._script or self._script[-1][0] == "part":
            self._theirs.close()

    def _died(self):
        return WorkerDiedError("the worker is gone")

    def _where(self):
        return ""

    def kill(self):
        self._connection.close()

    def close(self, idle, grace_s=0.0):
        self.kill()

    pid = 0


@pytest.fixture
def scripted(tiny, monkeypatch):
    """An engine whose workers follow scripts."""
    monkeypatch.setattr(rollouts.engine, "WorkerProcess", ScriptedProcess)
    ScriptedProcess.asked.clear()

    def make(*scripts):
        ScriptedProcess.scripts = list(scripts)
        return VLLMEngine(tiny, CONFIG)

    return make


FOUR = make_requests(rows=1, samples=4)
DONE = ("result", None)


def parts(*indices):
    return [("part", index, result(index)) for index in indices]


def test_rollouts_are_told_in_the_order_of_finishing_and_returned_in_the_order_of_asking(scripted):
    told, progress = [], []
    with scripted([*parts(3, 1), ("progress", 2, 4), *parts(0, 2), DONE]) as engine:
        rollouts_ = engine.generate(FOUR, lambda *at: progress.append(at), lambda i, rollout: told.append((i, rollout)))
    assert [index for index, _ in told] == [3, 1, 0, 2]
    assert [rollout for _, rollout in sorted(told, key=lambda item: item[0])] == rollouts_
    assert [rollout.sample for rollout in rollouts_] == [0, 1, 2, 3]
    assert [rollout.response_ids for rollout in rollouts_] == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert progress == [(2, 4)]
    assert ScriptedProcess.asked[0][0] == "generate"
    assert ScriptedProcess.asked[0][2] is True


def test_a_worker_that_dies_midway_tells_nothing_twice(scripted):
    told = []
    with scripted(parts(3, 1), parts(3), [*parts(2, 3, 1, 0), DONE]) as engine:
        rollouts_ = engine.generate(FOUR, None, lambda index, rollout: told.append((index, rollout)))
    assert [index for index, _ in told] == [3, 1, 2, 0]
    assert [rollout for _, rollout in sorted(told, key=lambda item: item[0])] == rollouts_
    assert len(ScriptedProcess.asked) == 3
    assert ScriptedProcess.asked[0] == ScriptedProcess.asked[1] == ScriptedProcess.asked[2]


def test_nobody_who_listens_no_stream(scripted):
    with scripted([("result", [result(i) for i in range(4)])]) as engine:
        assert len(engine.generate(FOUR)) == 4
    assert len(ScriptedProcess.asked[0]) == 2


def test_what_the_listener_raises_ends_the_call_and_the_next_one_has_a_new_worker(scripted):
    def refuse(index, rollout):
        raise ValueError("stop")

    with scripted([*parts(0, 1, 2, 3), DONE], [*parts(0, 1, 2, 3), DONE]) as engine:
        with pytest.raises(ValueError, match="stop"):
            engine.generate(FOUR, None, refuse)
        assert len(engine.generate(FOUR, None, lambda *_: None)) == 4


def test_workers_that_keep_dying_end_a_streamed_call(scripted):
    with scripted(*[parts(0)] * 4) as engine, pytest.raises(EngineError, match="4 workers died in one call"):
        engine.generate(FOUR, None, lambda *_: None)
