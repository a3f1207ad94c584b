"""Checks a dataset before it is trained on: duplicates, overlap with the evaluation rows, references that are missing,
contradictory or refused by their own verifier, prompts that are too long, images and videos that are missing or of no
use, and prompts that earlier runs always or never solved. Writes the clean rows, the dropped ones with their reasons,
and a summary.

    python -m recipes.check_data my_run_data.yaml --out data/checked

The rows are those of `task.source` as they are (task.size applies to reasoning_gym alone); clean.jsonl has their
columns unchanged, so the same `task` reads it with `source: {kind: files, train: data/checked/clean.jsonl}` (where the
source was reasoning_gym, with `prompt: question` and `reference: answer` too).

Label cleaning and deduplication of the data as in arXiv 2509.18154, s2.4.2.
"""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from recipes.data_findings import REASONS, Entry, Reason
from recipes.models import ModelConfig
from recipes.reward_keys import reward_columns
from recipes.samples.media import MediaSettings
from recipes.tasks import TaskConfig
from rewards.spec import RewardSpec
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from recipes.console import StepBar
    from recipes.data_findings import EvaluationPrompts
    from recipes.solve_rates import SolveRates
    from recipes.sources import RawRow
    from recipes.tasks import Row
    from rewards import RewardSet

FILES = ("clean.jsonl", "dropped.jsonl", "reported.jsonl", "summary.json")
_CHUNK = 256
"""Rows whose references are verified together."""


class CheckDataConfig(BaseModel):
    """What is checked, and what a finding leads to."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    task: TaskConfig
    """The rows."""
    out: Path
    """Folder for clean.jsonl, dropped.jsonl, reported.jsonl and summary.json."""
    rewards: list[RewardSpec] = []
    """Rewards whose verifiers must give each row's own reference full marks; [] = references are not verified."""
    identity_columns: list[str] = ["image", "images", "video", "videos", "choices", "options"]
    """Columns that tell rows with the same prompt apart, where the data has them."""
    media: MediaSettings | None = MediaSettings()
    """Limits that images and videos (task.images, task.videos) must keep; each is opened. null = they are only looked
    for."""
    near_threshold: float | None = Field(0.85, ge=0.7, le=1)
    """Share of common three-word runs from which on two prompts with the same numbers are near duplicates; null = near
    duplicates are not looked for."""
    model: ModelConfig | None = None
    """Model whose tokenizer counts prompt tokens; null = lengths are not checked."""
    modes: ModesConfig = ModesConfig()
    """Modes in which prompts are counted: their instructions and prefills."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longest prompt in tokens, with chat template and prefill."""
    rollouts: list[Path] = []
    """Run directories (or their rollouts.jsonl) that say which prompts were always or never solved."""
    metric: str = "accuracy"
    """Reward there whose value of at least 0.5 counts as solved."""
    min_rollouts: int = Field(8, ge=1)
    """Responses that a prompt needs in a mode before its rate there counts."""
    always_from: float = Field(1.0, gt=0, le=1)
    """Always solved: at least this share of the responses, in every mode that counts."""
    never_to: float = Field(0.0, ge=0, lt=1)
    """Never solved: at most this share of the responses, in every mode that counts."""
    drop: list[Reason] = [
        "unreadable", "bad_media", "no_reference", "bad_reference", "conflicting_references", "too_long", "in_eval",
        "duplicate",
    ]  # fmt: skip
    """Reasons that drop a row; the others are only reported."""
    overwrite: bool = False
    """Replace the result of an earlier check in the folder."""


def main(config: CheckDataConfig, base_dir: Path | None = None) -> None:
    """Read, compare, write, and print the table."""
    check_output(config.out, config.overwrite)
    import rewards
    from recipes.console import StepBar, say
    from rl.files import atomic_directory, atomic_write_json

    columns = reward_columns(config.task)
    with rewards.build(config.rewards, columns, base_dir) if config.rewards else nullcontext() as reward_set:
        checker = _Checker(config, reward_set)
        with StepBar("check", 1) as bar, atomic_directory(config.out) as folder:
            checker.read_evaluation(bar)
            with (folder / "rows.spool").open("w+", encoding="utf-8") as spool:
                entries = checker.read(spool, bar)
                checker.compare(entries)
                spool.seek(0)
                _write(folder, spool, entries, config.drop)
            (folder / "rows.spool").unlink()
            summary = checker.summary(entries)
            atomic_write_json(folder / "summary.json", summary)
    _show(summary)
    say(f"{summary['kept']} of {summary['rows']} rows kept. Written to {config.out}: {', '.join(FILES)}")
    if checker.has_media and config.task.media_folder is None:
        say("Paths of media are relative to the original files: set task.media_folder to their folder for clean.jsonl.")
    if summary["left_out_columns"]:
        say(
            f"JSON lines cannot hold {', '.join(summary['left_out_columns'])}: left out of clean.jsonl. To keep them, "
            "filter the original data by the places in dropped.jsonl."
        )


def check_output(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier check that is to be replaced. Raises ValueError."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out {out} is a file, and a folder is needed: choose another name.")
    found = {entry.name for entry in out.iterdir()}
    if found - set(FILES):
        raise ValueError(
            f"--out {out} holds other files ({min(found - set(FILES))}) and is left alone: choose another folder."
        )
    if found and not overwrite:
        raise ValueError(f"--out {out} holds an earlier check: choose another folder, or replace it with --overwrite.")


class _Checker:
    """The checks that a config asks for."""

    def __init__(self, config: CheckDataConfig, rewards: RewardSet | None) -> None:
        """Raises ValueError for checks that cannot be made."""
        from recipes.data_findings import EvaluationPrompts
        from recipes.tasks import row_reader

        self.config = config
        self.rewards = rewards
        self.has_reference = config.task.reference is not None or config.task.source.kind == "reasoning_gym"
        if rewards is not None and rewards.is_verifier and not self.has_reference:
            raise ValueError(
                "task.reference is null, and the rewards compare with one: name its column, or no rewards."
            )
        self.has_media = bool(config.task.images or config.task.videos)
        self.rates = self._rates()
        self.prompt_tokens = self._prompt_tokens()
        self.evaluation: EvaluationPrompts = EvaluationPrompts(config.near_threshold)
        self.evaluation_unreadable = 0
        self.left_out: dict[str, None] = {}
        self._row = row_reader(config.task)

    def _rates(self) -> SolveRates | None:
        from recipes.solve_rates import read_solve_rates

        return read_solve_rates(self.config.rollouts, self.config.metric) if self.config.rollouts else None

    def _prompt_tokens(self) -> Any:
        if self.config.model is None:
            return None
        from transformers import AutoProcessor, AutoTokenizer

        from recipes.data_findings import longest_media_prompt, longest_prompt
        from recipes.models import resolve_model

        path, modes = resolve_model(self.config.model), self.config.modes.active()
        if self.has_media:
            import base_model.vlm  # noqa: F401 (makes AutoProcessor know the layout)

            return longest_media_prompt(AutoProcessor.from_pretrained(path), modes)
        return longest_prompt(AutoTokenizer.from_pretrained(path), modes)

    def read_evaluation(self, bar: StepBar) -> None:
        """Remember the prompts of the evaluation split, where the source has one."""
        from recipes.tasks import raw_rows

        for count, raw in enumerate(raw_rows(self.config.task, "eval"), start=1):
            entry, _ = self._entry(raw)
            if entry.key:
                self.evaluation.add(entry)
            else:
                self.evaluation_unreadable += 1
            bar.note(1, 1, f"evaluation rows: {count}")

    def read(self, spool: TextIO, bar: StepBar) -> list[Entry]:
        """Check each training row by itself and keep its values in `spool`, one line each.

        Raises:
            ValueError: the source has no rows, or not one that has a prompt.
        """
        from recipes.data_findings import check_references
        from recipes.tasks import raw_rows

        entries: list[Entry] = []
        for chunk in _chunks(raw_rows(self.config.task, "train")):
            pairs = [self._entry(raw) for raw in chunk]
            for raw, (entry, row) in zip(chunk, pairs, strict=True):
                spool.write(self._line(raw.values))
                if row is not None:
                    self._check_row(entry, row)
            if self.rewards is not None and self.rewards.is_verifier:
                check_references([entry for entry, _ in pairs], [row for _, row in pairs], self.rewards)
            entries += [entry for entry, _ in pairs]
            bar.note(1, 1, f"rows: {len(entries)}")
            bar.line(f"{len(entries)} rows read", every_s=10.0)
        if not entries:
            raise ValueError(f"{self.config.task.source.describe()} has no rows: check that the data is the right one.")
        if not any(entry.key for entry in entries):
            raise ValueError(f"no row has a prompt; the first one: {entries[0].reasons['unreadable']}")
        _refuse_all_bad(entries)
        return entries

    def _entry(self, raw: RawRow) -> tuple[Entry, Row | None]:
        from recipes.data_findings import make_entry

        try:
            row = self._row(raw)
        except ValueError as error:
            return Entry(place=raw.place, reasons={"unreadable": str(error)}), None
        columns, near = self.config.identity_columns, self.config.near_threshold is not None
        return make_entry(row, raw.values, raw.place, columns, near=near), row

    def _check_row(self, entry: Entry, row: Row) -> None:
        from recipes.data_findings import is_blank, mark_solved, media_problem
        from rl.prompts import prompt_text

        config = self.config
        problem = media_problem(row, config.media) if config.media else None
        if problem:
            entry.reasons["bad_media"] = problem
        if self.has_reference and is_blank(row.reference):
            entry.reasons["no_reference"] = f"nothing in {config.task.reference or 'answer'!r}"
        if self.prompt_tokens is not None and not problem:
            tokens = self.prompt_tokens(row)
            if tokens > config.max_prompt_tokens:
                entry.reasons["too_long"] = f"{tokens} tokens"
        if self.rates is not None:
            counts = self.rates.of(prompt_text(row))
            limits = {"always_from": config.always_from, "never_to": config.never_to}
            mark_solved(entry, counts, min_rollouts=config.min_rollouts, **limits)
        self.evaluation.mark(entry)

    def compare(self, entries: Sequence[Entry]) -> None:
        """Find what rows have to do with one another."""
        from recipes.data_findings import mark_groups, mark_near

        mark_groups(entries, self.config.drop)
        if self.config.near_threshold is not None:
            mark_near(entries, self.config.near_threshold, self.config.drop)

    def _line(self, values: Mapping[str, Any]) -> str:
        """A row as a JSON line; columns that JSON cannot hold are left out and remembered."""
        try:
            return _dumps(values)
        except (TypeError, ValueError):
            kept = {}
            for name, value in values.items():
                try:
                    _dumps(value)
                    kept[name] = value
                except (TypeError, ValueError):
                    self.left_out[str(name)] = None
            return _dumps(kept)

    def summary(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """What was found, as summary.json has it."""
        drop = set(self.config.drop)
        dropped = sum(entry.is_dropped(drop) for entry in entries)
        return {
            "rows": len(entries),
            "kept": len(entries) - dropped,
            "dropped": dropped,
            "eval_prompts": len(self.evaluation),
            "eval_unreadable": self.evaluation_unreadable,
            "reasons": {reason: self._figures(reason, entries) for reason in REASONS},
            "rollouts": None
            if self.rates is None
            else {
                "responses": self.rates.responses,
                "prompts": len(self.rates.counts),
                "spoilt_lines": self.rates.spoilt_lines,
            },
            "left_out_columns": list(self.left_out),
            "config": self.config.model_dump(mode="json"),
        }

    def _figures(self, reason: Reason, entries: Sequence[Entry]) -> dict[str, Any]:
        found = [entry for entry in entries if reason in entry.reasons]
        return {
            "checked": self._is_checked(reason),
            "rows": len(found),
            "drops": reason in self.config.drop,
            "first": f"{found[0].place}: {found[0].reasons[reason]}" if found else None,
        }

    def _is_checked(self, reason: Reason) -> bool:
        near = self.config.near_threshold is not None
        return {
            "bad_media": self.has_media and self.config.media is not None,
            "no_reference": self.has_reference,
            "conflicting_references": self.has_reference,
            "bad_reference": self.rewards is not None and self.rewards.is_verifier,
            "too_long": self.prompt_tokens is not None,
            "in_eval": len(self.evaluation) > 0,
            "near_eval": near and len(self.evaluation) > 0,
            "near_duplicate": near,
            "always_solved": self.rates is not None,
            "never_solved": self.rates is not None,
        }.get(reason, True)


def _refuse_all_bad(entries: Sequence[Entry]) -> None:
    """When no reference at all passes, the fault lies with the task's mapping or the verifier. Raises ValueError."""
    known = [entry for entry in entries if entry.key and "no_reference" not in entry.reasons]
    details = [entry.reasons["bad_reference"] for entry in known if "bad_reference" in entry.reasons]
    if details and len(details) == len(known):
        raise ValueError(
            f"none of the {len(known)} references passes its own verifier (the first: {known[0].place}: {details[0]}): "
            "check task.reference and task.reference_pattern, or choose another verifier."
        )


def _chunks(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _dumps(value: Any) -> str:
    """One line of JSON; text with halves of surrogate pairs, which no file encoding takes, in escapes."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, default=_plain)
    return text + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time, decimal.Decimal)):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def _write(folder: Path, spool: Iterable[str], entries: Sequence[Entry], drop: Sequence[Reason]) -> None:
    """Divide the rows among the files."""
    with (
        (folder / "clean.jsonl").open("w", encoding="utf-8") as clean,
        (folder / "dropped.jsonl").open("w", encoding="utf-8") as dropped,
        (folder / "reported.jsonl").open("w", encoding="utf-8") as reported,
    ):
        for index, (line, entry) in enumerate(zip(spool, entries, strict=True)):
            if not entry.is_dropped(drop):
                clean.write(line)
            if entry.reasons:
                target = dropped if entry.is_dropped(drop) else reported
                reasons = [{"reason": reason, "detail": detail} for reason, detail in entry.reasons.items()]
                record = {"row": index, "place": entry.place, "reasons": reasons, "values": json.loads(line)}
                target.write(_dumps(record))


def _show(summary: Mapping[str, Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recipes.report import printable

    table = Table(header_style="bold", title=f"{summary['rows']} rows, {summary['eval_prompts']} evaluation prompts")
    for header in ("finding", "rows", "then", "the first one"):
        table.add_column(header, justify="right" if header == "rows" else "left", overflow="fold")
    for reason, figures in summary["reasons"].items():
        rows = str(figures["rows"]) if figures["checked"] else "-"
        then = ("dropped" if figures["drops"] else "reported") if figures["checked"] else "not checked"
        first = printable(" ".join((figures["first"] or "").split()))
        table.add_row(reason.replace("_", " "), rows, then, Text(first if len(first) <= 160 else first[:157] + "..."))
    # A pipe has no width of its own, and 80 columns would fold every cell.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, CheckDataConfig, doc=__doc__))
