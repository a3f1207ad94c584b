"""The process that holds vLLM: `python -m rollouts.worker FD CONFIG_JSON`.

Inside the trainer's process vLLM would turn `torch.set_num_threads` off, reset the global random state and leave a
process group behind, so it gets a process of its own. FD is one end of a socket pair inherited from the parent: only
that parent can talk to this process. Messages are answered one at a time, in order:

    consumes                                   produces
    ("generate", [WireRequest])                ("progress", done, total) twice a second, then ("result", [WireResult])
    ("generate", [WireRequest], True)          ("part", index, WireResult) as each finishes, ("progress", ...), then
                                               ("result", None)
    ("score", [(ids, first)])                  progress, then ("result", [[log-probs of ids[first:]]])
    ("load", path)                             ("result", None)
    ("ping",)                                  ("result", None)
    ("close",)                                 nothing: exits in order
    end of file                                nothing: exits

The first message out is ("ready",); a failure is ("error", text), after which this process exits, since the
engine's state is unknown. It ignores Ctrl-C (the parent decides) and ends as soon as the parent does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from rollouts.wire import WireRequest, WireResult

PROGRESS_S = 0.5


class Worker:
    """Answers the messages of the parent with one vLLM engine."""

    def __init__(self, connection: Connection, engine_args: dict[str, Any]) -> None:
        from vllm import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        if not current_platform.is_cpu():  # there, a share of the memory is taken
            del engine_args["kv_cache_memory_bytes"]
        self._connection = connection
        self._calls = 0
        self._engine = LLMEngine.from_engine_args(EngineArgs(**engine_args))
        self._engine.collective_rpc("tandem_install_sampler")

    def serve(self) -> None:
        """Answers messages until the parent closes its end."""
        self._connection.send(("ready",))
        while True:
            try:
                name, *arguments = self._connection.recv()
            except EOFError:
                return None
            if name == "close":
                return self._put_away()
            self._connection.send(("result", getattr(self, f"_on_{name}")(*arguments)))

    def _on_generate(self, requests: list[WireRequest], stream: bool = False) -> list[WireResult] | None:
        params = [_sampling_params(request) for request in requests]
        prompts = [request.prompt_ids for request in requests]
        if not stream:
            return [_result(output) for output in self._run(prompts, params)]
        self._run(prompts, params, lambda index, output: self._connection.send(("part", index, _result(output))))
        return None

    def _on_score(self, texts: list[tuple[tuple[int, ...], int]]) -> list[list[float]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        outputs = self._run([ids for ids, _ in texts], [params] * len(texts))
        return [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[first:], ids[first:], strict=True)]
            for output, (ids, first) in zip(outputs, texts, strict=True)
        ]

    def _on_load(self, path: str) -> None:
        self._engine.collective_rpc("tandem_load_weights", args=(path,))
        self._engine.reset_encoder_cache()
        self._reset_prefix_cache()

    def _put_away(self) -> None:
        """Ends the ranks of a tensor-parallel engine in order, so that they remove their shared memory."""
        if self._engine.vllm_config.parallel_config.world_size > 1:
            self._engine.engine_core.shutdown()

    def _on_ping(self) -> None:
        """Nothing: the answer shows that the engine is there."""

    def _reset_prefix_cache(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache, so old keys and values could be used")

    def _run(
        self,
        prompts: list[tuple[int, ...]],
        params: list[Any],
        on_output: Callable[[int, Any], None] = lambda _index, _output: None,
    ) -> list[Any]:
        """Steps the engine until every prompt is answered; outputs in the order of the prompts.

        `on_output(index, output)` gets each as it comes. The prefix cache is emptied first: what an earlier call left
        there must not change the numbers of this one.
        """
        self._reset_prefix_cache()
        self._calls += 1
        # Long budgets start first, so that none is left alone at the end; equal ones keep their order (shared prompts).
        order = sorted(range(len(prompts)), key=lambda index: -params[index].max_tokens)
        for index in order:
            name = f"{self._calls}-{index}"
            self._engine.add_request(name, {"prompt_token_ids": list(prompts[index])}, params[index])
        outputs: list[Any] = [None] * len(prompts)
        for output in self._steps(len(prompts)):
            index = int(output.request_id.split("-")[1])
            outputs[index] = output
            on_output(index, output)
        return outputs

    def _steps(self, total: int) -> Iterator[Any]:
        """Finished outputs as they come; tells the parent how far it is."""
        done, told = 0, 0.0
        while self._engine.has_unfinished_requests():
            if time.monotonic() - told > PROGRESS_S:
                self._connection.send(("progress", done, total))
                told = time.monotonic()
            for output in self._engine.step():
                done += 1
                yield output


def _sampling_params(request: WireRequest) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=request.max_tokens,
        seed=request.seed,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        stop_token_ids=list(request.stop_ids),
        ignore_eos=True,  # the tokenizer's end of turn is among the stop ids, or is to be ignored
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _result(output: Any) -> WireResult:
    completion = output.outputs[0]
    return WireResult(
        ids=list(completion.token_ids),
        logprobs=list(completion.logprobs.logprobs),
        stopped=completion.finish_reason == "stop",
        cached_tokens=output.num_cached_tokens or 0,
    )


def _end_with_parent(connection: Connection) -> None:
    """Ends this process when the parent closes its end or dies, also in the middle of a generation.

    The parent's number is watched too: a process that the parent forked can hold the socket open after its death.
    """
    parent = os.getppid()
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLRDHUP)

    def watch() -> None:
        while os.getppid() == parent and not poller.poll(500):
            pass
        _end()

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def main(arguments: list[str]) -> int:
    """Runs the worker until its parent is done with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(arguments[0]))
    _end_with_parent(connection)
    try:
        Worker(connection, json.loads(arguments[1])).serve()
    except (BrokenPipeError, ConnectionResetError):
        return 0
    except Exception as error:  # whatever vLLM raises, the parent is told before this process ends
        traceback.print_exc()
        connection.send(("error", f"{type(error).__name__}: {error}"))
        return 1
    return 0


def _end() -> None:
    """Ends this process and the ranks it started; vLLM's exit handlers take seconds and have nothing to save."""
    assert os.getpgrp() == os.getpid(), "the worker must lead its own group, or others would end with it"
    os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if main(sys.argv[1:]) == 0:
        _end()
    os._exit(1)  # the parent reads the status, then ends the group
