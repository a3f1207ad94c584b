"""The page of a loop: curves over the rounds, what the feedback was, pairs with their claims, problems, costs.

What models and data say is hostile text: it is escaped, made printable and cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipes.comparison_table import duration
from recipes.html_page import render_page
from recipes.report import data_uri, printable
from recipes.rlaif.claim_kinds import kind_rows
from recipes.rlaif.config import RlaifVConfig, SplitterConfig
from recipes.rlaif.costs import read_costs
from recipes.rlaif.plots import Interval, Point, draw_rounds
from recipes.rlaif.run_files import Round, problems, read_all_instructions, read_first, read_rounds
from recipes.rlaif.selection import Figures
from recipes.rlaif.shown_pairs import shown_pairs
from recipes.run_records import number
from rl.run_directory import read_config

PAIRS_SHOWN = 6
"""Pairs of each round on the page; all are in its files."""
HEADERS = ("model", "CHAIR_i (%)", "CHAIR_s (%)", "words", "held-out accuracy (%)", "")
SPLITTER = (
    "Responses were divided into claims by the deterministic splitter for simple sentences, not by a language model."
)


def write_rlaif_report(run: Path) -> Path:
    """Draw plots/rounds.png and write report.html of a run, as far as it has come."""
    from recipes.yaml_config import dump
    from rl.files import atomic_write_text

    config = RlaifVConfig.model_validate(read_config(run))
    instructions, rounds, first = read_all_instructions(run), read_rounds(run), read_first(run)
    by_index = {row.index: row for row in instructions}
    page = render_page(
        "rlaif_v.html",
        title=printable(run.resolve().name),
        notes=[SPLITTER] if isinstance(config.divider, SplitterConfig) else [],
        facts=_facts(instructions, rounds, config),
        headers=HEADERS,
        models=[[printable(cell) for cell in cells] for cells in model_rows(first, rounds)],
        plot=data_uri(draw_rounds(_points(first, rounds), run / "plots" / "rounds.png")) if first else None,
        feedback=[_feedback(each) for each in rounds],
        kinds=[(each.number, kind_rows(each, by_index)) for each in rounds],
        problems=[
            (each.round, each.what, printable(each.reason), each.count, printable(each.example))
            for each in problems(instructions, rounds)
        ],
        costs=[_cost(record) for record in read_costs(run)],
        rounds=[
            {"number": each.number, "pairs": shown_pairs(each, by_index, config.video, PAIRS_SHOWN)} for each in rounds
        ],
        config=printable(dump(read_config(run))),
    )
    atomic_write_text(run / "report.html", page)
    return run / "report.html"


def console_table(run: Path) -> list[str]:
    """The models' figures as lines of text."""
    table = [list(HEADERS), *model_rows(read_first(run), read_rounds(run))]
    widths = [max(len(line[at]) for line in table) for at in range(len(HEADERS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def model_rows(first: Figures | None, rounds: Sequence[Round]) -> list[list[str]]:
    """Cells of the model before and of every checkpoint."""
    rows = [] if first is None else [["before", *_cells(first), ""]]
    for each in rounds:
        for figures, refusal in each.checkpoints:
            goes_on = figures.checkpoint == each.chosen.checkpoint
            note = "goes on" if goes_on else (refusal or "not the best")
            rows.append([f"round {each.number}, step {figures.step}", *_cells(figures), note])
        if each.chosen.checkpoint == each.start.checkpoint:
            rows.append([f"round {each.number}", *[""] * 4, "the model before it goes on"])
    return rows


def _cells(figures: Figures) -> list[str]:
    found = intervals(figures)
    shares = [_share(found.get(name)) for name in ("chair_i", "chair_s")]
    words = f"{figures.words:.1f}" if "words" in found else "-"
    return [*shares, words, _share(found.get("accuracy"))]


def _share(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    value, low, high = (100 * each for each in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def intervals(figures: Figures) -> dict[str, Interval]:
    """The figures that are known, with their 95 % intervals."""
    found: dict[str, Interval] = {}
    described = figures.details.get("hallucination")
    if described is not None:
        found["words"] = (figures.words,) * 3
        for name in ("chair_i", "chair_s") if figures.chair_i is not None else ():
            found[name] = (described[name]["value"], described[name]["low"], described[name]["high"])
    held_out = figures.details.get("held_out")
    if held_out is not None:
        found["accuracy"] = (held_out["accuracy"], held_out["ci_low"], held_out["ci_high"])
    return found


def _points(first: Figures | None, rounds: Sequence[Round]) -> list[Point]:
    points = [] if first is None else [Point(at=0, goes_on=True, figures=intervals(first))]
    for each in rounds:
        last = max((figures.step for figures, _ in each.checkpoints), default=1)
        for figures, _ in each.checkpoints:
            if figures.checkpoint != each.chosen.checkpoint:
                points.append(
                    Point(at=each.number - 1 + figures.step / last, goes_on=False, figures=intervals(figures))
                )
        points.append(Point(at=each.number, goes_on=True, figures=intervals(each.chosen)))
    return points


def _facts(instructions: Sequence[Any], rounds: Sequence[Round], config: RlaifVConfig) -> list[tuple[str, str]]:
    labeler = config.labeler.model.path if config.labeler.model else "the policy of each round"
    return [
        ("rounds", f"{len(rounds)} of {config.rounds}"),
        ("instructions", str(len(instructions))),
        ("responses to each", str(config.candidates.n)),
        ("from", printable(config.model.path)),
        ("labeler", printable(labeler)),
        ("divider", config.divider.kind),
        ("claims that count", ", ".join(config.labeler.score.kinds or ["all"])),
    ]


def _feedback(each: Round) -> dict[str, Any]:
    verdicts = [record["accepted"] for one in each.judged for record in one.claims if record["accepted"] is not None]
    scored = [one.score for one in each.judged if one.score is not None]
    return {
        "number": each.number,
        "responses": len(each.judged),
        "scored": len(scored),
        "claims": len(verdicts),
        "accepted": f"{100 * sum(verdicts) / len(verdicts):.1f}" if verdicts else "-",
        "score": f"{sum(scored) / len(scored):.2f}" if scored else "-",
        "threshold": each.statistics["threshold"],
        "stages": [(name, _statistics(each.statistics[name])) for name in ("candidates", "drawn", "kept")],
    }


def _statistics(found: Mapping[str, Any]) -> list[str]:
    sides = [
        f"{found[side]['words']:.1f} / {found[side]['score']:.2f} / {found[side]['claims']:.1f}"
        for side in ("chosen", "rejected")
    ]
    return [str(found["pairs"]), str(found["prompts"]), *sides, f"{100 * found['chosen_is_shorter']:.0f}"]


def _cost(record: Mapping[str, Any]) -> list[str]:
    counts = [number(record, key) for key in ("asked", "cached", "failed", "responses", "prompt_tokens", "tokens")]
    cells = ["" if count is None else f"{count:,.0f}" for count in counts]
    return [str(record["round"]), str(record["stage"]), duration(record["seconds"]), *cells]
