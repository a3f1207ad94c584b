"""The rounds of the pool's benchmark: every engine syncs and answers the same requests, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from transformers import AutoTokenizer

from recipes.benchmark.measure import busy_seconds
from recipes.benchmark.pool import SINGLE
from recipes.benchmark.workload import make_prompts
from rl.timing import cpu_seconds
from rollouts.engine import VLLMEngine
from rollouts.modes import LongMode
from rollouts.pool import make_engine
from rollouts.pool_config import PoolConfig
from rollouts.records import Request, request_seed
from rollouts.weights import checkpoint_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.benchmark.pool import PoolBenchmarkConfig
    from recipes.console import StepBar

Record = dict[str, float]
"""One engine's part of a round: wall and CPU seconds of generation and of the sync, tokens, cores busy elsewhere."""


def measure(
    config: PoolBenchmarkConfig, model: Path, max_model_len: int, bar: StepBar
) -> tuple[dict[str, list[Record]], dict[str, int]]:
    """Records of the counted rounds by engine, and what a round works on: `tokens` and `weight_bytes`.

    Raises:
        ValueError: An engine made other tokens than it was asked for, or there is no room for the workers.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = make_prompts(tokenizer, config.prompt, config.prompts)
    prompts = [tuple(tokenizer(text)["input_ids"]) for text in texts]
    tensors = _tensors(model)
    records: dict[str, list[Record]] = {}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(make_engine(model, settings, tokenizer=tokenizer))
            for name, settings in engine_configs(config, max_model_len).items()
        }
        for name, engine in engines.items():
            bar.note(0, 1, f"{name}: starts")
            engine.wait_ready()
            records[name] = []
        for number, (round_, name) in enumerate(turns(list(engines), config.rounds + 1), start=1):
            record = _take_turn(engines[name], tensors, _requests(config, prompts, round_), round_)
            bar.update(number, f"round {round_}: {name}")
            if round_:
                records[name].append(record)
                bar.line(f"{name:>14}: {record['tokens'] / record['seconds']:,.0f} tokens/s, "
                         f"sync {1000 * record['sync_seconds']:,.0f} ms")  # fmt: skip
    itemsize = 4 if config.dtype == "float32" else 2
    return records, {
        "tokens": config.prompts * config.group_size * config.response,
        "weight_bytes": itemsize * sum(tensor.numel() for tensor in tensors.values()),
    }


def engine_configs(config: PoolBenchmarkConfig, max_model_len: int) -> dict[str, PoolConfig]:
    """The one engine, then a pool for each backend; all with the same number of threads in sum."""
    threads = config.usable_threads()
    shared: dict[str, Any] = {"dtype": config.dtype, "max_model_len": max_model_len}
    found = {SINGLE: PoolConfig(threads=threads, **shared)}
    for backend in config.backends:
        found[f"pool, {backend}"] = PoolConfig(
            workers=config.workers,
            backend=backend,
            threads=threads // config.workers,
            weight_transport=config.weight_transport,
            **shared,
        )
    return found


def turns(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """(round, engine): who goes first changes, so that a machine that slows down favours nobody."""
    return [(number, name) for number in range(rounds) for name in (names if number % 2 == 0 else names[::-1])]


def _tensors(model: Path) -> dict[str, Tensor]:
    """All weights of the checkpoint."""
    shapes = checkpoint_shapes(model)
    found = {name: each for file in sorted(model.glob("*.safetensors")) for name, each in load_file(file).items()}
    return {name: found[name] for name in shapes}


def _requests(config: PoolBenchmarkConfig, prompts: Sequence[tuple[int, ...]], round_: int) -> list[Request]:
    mode = LongMode(max_tokens=config.response)
    return [
        Request(
            prompt_ids=ids,
            mode=mode,
            row=row,
            sample=sample,
            seed=request_seed(0, round_, row, sample),
            ignore_eos=True,
        )
        for row, ids in enumerate(prompts)
        for sample in range(config.group_size)
    ]


def _take_turn(engine: VLLMEngine, tensors: Mapping[str, Tensor], requests: Sequence[Request], version: int) -> Record:
    sync = _timed(lambda: engine.load_weights(tensors.items(), version))
    generated: list[int] = []
    busy = busy_seconds()
    work = _timed(lambda: generated.extend(len(r.response_ids) for r in engine.generate(requests)))
    elsewhere = busy_seconds() - busy - work["cpu_seconds"]
    wanted = sum(request.mode.max_tokens for request in requests)
    if sum(generated) != wanted:
        raise ValueError(f"an engine made {sum(generated)} tokens instead of {wanted}; its figures mean nothing")
    return {
        **work,
        **{f"sync_{name}": value for name, value in sync.items()},
        "tokens": float(wanted),
        "busy_elsewhere": max(0.0, elsewhere / work["seconds"]),
    }


def _timed(work: Callable[[], object]) -> Record:
    """Wall seconds, and CPU seconds of this process and all below it."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": cpu_seconds() - cpu}


def summarise(records: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and ratios to the one engine: medians over the rounds' pairs."""
    base = records[SINGLE]
    return {name: _figures(rows, base) for name, rows in records.items()}


def _figures(rows: Sequence[Record], base: Sequence[Record]) -> dict[str, float]:
    speeds = [row["tokens"] / row["seconds"] for row in rows]
    pairs = list(zip(base, rows, strict=True))
    ratios = [one["seconds"] / row["seconds"] for one, row in pairs]
    keys = ("seconds", "cpu_seconds", "sync_seconds", "sync_cpu_seconds", "busy_elsewhere")
    return {
        **{key: median(row[key] for row in rows) for key in keys},
        "tokens_per_s": median(speeds),
        "tokens_per_s_min": min(speeds),
        "tokens_per_s_max": max(speeds),
        "speedup": median(ratios),
        "speedup_min": min(ratios),
        "speedup_max": max(ratios),
        "cpu_speedup": median(one["cpu_seconds"] / row["cpu_seconds"] for one, row in pairs),
        "sync_seconds_max": max(row["sync_seconds"] for row in rows),
    }
