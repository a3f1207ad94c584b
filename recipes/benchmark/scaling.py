"""What a training step costs as it grows: group size, prompt length, response length, images and the model's width.

The learner's real update (forward, head, backward, optimizer) on a fresh tiny model, one axis at a time from a common
middle. Every point is in CPU seconds of this process, the least of a few repeats. A law is fitted to all points of one
model: a fixed cost, plus so much per packed token, response position, attention score, patch of an image, and per
prompt token and response, which is what a step without a shared prompt would mostly pay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recipes.cli import run_recipe

Size = Annotated[int, Field(ge=1)]
_TERMS = {
    "step": "step",
    "tokens": "packed token",
    "positions": "response position (head)",
    "scores": "attention score",
    "patches": "image patch",
    "reads": "prompt token and response",
}
AXES = ("group_size", "prompt", "response", "images", "width")


class ScalingConfig(BaseModel):
    """Where the curves run; the other axes stay at the middle."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    group_sizes: list[Annotated[int, Field(ge=2)]] = Field([2, 4, 8, 16, 32], min_length=1)
    """Responses per prompt."""
    prompts: list[Size] = Field([32, 128, 256, 512, 1024], min_length=1)
    """Prompt lengths in tokens."""
    responses: list[Size] = Field([8, 32, 64, 128, 256], min_length=1)
    """Response lengths in tokens."""
    images: list[Annotated[int, Field(ge=0)]] = [0, 1, 2, 4, 8]
    """Images per prompt, of one view each; their tokens come on top of the prompt's."""
    widths: list[Annotated[int, Field(ge=128, multiple_of=128)]] = Field([128, 256, 384, 512], min_length=1)
    """Hidden sizes of the language model (three layers)."""
    group_size: int = Field(8, ge=2)
    """Responses per prompt in the middle."""
    prompt: int = Field(128, ge=1)
    """Prompt tokens in the middle."""
    response: int = Field(32, ge=1)
    """Response tokens in the middle."""
    width: int = Field(256, ge=128, multiple_of=128)
    """Hidden size in the middle."""
    batch: int = Field(2, ge=1)
    """Prompts per step."""
    vocabulary: int = Field(4096, ge=512)
    """Rows of the LM head."""
    repeats: int = Field(3, ge=1)
    """Counted updates of each point, after one that is not."""
    threads: int = Field(1, ge=0)
    """Threads; 0 = as many as there are usable cores. CPU seconds are steadiest with one."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Matmul precision over fp32 weights."""
    plot_path: Path | None = None
    """PNG file for the curves; null = none."""
    json_path: Path | None = None
    """File for points and law; null = only the table."""

    @model_validator(mode="after")
    def _fits_the_model(self) -> Self:
        longest = max(*self.prompts, self.prompt) + max(*self.responses, self.response) + 64 * max(self.images or [0])
        if longest > 8192:
            raise ValueError(f"the longest text would be of {longest} tokens and the model takes 8192: shorten an axis")
        return self


def points(config: ScalingConfig) -> list[dict[str, Any]]:
    """What is measured: the axis that a point belongs to, and where it stands on all of them; the widths last."""
    middle = {
        "group_size": config.group_size,
        "prompt": config.prompt,
        "response": config.response,
        "images": 0,
        "width": config.width,
    }
    ranges = (config.group_sizes, config.prompts, config.responses, config.images, config.widths)
    return [
        {"axis": axis, **middle, axis: value}
        for axis, values in zip(AXES, ranges, strict=True)
        for value in dict.fromkeys(values)
    ]


def main(config: ScalingConfig) -> None:
    """Measure every point, fit, print, write."""
    from recipes.benchmark.__main__ import check_output, machine_facts
    from recipes.benchmark.scaling_law import fit_law
    from recipes.benchmark.scaling_points import Bench
    from recipes.console import StepBar, console, say
    from rl.files import atomic_write_json

    check_output("json", config.json_path)
    check_output("plot", config.plot_path)
    threads = config.threads or len(os.sched_getaffinity(0))
    bench, wanted = Bench(config, threads), points(config)
    measured = []
    with StepBar("scaling", len(wanted)) as bar:
        for number, point in enumerate(wanted, start=1):
            measured.append(bench.measure(point))
            bar.update(number, f"{point['axis']} {point[point['axis']]}")
            bar.line(
                f"{point['axis']:>10} {point[point['axis']]:>5}: {measured[-1]['cpu_seconds']:.3f} CPU s, "
                f"{measured[-1]['tokens']} packed tokens"
            )
    law = fit_law(measured, config.width)
    report = {**machine_facts(), "threads": threads, "config": config.model_dump(mode="json")}
    report |= {"precision": bench.precision, "points": measured, "law": law}
    console.print(law_table(law))
    for line in law_lines(law):
        say(line)
    if config.json_path is not None:
        atomic_write_json(config.json_path, report)
        say(f"written to {config.json_path}")
    if config.plot_path is not None:
        from recipes.benchmark.scaling_chart import draw_scaling

        draw_scaling(measured, law, config.plot_path)
        say(f"drawn in {config.plot_path}")


def law_table(law: Mapping[str, Any]) -> Any:
    """The coefficients, each with what it is per."""
    from rich import box
    from rich.table import Table

    table = Table(title="CPU seconds of a step", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("per")
    table.add_column("microseconds", justify="right")
    for name, value in law["coefficients"].items():
        table.add_row(_TERMS[name], f"{1e6 * value:,.3f}")
    return table


def law_lines(law: Mapping[str, Any]) -> list[str]:
    """How well it fits, what a further response adds to the cost of its prompt, and the cost of arithmetic."""
    lines = [f"the law is off by {law['error']:.1%} of a step in the median, {law['worst']:.1%} at most."]
    if law["reads_share"] is not None:
        lines.append(f"each further response adds {law['reads_share']:.1%} of its prompt's own cost per token.")
    if law["size"]:
        lines.append(
            f"with the model's size: {law['size']['gflops']:.1f} GFLOP/s beyond {law['size']['fixed']:.3f} s, off by "
            f"{law['size']['error']:.1%} in the median."
        )
    return lines


def axis_points(measured: Sequence[Mapping[str, Any]], axis: str) -> list[Mapping[str, Any]]:
    """Points of one axis, in its order."""
    return sorted((each for each in measured if each["axis"] == axis), key=lambda each: each[axis])


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, ScalingConfig, doc=__doc__, aliases={"json": "json_path", "plot": "plot_path"}))
