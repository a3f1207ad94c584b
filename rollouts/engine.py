"""The interface of everything that produces and scores responses, and vLLM behind it.

    trainer's process                                   worker's process (rollouts.worker)
    VLLMEngine.generate(requests) --WireRequest-->      vLLM: steps until all are answered
                                  <--progress, result-- ids and log-probs of each, as they finish if asked for
    VLLMEngine.load_weights       --path of the image-> reload, pack the LM head, empty the prefix cache

The same requests with the same weights give the same tokens and log-probabilities, bit for bit on CPU, in a fresh
worker or an old one: each call starts with an empty prefix cache and every response has its own seed. So when a worker
dies, a new one gets the current weights and the whole call again, and nobody sees a difference but the time.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rollouts.media import MediaPacker
from rollouts.process import EngineError, WorkerDiedError, WorkerProcess, worker_environment
from rollouts.records import PromptMedia, Request, Rollout
from rollouts.response_records import end_of_turn_ids, make_rollout, read_json
from rollouts.servable import ServableFolder
from rollouts.weights import WeightsImage, checkpoint_shapes, select_tensors
from rollouts.wire import WireChoice, WireMedia, WireRequest, WireResult, WireText

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

PLUGIN, PLUGIN_ARCHITECTURE = "tandem_vlm", "MiniCPMV"
"""The entry point of this package's plug-in for vLLM, and the architecture that it serves."""

Progress = Callable[[int, int], None]
OnResult = Callable[[int, Rollout], None]
"""(index of the request, its rollout), as soon as it is finished; in the order of finishing, each index once."""
OnChoice = Callable[[int, list[float]], None]
"""(index of the prompt, log-probabilities of its tokens), in the same way."""


class Engine(Protocol):
    """What the trainer, the evaluation and the rewards need of whatever produces responses."""

    @property
    def version(self) -> int:
        """Version of the weights in use; 0 = those that the engine was started from."""
        ...

    def generate(
        self,
        requests: Sequence[Request],
        on_progress: Progress | None = None,
        on_result: OnResult | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in the same order; `on_progress(done, total)` at least every second or so;
        `on_result(index, rollout)` as each is finished.
        """
        ...

    def score(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        on_progress: Progress | None = None,
        media: Sequence[PromptMedia | None] | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, at temperature 1, of each continuation's tokens after its prefix, whose images and videos
        are in `media`.
        """
        ...

    def next_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        token_ids: Sequence[Sequence[int]],
        on_progress: Progress | None = None,
        media: Sequence[PromptMedia | None] | None = None,
        on_result: OnChoice | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, at temperature 1, of some tokens as the first one after each prompt."""
        ...

    def check_prompt(self, prompt: Sequence[int], media: PromptMedia | None = None) -> None:
        """Raises ValueError where a prompt cannot be asked, in a sentence; for one of many that are to go on."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replaces all weights; what is generated next carries `version`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What later answers depend on beside the weights, JSON-able, for a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        ...

    def close(self) -> None:
        """Gives everything back; may be called again."""
        ...


class EngineConfig(BaseModel):
    """How vLLM runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    """Number format of weights and keys/values; float32 for exact comparisons."""
    max_model_len: int = Field(default=2048, ge=8)
    """Longest prompt plus response, in tokens."""
    max_num_seqs: int = Field(default=64, ge=1)
    """Most responses generated at the same time."""
    max_images: int = Field(default=32, ge=0)
    """Most images of one prompt, for a vision-language model; with no images and no videos its tower is not loaded."""
    max_videos: int = Field(default=4, ge=0)
    """Most videos of one prompt, for a vision-language model."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """Memory for keys and values, in GiB, on CPU."""
    gpu_memory_utilization: float = Field(default=0.5, gt=0, le=1)
    """Share of a GPU's memory for weights, keys and values; the trainer needs the rest."""
    block_size: int = Field(default=32, ge=16)
    """Tokens per block of the prefix cache: responses of one prompt share its whole blocks; a multiple of 32 on CPU."""
    enforce_eager: bool = True
    """Whether nothing is compiled. On CPU compiling takes 40-50 s at each start and needs g++."""
    threads: int = Field(default=0, ge=0)
    """OpenMP threads of the worker; 0 = as many as this process may use cores."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs over which each layer is split."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Longest silence of a worker, in seconds, before it is replaced."""
    max_restarts: int = Field(default=3, ge=0)
    """Times that a dead worker is replaced within one call; 0 = never."""

    @model_validator(mode="after")
    def _block_fits(self) -> Self:
        if self.block_size % 16:
            raise ValueError(f"block_size is {self.block_size}, and must be a multiple of 16 (of 32 on CPU)")
        return self

    def vllm_arguments(self, model_path: Path) -> dict[str, Any]:
        """Arguments of vLLM's engine."""
        return {
            "model": str(model_path),
            "dtype": self.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "block_size": self.block_size,
            "enforce_eager": self.enforce_eager,
            "tensor_parallel_size": self.tensor_parallel_size,
            "kv_cache_memory_bytes": int(self.kv_cache_gib * 2**30),  # dropped by the worker on a GPU
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "enable_prefix_caching": True,
            # A seeded request whose prefill is cut into chunks crashes the CPU engine (generators cannot be rewound).
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(self.max_model_len, 4096),
            "logprobs_mode": "processed_logprobs",
            "worker_extension_cls": "rollouts.vllm_extension.WorkerExtension",
            "disable_log_stats": True,
            "seed": 0,
            "async_scheduling": False,
            **self._vision_arguments(model_path),
        }

    def _vision_arguments(self, model_path: Path) -> dict[str, Any]:
        """Arguments that depend on whether the model reads images."""
        if not reads_images(model_path):
            return {"skip_tokenizer_init": True}  # texts are decoded by the client
        return {
            "limit_mm_per_prompt": {"image": self.max_images, "video": self.max_videos},
            "mm_processor_cache_gb": 0,  # the worker processes what a group shares once
        }


def check_block_size(config: EngineConfig) -> None:
    """Refuse blocks that vLLM cannot take where there is no GPU, before it is started.

    Raises:
        ValueError: no GPU, and `block_size` is no multiple of 32.
    """
    if config.block_size % 32 == 0:
        return
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            f"engine.block_size is {config.block_size}, and there is no GPU here: vLLM on CPU takes multiples of 32; "
            f"set {32 * (1 + config.block_size // 32)}"
        )


def check_plugin(directory: Path) -> None:
    """Refuse a checkpoint that vLLM can only load with this package's plug-in, where that is not installed.

    Raises:
        ValueError: vLLM would not find the plug-in.
    """
    architectures = read_json(directory / "config.json").get("architectures") or []
    if PLUGIN_ARCHITECTURE in architectures and PLUGIN not in entry_points(group="vllm.general_plugins").names:
        raise ValueError(
            f"{directory} is a vision-language model that vLLM loads with the plug-in {PLUGIN}, and this package was "
            "installed before it had one; install it again (pip install -e .)"
        )


def reads_images(directory: Path) -> bool:
    """Whether a checkpoint is a vision-language model's."""
    return "vision_config" in read_json(directory / "config.json")


class VLLMEngine:
    """vLLM in a process of its own, replaced when it dies.

    The worker starts in the background: the constructor returns at once, and the first call waits for it (as
    `wait_ready` does). Calls are made one at a time, from one thread.

    Example::

        with VLLMEngine("models/smollm2", EngineConfig(max_model_len=512), log_path=run / "engine.log") as engine:
            rollouts = engine.generate(requests)
            engine.load_weights(model.named_parameters(), version=1)
    """

    def __init__(
        self,
        model_path: str | Path,
        config: EngineConfig | None = None,
        *,
        tokenizer: Any = None,
        log_path: str | Path | None = None,
    ) -> None:
        """Starts the worker.

        Args:
            model_path: Directory of a checkpoint with its tokenizer, as from `save_pretrained`.
            config: How vLLM runs.
            tokenizer: Decodes the responses; None = the one in `model_path`.
            log_path: File that the worker's output is appended to; None = kept only for error messages.

        Raises:
            ValueError: The directory is not a checkpoint, vLLM lacks the plug-in for it, or the blocks do not suit this
                machine.
        """
        self.config = config or EngineConfig()
        check_block_size(self.config)
        self._path = Path(model_path)
        if not (self._path / "config.json").is_file():
            raise ValueError(f"{self._path} is not a checkpoint: it has no config.json; save a model there first")
        check_plugin(self._path)
        self._servable = ServableFolder(self._path)
        self._shapes = checkpoint_shapes(self._servable.path)
        self._tied = bool(read_json(self._path / "config.json").get("tie_word_embeddings", True))
        self._log_path = Path(log_path) if log_path is not None else None
        self._tokenizer = tokenizer
        self._reads_images = reads_images(self._path)
        self._version = 0
        self._image: WeightsImage | None = None
        self._stops: tuple[int, ...] | None = None
        self._closed = False
        self._worker: WorkerProcess | None = None
        self._ready = False
        self._open()

    @property
    def version(self) -> int:
        """Version of the weights in use; 0 = those of `model_path`."""
        return self._version

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None when there is none."""
        return self._worker.pid if self._worker is not None else None

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the model."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(self._path)
        return self._tokenizer

    def wait_ready(self) -> None:
        """Returns when the worker is ready to generate."""
        _ = self.tokenizer  # read while the worker starts
        self._call(("ping",))

    def generate(
        self,
        requests: Sequence[Request],
        on_progress: Progress | None = None,
        on_result: OnResult | None = None,
    ) -> list[Rollout]:
        """One rollout per request, in the same order.

        The budget of a response is its mode's, or what the context leaves after the prompt. What `on_result` raises
        ends the call.

        Raises:
            ValueError: A prompt leaves no room for a response.
            EngineError: vLLM failed, or workers died more often than `max_restarts`.
        """
        packer = MediaPacker()
        wire = [self._wire(request, packer) for request in requests]
        if not wire:
            return []
        if on_result is None:
            results = self._call(("generate", wire), on_progress)
            return [self._rollout(request, result) for request, result in zip(requests, results, strict=True)]
        rollouts: dict[int, Rollout] = {}

        def take(index: int, result: WireResult) -> None:
            if index not in rollouts:  # a worker that replaces a dead one sends everything again, with the same numbers
                rollouts[index] = self._rollout(requests[index], result)
                on_result(index, rollouts[index])

        self._call(("generate", wire, True), on_progress, take)
        return [rollouts[index] for index in range(len(requests))]

    def score(
        self,
        prefixes: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        on_progress: Progress | None = None,
        media: Sequence[PromptMedia | None] | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, at temperature 1, of each continuation's tokens after its prefix.

        The prefix is computed anew for each continuation: vLLM cannot take it from the cache when it scores a prompt.

        Args:
            prefixes: Token ids; those of a prompt with media begin with its ids, and may go on.
            continuations: Token ids to score.
            on_progress: Called with (done, total).
            media: Images and videos of each prefix; None = there are none. Prefixes of one prompt share one object.

        Raises:
            ValueError: An empty prefix, a text longer than the context, or media that the model cannot take.
        """
        packer, texts = MediaPacker(), []
        given = media if media is not None else [None] * len(prefixes)
        for index, (prefix, continuation, item) in enumerate(zip(prefixes, continuations, given, strict=True)):
            self._check_text(index, len(prefix), len(continuation))
            packed = self._packed(f"text {index} to score", item, packer)
            texts.append(WireText((*prefix, *continuation), len(prefix), packed))
        asked = [index for index, text in enumerate(texts) if len(text.ids) > text.first]
        scores: list[list[float]] = [[] for _ in texts]
        if asked:
            results = self._call(("score", [texts[index] for index in asked]), on_progress)
            for index, values in zip(asked, results, strict=True):
                scores[index] = values
        return scores

    def next_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        token_ids: Sequence[Sequence[int]],
        on_progress: Progress | None = None,
        media: Sequence[PromptMedia | None] | None = None,
        on_result: OnChoice | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, at temperature 1, of some tokens as the first one after each prompt.

        They are those of the softmax over the whole vocabulary, from one forward pass per prompt. Prompts that begin
        alike, with the same media, share that part in the prefix cache.

        Args:
            prompts: Token ids; those of a prompt with media begin with its ids, and may go on.
            token_ids: The tokens of interest of each prompt, 1 to 128 different ones.
            on_progress: Called with (done, total).
            media: Images and videos of each prompt; None = there are none.
            on_result: Called with (index, log-probabilities) as each is known; what it raises ends the call.

        Returns:
            A list per prompt, in the order of its tokens; not finite where the model's output is not.

        Raises:
            ValueError: An empty prompt, one longer than the context, or media that the model cannot take.
        """
        packer, wire = MediaPacker(), []
        given = media if media is not None else [None] * len(prompts)
        for prompt, tokens, item in zip(prompts, token_ids, given, strict=True):
            self.check_prompt(prompt, item)
            packed = packer.pack(item) if item is not None and _has_media(item) else None
            wire.append(WireChoice(tuple(prompt), tuple(tokens), packed))
        found: dict[int, list[float]] = {}

        def take(index: int, values: list[float]) -> None:
            if index not in found:  # a worker that replaces a dead one sends everything again, with the same numbers
                found[index] = values
                if on_result is not None:
                    on_result(index, values)

        if wire:
            self._call(("choose", wire), on_progress, take)
        return [found[index] for index in range(len(wire))]

    def check_prompt(self, prompt: Sequence[int], media: PromptMedia | None = None) -> None:
        """Refuses a prompt that cannot be asked.

        Raises:
            ValueError: It is empty, leaves no room for a token, or has media that the model cannot take.
        """
        if not prompt or len(prompt) >= self.config.max_model_len:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens, but engine.max_model_len is {self.config.max_model_len} and one "
                "token must be left; raise max_model_len or drop the row"
            )
        self._check_media("the prompt", media)

    def load_weights(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replaces all weights; what is generated next carries `version`.

        Args:
            named_tensors: All tensors under the names of the checkpoint, e.g. `model.named_parameters()`.
            version: Number of the weights, e.g. the optimizer step.

        Raises:
            ValueError: Tensors are missing, unknown or of another shape; the old weights stay in use.
        """
        tensors = select_tensors(named_tensors, self._shapes, self._tied)
        if self._image is None:
            self._image = WeightsImage(tensors, self.config.dtype)
        else:
            self._image.write(tensors)
        self._version = version
        self._call(("load", self._image.path))

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the same requests with the same weights have the same answers, whatever came before."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes nothing; a pool's state may be among the checkpoints of a run that goes on with one worker."""

    def close(self) -> None:
        """Ends the worker; may be called again."""
        self._closed = True
        if self._worker is not None:
            self._finalizer.detach()
            self._worker.close(idle=self._ready)
            self._worker = None
        if self._image is not None:
            self._image.close()
            self._image = None
        self._servable.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- requests and results ------------------------------------------------------------------------------------------

    def _wire(self, request: Request, packer: MediaPacker) -> WireRequest:
        room = self.config.max_model_len - len(request.prompt_ids)
        if room < 1 or not request.prompt_ids:
            raise ValueError(
                f"row {request.row}: the prompt has {len(request.prompt_ids)} tokens, but engine.max_model_len is "
                f"{self.config.max_model_len} and a response needs room; raise max_model_len or drop the row"
            )
        sampling = request.sampling
        return WireRequest(
            prompt_ids=tuple(request.prompt_ids),
            max_tokens=min(request.mode.max_tokens, room),
            seed=request.seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            stop_ids=() if request.ignore_eos else self._stop_ids(),
            media=self._packed(f"row {request.row}", request.media, packer),
        )

    def _packed(self, name: str, media: PromptMedia | None, packer: MediaPacker) -> WireMedia | None:
        """Media as they are sent, after a check that the model takes them."""
        self._check_media(name, media)
        return packer.pack(media) if media is not None and _has_media(media) else None

    def _check_media(self, name: str, media: PromptMedia | None) -> None:
        """Raises ValueError where the model cannot take the images and videos."""
        if media is None or not _has_media(media):
            return
        if not self._reads_images:
            raise ValueError(f"{name} has images or videos, but {self._path} is a language model; leave them out")
        for kind, items, most in (
            ("images", media.images, self.config.max_images),
            ("videos", media.videos, self.config.max_videos),
        ):
            if len(items) > most:
                raise ValueError(
                    f"{name} has {len(items)} {kind}, but engine.max_{kind} is {most}; raise it or drop the row"
                )

    def _check_text(self, index: int, prefix: int, continuation: int) -> None:
        if prefix < 1:
            raise ValueError(f"text {index} to score has an empty prefix; its first token has no probability then")
        if prefix + continuation >= self.config.max_model_len:
            raise ValueError(
                f"text {index} to score has {prefix} + {continuation} tokens, but engine.max_model_len is "
                f"{self.config.max_model_len} and one token must be left; raise max_model_len or drop the row"
            )

    def _stop_ids(self) -> tuple[int, ...]:
        if self._stops is None:
            self._stops = end_of_turn_ids(self._path, self.tokenizer)
        return self._stops

    def _rollout(self, request: Request, result: WireResult) -> Rollout:
        return make_rollout(
            self.tokenizer,
            request,
            result.ids,
            result.logprobs,
            stopped=result.stopped,
            policy_version=self._version,
            cached_tokens=result.cached_tokens,
        )

    # -- the worker ----------------------------------------------------------------------------------------------------

    def _call(
        self,
        message: tuple[Any, ...],
        on_progress: Progress | None = None,
        on_part: Callable[[int, Any], None] | None = None,
    ) -> Any:
        """Answer of a worker that has the current weights; a worker that dies meanwhile is replaced."""
        for attempt in range(self.config.max_restarts + 1):
            try:
                worker = self._ready_worker()
                worker.send(message)
                return worker.receive(self.config.timeout_s, on_progress, on_part)
            except WorkerDiedError as error:
                self._discard()
                if attempt == self.config.max_restarts:
                    raise EngineError(f"{attempt + 1} workers died in one call, the last one thus: {error}") from error
                logger.warning("%s\nStarting another one (%d of %d).", error, attempt + 1, self.config.max_restarts)
            except BaseException:  # the answer, or what is left of it, must not be taken for that of the next call
                self._discard()
                raise
        raise AssertionError("unreachable")

    def _ready_worker(self) -> WorkerProcess:
        """A worker that has started and has the current weights."""
        if self._closed:
            raise EngineError("the engine is closed; make a new one")
        worker = self._worker or self._start()
        if not self._ready:
            worker.receive(self.config.timeout_s)
            if self._image is not None:
                worker.send(("load", self._image.path))
                worker.receive(self.config.timeout_s)
            self._ready = True
        return worker

    def _open(self) -> None:
        """Starts what answers the calls."""
        self._start()

    def _start(self) -> WorkerProcess:
        threads = self.config.threads or len(os.sched_getaffinity(0))
        environment = worker_environment(threads, self.config.enforce_eager)
        self._worker = WorkerProcess(self.config.vllm_arguments(self._servable.path), environment, self._log_path)
        self._finalizer = weakref.finalize(self, self._worker.kill)  # an engine that nobody closed
        self._ready = False
        return self._worker

    def _discard(self) -> None:
        """Ends the worker at once."""
        if self._worker is not None:
            self._finalizer.detach()
            self._worker.kill()
            self._worker = None


def _has_media(media: PromptMedia) -> bool:
    return bool(media.images or media.videos)
