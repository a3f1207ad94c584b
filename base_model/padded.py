"""Training examples as an ordinary padded batch: what packing is compared with.

Legend: B rows, L longest row.
"""

from collections.abc import Sequence
from typing import Any

import torch

from base_model.training_example import TrainingExample

IGNORED = -100
"""Label of a token that is not a target, as in transformers."""

_NO_MEDIA: dict[str, Any] = {
    "pixel_values": [],
    "tgt_sizes": torch.zeros(0, 2, dtype=torch.int32),
    "temporal_ids": [],
    "image_bound": torch.zeros(0, 2, dtype=torch.long),
}


def pad_examples(examples: Sequence[TrainingExample]) -> dict[str, Any]:
    """Arguments of ``MiniCPMV.forward``: rows padded on the right to [B, L], with attention mask, labels and media."""
    longest = max(len(example.ids) for example in examples)
    ids_BL = torch.zeros(len(examples), longest, dtype=torch.long)
    mask_BL = torch.zeros_like(ids_BL)
    labels_BL = torch.full_like(ids_BL, IGNORED)
    for row, example in enumerate(examples):
        ids = torch.tensor(example.ids)
        ids_BL[row, : len(ids)], mask_BL[row, : len(ids)] = ids, 1
        for start, end in example.target_spans:
            labels_BL[row, start:end] = ids[start:end]
    batch: dict[str, Any] = {"input_ids": ids_BL, "attention_mask": mask_BL, "labels": labels_BL}
    if any(example.inputs for example in examples):
        for name, nothing in _NO_MEDIA.items():
            batch[name] = [example.inputs[name][0] if example.inputs else nothing for example in examples]
    return batch
