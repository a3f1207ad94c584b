"""The dotted keys of a config class: found, listed, and the nearest one to a misspelt one.

Legend: a dotted key is `trainer.lr`; an item of a list is `rewards.0.weight`, listed as `rewards.N.weight`; an entry
of a free mapping is `args.<name>`.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_UNSET = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One line of `--help`."""

    name: str
    """Dotted name."""
    type: str
    """The type, in words."""
    default: str
    """The default as YAML, or `required`."""
    doc: str
    """The field's docstring, on one line."""


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union (with Annotated taken off), or the annotation alone."""
    if get_origin(annotation) is typing.Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for arg in get_args(annotation) for part in alternatives(arg))
    return (annotation,)


def is_model(annotation: Any) -> bool:
    """Whether an annotation is a config class."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def item_type(annotation: Any) -> Any:
    """The item annotation of a list or tuple, the value annotation of a mapping, or None for anything else."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (list, tuple, set, frozenset) or (isinstance(origin, type) and issubclass(origin, typing.Sequence)):
        return args[0] if args else Any
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[1] if args else Any
    if annotation in (list, dict, tuple):
        return Any
    return None


def annotation_at(annotation: Any, parts: list[str]) -> Any:
    """The annotation of a dotted key under `annotation`, or None when there is no such key."""
    if not parts or annotation is Any:
        return annotation
    for option in alternatives(annotation):
        if is_model(option):
            field = option.model_fields.get(parts[0])
            found = annotation_at(field.annotation, parts[1:]) if field else None
        else:
            inner = item_type(option)
            found = annotation_at(inner, parts[1:]) if inner is not None else None
        if found is not None:
            return found
    return None


def list_keys(config_class: type[BaseModel], values: Mapping[str, Any]) -> list[Key]:
    """Every key of a config class, in the order of its fields; `values` are the recipe's own defaults above the
    class's."""
    return list(_keys_of(config_class, "", values))


def _keys_of(config_class: type[BaseModel], prefix: str, values: Any) -> Iterator[Key]:
    values = values if isinstance(values, Mapping) else {}
    for name, field in config_class.model_fields.items():
        value = values.get(name, _UNSET)
        models = [option for option in alternatives(field.annotation) if is_model(option)]
        if not (len(models) == 1 and len(alternatives(field.annotation)) == 1):
            yield _key(prefix + name, field, value)
        for model in models:
            yield from _keys_of(model, f"{prefix}{name}.", _nested_values(field, value))
        yield from _item_keys(field, f"{prefix}{name}")


def _item_keys(field: FieldInfo, prefix: str) -> Iterator[Key]:
    """The keys of the items of a list (`N`) or a mapping (`<name>`) of config classes."""
    for option in alternatives(field.annotation):
        place = "<name>" if isinstance(get_origin(option), type) and issubclass(get_origin(option), Mapping) else "N"
        for model in alternatives(item_type(option)):
            if is_model(model):
                yield from _keys_of(model, f"{prefix}.{place}.", {})


def _nested_values(field: FieldInfo, value: Any) -> Any:
    """Defaults of a nested config: the recipe's, above those of the field's own default."""
    default = field.get_default(call_default_factory=True, validated_data={}) if not field.is_required() else None
    under = default.model_dump(mode="json") if isinstance(default, BaseModel) else {}
    return {**under, **value} if isinstance(value, Mapping) else under


def _key(name: str, field: FieldInfo, value: Any) -> Key:
    if value is _UNSET and field.is_required():
        default = "required"
    else:
        default = _in_words(
            field.get_default(call_default_factory=True, validated_data={}) if value is _UNSET else value
        )
    return Key(
        name=name, type=type_words(field.annotation), default=default, doc=" ".join((field.description or "").split())
    )


def _in_words(value: Any) -> str:
    """A default, short, as one would type it on the command line."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_in_words(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_in_words(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, Path)):
        text = str(getattr(value, "value", value))
        return repr(text) if text == "" or text != text.strip() or "\n" in text else text
    return repr(value)


def type_words(annotation: Any) -> str:
    """A type in the words of a YAML user: `int`, `short|long|hybrid`, `list of str`, `path or null`."""
    return " or ".join(dict.fromkeys(_one_type_words(option) for option in alternatives(annotation)))


def _one_type_words(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(annotation))
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return "|".join(str(member.value) for member in annotation)  # type: ignore[attr-defined]
    if is_model(annotation):
        return "mapping"
    inner = item_type(annotation)
    if inner is not None:
        is_map = annotation is dict or (
            isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Mapping)
        )
        return f"{'mapping' if is_map else 'list'} of {type_words(inner)}"
    if annotation is Path:
        return "path"
    return getattr(annotation, "__name__", str(annotation)).lower()


def nearest(name: str, config_class: type[BaseModel]) -> list[str]:
    """The valid dotted keys that a misspelt one most likely meant; empty when a guess would mislead.

    Each part is corrected among the keys of its own section only. A key without its section (`lr`) is found where it
    stands (`trainer.lr`), unless that is in more than three places.
    """
    names = [key.name for key in list_keys(config_class, {})]
    corrected = _corrected(name.split("."), [candidate.split(".") for candidate in names])
    if corrected is not None:
        return [".".join(corrected)]
    if "." in name:
        return []
    found = [key for key in names if key.rpartition(".")[2] == name or key.replace(".", "_") == name]
    return found if len(found) <= 3 else []


def _corrected(parts: list[str], names: list[list[str]]) -> list[str] | None:
    """A dotted key with its misspelt parts replaced by near ones of the same section, or None."""
    if not parts:
        return []
    here = dict.fromkeys(name[0] for name in names if name)
    if parts[0] in here:
        first = parts[0]
    elif parts[0].isdecimal() and "N" in here:
        first = "N"
    else:
        close = difflib.get_close_matches(parts[0], list(here), n=1, cutoff=0.75)
        longer = [option for option in here if option.startswith(f"{parts[0]}_")] if len(parts[0]) > 3 else []
        if not close and len(longer) != 1:
            return None
        first = close[0] if close else longer[0]
    rest = _corrected(parts[1:], [name[1:] for name in names if name and name[0] == first])
    return None if rest is None else [first, *rest]
