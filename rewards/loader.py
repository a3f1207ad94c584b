"""One loader for every way a reward can be named.

    math                      a registered name (a built-in, or one whose module is imported already)
    mypackage.rewards:polite  an attribute of an importable module
    rewards/mine.py:polite    a function of a file, relative to the YAML's folder, then to the current one
    polite                    an entry point of an installed package, group `tandem.rewards`

The target is a function, a class (it is constructed with the YAML's `args`, then called) or a callable object.
Without a decorator its name is the function's and its weight 1.
"""

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards.registry import BUILTIN, REGISTRY, Reward, RewardError, place_of
from rewards.styles import adapt

ENTRY_POINT_GROUP = "tandem.rewards"


def load(
    name: str, args: Mapping[str, Any], base_dir: Path | None = None, style: str | None = None
) -> tuple[Reward, dict[str, Any]]:
    """Find a reward.

    Args:
        name: any of the forms above.
        args: the YAML's constants; a class takes them all in its constructor.
        base_dir: the folder that `path/file.py` is relative to (the YAML's).
        style: the function's calling convention (`rewards.styles`); None = told from its arguments.

    Returns:
        The reward, and the constants left for its call.

    Raises:
        RewardError: nothing of that name, or the user's module fails to import.
    """
    return adapt(*_find(name, args, base_dir), style)


def _find(name: str, args: Mapping[str, Any], base_dir: Path | None) -> tuple[Reward, dict[str, Any]]:
    if ":" not in name:
        return _registered(name, args)
    where, _, attribute = name.rpartition(":")
    module = _file_module(where, base_dir) if where.endswith(".py") else _import(where, f"reward {name!r}")
    target = _attribute(module, attribute, name)
    return _as_reward(target, name, args)


def loadable_name(name: str, found: Reward) -> str:
    """Return a name under which another process finds the same reward.

    Raises:
        RewardError: it was registered by a module that another process cannot import, such as `__main__`.
    """
    points = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    if ":" in name or name in BUILTIN or name in points:
        return name
    module, attribute = found.function.__module__, getattr(found.function, "__qualname__", "")
    if module == "__main__" or importlib.util.find_spec(module.partition(".")[0]) is None or "<" in attribute:
        raise RewardError(
            f"reward {name!r} (at {found.place}) cannot be found by the process that isolates it. "
            "Name it `path/file.py:function` or `package.module:function`."
        )
    return f"{module}:{attribute}"


def known_names() -> list[str]:
    """Return every name that can be given without a path."""
    return sorted({*BUILTIN, *REGISTRY, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def nearest(word: str, options: Collection[str]) -> str:
    """Return a `did you mean` clause, empty where nothing is near."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _registered(name: str, args: Mapping[str, Any]) -> tuple[Reward, dict[str, Any]]:
    if name in BUILTIN:
        return _as_reward(getattr(importlib.import_module(BUILTIN[name]), name), name, args)
    if name in REGISTRY:
        return REGISTRY[name], dict(args)
    points = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
    if points:
        return _from_entry_point(name, points, args)
    hint = nearest(name, known_names())
    raise RewardError(
        f"no reward is named {name!r}.{hint} Valid names: {', '.join(known_names())}; "
        "a reward of your own is named `path/file.py:function` or `package.module:function`."
    )


def _from_entry_point(
    name: str, points: Sequence[EntryPoint], args: Mapping[str, Any]
) -> tuple[Reward, dict[str, Any]]:
    """Import what the entry points of one name lead to; a function without a decorator is labelled by that name."""
    if len({point.value for point in points}) > 1:
        places = " and ".join(sorted(point.value for point in points))
        raise RewardError(f"two installed packages give a reward named {name!r}: {places}. Name one by its module.")
    point = points[0]
    try:
        target = point.load()
    except (Exception, SystemExit) as error:
        raise RewardError(f"reward {name!r} (entry point {point.value}) fails to import: {brief(error)}") from error
    found, constants = _as_reward(target, name, args)
    return (found if hasattr(target, "__tandem_reward__") else replace(found, name=name)), constants


def _file_module(where: str, base_dir: Path | None) -> ModuleType:
    candidates = [folder / where for folder in (base_dir, Path.cwd()) if folder is not None]
    path = next((item.resolve() for item in candidates if item.is_file()), None)
    if path is None:
        tried = " and ".join(dict.fromkeys(str(item) for item in candidates))
        raise RewardError(f"the reward file {where!r} does not exist (looked at {tried}).")
    key = f"tandem_user_rewards.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if key in sys.modules:
        return sys.modules[key]
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, as `import` does: dataclasses and pickle look their module up.
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[key]
        if isinstance(error, Exception | SystemExit) and not isinstance(error, RewardError):
            raise RewardError(f"the reward file {path} fails to import: {brief(error)}") from error
        raise
    return module


def _import(module_name: str, who: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except RewardError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise RewardError(
                f"{who}: no module {module_name!r}. Write `package.module:function`, or `path/file.py:function`."
            ) from error
        raise RewardError(f"{who}: module {module_name!r} fails to import: {brief(error)}") from error
    except (Exception, SystemExit) as error:  # a sys.exit() in a user's module must not end the run with status 0
        raise RewardError(f"{who}: module {module_name!r} fails to import: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """Return `Type: message (file:line)` of an exception, the line being where the user's code raised it."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    if hasattr(module, attribute):
        return getattr(module, attribute)
    own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    raise RewardError(
        f"reward {name!r}: {module.__file__ or module.__name__} has no {attribute!r}.{nearest(attribute, own)}"
    )


def _as_reward(target: Any, name: str, args: Mapping[str, Any]) -> tuple[Reward, dict[str, Any]]:
    if not callable(target):
        raise RewardError(f"reward {name!r} is a {type(target).__name__}, not a function or a callable object.")
    marked = getattr(target, "__tandem_reward__", None)
    label = getattr(target, "__name__", None) or type(target).__name__
    found = marked or Reward(name=label, function=target, place=place_of(target))
    if not inspect.isclass(target):
        return found, dict(args)
    _refuse_unknown(target, name, args)
    try:
        instance = target(**args)
    except RewardError as error:  # a sentence for the user already
        raise RewardError(f"reward {name!r}: {error}") from error
    except Exception as error:
        raise RewardError(f"reward {name!r}: {label}({_call_text(args)}) fails: {brief(error)}") from error
    if not callable(instance):
        raise RewardError(f"reward {name!r}: class {label} has no __call__ method.")
    return dataclasses.replace(found, function=instance), {}


def _refuse_unknown(target: Any, name: str, args: Mapping[str, Any]) -> None:
    """Refuse an argument that a class does not take, where its signature can be read."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    unknown = next((key for key in args if key not in parameters), None)
    if unknown is not None and not any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        raise RewardError(f"reward {name!r} has no argument {unknown!r} for its `args`.{nearest(unknown, parameters)}")


def _call_text(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())
