"""Run directories as the recipes leave them, with figures of a likely size, to test tables, plots and reports on."""

import json
import math
import random
from pathlib import Path
from typing import Any

HOSTILE = (
    "<script>alert(document.domain)</script><img src=x onerror=alert(1)>",
    "</pre></details><h1>out of the box</h1> {{ 7 * 7 }} {% raw %} &amp;",
    "\u202eright to left override\u202c שלום עולם مرحبا",
    "null \x00 bell \x07 escape \x1b[31m surrogate \ud800 end",
    "0123456789" * 10_000,
    "' onmouseover='alert(1)' x=\" data:text/html,<svg/onload=alert(1)>",
)
TOKENS = {"short": 6.0, "long": 48.0}


def make_run(
    folder: Path, name: str, mode: str, *, steps: int = 30, seed: int = 0, finished: bool = True, **change: Any
) -> Path:
    """Writes a run directory.

    Args:
        folder: Its parent.
        name: Its name.
        mode: short, long, hybrid, or none for a warm-up.
        steps: Steps done.
        seed: Of all its figures.
        finished: Whether it came to its end.
        change: `accuracy={"short": .., "long": ..}` of the final evaluation.
    """
    rng, path = random.Random(f"{name} {seed}"), folder / name
    path.mkdir(parents=True)
    modes = {"none": (), "hybrid": ("short", "long")}.get(mode, (mode,))
    records = _metrics(rng, modes, steps)
    tokens = records[-1].get("tokens/generated", 0) if records else 0
    accuracy = change.get("accuracy") or {
        "short": 0.12 + 0.1 * ("short" in modes),
        "long": 0.45 + 0.08 * ("long" in modes),
    }
    config = {"name": name, "model": {"path": "runs/demo/warmup"}, "evaluation": {"metric": "math"}}
    _json(path / "config.yaml", config | ({"modes": {"mode": mode}} if modes else {}))
    _json(path / "provenance.json", {"commit": "0123abc", "versions": {"torch": "2.13.0"}, "machine": {"cores": 2}})
    _lines(path / "metrics.jsonl", records)
    _lines(path / "rollouts.jsonl", [r for step in range(1, steps + 1) for r in _rollouts(rng, modes, step)])
    _json(path / "ledger.json", {"modes": {}, "total": {"generated": tokens, "trained": tokens // 2}})
    if modes:
        _lines(path / "evaluations.jsonl", _evaluations(rng, records, accuracy))
    if finished:
        _json(path / "evaluation.json", {"checkpoint": "x", "step": steps, "eval": _evaluation(accuracy, 400)})
        _lines(path / "evaluation_samples.jsonl", _samples(rng, accuracy, steps))
        _json(
            path / "run.json", {"name": name, "mode": mode, "steps": steps, "seconds": 61.5 * steps, "finished": True}
        )
    return path


def _metrics(rng: random.Random, modes: tuple[str, ...], steps: int) -> list[dict]:
    if not modes:
        return [{"step": s, "loss": 2 / s, "lr": 3e-4, "time/step": 3.0} for s in range(1, steps + 1)]
    total, records = 0, []
    for step in range(1, steps + 1):
        made = {mode: int(64 / len(modes) * TOKENS[mode] * rng.uniform(0.9, 1.1)) for mode in modes}
        total += sum(made.values())
        gain = 1 - math.exp(-step / 15)
        record = {"step": step, "tokens/generated": total, "time/step": 6.1}
        record |= {"reward/math": 0.35 + 0.25 * gain + rng.gauss(0, 0.06), "reward/format": 0.9 + 0.08 * gain}
        record |= {"reward/repetition": -0.02 * rng.random(), "reward/user_concise": rng.random()}
        record["reward/total"] = record["reward/math"] + 0.1 * record["reward/format"]
        for mode in modes:
            record[f"response_tokens/{mode}"] = TOKENS[mode] * rng.uniform(0.9, 1.1) * (1 - 0.1 * gain)
            record[f"reward/{mode}/math"] = record["reward/math"]
        records.append(record)
    return records


def _evaluation(accuracy: dict[str, float], n: int) -> dict[str, dict]:
    return {
        mode: {
            "n": n,
            "accuracy": value,
            "ci_low": max(0.0, value - 1.96 * math.sqrt(value * (1 - value) / n)),
            "ci_high": min(1.0, value + 1.96 * math.sqrt(value * (1 - value) / n)),
            "response_tokens": TOKENS[mode],
            "truncated": 0.01,
            "format": 0.98,
            "k": 1,
            "pass_at_k": value,
        }
        for mode, value in accuracy.items()
    }


def _evaluations(rng: random.Random, records: list[dict], accuracy: dict[str, float]) -> list[dict]:
    result = []
    for record in records[9::10]:
        part = record["step"] / len(records)
        figures = {mode: value * (0.8 + 0.2 * part) for mode, value in accuracy.items()}
        result.append(
            {"step": record["step"], "rl_tokens": record["tokens/generated"], "eval": _evaluation(figures, 100)}
        )
    return result


def _record(step: int, row: int, sample: int, mode: str, response: str, right: bool, tokens: int) -> dict:
    return {
        "step": step,
        "row": row,
        "sample": sample,
        "mode": mode,
        "prompt": [
            {"role": "system", "content": "You calculate."},
            {"role": "user", "content": f"State the final answer to the following arithmetic problem: {row} + 7 - 2 ="},
        ],
        "reference": str(row + 5),
        "response": response,
        "thinking": None,
        "answer": str(row + 5),
        "status": "finished",
        "response_tokens": tokens,
        "prompt_tokens": 40,
        "rewards": {"math": float(right), "format": 1.0, "repetition": 0.0, "user_concise": None},
        "total": float(right) + 0.1,
    }


def _rollouts(rng: random.Random, modes: tuple[str, ...], step: int) -> list[dict]:
    records = []
    for position, mode in enumerate(modes):
        for sample in range(4):
            right = rng.random() < 0.5
            record = _record(step, 10 * step + position, sample, mode, f"{sample}</think>\n\n{step}", right, 12)
            records.append({**record, "advantage": 0.9 if right else -1.1})
    return records


def _samples(rng: random.Random, accuracy: dict[str, float], step: int) -> list[dict]:
    records = []
    for row in range(40):
        for mode, value in accuracy.items():
            steps = f"{row} + 7 = {row + 7}\n{row + 7} - 2 = {row + 5}\n</think>\n\n" if mode == "long" else ""
            text = HOSTILE[row] if row < len(HOSTILE) and mode == "long" else f"{steps}{row + 5}"
            records.append(_record(step, row, 0, mode, text, rng.random() < value, int(TOKENS[mode])))
    return records


def make_demo(folder: Path) -> list[Path]:
    """A warm-up and the three runs that follow it."""
    settings = {
        "warmup": ("none", {"short": 0.12, "long": 0.36}),
        "short": ("short", {"short": 0.24, "long": 0.38}),
        "long": ("long", {"short": 0.13, "long": 0.51}),
        "hybrid": ("hybrid", {"short": 0.22, "long": 0.50}),
    }
    return [make_run(folder, name, mode, accuracy=accuracy) for name, (mode, accuracy) in settings.items()]


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))


def _lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
