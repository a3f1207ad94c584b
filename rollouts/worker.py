"""The process that holds vLLM: `python -m rollouts.worker FD CONFIG_JSON`.

Inside the trainer's process vLLM would turn `torch.set_num_threads` off, reset the global random state and leave a
process group behind, so it gets a process of its own. FD is one end of a socket pair inherited from the parent: only
that parent can talk to this process. Messages are answered one at a time, in order:

    consumes                                   produces
    ("generate", [WireRequest])                ("progress", done, total) twice a second, then ("result", [WireResult])
    ("generate", [WireRequest], True)          ("part", index, WireResult) as each finishes, ("progress", ...), then
                                               ("result", None)
    ("score", [WireText])                      progress, then ("result", [[log-probs of ids[first:]]])
    ("choose", [WireChoice])                   ("part", index, [log-probs of token_ids]) as each is known, ("progress",
                                               ...), then ("result", None)
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
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from rollouts.media import vllm_prompt
from rollouts.wire import WireChoice, WireMedia, WireRequest, WireResult, WireText

PROGRESS_S = 0.5

Prompt = tuple[tuple[int, ...], WireMedia | None]
"""Token ids, and the media whose blocks are among them."""


class Worker:
    """Answers the messages of the parent with one vLLM engine."""

    def __init__(self, connection: Connection, engine_args: dict[str, Any]) -> None:
        from vllm import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        if current_platform.is_cpu():
            engine_args["skip_mm_profiling"] = True  # it measures the memory of a GPU
        else:  # there, a share of the memory is taken
            del engine_args["kv_cache_memory_bytes"]
        self._connection = connection
        self._calls = 0
        config = EngineArgs(**engine_args).create_engine_config()
        _never_wait_for_the_encoder(config)
        self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=engine_args["disable_log_stats"])
        self._most_requests = 2 * engine_args["max_num_seqs"]
        self._rendered: tuple[WireMedia, dict[str, Any]] | None = None
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
        prompts = [(request.prompt_ids, request.media) for request in requests]
        if not stream:
            return [_result(output) for output in self._run(prompts, params)]
        self._run(prompts, params, lambda index, output: self._connection.send(("part", index, _result(output))))
        return None

    def _on_score(self, texts: list[WireText]) -> list[list[float]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        outputs = self._run([(text.ids, text.media) for text in texts], [params] * len(texts))
        return [
            [entry[token].logprob for entry, token in zip(output.prompt_logprobs[first:], ids[first:], strict=True)]
            for output, (ids, first, _) in zip(outputs, texts, strict=True)
        ]

    def _on_choose(self, choices: list[WireChoice]) -> None:
        params = [_choice_params(choice) for choice in choices]
        prompts = [(choice.prompt_ids, choice.media) for choice in choices]

        def tell(index: int, output: Any) -> None:
            [position] = output.outputs[0].logprobs
            values = [position[token].logprob for token in choices[index].token_ids]
            self._connection.send(("part", index, values))

        self._run(prompts, params, tell)

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
        prompts: list[Prompt],
        params: list[Any],
        on_output: Callable[[int, Any], None] = lambda _index, _output: None,
    ) -> list[Any]:
        """Steps the engine until every prompt is answered; outputs in the order of the prompts.

        `on_output(index, output)` gets each as it comes. The caches are emptied first: what an earlier call left there
        must not change the numbers of this one.
        """
        self._reset_prefix_cache()
        if any(media for _, media in prompts):
            self._engine.reset_encoder_cache()
        self._calls += 1
        # Long budgets start first, so that none is left alone at the end; equal ones keep their order (shared prompts).
        order = sorted(range(len(prompts)), key=lambda index: -params[index].max_tokens)
        waiting = ((f"{self._calls}-{index}", prompts[index], params[index]) for index in order)
        outputs: list[Any] = [None] * len(prompts)
        for output in self._steps(waiting, len(prompts)):
            index = int(output.request_id.split("-")[1])
            outputs[index] = output
            on_output(index, output)
        self._rendered = None
        return outputs

    def _steps(self, waiting: Iterator[tuple[str, Prompt, Any]], total: int) -> Iterator[Any]:
        """Finished outputs as they come; tells the parent how far it is.

        Twice as many requests as run at a time are in the engine, so that it always finds the next one there, and the
        pixels of all others take no memory yet.
        """
        added, done, told = 0, 0, 0.0
        while True:
            for name, prompt, params in islice(waiting, self._most_requests - (added - done)):
                self._engine.add_request(name, self._input(*prompt), params)
                added += 1
            if not self._engine.has_unfinished_requests():
                return
            if time.monotonic() - told > PROGRESS_S:
                self._connection.send(("progress", done, total))
                told = time.monotonic()
            for output in self._engine.step():
                done += 1
                yield output

    def _input(self, ids: tuple[int, ...], media: WireMedia | None) -> dict[str, Any]:
        """A prompt as the engine takes it. The ids are the caller's, also where they go on after the rendered text."""
        if media is None:
            return {"prompt_token_ids": list(ids)}
        if self._rendered is None or self._rendered[0] is not media:  # a group's requests come one after the other
            self._rendered = media, self._render(media)
        rendered = self._rendered[1]
        check_ids(rendered["prompt_token_ids"], list(ids))
        return {**rendered, "prompt_token_ids": list(ids)}

    def _render(self, media: WireMedia) -> dict[str, Any]:
        """What vLLM's processor makes of text and media: ids with blocks, and the patches that fill them."""
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        renderer = self._engine.renderer
        packed_videos = getattr(renderer.get_mm_processor().info, "takes_packed_videos", False)
        prompt = parse_model_prompt(self._engine.model_config, vllm_prompt(media, packed_videos))
        [rendered] = renderer.render_cmpl([prompt])
        return rendered


def _never_wait_for_the_encoder(config: Any) -> None:
    """Room for the media of all that can be admitted in one step.

    Where it is short, vLLM computes a prompt in two parts, and a seeded request whose prefill is cut crashes the CPU
    engine. A step holds at most its tokens' features, and of each sequence one item that its cached prefix cuts.
    """
    scheduler = config.scheduler_config
    room = scheduler.max_num_batched_tokens + scheduler.max_num_seqs * config.model_config.max_model_len
    scheduler.max_num_encoder_input_tokens = scheduler.encoder_cache_size = room


def check_ids(rendered: list[int], given: list[int]) -> None:
    """Refuses to put features where the trainer has other tokens."""
    if given[: len(rendered)] == rendered:
        return
    place = next((at for at, pair in enumerate(zip(rendered, given, strict=False)) if pair[0] != pair[1]), len(given))
    raise ValueError(
        f"vLLM makes {len(rendered)} tokens of a prompt with images or videos and the caller {len(given)}, which "
        f"differ from token {place} on; give the engine the text and media that the ids were made of, by the "
        "checkpoint's own processor"
    )


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


def _choice_params(choice: WireChoice) -> Any:
    """One forward pass over the prompt: what token it would draw is of no interest."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        logprob_token_ids=list(choice.token_ids),
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
