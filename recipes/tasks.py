"""A task: rows to train and to evaluate on, from a generator, from files, from the Hugging Face hub or from a user's
function.

    task:
      source: {kind: files, train: data/train.jsonl}
      prompt: "{question}\\nAnswer with a number."
      reference: answer

Every source gives plain mappings; the YAML maps them to a prompt, a reference and (for a warm-up) a worked solution.
What is trained on is never evaluated on: evaluation rows whose prompt occurs among the training rows are left out.

Nothing here runs code that came with data: no remote code, no pickle, no attribute of anything in a template.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recipes.render.source import RenderSource
from recipes.row_media import MARKERS, media_handle, media_key, media_list, placed
from recipes.sources import FilesSource, FunctionSource, GymSource, HubSource, RawRow, Split

Source = Annotated[GymSource | FilesSource | HubSource | FunctionSource | RenderSource, Field(discriminator="kind")]
GENERATED = (GymSource, RenderSource)
"""Sources that make as many rows as are asked for."""


class TaskConfig(BaseModel):
    """Where the rows come from, and how they become prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    source: Source
    """Where the rows come from: `kind` is reasoning_gym, files, hub, function or render."""
    prompt: str | None = None
    """Column of the prompt (text, or a list of {role, content} messages), or a template such as "{question} Think."
    in which column names stand in braces, or, with `<image>` or `<video>` in it, a text that is the same for all rows.
    null = `question` for reasoning_gym, `prompt` otherwise."""
    reference: str | None = None
    """Column of the right answer, or a template. null = `answer` for reasoning_gym, `reference` for render, none
    otherwise (rewards that need a reference then refuse)."""
    reference_pattern: str | None = None
    """Regular expression with one group, searched in the reference; the group is kept ("#### (.+)" for GSM8K)."""
    solution: str | None = None
    """Column of the worked solution (the reasoning that leads to the reference), or a template; used by the warm-up.
    null = the built-in worked solutions for reasoning_gym and render, none otherwise."""
    solution_pattern: str | None = None
    """Regular expression with one group, searched in the solution; the group is kept."""
    images: str | list[str] = []
    """Columns of images: a path or a list of paths relative to `media_folder`, which they may not leave. `<image>` in
    a text prompt, or parts of type image in messages, say where they stand; where nothing does, they stand first."""
    videos: str | list[str] = []
    """Columns of videos, likewise; marked by `<video>`."""
    media_folder: Path | None = None
    """Folder that the paths of media are relative to. null = the folder of the data file."""
    media_outside: bool = False
    """Whether media may lie outside that folder. Only for data that is trusted: a row may then name any file."""
    columns: list[str] = []
    """Further columns kept for the rewards, which get them by name."""
    system: str | None = None
    """System prompt of every row. null = none."""
    size: int = Field(default=0, ge=0)
    """Training rows (distinct prompts). 0 = all there are; reasoning_gym and render need a number."""
    eval_size: int = Field(default=200, ge=0)
    """Evaluation rows (distinct prompts). 0 = all rows of the evaluation file or split, where the source has one; none
    otherwise."""
    seed: int = 0
    """Seed of generated rows and of the choice of held-out rows."""

    @field_validator("reference_pattern", "solution_pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression ({error})") from None
        if groups != 1:
            raise ValueError(f"{pattern!r} has {groups} groups, and must have one: the part to keep")
        return pattern


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One prompt of a task, with what is known about its answer."""

    index: int
    """Position among the rows of its split."""
    messages: tuple[Mapping[str, Any], ...]
    """The conversation so far: mappings with `role` and `content`."""
    reference: Any = None
    """The right answer, or None."""
    solution: str | None = None
    """The reasoning that leads to the reference, without markup, or None."""
    columns: Mapping[str, Any]
    """Further columns, for the rewards."""
    images: tuple[Any, ...] = ()
    """Images in the order of the messages' image parts: paths, file contents or PIL images."""
    videos: tuple[Any, ...] = ()
    """Videos in the order of the messages' video parts: paths, file contents, or frames with their times."""


def load_rows(config: TaskConfig, split: Split = "train") -> list[Row]:
    """The rows of a split; the same for the same config.

    Raises:
        ValueError: one sentence: a file is missing or malformed, a column is missing, rows have no reference, or a
            split is
            empty.
    """
    train, evaluation = _load_both(config)
    rows = train if split == "train" else evaluation
    if not rows:
        raise ValueError(_empty(config, split))
    return rows


def rows_with_solution(rows: Sequence[Row]) -> list[Row]:
    """The rows that a warm-up can learn from. Raises ValueError when there is none."""
    found = [row for row in rows if row.solution]
    if not found:
        from recipes.solutions import solvable

        raise ValueError(
            "no row has a worked solution, and the warm-up learns from those: set `solution` to the column that "
            "holds it, "
            f"or take a reasoning-gym dataset with built-in solutions ({', '.join(solvable())})."
        )
    return found


def raw_rows(config: TaskConfig, split: Split = "train") -> Iterator[RawRow]:
    """What the source itself gives for a split, one row after the other: nothing is left out and nothing held out.

    No rows for an evaluation split that the source does not have. Raises ValueError as `load_rows`.
    """
    source = config.source
    if isinstance(source, GENERATED):
        count = config.size if split == "train" else config.eval_size
        if not config.size:
            raise ValueError(_no_size(source))
        yield from islice(source.rows(split, config.seed, count), count)
    elif split == "train" or source.has_eval():
        yield from source.rows(split)


def row_reader(config: TaskConfig) -> Callable[[RawRow], Row]:
    """The function that makes a `Row` (of index -1) of a raw one; it raises ValueError for a row that has no prompt."""
    return _Mapping.of(config).row


# ---- from raw rows to rows ----


def _no_size(source: GymSource | RenderSource) -> str:
    return f"task.size is 0, and {source.kind} makes as many rows as asked for: set a number of training rows."


def _load_both(config: TaskConfig) -> tuple[list[Row], list[Row]]:
    """Both splits, since what is held out depends on what is trained on."""
    source = config.source
    if isinstance(source, GENERATED):
        if not config.size:
            raise ValueError(_no_size(source))
        train = _distinct(config, source.rows("train", config.seed, config.size), set(), config.size)
        rows = source.rows("eval", config.seed, config.eval_size) if config.eval_size else []
        evaluation = _distinct(config, rows, _prompts(train), config.eval_size)
        _refuse_scarce(config, len(train), len(evaluation))
    elif source.has_eval():
        train = _distinct(config, source.rows("train"), set(), config.size)
        evaluation = _distinct(config, source.rows("eval"), _prompts(train), config.eval_size)
    else:
        train, evaluation = _hold_out(config, _distinct(config, source.rows("train"), set(), 0))
    return _numbered(train), _numbered(evaluation)


def _distinct(config: TaskConfig, raw_rows: Iterable[RawRow], taken: set[str], size: int) -> list[Row]:
    """The first `size` rows (0 = all) with prompts that differ from one another and from those taken."""
    seen, rows, without = set(taken), [], []
    mapping = _Mapping.of(config)
    for raw in raw_rows:
        row = mapping.row(raw)
        if mapping.reference and _is_blank(row.reference):
            without.append(raw.place)
            continue
        key = prompt_key(row)
        if key not in seen:
            seen.add(key)
            rows.append(row)
        if size and len(rows) == size:
            break
    if without:
        raise ValueError(
            f"{len(without)} rows have no reference in {mapping.reference!r} (the first: {without[0]}): give them "
            f"one, or leave "
            "them out of the data."
        )
    return rows


def _refuse_scarce(config: TaskConfig, train: int, evaluation: int) -> None:
    for key, wanted, found in (("size", config.size, train), ("eval_size", config.eval_size, evaluation)):
        if found < wanted:
            raise ValueError(
                f"{config.source.kind} gives only {found} distinct prompts where task.{key} asks for {wanted}: lower "
                "it, or widen the datasets' ranges (more digits, terms or words; more kinds)."
            )


def _hold_out(config: TaskConfig, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Takes `eval_size` rows out for evaluation, by a hash of seed and prompt: adding rows elsewhere moves few
    others."""

    def rank(row: Row) -> bytes:
        return hashlib.sha256(f"{config.seed}\0{prompt_key(row)}".encode("utf-8", "surrogatepass")).digest()

    if config.eval_size and config.eval_size >= len(rows) > 0:
        raise ValueError(
            f"task.eval_size is {config.eval_size}, and the data has {len(rows)} distinct prompts, so none would "
            f"be left to train "
            "on: lower it, or name a file (or split) of its own for evaluation."
        )
    held_out = {prompt_key(row) for row in sorted(rows, key=rank)[: config.eval_size]}
    train = [row for row in rows if prompt_key(row) not in held_out]
    return train[: config.size or None], [row for row in rows if prompt_key(row) in held_out]


def prompt_key(row: Row) -> str:
    """What makes two prompts the same: roles, contents and media."""
    texts = [f"{message['role']}\0{message['content']}" for message in row.messages]
    return "\0".join([*texts, *map(media_key, (*row.images, *row.videos))])


def _prompts(rows: Iterable[Row]) -> set[str]:
    return {prompt_key(row) for row in rows}


def _numbered(rows: Sequence[Row]) -> list[Row]:
    return [dataclasses.replace(row, index=index) for index, row in enumerate(rows)]


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _empty(config: TaskConfig, split: Split) -> str:
    if split == "train":
        return f"{config.source.describe()} has no rows: check that the data is the right one."
    if not config.eval_size and (isinstance(config.source, GENERATED) or not config.source.has_eval()):
        return "there are no evaluation rows: set task.eval_size, or name a file (or split) of its own for evaluation."
    return f"{config.source.describe()} has no evaluation rows that are not trained on: check the evaluation data."


_DEFAULTS: dict[str, tuple[str, str | None, str | None]] = {
    "reasoning_gym": ("question", "answer", "solution"),
    "render": ("prompt", "reference", "solution"),
}
"""Columns of prompt, reference and worked solution of the generators."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mapping:
    """Names or templates of columns, with the defaults of the source filled in."""

    prompt: str
    reference: str | None
    reference_pattern: str | None
    solution: str | None
    solution_pattern: str | None
    images: tuple[str, ...]
    videos: tuple[str, ...]
    media_folder: Path | None
    media_outside: bool
    columns: tuple[str, ...]
    system: str | None
    is_rendered: bool

    @classmethod
    def of(cls, config: TaskConfig) -> _Mapping:
        prompt, reference, solution = _DEFAULTS.get(config.source.kind, ("prompt", None, None))
        return cls(
            prompt=config.prompt or prompt,
            reference=config.reference or reference,
            reference_pattern=config.reference_pattern,
            solution=config.solution or solution,
            solution_pattern=config.solution_pattern,
            images=_names(config.images),
            videos=_names(config.videos),
            media_folder=config.media_folder,
            media_outside=config.media_outside,
            columns=tuple(config.columns),
            system=config.system,
            is_rendered=isinstance(config.source, RenderSource),
        )

    def row(self, raw: RawRow) -> Row:
        """Raises ValueError for a missing column, a prompt that is neither text nor messages, or media that are not
        there or do not fit the prompt."""
        reference = _value(self.reference, raw) if self.reference else None
        solution = _value(self.solution, raw) if self.solution else None
        messages = self._messages(raw)
        if self.is_rendered:  # parts and media fit, and the media are open
            images, videos = tuple(raw.values["images"]), tuple(raw.values["videos"])
        else:
            images, videos = self._media(self.images, raw), self._media(self.videos, raw)
            messages = _placed(messages, images, videos, raw.place) if self.images or self.videos else messages
        return Row(
            index=-1,
            messages=messages,
            images=images,
            videos=videos,
            reference=_searched(self.reference_pattern, reference),
            solution=None if solution is None else str(_searched(self.solution_pattern, solution)),
            columns={name: _value(name, raw) for name in self.columns},
        )

    def _media(self, columns: Sequence[str], raw: RawRow) -> tuple[Any, ...]:
        """The media of some columns, files found. Raises ValueError."""
        handles = [handle for column in columns for handle in media_list(_value(column, raw))]
        folder = self.media_folder or raw.folder
        try:
            return tuple(media_handle(handle, folder, outside=self.media_outside) for handle in handles)
        except ValueError as error:
            raise ValueError(f"{raw.place}: {error}.") from None

    def _messages(self, raw: RawRow) -> tuple[Mapping[str, Any], ...]:
        is_text = "{" not in self.prompt and any(marker in self.prompt for marker in MARKERS.values())
        value: Any = self.prompt if is_text else _value(self.prompt, raw)
        if isinstance(value, str) and value.strip():
            messages: tuple[Mapping[str, Any], ...] = ({"role": "user", "content": value},)
        elif _is_conversation(value):
            messages = tuple({"role": item["role"], "content": item["content"]} for item in value)
        else:
            raise ValueError(
                f"{raw.place}: the prompt {self.prompt!r} is {_short(value)}, and must be text that is not blank, "
                f"or a list of "
                "messages with role and content, the last one by the user."
            )
        return ({"role": "system", "content": self.system}, *messages) if self.system else messages


def _names(columns: str | list[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _placed(
    messages: Sequence[Mapping[str, Any]], images: Sequence[Any], videos: Sequence[Any], place: str
) -> tuple[Mapping[str, Any], ...]:
    try:
        return placed(messages, len(images), len(videos))
    except ValueError as error:
        raise ValueError(f"{place}: {error}.") from None


def _is_conversation(value: Any) -> bool:
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    good = all(isinstance(item, Mapping) and {"role", "content"} <= set(item) for item in items)
    return bool(items) and good and items[-1]["role"] == "user"


def _value(column: str, raw: RawRow) -> Any:
    """A column's value, or a template filled in. Raises ValueError naming the columns there are."""
    if column in raw.values:
        return raw.values[column]
    if "{" in column:
        return render_template(column, raw.values, raw.place)
    raise ValueError(f"{raw.place} has no column {column!r}; it has {_listed(raw.values)}.")


def render_template(template: str, values: Mapping[str, Any], place: str = "the row") -> str:
    """Fills `{column}` in; `{{` and `}}` are braces. Nothing but a column's own text can be reached.

    Example:
        render_template("{q}\\nBox it: \\\\boxed{{}}", {"q": "2 + 2?"}) == "2 + 2?\\nBox it: \\\\boxed{}"
    """
    parts: list[str] = []
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template {template!r} is malformed ({error}): write {{{{ and }}}} for braces.") from None
    for text, name, spec, conversion in pieces:
        parts.append(text)
        if name is None:
            continue
        if spec or conversion:
            raise ValueError(
                f"the template {template!r} formats {{{name}}}: only plain column names stand in its braces."
            )
        if name not in values:
            raise ValueError(
                f"the template {template!r} names {{{name}}}, and {place} has no such column; it has "
                f"{_listed(values)}. For "
                "braces, write {{ and }}."
            )
        parts.append("" if values[name] is None else str(values[name]))
    return "".join(parts)


def _searched(pattern: str | None, value: Any) -> Any:
    """The group of a pattern in a text, or None when it is not found; the value itself without a pattern."""
    if pattern is None or value is None:
        return value
    found = re.search(pattern, str(value))
    return found.group(1).strip() if found and found.group(1) is not None else None


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(map(str, values)) or "none"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- the order of training ----


class EpochOrder:
    """Which row comes at which position of an endless run through the data.

    The order within an epoch is a function of (seed, epoch) alone, so an integer position is all the state there is,
    and a resumed run goes on exactly where it stopped.

    Example:
        order = EpochOrder(n_rows=3, seed=0)
        sorted(order.row(position) for position in range(3)) == [0, 1, 2]
    """

    def __init__(self, n_rows: int, seed: int) -> None:
        """Raises ValueError for no rows."""
        if n_rows < 1:
            raise ValueError(f"an order over {n_rows} rows is not possible: the dataset is empty.")
        self.n_rows = n_rows
        self.seed = seed
        self._epoch = -1
        self._permutation: list[int] = []

    def row(self, position: int) -> int:
        """The row's index at a position >= 0."""
        assert position >= 0, position
        epoch, offset = divmod(position, self.n_rows)
        if epoch != self._epoch:
            self._permutation = self._shuffled(epoch)
            self._epoch = epoch
        return self._permutation[offset]

    def rows(self, position: int, count: int) -> list[int]:
        """The indices of `count` rows from a position on; runs over the end of an epoch into the next."""
        return [self.row(at) for at in range(position, position + count)]

    def _shuffled(self, epoch: int) -> list[int]:
        digest = hashlib.sha256(f"epoch order {self.seed} {epoch}".encode()).digest()
        indices = list(range(self.n_rows))
        random.Random(int.from_bytes(digest[:8], "big")).shuffle(indices)
        return indices


__all__ = [
    "EpochOrder",
    "FilesSource",
    "FunctionSource",
    "GymSource",
    "HubSource",
    "Row",
    "TaskConfig",
    "load_rows",
    "prompt_key",
    "raw_rows",
    "render_template",
    "row_reader",
    "rows_with_solution",
]
