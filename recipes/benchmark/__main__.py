"""Tandem against another library, step by step in one run: seconds and CPU seconds per step by phase, and memory.

Both get the same model, the same prompts and responses of a forced length, and do one training step each in turn:
generate, reward, update, weight sync. The peer runs at the best settings found for it on CPU.

With --profile: where the time of Tandem's own step goes, against what the machine can do.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from recipes.benchmark.config import BenchmarkConfig, context_length
from recipes.cli import run_recipe


def main(config: BenchmarkConfig) -> None:
    """Measure every shape, print the tables, write the JSON."""
    if not config.profile:
        _check_peer(config.peer)
    check_output("json", config.json_path)
    check_output("plot", config.plot_path)
    from recipes.benchmark.table import remarks
    from recipes.console import console, say
    from recipes.models import ModelConfig, resolve_model
    from rl.files import atomic_write_json

    model = resolve_model(ModelConfig(path=config.model)).resolve()
    report = _head(config, model)
    report["shapes"] = _measure(config, model, report["threads"])
    for figures in report["shapes"]:
        console.print(_table(config, figures))
    if config.profile:
        from recipes.benchmark.profile import profile_lines

        for line in profile_lines(report):
            say(line)
    for line in remarks(report):
        say(line)
    if config.plot_path is not None:
        from recipes.benchmark.profile_chart import draw_profiles

        draw_profiles(report, config.plot_path)
        say(f"drawn in {config.plot_path}")
    if config.json_path is not None:
        atomic_write_json(config.json_path, report)
        say(f"written to {config.json_path}")


def _table(config: BenchmarkConfig, figures: dict[str, Any]) -> Any:
    if not config.profile:
        from recipes.benchmark.table import shape_table

        return shape_table(figures, config.peer)
    from recipes.benchmark.profile import profile_table

    return profile_table(figures)


def _measure(config: BenchmarkConfig, model: Path, threads: int) -> list[dict[str, Any]]:
    from recipes.benchmark.measure import libraries, measure_profile, measure_shape
    from recipes.benchmark.table import NAMES
    from recipes.console import StepBar

    max_model_len = context_length(model, config.shapes)
    total = len(config.shapes) * len(libraries(config)) * (config.warmup + config.steps)
    done = 0
    measured = []
    with StepBar("benchmark", total) as bar:
        for shape in config.shapes:
            name = f"{shape.prompt}+{shape.response}"

            def progress(library: str, what: str, record: dict[str, Any] | None, name: str = name) -> None:
                nonlocal done
                done += record is not None
                bar.update(done, f"{name}: {NAMES[library]} {what}")
                if record is not None:
                    bar.line(
                        f"{name} {NAMES[library]:>6}: {record['seconds']:.2f} s, {record['cpu_seconds']:.2f} CPU s"
                    )

            measured.append(
                (measure_profile if config.profile else measure_shape)(
                    config, shape, model=str(model), threads=threads, max_model_len=max_model_len, progress=progress
                )
            )
    return measured


def _head(config: BenchmarkConfig, model: Path) -> dict[str, Any]:
    """Everything that is the same for all shapes."""
    from recipes.benchmark.measure import libraries

    return {
        "peer": "none" if config.profile else config.peer,
        "profiled": libraries(config)[0] if config.profile else None,
        "model": model.name,
        "prompts": config.prompts,
        "group_size": config.group_size,
        "warmup": config.warmup,
        "threads": config.threads or len(os.sched_getaffinity(0)),
        "precision": config.precision,
        "enforce_eager": config.enforce_eager,
        "peer_micro_batch": config.peer_micro_batch,
        "reference_tokens": config.reference_tokens,
        "images": config.images,
        "image_side": config.image_side,
        **machine_facts(),
    }


def machine_facts() -> dict[str, Any]:
    """Where, when and with which versions figures are taken."""
    from rl.provenance import provenance

    origin = provenance()
    return {
        "machine": {"cpu": _cpu_name(), "cores": origin["cpus_usable"], "platform": origin["platform"]},
        "load_average_before": os.getloadavg()[0],
        **{name: origin[name] for name in ("started", "python", "versions", "git")},
    }


def _cpu_name() -> str:
    """The processor's name and the instruction sets that decide how fast bf16 is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return " ".join([facts.get("model name", ""), *flags]).strip()


def _check_peer(peer: str) -> None:
    if peer == "verl":
        _check_verl()
    if peer == "trl" and importlib.util.find_spec(peer) is None:
        raise ValueError(
            f"--peer {peer} compares with {peer}, which is not installed: run `pip install trl==1.16.0` (it is part of "
            "the extra `dev`), or measure Tandem alone with --peer none."
        )


def _check_verl() -> None:
    from recipes.benchmark.verl_parts import stand_ins
    from recipes.on_verl.refusals import PACKAGES

    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(
            f"--peer verl compares with verl, whose package {missing[0]} is not installed: run `pip install "
            "'tandem-rl[verl]'`, or measure Tandem alone with --peer none."
        )
    stand_ins()


def check_output(option: str, path: Path | None) -> None:
    """Found out before the run, not after."""
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--{option} {path}: there is no folder {path.parent}; make it first.")


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, BenchmarkConfig, doc=__doc__, aliases={"json": "json_path", "plot": "plot_path"}))
