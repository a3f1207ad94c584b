"""The process behind `rewards.isolation`: loads one reward by its name and answers calls of it.

    python -m rewards.isolation_worker MEMORY_MIB

Reads one JSON request per line from stdin and writes one JSON answer per line to stdout; the first request says which
reward. What the user's code prints goes to stderr.
"""

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


def main(memory_mib: int) -> None:
    """Load the reward, say `ready`, then answer until stdin ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    lines = _lines(requests)
    first = next(lines, None)
    call = None if first is None else _load(first, replies)
    if call is None:
        return
    _limit_memory(memory_mib)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _answer(replies, {"status": "ready"})
    for request in lines:
        _answer(replies, call(request))


def _load(request: dict[str, Any], replies: Any) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    """Return the function that answers requests, or None after telling the parent why there is none."""
    from rewards.loader import load
    from rewards.registry import RewardError

    sys.path[:] = request["sys_path"]
    base_dir = None if request["base_dir"] is None else Path(request["base_dir"])
    try:
        reward, _ = load(request["name"], request["args"], base_dir, request["style"])
    except RewardError as error:
        _answer(replies, {"status": "refused", "error": str(error).rstrip(".")})
        return None
    loop = asyncio.new_event_loop()  # one for all calls: a client may keep its connections

    def perform(arguments: dict[str, Any]) -> Any:
        result = reward.function(**arguments)
        return loop.run_until_complete(result) if reward.is_async else result

    return lambda asked: _perform(perform, request["label"], asked)


def _perform(function: Callable[[dict[str, Any]], Any], label: str, request: dict[str, Any]) -> dict[str, Any]:
    from rewards.calls import readings
    from rewards.loader import brief
    from rewards.registry import RewardError

    try:
        returned = function(request["arguments"])
    except MemoryError:
        return {"status": "memory"}
    except (Exception, SystemExit) as error:
        return {"status": "raised", "error": brief(error), "trace": "".join(traceback.format_exception(error))}
    try:
        return {"status": "ok", "readings": readings(label, returned, request["where"], request["size"])}
    except RewardError as error:
        return {"status": "refused", "error": str(error)}


def _limit_memory(memory_mib: int) -> None:
    with open("/proc/self/statm") as file:
        present = int(file.read().split()[0]) * resource.getpagesize()
    limit = present + memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _lines(requests: Any) -> Iterator[dict[str, Any]]:
    for line in requests:
        yield json.loads(line)


def _answer(replies: Any, reply: dict[str, Any]) -> None:
    data = memoryview(json.dumps(reply).encode() + b"\n")
    while data:
        data = data[replies.write(data) :]


if __name__ == "__main__":
    main(int(sys.argv[1]))
