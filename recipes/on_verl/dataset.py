"""The data as verl counts it: as many places as the run has prompts. What stands there is `session`'s to say."""

from typing import Any

from torch.utils.data import Dataset


class Positions(Dataset):
    """Positions of the endless stream of data rows, from 0 on.

    verl needs a length, for the number of its epochs. Prompts depend on the step's modes and on what the filter has
    turned away, so the trainer makes them itself and never reads from here.
    """

    def __init__(
        self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = 0
    ) -> None:
        """Args:
        data_files, tokenizer, config, processor: verl's, not used.
        max_samples: number of positions.
        """
        self.size = max(max_samples, 1)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index}
