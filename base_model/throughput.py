"""What a training step did per second, and how much of the machine it used."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from base_model.example_packing import view_count
from base_model.flops import FlopCount
from base_model.sample_loader import Labelled


class Meter:
    """Adds up the micro-batches of one optimiser step.

    Args:
        flops: counts a batch's operations; None = no MFU.
        peak: operations per second that the machine can do.
        budget: tokens that a packed batch may hold.
    """

    def __init__(self, flops: FlopCount | None, peak: float, budget: int) -> None:
        self.flops, self.peak, self.budget = flops, peak, budget
        self.reset()

    def reset(self) -> None:
        """A new step begins."""
        self.samples = self.targets = self.packed = self.views = self.batches = 0
        self.operations = self.wait_s = 0.0
        self.by_source: dict[str, int] = {}
        self.start = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in here is waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wait_s += time.perf_counter() - start

    def add(self, batch: Any, samples: Sequence[Labelled]) -> None:
        """A packed batch will be trained on."""
        self.batches += 1
        self.samples += len(samples)
        self.targets += len(batch.targets_T)
        self.packed += batch.input_ids.numel()
        self.views += sum(view_count(sample.example) for sample in samples)
        self.operations += self.flops.count(batch) if self.flops else 0.0
        for sample in samples:
            self.by_source[sample.source] = self.by_source.get(sample.source, 0) + 1

    def figures(self) -> dict[str, float]:
        """Flat metrics of the step so far; rates are per second of wall time, waiting included."""
        seconds = time.perf_counter() - self.start
        figures = {
            "time/step": seconds,
            "time/data_wait_share": self.wait_s / seconds,
            "samples": self.samples,
            "tokens/target": self.targets,
            "tokens/packed": self.packed,
            "views": self.views,
            "packing/fill": self.packed / (self.budget * max(1, self.batches)),
            "time/samples_per_s": self.samples / seconds,
            "time/target_tokens_per_s": self.targets / seconds,
            "time/packed_tokens_per_s": self.packed / seconds,
            "time/views_per_s": self.views / seconds,
        }
        if self.flops:
            figures["time/mfu"] = self.operations / seconds / self.peak
        return figures | {f"samples/{source}": count for source, count in sorted(self.by_source.items())}
