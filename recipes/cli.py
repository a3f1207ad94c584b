"""The command line of every recipe: `python -m recipes.<name> [config.yaml] [--dotted.key value ...]`.

A recipe ends with

    if __name__ == "__main__":
        raise SystemExit(run_recipe(main, SFTConfig, doc=__doc__, default_config=CONFIGS / "sft.yaml"))

where `main(config)` gets a validated config (and, if it has a parameter `base_dir`, the folder of the user's YAML file,
from which relative names in it are found). Layers, each above the one before: the class's defaults, the recipe's
default YAML, the user's YAML (with its `base:` files), the command line. Exit status: 0 done, 2 refused with one
sentence, 130 interrupted.
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from recipes.config_errors import Layer, boolean_sentence, misplaced_booleans, sentences, unknown_key
from recipes.config_keys import Key, alternatives, annotation_at, list_keys
from recipes.yaml_config import SHIPPED, dump, merge, parse, read_mapping
from rl.files import WriteError
from rl.launch import launched_rank

ConfigT = TypeVar("ConfigT", bound=BaseModel)
CONFIGS = SHIPPED
"""Where the recipes' own YAML files lie."""

REFUSED, INTERRUPTED = 2, 130
CALLER = "TANDEM_STAGE_OF"
"""Environment variable with the process id of the recipe that this one is a stage of."""
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_DISK_ERRORS |= {errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


@dataclass(kw_only=True, slots=True)
class Arguments:
    """A command line, taken apart."""

    positionals: list[str] = field(default_factory=list)
    overrides: list[tuple[list[str], Any]] = field(default_factory=list)
    """(parts of the dotted key, value) in the order given."""
    help: bool = False
    dry_run: bool = False


def run_recipe(
    main: Callable[..., int | None],
    config_class: type[ConfigT],
    *,
    doc: str | None = None,
    default_config: Path | None = None,
    positional: str | None = None,
    aliases: Mapping[str, str] | None = None,
    plan: Callable[[ConfigT], Sequence[str]] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Reads the command line, and calls `main` with the resolved config.

    Args:
        main: The recipe, `main(config)` or `main(config, base_dir)`; a returned int is the exit status. A ValueError
            from it is taken as the user's error.
        config_class: A frozen pydantic model that forbids extra keys.
        doc: What the recipe does: the head of `--help`.
        default_config: The recipe's own YAML, under the user's.
        positional: Name of the list field that takes the positional arguments, instead of their being a YAML file.
        aliases: Short option names: `{"json": "json_path"}` makes `--json X` set `json_path`.
        plan: What the run will need, as lines that `--dry-run` adds to the config as comments.
        argv: The arguments; those of the process by default.

    Returns:
        The exit status.
    """
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv, config_class, aliases or {})
        if launched_rank() and (arguments.help or arguments.dry_run):
            return 0  # of several training processes the first one speaks
        if arguments.help:
            _print(help_text(config_class, doc, default_config, positional, aliases or {}))
            return 0
        config = resolve(config_class, arguments, default_config=default_config, positional=positional)
        if arguments.dry_run:
            comments = "".join(f"# {line}\n" for line in (plan(config) if plan is not None else ()))
            _print(to_yaml(config) + comments)
            return 0
    except ValueError as error:
        return 0 if launched_rank() else _refuse(error)
    extra = {"base_dir": _base_dir(arguments, positional)} if "base_dir" in inspect.signature(main).parameters else {}
    return _call(lambda: main(config, **extra))


def _base_dir(arguments: Arguments, positional: str | None) -> Path | None:
    """The folder of the user's YAML file, or None when there is none."""
    return Path(arguments.positionals[0]).resolve().parent if arguments.positionals and not positional else None


def _share_cores() -> None:
    """Lets waiting OpenMP threads spin only briefly, unless the user has said otherwise. Read when torch is loaded.

    With the default, threads spin for milliseconds, and lose a whole time slice at every barrier as soon as another
    process wants a core: a training step of 7 s then took 70 s. Without any spinning, Linux tends to wake both
    threads on one core.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _end_with_caller() -> None:
    """Ends this process, as a kill would, as soon as the recipe is dead that it is a stage of."""
    caller = os.environ.pop(CALLER, "")
    if not caller.isdigit():
        return

    def watch() -> None:
        while os.getppid() == int(caller):
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="caller").start()


def _call(run: Callable[[], int | None]) -> int:
    """Runs the recipe; the user's errors become a sentence, the program's keep their traceback."""
    _share_cores()
    _end_with_caller()
    try:
        return run() or 0
    except KeyboardInterrupt:
        if not launched_rank():
            print("interrupted.", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        if os.environ.get("TANDEM_DEBUG") == "1":
            raise
        return _refuse(error)
    except WriteError as error:
        if os.environ.get("TANDEM_DEBUG") == "1":
            raise
        return _refuse(error)
    except OSError as error:
        if os.environ.get("TANDEM_DEBUG") == "1":
            raise
        if isinstance(error, _write_error()):
            return _refuse(ValueError(str(error)))
        if error.errno not in _DISK_ERRORS:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _refuse(ValueError(f"a file could not be written: {error.strerror}{where}. Mend that and start again."))


def _write_error() -> type[OSError]:
    """The error whose text already is the sentence to print."""
    from rl.files import WriteError

    return WriteError


def _refuse(error: Exception) -> int:
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"error: {line}", file=sys.stderr)
    return REFUSED


def _print(text: str) -> None:
    """Prints to a reader that may leave early (`| head`)."""
    try:
        print(text.rstrip("\n"), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- from arguments to a config ----


def load_config(
    config_class: type[ConfigT],
    argv: Sequence[str] = (),
    *,
    default_config: Path | None = None,
    positional: str | None = None,
) -> ConfigT:
    """The config a command line would give. Raises ValueError, one line for each thing wrong."""
    return resolve(
        config_class, parse_arguments(argv, config_class, {}), default_config=default_config, positional=positional
    )


def to_yaml(config: BaseModel) -> str:
    """A config as YAML which `load_config` reads back to an equal one."""
    return dump(config.model_dump(mode="json"))


def resolve(
    config_class: type[ConfigT],
    arguments: Arguments,
    *,
    default_config: Path | None = None,
    positional: str | None = None,
) -> ConfigT:
    """Merges the layers and validates the result. Raises ValueError, one line for each thing wrong."""
    layers = _layers(arguments, default_config, positional)
    data: Any = {}
    for layer in layers:
        data = merge(data, layer.values)
    booleans = misplaced_booleans(data, config_class)
    refused = [boolean_sentence(key, value, config_class, layers) for key, value in booleans.items()]
    try:
        config = config_class.model_validate(data)
    except ValidationError as error:
        refused += sentences(error, config_class, data, layers, known=booleans)
    if refused:
        raise ValueError("\n".join(refused))
    return config


def _layers(arguments: Arguments, default_config: Path | None, positional: str | None) -> list[Layer]:
    layers = []
    if default_config is not None:
        layers.append(Layer(source=str(default_config), values=read_mapping(default_config)))
    if positional is not None and arguments.positionals:
        layers.append(Layer(source="the command line", values={positional: arguments.positionals}))
    elif arguments.positionals:
        if len(arguments.positionals) > 1:
            raise ValueError(
                f"one YAML file is taken, and {len(arguments.positionals)} arguments were given "
                f"({', '.join(arguments.positionals)}): write options as --key value, "
                "or name one file from the other with `base:`."
            )
        path = Path(arguments.positionals[0])
        layers.append(Layer(source=str(path), values=read_mapping(path)))
    # A `kind` on the command line replaces its section, so it goes before the section's other keys.
    for parts, value in sorted(arguments.overrides, key=lambda override: override[0][-1] != "kind"):
        layers.append(Layer(source="the command line", values=_nested(parts, value)))
    return layers


def _nested(parts: list[str], value: Any) -> dict[str, Any]:
    return {parts[0]: value if len(parts) == 1 else _nested(parts[1:], value)}


# ---- from words to arguments ----


def parse_arguments(argv: Sequence[str], config_class: type[BaseModel], aliases: Mapping[str, str]) -> Arguments:
    """Takes a command line apart. Raises ValueError for an unknown key or a missing value."""
    arguments, words = Arguments(), list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            arguments.positionals += words
            break
        if word in ("-h", "--help"):
            arguments.help = True
        elif word in ("--dry-run", "--dry_run"):
            arguments.dry_run = True
        elif word.startswith("--"):
            arguments.overrides.append(_option(word, words, config_class, aliases))
        elif word.startswith("-") and len(word) > 1:
            raise ValueError(f"unknown option {word!r}: options are written --key value, and --help lists the keys.")
        else:
            arguments.positionals.append(word)
    return arguments


def _option(
    word: str, rest: list[str], config_class: type[BaseModel], aliases: Mapping[str, str]
) -> tuple[list[str], Any]:
    """One `--key value`, `--key=value` or, for a true-or-false key, `--key` alone; takes its value off `rest`."""
    name, equals, text = word[2:].partition("=")
    name = aliases.get(name, name)
    if annotation_at(config_class, name.split(".")) is None:
        name = name.replace("-", "_")
    annotation = annotation_at(config_class, name.split("."))
    if annotation is None:
        raise ValueError(unknown_key(name, config_class, " (from the command line)"))
    if equals:
        return name.split("."), parse_value(text, annotation, name)
    if bool in alternatives(annotation) and not (
        rest and rest[0].lower() in ("true", "false", "yes", "no", "on", "off", "0", "1")
    ):
        return name.split("."), True
    if not rest or rest[0].startswith("--"):
        raise ValueError(f"--{name} needs a value: write --{name} VALUE, or --{name}=VALUE if it begins with dashes.")
    return name.split("."), parse_value(rest.pop(0), annotation, name)


def parse_value(text: str, annotation: Any, name: str) -> Any:
    """A value as YAML, except that a key which takes only text gets it as typed.

    Args:
        text: What was typed.
        annotation: The key's type.
        name: The key, for the error.
    """
    options = set(alternatives(annotation))
    takes_text = bool(options & {str, Path})
    if takes_text and options <= {str, Path, NoneType}:
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        if not quoted:
            return None if NoneType in options and text in ("null", "~") else text
    try:
        value = parse(text)
    except yaml.YAMLError as error:
        if takes_text:
            return text
        raise ValueError(f"--{name} {text!r} is not a YAML value: {getattr(error, 'problem', error)}.") from None
    return value


# ---- help ----


def help_text(
    config_class: type[BaseModel],
    doc: str | None,
    default_config: Path | None,
    positional: str | None,
    aliases: Mapping[str, str],
    program: str | None = None,
) -> str:
    """The text of `--help`: what the recipe does, then every dotted key with type, default and meaning."""
    first = f"{positional.upper()} ..." if positional else "[config.yaml]"
    values = read_mapping(default_config) if default_config else {}
    short = {key: name for name, key in aliases.items()}
    lines = [f"usage: {_style('1', f'python -m {program or _program()} {first} [--key value ...]')}", ""]
    lines += [(doc or "").strip(), ""] if doc else []
    for key in list_keys(config_class, values):
        lines += _key_lines(key, short.get(key.name))
    lines += _key_lines(
        Key(name="dry-run", type="flag", default="", doc="Print the resolved config as YAML and stop."), None
    )
    lines += _key_lines(Key(name="help", type="flag", default="", doc="Print this and stop."), None)
    lines += [
        "",
        "Values are YAML: 3, 1e-6, true, null, [a, b], {name: x}. Keys may also stand in the YAML file, nested.",
    ]
    return "\n".join(lines)


def _key_lines(key: Key, alias: str | None) -> list[str]:
    name = f"--{key.name}" + (f", --{alias}" if alias else "")
    default = f"(default {key.default})" if key.default not in ("required", "") else key.default and "(required)"
    head = f"  {_style('36', name)}  {_style('2', key.type)}  {default}".rstrip()
    return [head, *(f"      {line}" for line in textwrap.wrap(key.doc, width=110))]


def _style(code: str, text: str) -> str:
    """Colour on a terminal; plain when piped or NO_COLOR is set."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[{code}m{text}\033[0m"


def _program() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else "recipes.<name>"
