"""An audit on the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

SHOWN_CHARS = 60
SHOWN_GROUPS = 20


def show(report: dict[str, Any], name: str, limit: int) -> None:
    """Print the figures, the groups and the first disagreements."""

    # A pipe has no width of its own, and 80 columns would fold every cell.
    console = Console(width=None if sys.stdout.isatty() else 120)
    _show_disagreements(console, report["disagreements"], name, limit)
    for column, groups in report["groups"].items():
        _show_groups(console, column, groups)
    nested = ("disagreements", "groups", "against", "agreement")
    _show_figures(console, {key: value for key, value in report.items() if key not in nested})
    if "against" in report:
        console.print(f"\nagainst {report['against']['name']}:", markup=False, highlight=False)
        keys = ("accepted", "accuracy", "ci_low", "ci_high", "precision", "recall", "auc", "auc_low", "auc_high")
        _show_figures(console, {key: report["against"][key] for key in keys})
        console.print("\nagreement of the two:", highlight=False)
        _show_figures(console, {key: value for key, value in report["agreement"].items() if key != "rows"})


def _show_disagreements(console: Any, found: Sequence[Mapping[str, Any]], name: str, limit: int) -> None:

    table = Table(title=f"reward {escape(name)}")
    for header in ("row", "expected", "score", "reference", "end of the response"):
        table.add_column(header, overflow="fold")
    for item in found[:limit]:
        last = item["error"] or _short(str(item["response"]), tail=True)
        expected = "" if item["expected"] is None else str(item["expected"]).lower()
        mark = f"{item['row']} {item.get('convention') or ''}".strip()
        cells = (mark, expected, str(item["score"]), _short(str(item["reference"])), last)
        table.add_row(*(escape(cell) for cell in cells))
    if table.row_count:
        console.print(table)
    hidden = len(found) - limit
    if hidden > 0:
        console.print(f"... and {hidden} more disagreements (all are in the JSON; --show N prints more)")


def _show_groups(console: Any, column: str, groups: Mapping[str, Mapping[str, Any]]) -> None:

    table = Table(title=f"by {escape(_short(column))}")
    for header in (
        column,
        "n",
        "labelled",
        "accepted",
        "accuracy % [95 %]",
        "precision %",
        "recall %",
        "false accepts",
    ):
        table.add_column(escape(_short(header)), overflow="fold", justify="left" if header == column else "right")
    for value, figures in list(groups.items())[:SHOWN_GROUPS]:
        accuracy = _percent(figures["accuracy"])
        if figures["accuracy"] is not None:
            accuracy += f" [{_percent(figures['ci_low'])}, {_percent(figures['ci_high'])}]"
        counts = [str(figures[key]) for key in ("n", "labelled", "accepted")]
        shares = [_percent(figures[key]) for key in ("precision", "recall")]
        table.add_row(escape(_short(value)), *counts, escape(accuracy), *shares, str(figures["false_accepts"]))
    console.print(table)
    if len(groups) > SHOWN_GROUPS:
        console.print(f"... and {len(groups) - SHOWN_GROUPS} smaller groups (all are in the JSON)")


def _show_figures(console: Any, figures: Mapping[str, Any]) -> None:
    for key, value in figures.items():
        if value is None and key.startswith("auc"):
            continue
        console.print(f"{key:>28}  {round(value, 4) if isinstance(value, float) else value}", highlight=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _short(text: str, *, tail: bool = False) -> str:
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(text) <= SHOWN_CHARS:
        return text
    return "..." + text[-SHOWN_CHARS:] if tail else text[:SHOWN_CHARS] + "..."
