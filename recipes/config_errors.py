"""What pydantic refuses, as one plain sentence each: what was received, why it is refused, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from recipes.config_keys import alternatives, annotation_at, is_model, item_type, nearest, type_words

_WRONG_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "path": "a path",
    "none_required": "null",
    "mapping": "a mapping",
}
"""Pydantic's error types by their first word, as what was expected."""
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
"""Error type -> (where the bound stands, words)."""
_LENGTHS = {
    "too_short": ("min_length", "at least", "item"),
    "too_long": ("max_length", "at most", "item"),
    "string_too_short": ("min_length", "at least", "character"),
    "string_too_long": ("max_length", "at most", "character"),
}
"""Error type -> (where the length stands, words, unit)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One source of configuration values, kept to tell the user where a bad value came from."""

    source: str
    """A file name, or `the command line`."""
    values: Mapping[str, Any]
    """Nested values of this source alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """One error of pydantic, with the names of union members taken out of its location."""

    key: str
    kind: str
    value: Any
    message: str
    context: Mapping[str, Any]


def misplaced_booleans(data: Any, annotation: Any, prefix: str = "") -> dict[str, bool]:
    """Dotted keys at which `data` has true or false where only a number fits, which pydantic would take for 1 or 0."""
    options = alternatives(annotation)
    if isinstance(data, bool):
        return {prefix: data} if {int, float} & set(options) and not {bool, Any} & set(options) else {}
    found: dict[str, bool] = {}
    for option in options:
        for key, value, inner in _parts(data, option):
            found |= misplaced_booleans(value, inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def _parts(data: Any, annotation: Any) -> list[tuple[Any, Any, Any]]:
    """(key, value, annotation) of each part of a mapping or list that the annotation knows."""
    if isinstance(data, Mapping) and is_model(annotation):
        kind = annotation.model_fields.get("kind")
        if kind is not None and data.get("kind") not in get_args(kind.annotation):
            return []  # the keys of another kind
        fields = annotation.model_fields
        return [(key, value, fields[key].annotation) for key, value in data.items() if key in fields]
    inner = item_type(annotation)
    if inner is None:
        return []
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else ()
    return [(key, value, inner) for key, value in pairs]


def boolean_sentence(key: str, value: bool, config_class: type[BaseModel], layers: Sequence[Layer] = ()) -> str:
    """The sentence for true or false where a number is asked."""
    options = alternatives(annotation_at(config_class, key.split(".")))
    expected = "a number" if float in options else "a whole number"
    return f"{key!r} is {_shown(value)}{_origin(key, layers)}, and must be {expected}."


def sentences(
    error: ValidationError,
    config_class: type[BaseModel],
    data: Any,
    layers: Sequence[Layer] = (),
    known: Collection[str] = (),
) -> list[str]:
    """One sentence for each thing wrong with `data`, except at the `known` keys."""
    problems = [_problem(item, data) for item in error.errors(include_url=False)]
    by_key: dict[str, list[_Problem]] = {}
    for problem in problems:
        if problem.key in known:
            continue
        # In a union, the member that got further tells more than "not a string".
        if not any(_is_below(other.key, problem.key) for other in problems if other is not problem):
            by_key.setdefault(problem.key, []).append(problem)
    return [_sentence(found, config_class, layers) for found in by_key.values()]


def _is_below(key: str, above: str) -> bool:
    return bool(above) and key.startswith(above + ".")


def _problem(item: Any, data: Any) -> _Problem:
    last = item["loc"][-1] if item["loc"] else ""
    parts: list[str] = []
    for position, part in enumerate(item["loc"]):
        inside = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, (list, tuple)) and isinstance(part, int) and part < len(data)
        if inside or is_index:
            data = data[part]
        elif not (item["type"] == "missing" and position == len(item["loc"]) - 1):
            continue  # the name of a union's member: not something the user wrote
        parts.append(str(part))
    key = ".".join(parts) or (str(last) if item["type"] == "missing" else "")
    return _Problem(key=key, kind=item["type"], value=item["input"], message=item["msg"], context=item.get("ctx", {}))


def _sentence(problems: list[_Problem], config_class: type[BaseModel], layers: Sequence[Layer]) -> str:
    problem = problems[0]
    if problem.kind == "extra_forbidden":
        return unknown_key(problem.key, config_class, _origin(problem.key, layers))
    if problem.kind == "missing":
        words = type_words(annotation_at(config_class, problem.key.split(".")))
        return f"missing required key {problem.key!r} ({words}): set it in the YAML file or with --{problem.key} VALUE."
    if problem.kind in ("value_error", "assertion_error"):
        where = f"{problem.key}: " if problem.key else ""
        return f"{where}{_full_stop(problem.message.partition(', ')[2])}"
    if problem.kind.startswith("union_tag"):
        return _kind_sentence(problem, _origin(problem.key, layers))
    expected = " or ".join(dict.fromkeys(_expected(one, config_class) for one in problems))
    received = f"{problem.key!r} is {_shown(problem.value)}{_origin(problem.key, layers)}"
    return f"{received}, and must be {expected}{_hint(problem)}."


def _kind_sentence(problem: _Problem, origin: str) -> str:
    """For a section of several kinds, told apart by its `kind`."""
    key = f"{problem.key}.kind" if problem.key else "kind"
    if problem.kind == "union_tag_not_found":
        return f"missing required key {key!r}{origin}: it says which kind of section this is; --help lists the kinds."
    choices = problem.context.get("expected_tags", "")
    return f"{key!r} is {_shown(problem.context.get('tag'))}{origin}, and must be one of {choices}."


def _expected(problem: _Problem, config_class: type[BaseModel]) -> str:
    """What fits, as it follows `must be`."""
    context = problem.context
    if problem.kind in ("literal_error", "enum"):
        return f"one of {context.get('expected', '')}".replace(" or ", ", ")
    if problem.kind in ("model_type", "model_attributes_type", "dataclass_type"):
        return _mapping_words(problem.key, config_class)
    if problem.kind in _BOUNDS:
        name, words = _BOUNDS[problem.kind]
        return f"{words} {context[name]:.15g}"
    if problem.kind in _LENGTHS:
        name, words, unit = _LENGTHS[problem.kind]
        return f"{words} {context[name]} {unit}{'' if context[name] == 1 else 's'} long"
    for prefix in (problem.kind.removesuffix("_type"), problem.kind.split("_")[0]):
        if prefix in _WRONG_TYPE:
            return _WRONG_TYPE[prefix]
    return _lower_first(problem.message.removeprefix("Input should be ").removeprefix("Value should be "))


def _mapping_words(key: str, config_class: type[BaseModel]) -> str:
    """`a mapping with the keys a, b`, for a section; of several kinds, `a mapping with kind and its keys`."""
    options = alternatives(annotation_at(config_class, key.split(".")) if key else config_class)
    models = [option for option in options if is_model(option)]
    if len(models) == 1:
        keys = ", ".join(models[0].model_fields)
        return f"a mapping with the keys {keys}" + (", or null" if NoneType in options else "")
    return "a mapping with `kind` and the keys of that kind" if models else "a mapping"


def _hint(problem: _Problem) -> str:
    """The nearest valid choice, for a misspelt one."""
    if problem.kind not in ("literal_error", "enum") or not isinstance(problem.value, str):
        return ""
    choices = [
        part.strip().strip("'") for part in str(problem.context.get("expected", "")).replace(" or ", ",").split(",")
    ]
    close = difflib.get_close_matches(problem.value, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_key(key: str, config_class: type[BaseModel], origin: str = "") -> str:
    """The sentence for a key that does not exist."""
    near = nearest(key, config_class)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "--help lists every key."
    if annotation_at(config_class, key.split(".")) is not None:
        remedy = "it belongs to another kind of this section; set `kind` too."
    return f"unknown key {key!r}{origin}: {remedy}"


def _origin(key: str, layers: Sequence[Layer]) -> str:
    """` (from FILE)`: the topmost layer that holds the key."""
    for layer in reversed(layers):
        values: Any = layer.values
        for part in key.split("."):
            if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
                values = values[int(part)]
            elif isinstance(values, Mapping) and part in values:
                values = values[part]
            else:
                break
        else:
            return f" (from {layer.source})"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _full_stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."
