"""Takes turns: one step of one library, one of the other, on a machine that does nothing else meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil

from recipes.benchmark.config import BenchmarkConfig, Job, Shape
from recipes.benchmark.processes import Child
from recipes.benchmark.profile import profile_figures
from recipes.benchmark.summary import check_equal_work, summarise

Progress = Callable[[str, str, dict[str, Any] | None], None]
"""(library, what it does, the record of a step that has just ended)."""


def measure_shape(
    config: BenchmarkConfig, shape: Shape, *, model: str, threads: int, max_model_len: int, progress: Progress
) -> dict[str, Any]:
    """The figures of one shape, from fresh processes.

    Raises:
        ValueError: A child died, or the libraries did not do the same work.
    """
    counted, facts = _measure(config, shape, model, threads, max_model_len, progress)
    floor_s = facts.get(config.peer, {}).get("poll_interval_s", 0.0)
    return {**summarise(shape, counted["tandem"], counted.get(config.peer), floor_s=floor_s), "processes": facts}


def measure_profile(
    config: BenchmarkConfig, shape: Shape, *, model: str, threads: int, max_model_len: int, progress: Progress
) -> dict[str, Any]:
    """The figures of one shape by phase, from a fresh process.

    Raises:
        ValueError: The child died, or did other work than it was asked for.
    """
    counted, facts = _measure(config, shape, model, threads, max_model_len, progress)
    (records,) = counted.values()
    (fact,) = facts.values()
    profile = profile_figures(records, fact["machine"], config.save_every, fact["threads"])
    return {**summarise(shape, records, None), "processes": facts, "profile": profile}


def _measure(
    config: BenchmarkConfig, shape: Shape, model: str, threads: int, max_model_len: int, progress: Progress
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The records of the counted steps by library, and what each says about itself."""
    with ExitStack() as stack:
        job = Job(
            model=model,
            prompt=shape.prompt,
            response=shape.response,
            prompts=config.prompts,
            group_size=config.group_size,
            total_steps=config.warmup + config.steps,
            threads=threads,
            max_model_len=max_model_len,
            precision=config.precision,
            enforce_eager=config.enforce_eager,
            peer_micro_batch=config.peer_micro_batch,
            reference_tokens=config.reference_tokens,
            images=config.images,
            image_side=config.image_side,
            profile=config.profile,
            work_dir=stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-benchmark-")),
        )
        children = [stack.enter_context(Child(name, job, config.timeout_s)) for name in libraries(config)]
        facts = {}
        for child in children:
            progress(child.library, "loads", None)
            facts[child.library] = child.ready()["facts"]
        records: dict[str, list[dict[str, Any]]] = {child.library: [] for child in children}
        for child in _turns(children, job.total_steps):
            progress(child.library, "steps", None)
            records[child.library].append(record := _step(child))
            progress(child.library, "done", record)
    counted = {name: steps[config.warmup :] for name, steps in records.items()}
    check_equal_work(counted, (_prompt_tokens(job, next(iter(counted.values()))), job.batch * shape.response))
    return counted, facts


def _prompt_tokens(job: Job, records: list[dict[str, Any]]) -> int:
    """Of a step; with images, whose blocks and template come on top of the text, those that were counted."""
    return int(records[0]["tokens"]["prompt"]) if job.images else job.batch * job.prompt


def libraries(config: BenchmarkConfig) -> list[str]:
    """Names of the children."""
    if config.profile:
        return [config.peer if config.peer in ("probability", "repeated") else "tandem"]
    return ["tandem"] if config.peer == "none" else ["tandem", config.peer]


def _turns(children: list[Child], steps: int) -> Iterator[Child]:
    """Every child once per step; who goes first changes, so that a machine that slows down favours neither."""
    for step in range(steps):
        yield from children if step % 2 == 0 else reversed(children)


def _step(child: Child) -> dict[str, Any]:
    before = busy_seconds()
    record = child.step()
    elsewhere = busy_seconds() - before - record["cpu_seconds"]
    return {**record, "busy_elsewhere": max(0.0, elsewhere / record["seconds"])}


def busy_seconds() -> float:
    """CPU seconds that the whole machine has worked so far."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
