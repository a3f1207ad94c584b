"""The training processes of one run: process 0 leads, the others follow.

Process 0 alone has the engine, the rewards and the run directory. Whatever needs the policy (an update, log-probs, its
weights) is a piece of work that it hands out: each process runs the same method on its own share, and process 0 gets
the results. In between the others wait. So a run makes the same decisions in the same order however many processes it
has, and what it writes has one writer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rl.interrupt import InterruptGuard
from rl.launch import launched_processes, launched_rank, refuse_launcher_settings

WAIT = timedelta(days=7)
"""Longest wait for the next piece of work: process 0 may generate, score and evaluate for hours. A process that ends
closes its connections, which the others notice at once."""
BUCKET = 2**24
"""Elements that are added up in one message."""
_STOP = "stop"


class ProcessLostError(ValueError):
    """Another process of the run has ended; its message says why, this one's how to go on."""


class Processes:
    """The processes of a run as one of them sees them; `Processes()` is a run in one."""

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None) -> None:
        """Args:
        rank: Number of this process; 0 leads.
        count: Processes of the run.
        group: The gloo group that work and results are sent in.
        """
        self.rank, self.count = rank, count
        self.interrupted = False
        """Whether a process was asked to end (process 0 learns of the others with their results)."""
        self._group = group
        self._idle = True
        self._lost = False

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    # ---- the start ----

    def announce(self, value: Any) -> None:
        """Process 0: let the others begin, with a value; `ready` follows when all have what they work on."""
        if self.count > 1:
            self._idle = False
            with self._lost_is_said():
                self.scatter([(value,)] * self.count)

    def awaited(self) -> Any:
        """The others: the value that process 0 announces; None where it ends before."""
        with self._lost_is_said():
            order = self.scatter(None)
        return None if order == _STOP else order[0]

    def ready(self) -> None:
        """The others wait for work from now on."""
        self._idle = True

    # ---- pieces of work ----

    def run(self, target: Any, work: str, shares: Sequence[Any], *own: Any) -> list[Any]:
        """Process 0: call `target.<work>(share)` on every process; the results, by process.

        Args:
            target: This process's object; the others call their own.
            work: Name of the method, which may in turn exchange tensors with the other processes.
            shares: One per process, of what can be pickled if there are several.
            own: Further arguments of process 0's call.
        """
        assert self.leads
        assert len(shares) == self.count
        if self.count == 1:
            return [getattr(target, work)(shares[0], *own)]
        self._idle = False
        with self._lost_is_said():
            self.scatter([(work, share) for share in shares])
            mine = getattr(target, work)(shares[0], *own)
            results = self._gather()
        self._idle = True
        self.interrupted |= any(interrupted for _, interrupted in results)
        return [mine, *(result for result, _ in results)]

    def follow(self, target: Any) -> None:
        """The others: do the work that is handed out, until process 0 says that it was all."""
        with InterruptGuard(quiet=True) as guard, self._lost_is_said():
            while (order := self.scatter(None)) != _STOP:
                work, share = order
                self._gather((getattr(target, work)(share), guard.requested))

    def stop(self) -> None:
        """Process 0: let the others go; nothing where they are not waiting (they see that this process ends)."""
        if self.leads and self.count > 1 and self._idle:
            self._idle = False
            with self._lost_is_said():
                self.scatter([_STOP] * self.count)

    def scatter(self, values: Sequence[Any] | None) -> Any:
        """Process 0 gives one value to each process (None on the others); returns this process's."""
        if self.count == 1:
            assert values is not None
            return values[0]
        # Process 0 keeps its own value as it is: only what is sent has to be pickled.
        sent = None if values is None else [None, *values[1:]]
        received: list[Any] = [None]
        dist.scatter_object_list(received, sent, src=0, group=self._group)
        return received[0] if values is None else values[0]

    def _gather(self, value: Any = None) -> list[Any]:
        """Values of the others on process 0, by process; nothing elsewhere."""
        values = [None] * self.count if self.leads else None
        dist.gather_object(value, values, dst=0, group=self._group)
        return [] if values is None else values[1:]

    # ---- tensors, on every process at once ----

    def share_first(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the values of process 0."""
        if self.count > 1:
            with self._lost_is_said():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, which are the same bits everywhere."""
        if self.count == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def anywhere(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """For each flag, whether it is set on any process."""
        if self.count == 1 or not flags:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """torchrun sends SIGTERM as soon as one process has ended: who is ending because of that goes on, so that its
        sentence is said and the engine is put away (torchrun kills after 30 s); others end as on Ctrl-C.
        """
        if not self._lost:
            raise KeyboardInterrupt

    @contextmanager
    def _lost_is_said(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "nccl" in str(error).lower()):
                raise
            self._lost = True
            raise ProcessLostError(
                f"another of the {self.count} training processes has ended, and the run cannot go on without it "
                f"(noticed by process {self.rank}): see its message, if it left one; continue with --resume true"
            ) from error


@contextmanager
def join() -> Iterator[Processes]:
    """This launch's processes; at the end process 0 lets the others go.

    Raises:
        ValueError: The launcher has settings of its own for dividing the model, or asks for more GPUs than there are.
    """
    count = launched_processes()
    if count == 1:
        yield Processes()
        return
    refuse_launcher_settings()
    gpus = torch.cuda.device_count()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpus:
        if local >= gpus:
            raise ValueError(
                f"{os.environ.get('LOCAL_WORLD_SIZE', count)} training processes were launched for {gpus} GPUs: "
                "launch at most one per GPU"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    processes = Processes(launched_rank(), count, dist.new_group(backend="gloo", timeout=WAIT))
    previous = signal.signal(signal.SIGTERM, processes.on_sigterm)
    try:
        yield processes
    except BaseException:
        with suppress(ProcessLostError):  # what is raised is the reason
            processes.stop()
        raise
    processes.stop()
    signal.signal(signal.SIGTERM, previous)
    dist.destroy_process_group()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one dtype, at most `BUCKET` elements together (a larger one alone)."""
    bucket: list[Tensor] = []
    total = 0
    for tensor in tensors:
        if bucket and (total + tensor.numel() > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, total = [], 0
        bucket.append(tensor)
        total += tensor.numel()
    if bucket:
        yield bucket
