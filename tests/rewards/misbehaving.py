"""A user's reward file in which everything goes wrong; each in a sync, an async and a group form."""

import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path


def fine(answer):
    return float(len(answer))


def sleeps(answer):
    time.sleep(30)
    return 1.0


async def sleeps_async(answer):
    await asyncio.sleep(30)
    return 1.0


async def blocks_async(answer):
    time.sleep(30)
    return 1.0


def raises(answer):
    return {"key": 1.0}[answer]


async def raises_async(answer):
    return {"key": 1.0}[answer]


def exits(answer):
    raise SystemExit(0)


async def exits_async(answer):
    raise SystemExit(0)


def gives_nan(answer):
    return float("nan")


async def gives_nan_async(answer):
    return float("nan")


def too_few(answer):
    return [1.0] * (len(answer) - 1)


async def too_few_async(answer):
    return [1.0] * (len(answer) - 1)


def eats(answer):
    blocks = []
    while True:
        blocks.append(bytearray(16 * 2**20))


def dies(answer):
    os._exit(3)


def segfaults(answer):
    ctypes.string_at(0)


def killed(answer):
    os.kill(os.getpid(), signal.SIGKILL)


def holds_the_interpreter(answer):
    return float(len(str(pow(7, 10**9))))


def floods(answer):
    return {str(number) * 2**20: 1.0 for number in range(10, 20)}


def prints(answer):
    print("noise")
    os.write(1, b"more noise\n")
    return 1.0


def process_id(answer):
    return float(os.getpid())


def fails_once_per(answer, folder):
    """Fail on the first call with an answer, then succeed: the memory is a file, so that it outlives a process."""
    mark = Path(folder) / answer
    if not mark.exists():
        mark.touch()
        raise ConnectionError("try again")
    return 1.0


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, answer):
        return self.factor * len(answer)
