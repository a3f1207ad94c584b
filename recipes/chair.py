"""Counts objects in responses that their images do not show (CHAIR), with coverage and lengths beside it.

    {"image": "a.jpg", "objects": ["cat", "table"], "response": "A kitten sits on a chair."}
    {"image": "b.jpg", "objects": [], "responses": ["A street.", "A car in a street."]}

Objects of rows are looked for in responses by name and by synonyms; the objects of all rows together, with the
synonyms' own names, are those that a response can mention.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from recipes.cli import run_recipe
from recipes.sources import RawRow, read_file


class ChairConfig(BaseModel):
    """Whose responses, against which labels."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    responses: list[Path]
    """Files of rows with `objects`, and `response` or `responses`."""
    synonyms: Path | None = None
    """JSON file: name of an object -> list of other words for it."""
    tokenizer: str | None = None
    """Folder of a tokenizer that lengths are counted with; null = words."""
    out: Path | None = None
    """JSON file for the figures; null = printed only."""


def main(config: ChairConfig) -> None:
    """Count, print, write."""
    from recipes.console import say
    from recipes.hallucination import as_record, figure_lines, hallucination
    from rl.files import atomic_write_json

    rows = [row for path in config.responses for row in read_file(path)]
    found = hallucination(checked_rows(rows, _synonyms(config.synonyms), config.tokenizer))
    for line in figure_lines(found):
        say(line)
    if config.out:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_json(config.out, as_record(found))
        say(f"written to {config.out}")


def checked_rows(rows: Sequence[RawRow], synonyms: dict[str, list[str]], tokenizer: str | None = None) -> list[Any]:
    """The responses of rows, each checked against its row's objects.

    Raises:
        ValueError: a row without objects or responses; the row is named.
    """
    from recipes.hallucination import CheckedResponse
    from recipes.object_words import ObjectWords
    from rl.claim_splitter import split_claims

    labels = [_texts(row, "objects") for row in rows]
    known = {word.lower() for name, others in synonyms.items() for word in (name, *others)}
    names = {name.lower() for label in labels for name in label} - known
    words = ObjectWords({**synonyms, **{name: [] for name in sorted(names)}})
    length = _length(tokenizer)
    checked = []
    for number, (row, objects) in enumerate(zip(rows, labels, strict=True)):
        for text in _texts(row, "responses") if "responses" in row.values else [_response(row)]:
            division = split_claims(text)
            claims = None if division.problem else len(division.claims)
            objects_found = words.count(text, objects)
            checked.append(CheckedResponse(row=number, objects=objects_found, tokens=length(text), claims=claims))
    return checked


def _texts(row: RawRow, column: str) -> list[str]:
    value = row.values.get(column)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{row.place} has {value!r:.60} as `{column}`, and it must be a list of texts")
    return list(value)


def _response(row: RawRow) -> str:
    value = row.values.get("response")
    if not isinstance(value, str):
        raise ValueError(f"{row.place} has neither `response`, a text, nor `responses`, a list of texts")
    return value


def _synonyms(path: Path | None) -> dict[str, list[str]]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): give an object, name -> list of words") from None
    right = isinstance(found, dict) and all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in found.values()
    )
    if not right:
        raise ValueError(f"{path} is no object of lists of words: give name -> list of other words for it")
    return dict(found)


def _length(tokenizer: str | None) -> Any:
    if tokenizer is None:
        return lambda text: len(text.split())
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return lambda text: len(loaded(text, add_special_tokens=False)["input_ids"])


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, ChairConfig, doc=__doc__, positional="responses"))
