"""One call of a reward: what it is called with, how its failure is told, and where the sample that failed is kept."""

import contextlib
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.binding import BoundReward, Sample
from rewards.loader import brief
from rewards.outcome import Reading, read, read_group
from rewards.registry import RewardError

FAILED_FILE = "failed_reward.json"


class CallError(Exception):
    """A call of a reward failed; the text is the sentence for the user, without the final period."""

    def __init__(self, sentence: str, trace: str = "", *, fatal: bool = False) -> None:
        """Args:
        sentence: which reward, on what, and how.
        trace: the traceback of the user's code, where there is one.
        fatal: another attempt, or going on without the score, would not do.
        """
        super().__init__(sentence)
        self.trace = trace
        self.fatal = fatal


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a reward: for a response, for a group, or for a whole batch."""

    item: BoundReward
    arguments: Mapping[str, Any]
    samples: Sequence[Sample]
    """The response's sample, or those of the group or of the batch."""
    number: int
    """Of the sample within the batch, or of the group."""

    @property
    def where(self) -> str:
        """Return `sample 3`, `group 2` or `a batch of 64 responses`."""
        if self.item.reward.batch:
            return f"a batch of {len(self.samples)} responses"
        return f"{'group' if self.item.reward.group else 'sample'} {self.number}"

    @property
    def size(self) -> int | None:
        """Return how many values a reward of several responses must return; None for one value."""
        return len(self.samples) if self.item.reward.group or self.item.reward.batch else None

    def read(self, returned: Any) -> list[Reading]:
        """Check what the reward returned; one reading per sample.

        Raises:
            CallError: it is not what a reward may return.
        """
        try:
            return readings(self.item.label, returned, self.where, self.size)
        except RewardError as error:
            raise CallError(str(error).rstrip(".")) from None

    def failed(self, what: str) -> str:
        """Return the sentence about a failure, such as `reward 'judge' timed out on sample 3`."""
        return f"reward {self.item.label!r} {what} on {self.where}"

    def raised(self, error: BaseException) -> CallError:
        """Return the failure of a call that raised."""
        return CallError(f"{self.failed('failed')}: {brief(error)}", "".join(traceback.format_exception(error)))


def readings(label: str, returned: Any, where: str, size: int | None) -> list[Reading]:
    """Return what a call returned, checked: one reading, or `size` of them; RewardError if it is something else."""
    if size is None:
        return [read(label, returned, where)]
    return read_group(label, returned, size, where)


def call_here(call: Call) -> list[Reading]:
    """Make a call of a sync reward in this thread."""
    try:
        with call.item.lock if call.item.kind == "inline" else nullcontext():
            returned = call.item.reward.function(**call.arguments)
    except (Exception, SystemExit) as error:  # a sys.exit() in a user's function must not end the run with status 0
        raise call.raised(error) from error
    return call.read(returned)


def attempts(call: Call, one: Callable[[Call], list[Reading]]) -> list[Reading]:
    """Make a call with `one`, as often as its reward's policy says; CallError of the last attempt."""
    waits = iter(call.item.policy.waits)
    number = 0
    while True:
        number += 1
        try:
            return one(call)
        except CallError as error:
            wait_s = next(waits, None)
            if error.fatal or wait_s is None:
                raise again(error, number) from error.__cause__
        time.sleep(wait_s)


def again(error: CallError, number: int) -> CallError:
    """Return the failure of the last of several attempts, with their number."""
    return error if number == 1 else CallError(f"{error} (attempt {number})", error.trace, fatal=error.fatal)


def save_failure(folder: Path | None, call: Call, error: CallError) -> str:
    """Write sample and traceback of a failed call to `failed_reward.json`, and return the clause that says so.

    The file is complete or absent. Without a folder nothing is written: the caller has the sample.
    """
    if folder is None:
        return ""
    record = {
        "reward": call.item.label,
        "place": call.item.reward.place,
        "error": str(error),
        "traceback": error.trace.splitlines(),
        "sample" if call.size is None else "group": plain(call.samples[0] if call.size is None else call.samples),
    }
    path = folder / FAILED_FILE
    partial = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # ASCII: a response may hold lone surrogates, which no file encoding takes.
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
        os.replace(partial, path)
    except OSError as problem:
        return f" (its sample could not be written to {path}: {problem.strerror})"
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return f"; sample and traceback are in {path}"


def plain(value: Any) -> Any:
    """Return a copy that JSON can hold: what it cannot hold becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value)[:1000]
