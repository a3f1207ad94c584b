"""Peak memory of reading one image, with vision tower and language model loaded in turn or both at once.

Measured in a process of its own per order, so that neither sees what the other has left. Source: MiniCPM-V
(arXiv 2408.01800, section 5), which loads them in turn on a phone.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Order = Literal["at once", "in turn"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """Resident memory of one order, in bytes."""

    order: Order
    start: int
    """Before any weight was loaded: interpreter and libraries."""
    peak: int
    logit_sum: float
    """Sum of the last position's logits: equal in both orders, since they compute the same."""

    @property
    def model(self) -> int:
        """What loading and running the model added."""
        return self.peak - self.start

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"model": self.model}


def measure(folder: Path, order: Order) -> Peak:
    """Load a vision-language checkpoint in the given order, read one image, and tell the peak.

    Raises:
        ValueError: the process failed; the sentence ends with its last line.
    """
    command = [sys.executable, "-m", "base_model.export.load_order_worker", str(folder), order]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ValueError(f"the memory of {folder} could not be measured ({order}): {last}")
    return Peak(order=order, **json.loads(done.stdout.strip().splitlines()[-1]))
