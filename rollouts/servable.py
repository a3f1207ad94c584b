"""A training checkpoint as vLLM can load it.

vLLM takes every *.safetensors file of a folder without an index for weights, and a checkpoint of a run holds its
optimizer's state in one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

NO_WEIGHTS = "optimizer.safetensors"


class ServableFolder:
    """The folder that vLLM is given: the checkpoint's own, or links to all of its files but the optimizer's."""

    def __init__(self, checkpoint: Path) -> None:
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self.path = checkpoint
        if (checkpoint / NO_WEIGHTS).is_file():
            self._links = tempfile.TemporaryDirectory(prefix="tandem-servable-")
            self.path = Path(self._links.name)
            for file in checkpoint.iterdir():
                if file.name != NO_WEIGHTS:
                    (self.path / file.name).symlink_to(file.resolve())

    def close(self) -> None:
        """Remove the links."""
        if self._links is not None:
            self._links.cleanup()
