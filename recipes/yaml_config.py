"""YAML as the recipes read and write it: safe, without surprises, with layers that merge.

The dialect is YAML 1.2's core for plain values, because the 1.1 rules of PyYAML turn `no` into False, `1e-6` into a
string and `12:30` into 750. Duplicate keys are refused. Nothing but plain data is ever constructed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_SEPARATORS = re.compile("[\x85\u2028\u2029\ufeff]")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the 1.2 scalars and without silent duplicate keys."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - PyYAML's own class attribute, emptied to start from no rule at all

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, and this is {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes what only the 1.2 rules would read as a number, so that every reader sees the same
    text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Text; in double quotes when it holds a line separator that PyYAML would write bare and read back as a
        blank."""
        style = '"' if _SEPARATORS.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse(text: str) -> Any:
    """Parses one YAML document of plain data. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain data only
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def dump(data: Any) -> str:
    """Writes plain data as YAML that `parse` reads back to the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


SHIPPED = Path(__file__).parent / "configs"
"""The recipes' own YAML files."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping, and its `base:` file underneath, if it names one (relative to the file
    itself, or the name of a shipped one).

    Raises:
        ValueError: one sentence, if a file cannot be read, is not YAML, is not a mapping, or the bases go round in a
            circle.
    """
    return _read_layers(Path(path), ())


def _read_layers(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    resolved = path.resolve()
    if resolved in above:
        raise ValueError(f"{path}: its chain of `base:` files comes back to itself; remove one of them.")
    values = _read_one(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: `base` is {base!r}, and must be the path of another YAML file.")
    return merge(_read_layers(_base_path(path, base), (*above, resolved)), values)


def _base_path(path: Path, base: str) -> Path:
    """The file that `base:` names: beside the file that says so, or one that is shipped with the recipes."""
    beside, shipped = path.parent / base, SHIPPED / base
    if beside.exists() or not shipped.is_file():
        if not beside.exists():
            known = ", ".join(sorted(item.name for item in SHIPPED.glob("*.yaml")))
            raise ValueError(
                f"{path}: its `base` {base!r} is not there (looked for {beside}); shipped ones are {known}, by name "
                "alone."
            )
        return beside
    return shipped


def _read_one(path: Path) -> dict[str, Any]:
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory, and a YAML file is needed.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}{_place(error)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}, and must hold a mapping of `key: value` lines.")
    return data


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f", line {mark.line + 1}, column {mark.column + 1}: {problem}." if mark else f": {problem}."


def merge(under: Any, over: Any) -> Any:
    """Lays `over` upon `under`: mappings merge key by key, anything else replaces.

    A mapping whose `kind` differs replaces the other whole, since the remaining keys belong to another kind. Upon a
    list, a mapping of positions (`{"0": ...}`, from `--rewards.0.weight 2`) changes those items.

    Raises:
        ValueError: a position past the end of the list.
    """
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        if "kind" in over and "kind" in under and over["kind"] != under["kind"]:
            return dict(over)
        return {**under, **{key: merge(under[key], value) if key in under else value for key, value in over.items()}}
    if isinstance(under, list) and isinstance(over, Mapping) and over and all(str(key).isdecimal() for key in over):
        return _merge_items(under, over)
    return over


def _merge_items(under: list[Any], over: Mapping[str, Any]) -> list[Any]:
    items = list(under)
    for key, value in over.items():
        if int(key) >= len(items):
            raise ValueError(f"position {key} is past the end of a list of {len(items)} items; positions start at 0.")
        items[int(key)] = merge(items[int(key)], value)
    return items
