"""Compares runs: accuracy in each mode against what training cost in tokens, response length and time.

    python -m recipes.compare runs/warmup runs/short runs/long runs/hybrid --out runs/comparison

Prints the table, and writes compare.md, compare.csv, compare.json, plots/*.png and a self-contained report.html.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from recipes.run_records import Run, load_runs


class CompareConfig(BaseModel):
    """Which runs, and where the comparison goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    runs: list[Path] = Field(min_length=1)
    """Run directories, in the order of the table."""
    out: Path | None = None
    """Where the files are written. null = the folder `comparison` beside the first run."""
    title: str = "Comparison of runs"
    """Heading of the report."""
    examples: int = Field(default=6, ge=0)
    """Prompts whose responses the report shows, per run."""


def compare(config: CompareConfig) -> int:
    """Prints and writes the comparison. Raises ValueError when a directory holds no run."""
    runs = load_runs(config.runs)
    out = config.out or config.runs[0].resolve().parent / "comparison"
    if any((out / name).exists() for name in ("metrics.jsonl", "run.json", "config.yaml")):
        raise ValueError(f"{out} is a run directory, and a comparison needs a folder of its own: choose another --out.")
    print_table(runs)
    write_comparison(runs, out, title=config.title, examples=config.examples)
    print(f"Report: {out / 'report.html'}")
    return 0


def write_comparison(runs: Sequence[Run], out: Path, *, title: str = "Comparison of runs", examples: int = 6) -> None:
    """Writes the table in its formats, the plots and the report into a folder, made if need be."""
    from recipes.comparison_table import to_csv, to_json, to_markdown
    from recipes.report import write_report
    from rl.files import atomic_write_json, atomic_write_text

    out.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out / "compare.md", to_markdown(runs))
    atomic_write_text(out / "compare.csv", to_csv(runs))
    atomic_write_json(out / "compare.json", to_json(runs))
    write_report(runs, out, title=title, examples=examples)


def print_table(runs: Sequence[Run]) -> None:
    """The table on the terminal, then what could not be read."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recipes.comparison_table import HEADERS, rows

    table = Table(header_style="bold")
    for index, header in enumerate(HEADERS):
        table.add_column(header.replace(": ", "\n"), justify="left" if index < 2 else "right", overflow="fold")
    for cells in rows(runs):
        table.add_row(*(Text(cell) for cell in cells))
    # A pipe has no width of its own, and 80 columns would fold every cell.
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    for run in runs:
        for problem in run.problems:
            print(f"{run.name}: {problem}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_recipe(compare, CompareConfig, doc=__doc__, positional="runs"))
