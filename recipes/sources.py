"""Where the rows of a task come from: plain mappings from a generator, files, the Hugging Face hub, or a user's
function.

Each source is a config class with `rows(split, ...)`; what the mappings mean is for `recipes.tasks` to say.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.solutions import make_solution

Split = Literal["train", "eval"]
_ATTEMPTS = 50
"""A generator repeats itself in a small range; this many tries for each row wanted, then it counts as exhausted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """One mapping of a source."""

    values: Mapping[str, Any]
    place: str
    """Where it stands (`data.jsonl, line 3`), for errors."""
    folder: Path | None = None
    """Folder of the data file, which the paths of media are relative to; None = not from a file."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


# ---- reasoning-gym ----


class GymDataset(_Config):
    """One generator of reasoning-gym."""

    name: str
    """Its name, such as chain_sum."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its share of the rows, relative to the others."""
    config: dict[str, Any] = {}
    """Its own settings, such as {min_terms: 2, max_terms: 3}."""


class GymSource(_Config):
    """A mixture of reasoning-gym generators. A fifth of all questions is for evaluation only, chosen by a hash of the
    question: whatever the seed and the number of rows, nothing trained on is evaluated on, and both are alike."""

    kind: Literal["reasoning_gym"]
    """reasoning_gym: generated tasks with verified answers."""
    datasets: list[GymDataset] = Field(min_length=1)
    """The generators of the mixture."""

    def has_eval(self) -> bool:
        return True

    def describe(self) -> str:
        return f"reasoning_gym ({', '.join(dataset.name for dataset in self.datasets)})"

    def rows(self, split: Split, seed: int, count: int) -> Iterator[RawRow]:
        """A stream of rows mixed by weight, of about `count` rows or more; ends when the generators repeat
        themselves."""
        streams = [
            _gym_rows(dataset, split, generator_seed(split, seed, at, dataset.name), count)
            for at, dataset in enumerate(self.datasets)
        ]
        rng = random.Random(generator_seed(split, seed, "mixture"))
        weights = [dataset.weight for dataset in self.datasets]
        while streams:
            at = rng.choices(range(len(streams)), weights)[0]
            row = next(streams[at], None)
            if row is None:
                del streams[at], weights[at]
            else:
                yield row


def generator_seed(split: Split, seed: int, *what: object) -> int:
    """A generator seed below 2**31; those of the two splits lie in different halves.

    reasoning-gym makes item i from `seed + i`, so seeds must differ by more than the number of items.
    """
    digest = hashlib.sha256(repr((split, seed, *what)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**29 + (2**30 if split == "eval" else 0)


def question_split(question: str) -> Split:
    """The split that a generated question belongs to, now and in every other run."""
    digest = hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()
    return "eval" if int.from_bytes(digest[:8], "big") % 5 == 0 else "train"


def _gym_rows(dataset: GymDataset, split: Split, seed: int, count: int) -> Iterator[RawRow]:
    """Distinct rows of one generator's split; ends after `_ATTEMPTS` times as many other items as rows.

    An entry whose worked solution arrives at another answer than the dataset's is left out: one of the two is wrong
    (without parentheses, basic_arithmetic's own answers ignore the order of operations).
    """
    seen: set[str] = set()
    for index, (entry, score) in enumerate(_gym_items(dataset, seed, count)):
        if index > _ATTEMPTS * (len(seen) + 50):
            return
        if entry["answer"] is None:
            raise ValueError(f"reasoning-gym's {dataset.name} gives no reference answers: take another dataset.")
        made = make_solution(dataset.name, entry)
        if entry["question"] in seen or question_split(entry["question"]) != split:
            continue
        if made is not None and score(made.answer, entry) < 1.0:
            continue
        seen.add(entry["question"])
        values = {**entry, "dataset": dataset.name, "solution": made.steps if made else None}
        yield RawRow(values=values, place=f"{dataset.name}, item {index}")


def _gym_items(dataset: GymDataset, seed: int, count: int) -> Iterator[tuple[Mapping[str, Any], Callable[..., float]]]:
    """Items without end, each with its dataset's verifier; made `count` at a time, since some generators make all at
    once."""
    for start in range(seed, seed + 2**29, max(count, 1)):
        made = _create(dataset, start, max(count, 1))
        for index in range(max(count, 1)):
            yield made[index], made.score_answer


def _create(dataset: GymDataset, seed: int, size: int) -> Any:
    """A reasoning-gym dataset. Raises ValueError for a bad name or setting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    if dataset.name not in DATASETS:
        close = difflib.get_close_matches(dataset.name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(DATASETS))}."
        raise ValueError(f"reasoning-gym has no dataset {dataset.name!r}: {hint}")
    try:
        return reasoning_gym.create_dataset(dataset.name, seed=seed, size=size, **dataset.config)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"reasoning-gym's {dataset.name} refuses the config {dataset.config}: {error}.") from None


# ---- files ----


class FilesSource(_Config):
    """Local JSONL, JSON or Parquet files."""

    kind: Literal["files"]
    """files: local .jsonl, .json (a list) or .parquet files."""
    train: Path | list[Path]
    """File or files to train on."""
    eval: Path | list[Path] | None = None
    """File or files to evaluate on. null = task.eval_size rows of the training files are held out."""

    def has_eval(self) -> bool:
        return self.eval is not None

    def describe(self) -> str:
        return ", ".join(str(path) for path in _paths(self.train))

    def rows(self, split: Split) -> Iterator[RawRow]:
        for path in _paths(self.train if split == "train" else self.eval or []):
            yield from read_file(path)


def _paths(value: Path | list[Path]) -> list[Path]:
    return value if isinstance(value, list) else [value]


def read_file(path: Path) -> Iterator[RawRow]:
    """The rows of a data file, by its ending. Raises ValueError, naming the line, for anything that cannot be read."""
    readers = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: the ending {path.suffix!r} is not known; use {', '.join(readers)}.")
    if not path.exists():
        raise ValueError(f"{path}: there is no such file.")
    if path.is_dir():
        raise ValueError(f"{path} is a directory, and a data file is needed.")
    count = 0
    for row in readers[path.suffix](path):
        count += 1
        yield replace(row, folder=path.parent)
    if not count:
        raise ValueError(f"{path} holds no rows.")


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _object(_json(line, f"{path}, line {number}"), f"{path}, line {number}")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start} of a block): save it as UTF-8.") from None


def _read_json(path: Path) -> Iterator[RawRow]:
    try:
        data = _json(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None
    if not isinstance(data, list):
        raise ValueError(
            f"{path} holds a {type(data).__name__}, and must hold a list of objects (or be a .jsonl file)."
        )
    for index, item in enumerate(data):
        yield _object(item, f"{path}, item {index}")


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: malformed JSON ({error.msg}, column {error.colno}).") from None
    except RecursionError:
        raise ValueError(f"{place}: malformed JSON (nested too deeply).") from None
    except ValueError as error:  # an integer of thousands of digits
        raise ValueError(f"{place}: malformed JSON ({error}).") from None


def _object(item: Any, place: str) -> RawRow:
    if not isinstance(item, dict):
        raise ValueError(f"{place}: a row must be an object, and this is a {type(item).__name__}.")
    return RawRow(values=item, place=place)


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for values in batch.to_pylist():
                yield RawRow(values=values, place=f"{path}, row {index}")
                index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from None


# ---- the hub ----


class HubSource(_Config):
    """A dataset of the Hugging Face hub, or a local folder of its layout; never one that needs remote code."""

    kind: Literal["hub"]
    """hub: datasets.load_dataset."""
    name: str
    """Name of the dataset, such as openai/gsm8k, or a local folder."""
    config: str | None = None
    """Its configuration, such as main. null = the default one."""
    revision: str | None = None
    """Branch, tag or commit. null = the newest; name a commit for runs to be repeated."""
    split: str = "train"
    """The split to train on; slices such as train[:1000] are possible."""
    eval_split: str | None = None
    """The split to evaluate on. null = task.eval_size rows of the training split are held out."""

    def has_eval(self) -> bool:
        return self.eval_split is not None

    def describe(self) -> str:
        return f"{self.name} ({self.split})"

    def rows(self, split: Split) -> Iterator[RawRow]:
        import datasets

        name = self.split if split == "train" else self.eval_split
        try:
            data = datasets.load_dataset(self.name, self.config, split=name, revision=self.revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            problem = " ".join(str(error).split())
            raise ValueError(f"the dataset {self.name!r} (split {name!r}) cannot be loaded: {problem}") from error
        for index, values in enumerate(data):
            yield RawRow(values=values, place=f"{self.name} {name}, row {index}")


# ---- a user's function ----

RowsFunction = Callable[..., Iterable[Mapping[str, Any]]]
_tasks: dict[str, RowsFunction] = {}


def task(name: str) -> Callable[[RowsFunction], RowsFunction]:
    """Registers a function that gives the rows of a task: `function(split, **args)` yields mappings.

    Example:
        @task("squares")
        def squares(split: str, limit: int = 100):
            for number in range(1 if split == "train" else 2, limit, 2):
                yield {"prompt": f"What is {number} squared?", "reference": str(number**2)}
    """

    def register(function: RowsFunction) -> RowsFunction:
        if name in _tasks:
            raise ValueError(f"a task {name!r} is registered already: give this one another name.")
        _tasks[name] = function
        return function

    return register


class FunctionSource(_Config):
    """Rows from Python: a registered task, or a function in the user's own file."""

    kind: Literal["function"]
    """function: rows from a Python function."""
    function: str
    """Registered name, or path/to/file.py:function (relative to the working directory), or package.module:function."""
    args: dict[str, Any] = {}
    """Passed to it, after the split (`train` or `eval`)."""
    gives_eval: bool = True
    """Whether it gives rows for the split `eval`; if not, task.eval_size training rows are held out."""

    def has_eval(self) -> bool:
        return self.gives_eval

    def describe(self) -> str:
        return self.function

    def rows(self, split: Split) -> Iterator[RawRow]:
        function = find_task(self.function)
        try:
            rows = iter(function(split, **self.args))
        except TypeError as error:
            raise ValueError(
                f"{self.function} cannot be called with the split and args {self.args}: {error}."
            ) from error
        for index, values in enumerate(rows):
            if not isinstance(values, Mapping):
                raise ValueError(
                    f"{self.function} gave a {type(values).__name__} as row {index}, and must give mappings."
                )
            yield RawRow(values=values, place=f"{self.function} {split}, row {index}")


def find_task(name: str) -> RowsFunction:
    """A task's function by registered name, file or module. Raises ValueError with the nearest name."""
    if name in _tasks:
        return _tasks[name]
    place, _, attribute = name.rpartition(":")
    if not place:
        close = difflib.get_close_matches(name, _tasks, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "name one as path/to/file.py:function."
        raise ValueError(f"no task {name!r} is registered: {hint}")
    module = _file_module(Path(place)) if place.endswith(".py") else _module(place)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{place} has no function {attribute!r}: check the name after the colon.")
    return function


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the user's module exists; something that it imports does not
        raise ValueError(f"there is no module {name!r}: name a file as path/to/file.py:function.") from None


def _file_module(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(f"tandem_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:  # it would end the run, with status 0
        raise ValueError(f"{path} ends the program when it is imported (exit {error.code}): remove that.") from error
    return module
