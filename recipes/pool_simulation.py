"""A pool of 1 to 256 workers in simulated time: how evenly the router loads them, against round-robin.

Prompts in short and long mode, lengths with a long tail (or those of a run), workers with a measured speed. Four ways
to assign: round-robin over responses, round-robin over groups, the router of `rollouts.routing` as it runs (it knows
the mean length of each mode), and the router with every length known, which no one can have. Reported is the time until
the last worker is done over the mean time of the workers: 1 = perfectly balanced.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from rollouts.modes import LongMode, ModeSampler, ModesConfig, ShortMode, stable_hash
from rollouts.routing import Item, LengthPredictor, round_robin, route
from rollouts.simulated import Latency, busy_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP_S, SEQUENCE_S, PROMPT_TOKEN_S = 0.032, 0.0019, 0.0012
"""Measured CPU seconds of SmolLM2-135M, bfloat16, one core, nothing compiled, contexts of about 80 tokens."""

Assign = Callable[["Batch", int], list[list[int]]]


class LengthsConfig(BaseModel):
    """Lengths of one mode's responses: log-normal, cut at the budget."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    median: float = Field(gt=0)
    """Tokens of the middle response."""
    spread_prompts: float = Field(0.6, ge=0)
    """Standard deviation of log length between prompts: some questions are harder."""
    spread_responses: float = Field(0.5, ge=0)
    """Standard deviation of log length between the responses to one prompt."""
    budget: int = Field(ge=1)
    """Longest response, in tokens."""


class PoolSimulationConfig(BaseModel):
    """What is simulated. The speed of a worker is that of SmolLM2-135M in bfloat16 on one core."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    workers: list[int] = Field([1, 2, 4, 8, 16, 32, 64, 128, 256], min_length=1)
    """Sizes of the pool."""
    prompts_per_worker: int = Field(8, ge=1)
    """Prompts of a step for each worker: the load per worker stays the same."""
    group_size: int = Field(8, ge=1)
    """Responses per prompt."""
    prompt_tokens: int = Field(300, ge=1)
    """Tokens of each prompt."""
    long_share: float = Field(0.5, ge=0, le=1)
    """Share of the prompts in long mode."""
    short: LengthsConfig = LengthsConfig(median=80, budget=512)
    """Lengths in short mode."""
    long: LengthsConfig = LengthsConfig(median=600, budget=4096)
    """Lengths in long mode."""
    rollouts: Path | None = None
    """`rollouts.jsonl` of a run: its lengths, group by group, are taken instead; null = those above."""
    step_s: float = Field(STEP_S, gt=0)
    """Measured seconds of an engine step, whatever the number of responses."""
    sequence_s: float = Field(SEQUENCE_S, ge=0)
    """Measured seconds that each running response adds to a step."""
    prompt_token_s: float = Field(PROMPT_TOKEN_S, ge=0)
    """Measured seconds per prompt token read."""
    speed_spread: float = Field(0.03, ge=0)
    """Standard deviation of log speed between workers and steps (neighbours, clocks); the router cannot know it."""
    max_num_seqs: int = Field(64, ge=1)
    """Most responses that a worker generates at the same time."""
    steps: int = Field(20, ge=1)
    """Steps per size of the pool; the first is left out, since no length is known then."""
    seed: int = 0
    """Seed of lengths and speeds."""
    out: Path = Path("runs/pool_simulation")
    """Folder for `pool_balance.png` and `pool_balance.json`."""


class Batch:
    """The requests of one step, and what the router and nobody else knows of their lengths."""

    def __init__(
        self, step: int, lengths: Sequence[Sequence[int]], modes: Sequence[str], expected: Sequence[float]
    ) -> None:
        """
        Args:
            step: Number of the step.
            lengths: Response lengths, group by group.
            modes: Mode of each group.
            expected: Predicted length of each group's responses.
        """
        self.step = step
        self.modes = list(modes)
        self.groups = [group for group, members in enumerate(lengths) for _ in members]
        self.lengths = [length for members in lengths for length in members]
        self.expected = [expected[group] for group in self.groups]


def by_response(batch: Batch, workers: int) -> list[list[int]]:
    """Round-robin over responses: every worker reads every prompt sooner or later."""
    return round_robin(len(batch.lengths), workers)


def by_group(batch: Batch, workers: int) -> list[list[int]]:
    """Round-robin over groups."""
    given: list[list[int]] = [[] for _ in range(workers)]
    for index, group in enumerate(batch.groups):
        given[group % workers].append(index)
    return given


def by_router(prompt_tokens: int, known: bool) -> Assign:
    """The router with the expected lengths, or (`known`) with the real ones."""

    def assign(batch: Batch, workers: int) -> list[list[int]]:
        lengths = batch.lengths if known else batch.expected
        return route([Item(group, prompt_tokens, n) for group, n in zip(batch.groups, lengths, strict=True)], workers)

    return assign


def simulate(config: PoolSimulationConfig) -> list[dict[str, Any]]:
    """One record per size of the pool and way to assign: balance and time, means over the steps.

    Returns:
        Records with `workers`, `assignment`, `balance` (last worker over mean worker), `balance_worst` (worst step),
        `seconds` (until the last worker is done), `ideal_seconds` (mean of the workers if all lengths are known, or the
        longest response alone if that takes longer) and `prompts_read` (times that a prompt is read).
    """
    ways: dict[str, Assign] = {
        "round-robin, responses": by_response,
        "round-robin, groups": by_group,
        "router, mean length of each mode": by_router(config.prompt_tokens, known=False),
        "router, lengths known": by_router(config.prompt_tokens, known=True),
    }
    recorded = _recorded_groups(config.rollouts) if config.rollouts else None
    records = []
    for workers in config.workers:
        batches = list(_batches(config, workers, recorded))
        outcomes = {name: [_outcome(config, batch, workers, way) for batch in batches] for name, way in ways.items()}
        ideal = [max(known["mean"], known["floor"]) for known in outcomes["router, lengths known"]]
        for name, steps in outcomes.items():
            balances = [step["last"] / step["mean"] for step in steps]
            records.append(
                {
                    "workers": workers,
                    "assignment": name,
                    "balance": fmean(balances),
                    "balance_worst": max(balances),
                    "seconds": fmean(step["last"] for step in steps),
                    "ideal_seconds": fmean(ideal),
                    "prompts_read": fmean(step["read"] for step in steps),
                }
            )
    return records


def _outcome(config: PoolSimulationConfig, batch: Batch, workers: int, way: Assign) -> dict[str, float]:
    """Times of one step: of the last worker, of the mean one, of the longest response alone; prompts read per group."""
    latency = Latency(step_s=config.step_s, sequence_s=config.sequence_s, prompt_token_s=config.prompt_token_s)
    times, pieces = [], 0
    for worker, indices in enumerate(way(batch, workers)):
        groups = {batch.groups[index] for index in indices}
        pieces += len(groups)
        first = sorted(indices, key=lambda index: -_budget(config, batch.modes[batch.groups[index]]))
        lengths = [batch.lengths[index] for index in first]
        seconds = busy_seconds(lengths, len(groups) * config.prompt_tokens, latency, config.max_num_seqs)
        times.append(seconds * _speed(config, batch.step, worker))
    floor = max(batch.lengths) * (latency.step_s + latency.sequence_s)
    return {"last": max(times), "mean": fmean(times), "floor": floor, "read": pieces / len(batch.modes)}


def _budget(config: PoolSimulationConfig, mode: str) -> int:
    return config.long.budget if mode == "long" else config.short.budget


def _speed(config: PoolSimulationConfig, step: int, worker: int) -> float:
    draw = random.Random(stable_hash("speed", config.seed, step, worker, bits=32))
    return math.exp(config.speed_spread * draw.gauss(0, 1))


def _batches(
    config: PoolSimulationConfig, workers: int, recorded: dict[str, list[list[int]]] | None
) -> Sequence[Batch]:
    """The steps after the first, with the lengths that the predictor expects of them."""
    modes = ModeSampler(ModesConfig(long_share=config.long_share), config.seed)
    budgets = {mode.name: _budget(config, mode.name) for mode in (ShortMode(), LongMode())}
    predictor, batches = LengthPredictor(), []
    for step in range(config.steps + 1):
        names = [mode.name for mode in modes.mode_batch(step, config.prompts_per_worker * workers)]
        lengths = [_draw(config, name, (workers, step, at), recorded) for at, name in enumerate(names)]
        batches.append(Batch(step, lengths, names, [predictor.predict(name, budgets[name]) for name in names]))
        told: dict[str, list[int]] = {name: [] for name in budgets}
        for name, members in zip(names, lengths, strict=True):
            told[name] += members
        predictor.observe(told)
    return batches[1:]


def _draw(
    config: PoolSimulationConfig, mode: str, place: tuple[int, ...], recorded: dict[str, list[list[int]]] | None
) -> list[int]:
    """Lengths of one group: drawn from the run's groups of that mode, or log-normal."""
    draw = random.Random(stable_hash("lengths", config.seed, *place, bits=32))
    if recorded is not None:
        return draw.choice(recorded[mode])
    settings = config.long if mode == "long" else config.short
    middle = math.log(settings.median) + settings.spread_prompts * draw.gauss(0, 1)
    logs = [middle + settings.spread_responses * draw.gauss(0, 1) for _ in range(config.group_size)]
    return [min(settings.budget, max(1, round(math.exp(value)))) for value in logs]


def _recorded_groups(path: Path) -> dict[str, list[list[int]]]:
    """Lengths of a run's responses by mode, group by group."""
    groups: dict[tuple[str, int, int], list[int]] = {}
    with path.open() as file:
        for line in file:
            record = json.loads(line)
            key = (record["mode"], record.get("step", 0), record["row"])
            groups.setdefault(key, []).append(record["response_tokens"])
    found: dict[str, list[list[int]]] = {}
    for (mode, _, _), lengths in groups.items():
        found.setdefault(mode, []).append(lengths)
    return found


def check_recorded(config: PoolSimulationConfig) -> None:
    """Refuse a run's rollouts that lack a mode which is to be simulated.

    Raises:
        ValueError: No such file, or no response in one of the modes.
    """
    if config.rollouts is None:
        return
    if not config.rollouts.is_file():
        raise ValueError(f"rollouts is {config.rollouts}, and there is no such file: give a run's rollouts.jsonl")
    found = _recorded_groups(config.rollouts)
    needed = {"short": config.long_share < 1, "long": config.long_share > 0}
    missing = [mode for mode, is_needed in needed.items() if is_needed and mode not in found]
    if missing:
        raise ValueError(
            f"{config.rollouts} has no response in {missing[0]} mode: set long_share to {int(missing[0] == 'short')}, "
            "or take a hybrid run"
        )


def draw_balance(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Balance and time by number of workers, one line per way to assign, as a PNG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from recipes.plots import COLOURS
    from rl.files import atomic_file

    with (
        rc_context({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 150}),
        atomic_file(path) as out,
    ):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, colour in zip(dict.fromkeys(r["assignment"] for r in records), COLOURS, strict=False):
            mine = [record for record in records if record["assignment"] == name]
            workers = [record["workers"] for record in mine]
            left.plot(workers, [r["balance"] for r in mine], color=colour, marker="o", label=name)
            right.plot(workers, [r["seconds"] / r["ideal_seconds"] for r in mine], color=colour, marker="o", label=name)
        _label(left, "time of the last worker / mean worker")
        _label(right, "time of the step / ideal")
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(out, format="png", bbox_inches="tight")


def _label(axis: Axes, text: str) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_ylim(bottom=1.0)
    axis.set_xlabel("workers (the load per worker stays the same)")
    axis.set_ylabel(text)
    axis.spines[["top", "right"]].set_visible(False)


def main(config: PoolSimulationConfig) -> None:
    """Simulate, print the table, write PNG and JSON."""
    from recipes.console import say
    from rl.files import atomic_write_json

    check_recorded(config)
    records = simulate(config)
    say(f"{'workers':>7}  {'assignment':<34} {'last/mean':>9} {'worst':>7} {'s/ideal':>8} {'reads':>6}")
    for r in records:
        say(
            f"{r['workers']:>7}  {r['assignment']:<34} {r['balance']:>9.3f} {r['balance_worst']:>7.3f} "
            f"{r['seconds'] / r['ideal_seconds']:>8.3f} {r['prompts_read']:>6.2f}"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    settings = config.model_dump(mode="json", exclude={"out"})
    atomic_write_json(config.out / "pool_balance.json", {"settings": settings, "records": records})
    draw_balance(records, config.out / "pool_balance.png")
    say(f"figures: {config.out / 'pool_balance.json'}, {config.out / 'pool_balance.png'}")


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, PoolSimulationConfig, doc=__doc__))
