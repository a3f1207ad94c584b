"""Functions written for other trainers, named in a Tandem YAML as they are.

    trl       f(prompts, completions, **columns) -> list[float | None], once for a group; chat messages
    trl_text  the same; prompts and completions are text
    verl      f(data_source, solution_str, ground_truth, extra_info) -> float or {"score": float, ...}

Told from the signature: `completions` makes it trl, `solution_str` verl, for a function that no decorator has marked.
"""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rewards.outcome import Outcome
from rewards.registry import RESPONSE_FIELDS, SCORES_FIELD, Reward, RewardError

REFERENCE_NAMES = ("solution", "ground_truth", "answer")
"""What TRL's users call the column of the right answer; filled with the reference (`answer` is not the response's)."""
TRL_FIELDS = {"prompts": "prompt", "completions": "response", "completion_ids": "response_ids"}
TRL_FIELDS |= dict.fromkeys(REFERENCE_NAMES, "reference")
"""TRL's arguments and the fields of a sample that they are made of."""
TRL_EXTRAS = ("trainer_state", "log_extra", "log_metric", "environments")
VERL_FIELDS = {"solution_str": "response", "ground_truth": "reference"}
VERL_EXTRAS = ("data_source", "extra_info")
DATA_SOURCE = "tandem"
"""`data_source` of a row without such a column."""


def adapt(found: Reward, args: Mapping[str, Any], style: str | None) -> tuple[Reward, dict[str, Any]]:
    """Return a reward with Tandem's calling convention, and the constants left for its call.

    Args:
        found: the reward as loaded.
        args: the YAML's constants.
        style: tandem, trl, trl_text or verl; None = told from the signature.

    Raises:
        RewardError: the function has not the arguments of the style, or none for a constant.
    """
    parameters = _named_parameters(found.function)
    name = style or _told(found, parameters)
    if name == "tandem":
        return found, dict(args)
    wanted = "solution_str" if name == "verl" else "completions"
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for key in (wanted, *args):
        if key not in parameters and not takes_all:
            raise RewardError(
                f"reward {found.name!r} has no argument {key!r}, which "
                + (f"its `args` name: {', '.join(parameters)}." if key in args else f"style {name} passes.")
            )
    own = {key: item for key, item in parameters.items() if key not in args and item.kind is not item.VAR_KEYWORD}
    if name == "verl":
        return replace(found, function=_verl(found, own, takes_all, args), group=False), {}
    return replace(found, function=_trl(found, own, takes_all, args, chat=name == "trl"), group=True), {}


def _named_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return {}  # the reward set says so, with the reward's label


def _told(found: Reward, parameters: Mapping[str, inspect.Parameter]) -> str:
    if hasattr(found.function, "__tandem_reward__"):
        return "tandem"
    return "trl" if "completions" in parameters else "verl" if "solution_str" in parameters else "tandem"


def _trl(
    found: Reward, own: Mapping[str, inspect.Parameter], takes_all: bool, args: Mapping[str, Any], *, chat: bool
) -> Callable[..., Any]:
    def arguments(sample: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        none = [None] * len(sample["response"])
        columns = dict.fromkeys(REFERENCE_NAMES, sample.get("reference", none)) | _columns(sample)
        columns |= {key: sample[key] for key in ("reference", "mode") if key in sample}
        filled = {
            "prompts": [_turn("user", text or "", chat) for text in sample.get("prompt", none)],
            "completions": [_turn("assistant", text, chat) for text in sample["response"]],
            "completion_ids": sample.get("response_ids", none),
            "trainer_state": None,
            "log_extra": _ignore,
            "log_metric": _ignore,
            "environments": None,
        }
        return {**{key: value for key, value in {**columns, **filled}.items() if takes_all or key in own}, **args}

    return _with_arguments(found, arguments, _asked(own, TRL_FIELDS, TRL_EXTRAS))


def _verl(
    found: Reward, own: Mapping[str, inspect.Parameter], takes_all: bool, args: Mapping[str, Any]
) -> Callable[..., Any]:
    def arguments(sample: Mapping[str, Any]) -> dict[str, Any]:
        filled = {
            "data_source": sample.get("data_source", DATA_SOURCE),
            "solution_str": sample["response"],
            "ground_truth": sample.get("reference"),
            "extra_info": {**_columns(sample), "prompt": sample.get("prompt", ""), "mode": sample["mode"]},
        }
        return {**{key: value for key, value in filled.items() if takes_all or key in own}, **args}

    return _with_arguments(found, arguments, _asked(own, VERL_FIELDS, VERL_EXTRAS), result=_verl_score)


def _columns(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if key not in (*RESPONSE_FIELDS, SCORES_FIELD)}


def _asked(
    own: Mapping[str, inspect.Parameter], fields: Mapping[str, str], extras: Collection[str]
) -> list[inspect.Parameter]:
    """Return what the function asks of a sample: its columns by their names, the rest by Tandem's."""
    columns = [item for key, item in own.items() if key not in fields and key not in extras]
    needed = {fields[key] for key, item in own.items() if key in fields and item.default is item.empty}
    names = {item.name for item in columns}
    return [
        *(item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in columns),
        *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in sorted(needed - names)),
    ]


def _with_arguments(
    found: Reward,
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]],
    asked: Sequence[inspect.Parameter],
    result: Callable[[Any], Any] = lambda value: value,
) -> Callable[..., Any]:
    """Return a function of a whole sample that calls the user's; its signature names the columns that one asks for."""

    async def wait(**sample: Any) -> Any:
        return result(await found.function(**arguments(sample)))

    def call(**sample: Any) -> Any:
        return result(found.function(**arguments(sample)))

    adapted: Any = wait if found.is_async else call
    rest = inspect.Parameter("sample", inspect.Parameter.VAR_KEYWORD)
    adapted.__signature__ = inspect.Signature([*asked, rest])
    return adapted


def _turn(role: str, text: str, chat: bool) -> Any:
    return [{"role": role, "content": text}] if chat else text


def _verl_score(value: Any) -> Any:
    """Return the score of a result, with what verl's dicts hold beside it as facts, which do not count."""
    if not isinstance(value, Mapping):
        return value
    if "score" not in value:
        raise RewardError(f"a verl-style function must return a number or a dict with 'score', got {sorted(value)}.")
    return Outcome(value["score"], {key: str(fact) for key, fact in value.items() if key != "score"})


def _ignore(*_: Any, **__: Any) -> None:
    """TRL's loggers: Tandem records every reward itself."""
