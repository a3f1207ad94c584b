"""One library's process: `python -m recipes.benchmark.child tandem|probability|repeated|trl|verl FD`.

FD is one end of a socket pair inherited from the parent. The process ends when the parent closes its end, and is
killed by the kernel when the parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from recipes.benchmark.config import Job
from recipes.benchmark.session import Session

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the library's steps until the parent has had enough."""
    library, fd = arguments
    connection = Connection(int(fd))
    _die_with_parent()
    try:
        job = Job.from_json(connection.recv_bytes().decode())
        if library == "trl":
            from recipes.benchmark.trl_child import run

            run(Session(connection), job)
        elif library == "verl":
            from recipes.benchmark import verl_child

            verl_child.run(Session(connection), job)
        else:
            from recipes.benchmark import tandem_child

            tandem_child.run(Session(connection), job, library)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0  # the parent is gone, and nobody asks for figures any more
    except Exception:  # whatever a library raises goes to the log, whose end the parent shows
        traceback.print_exc()
        return 1
    return 0


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # vLLM's exit handlers take seconds, and may hang
