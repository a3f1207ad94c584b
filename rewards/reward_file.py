"""A reward file: one YAML that says which rewards a response gets, for every trainer.

    rewards:
      - accuracy
      - {name: my_rewards.py:concise, weight: 0.2}
    modes:                                  # only where the tags differ from the default ones
      long: {thinks: true, think_close: </thought>}

A recipe takes it as `rewards: my_rewards.yaml`, TRL and verl through `rewards.adapters`. Files named in it are found
from its own folder, wherever it is used from.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewards.loader import nearest
from rewards.registry import RewardError
from rewards.reward_set import RewardSet, build
from rewards.samples import DEFAULT_MODES, ModeTags
from rewards.spec import RewardSpec

MAX_BYTES = 1_000_000


class RewardFile(BaseModel):
    """What a reward file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rewards: list[RewardSpec] = Field(min_length=1)
    """Rewards and their weights, as in a recipe; files they name are absolute paths once read."""
    modes: dict[str, ModeTags] = Field(default_factory=lambda: dict(DEFAULT_MODES), min_length=1)
    """How the responses of each mode are split into thinking and answer."""

    def build(self, columns: Collection[str] | None = None) -> RewardSet:
        """Return the rewards, loaded and checked; `columns` as in `rewards.build`."""
        return build(self.rewards, columns)


def read_reward_file(path: str | Path) -> RewardFile:
    """Read and check a reward file; no reward is loaded yet.

    Raises:
        RewardError: no such file, not YAML, or not what a reward file says; with the place.
    """
    path = Path(path).expanduser()
    try:
        found = RewardFile.model_validate(_read_yaml(path))
    except ValidationError as error:
        raise RewardError(f"the reward file {path}: {_first_problem(error)}") from None
    folder = path.resolve().parent
    return found.model_copy(update={"rewards": [_from_folder(item, folder) for item in found.rewards]})


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise RewardError(f"the reward file {path} is larger than {MAX_BYTES} bytes; it should hold a short YAML.")
        loaded = yaml.safe_load(data.decode())
    except FileNotFoundError:
        raise RewardError(f"the reward file {path} does not exist (looked from {Path.cwd()}).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RewardError(f"the reward file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise RewardError(f"the reward file {path} is not valid YAML: {problem}.") from None
    if not isinstance(loaded, Mapping):
        raise RewardError(
            f"the reward file {path} must be a mapping with the key `rewards`, got {type(loaded).__name__}."
        )
    return loaded


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = ModeTags if key.startswith("modes") else RewardSpec if key.startswith("rewards") else RewardFile
        return f"unknown key {key!r}.{nearest(key.rpartition('.')[2], list(valid.model_fields))}"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing."
    return f"{key!r}: {problem['msg'].lower()}, got {str(problem['input'])[:80]!r}."


def _from_folder(spec: RewardSpec, folder: Path) -> RewardSpec:
    """The spec with `mine.py:f` made absolute where the file lies in the reward file's folder."""
    where, colon, attribute = spec.name.rpartition(":")
    if not colon or not where.endswith(".py") or not (folder / where).is_file():
        return spec
    return spec.model_copy(update={"name": f"{(folder / where).resolve()}:{attribute}"})
