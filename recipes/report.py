"""One self-contained page about one or several runs: table, plots, sample responses, configuration and provenance.

The page holds everything (images as data URIs, no script, no outside resource), and a content-security policy says
so to the browser. What a model wrote is hostile text: it is escaped, its control characters are made visible, text that
runs from right to left stays within its box, and long responses are cut with a note.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.comparison_table import HEADERS, duration, rows
from recipes.html_page import render_page
from recipes.plots import colours, draw_plots, short_count
from recipes.run_records import MODES, Run, load_run, number

SHOWN_CHARACTERS = 3000
"""A longer response is cut in the page; it is whole in the run directory."""

# Control characters except tab and newline, bidirectional overrides, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One response as the page shows it."""

    mode: str
    text: str
    cut: int
    """Characters left out at the end."""
    status: str
    tokens: int | None
    total: float | None
    advantage: float | None
    rewards: Sequence[tuple[str, str]]
    """(name, value) of the breakdown; a reward that does not apply shows as `n/a`."""
    good: bool | None
    """Whether the answer counts as right, where the run says by which reward that is decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Responses to one prompt, beside one another."""

    title: str
    """The end of the last message, on one line."""
    prompt: str
    reference: str
    responses: Sequence[Response]


def write_run_report(run_dir: Path) -> Path:
    """Writes report.html and plots/ of one run into its own directory. Raises ValueError when it holds no run."""
    run = load_run(Path(run_dir))
    return write_report([run], run.path, title=run.name)


def write_report(runs: Sequence[Run], out: Path, *, title: str, examples: int = 6) -> Path:
    """Draws the plots into `out/plots` and writes `out/report.html`.

    Args:
        runs: The runs, in the order of the table.
        out: An existing folder.
        title: The heading.
        examples: Prompts shown for each run.
    """
    from rl.files import atomic_write_text

    plots = draw_plots(runs, out / "plots")
    atomic_write_text(out / "report.html", render(runs, plots, title=title, examples=examples))
    return out / "report.html"


def render(runs: Sequence[Run], plots: Sequence[tuple[str, Path]], *, title: str, examples: int) -> str:
    """The page's text."""
    colour = colours(runs)
    return render_page(
        "report.html",
        title=printable(title),
        headers=HEADERS,
        rows=[
            (colour[run.name], [printable(cell) for cell in cells]) for run, cells in zip(runs, rows(runs), strict=True)
        ],
        plots=[(caption, data_uri(path)) for caption, path in plots],
        runs=[_run_context(run, colour[run.name], examples) for run in runs],
    )


def data_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _run_context(run: Run, colour: str, examples: int) -> dict[str, Any]:
    metric = _metric(run)
    return {
        "name": printable(run.name),
        "mode": printable(run.mode),
        "colour": colour,
        "problems": [printable(problem) for problem in run.problems],
        "facts": _facts(run),
        "evaluated": evaluation_examples(run.samples, metric, examples),
        "trained": training_examples(run.rollouts, metric),
        "last_step": run.rollouts[-1].get("step") if run.rollouts else None,
        "config": printable(_yaml(run.config)),
        "provenance": printable(_yaml(run.provenance)),
    }


def _metric(run: Run) -> str | None:
    """The reward that decides whether an answer is right."""
    evaluation = run.config.get("evaluation")
    metric = evaluation.get("metric") if isinstance(evaluation, Mapping) else None
    return metric if isinstance(metric, str) else None


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [("steps", str(run.steps)), ("time", duration(run.seconds))]
    if run.mode != "none":
        facts.append(("RL tokens", short_count(run.rl_tokens)))
    for mode in MODES:
        figures = run.eval.get(mode, {})
        for key, label in (("pass_at_k", f"{mode}: pass@{figures.get('k', 'k')}"), ("truncated", f"{mode}: truncated")):
            value = number(figures, key)
            if value is not None:
                facts.append((label, f"{100 * value:.1f} %"))
    return [(printable(label), printable(value)) for label, value in facts]


# ---- which responses are shown ----


def evaluation_examples(samples: Sequence[Mapping[str, Any]], metric: str | None, count: int) -> list[Example]:
    """Prompts with their responses in both modes, taken in turn from those right in both, in one or in no mode."""
    by_row: dict[Any, list[Mapping[str, Any]]] = {}
    for sample in samples:
        if number(sample, "sample") in (0, None):
            by_row.setdefault(str(sample.get("row")), []).append(sample)
    kinds: dict[tuple[Any, ...], list[list[Mapping[str, Any]]]] = {}
    for group in by_row.values():
        group.sort(key=_mode_order)
        kinds.setdefault(tuple(_is_good(sample, metric) for sample in group), []).append(group)
    # One of each kind in turn, so that a page of six prompts shows successes and failures alike.
    ordered = [group for rank in range(count) for groups in kinds.values() for group in groups[rank : rank + 1]]
    return [_example(group, metric) for group in ordered[:count]]


def training_examples(rollouts: Sequence[Mapping[str, Any]], metric: str | None) -> list[Example]:
    """From the last training step, in each mode the group whose rewards differ most: best and worst response."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for rollout in rollouts:
        if number(rollout, "total") is not None:  # of the others a reward is missing
            groups.setdefault((str(rollout.get("mode")), str(rollout.get("row"))), []).append(rollout)
    best: dict[str, list[Mapping[str, Any]]] = {}
    for (mode, _), group in groups.items():
        group.sort(key=_total)
        if mode not in best or _spread(group) > _spread(best[mode]):
            best[mode] = group
    chosen = sorted(best.values(), key=lambda group: _mode_order(group[0]))
    return [_example([group[-1], group[0]] if len(group) > 1 else group, metric) for group in chosen]


def _total(sample: Mapping[str, Any]) -> float:
    return number(sample, "total") or 0.0


def _spread(group: Sequence[Mapping[str, Any]]) -> float:
    return _total(group[-1]) - _total(group[0])


def _mode_order(sample: Mapping[str, Any]) -> int:
    mode = sample.get("mode")
    return MODES.index(mode) if mode in MODES else len(MODES)


def _is_good(sample: Mapping[str, Any], metric: str | None) -> bool | None:
    rewards = sample.get("rewards")
    value = number(rewards, metric) if isinstance(rewards, Mapping) and metric else None
    return None if value is None else value >= 0.5


def _example(group: Sequence[Mapping[str, Any]], metric: str | None) -> Example:
    first = group[0]
    return Example(
        title=_title(first.get("prompt")),
        prompt=clipped(_prompt_text(first.get("prompt")))[0],
        reference=clipped(str(first.get("reference")))[0],
        responses=[_response(sample, metric) for sample in group],
    )


def _response(sample: Mapping[str, Any], metric: str | None) -> Response:
    text, cut = clipped(str(sample.get("response") or ""))
    rewards = sample.get("rewards")
    tokens = number(sample, "response_tokens")
    return Response(
        mode=printable(str(sample.get("mode"))),
        text=text,
        cut=cut,
        status=printable(str(sample.get("status"))),
        tokens=None if tokens is None else int(tokens),
        total=number(sample, "total"),
        advantage=number(sample, "advantage"),
        rewards=[(printable(str(name)), _value(value)) for name, value in rewards.items()]
        if isinstance(rewards, Mapping)
        else [],
        good=_is_good(sample, metric),
    )


# ---- text ----


def printable(text: str) -> str:
    """A text with its invisible and misleading characters shown as `\\x00`-like codes in brackets."""
    return _UNPRINTABLE.sub(lambda match: f"[U+{ord(match.group()):04X}]", text)


def clipped(text: str) -> tuple[str, int]:
    """The beginning of a text, made printable, and how many characters were left out."""
    return printable(text[:SHOWN_CHARACTERS]), max(0, len(text) - SHOWN_CHARACTERS)


def _prompt_text(prompt: Any) -> str:
    """A prompt as text: messages one under another with their roles."""
    if not isinstance(prompt, list):
        return str(prompt)
    return "\n".join(_message_text(message) for message in prompt)


def _title(prompt: Any) -> str:
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    text = last.get("content") if isinstance(last, Mapping) else last
    line = " ".join(str(text)[-400:].split())
    return printable(line if len(line) <= 110 else "…" + line[-109:])


def _message_text(message: Any) -> str:
    return f"{message.get('role')}: {message.get('content')}" if isinstance(message, Mapping) else str(message)


def _value(value: Any) -> str:
    figure = number({"value": value}, "value")
    return "n/a" if figure is None else f"{figure:.3g}"


def _yaml(data: Mapping[str, Any]) -> str:
    from recipes.yaml_config import dump

    return dump(dict(data)) if data else ""
