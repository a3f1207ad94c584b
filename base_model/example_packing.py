"""Packed batches of training examples: several target spans each, images and videos with the sequence they stand in.

Legend: N packed tokens, T target tokens.
"""

from collections.abc import Sequence

import torch

from base_model.packing import GroupLayout, PackedBatch, PackedMedia
from base_model.training_example import TrainingExample


def pack_examples(examples: Sequence[TrainingExample]) -> PackedBatch:
    """Lay examples end to end; positions restart and attention is isolated for each, target spans are the targets."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    media = []
    for example in examples:
        start = len(ids)
        if example.inputs:
            media.append(PackedMedia(start=start, inputs=example.inputs))
        ids.extend(example.ids)
        positions.extend(range(len(example.ids)))
        for first, end in example.target_spans:
            rows.extend(range(start + first - 1, start + end - 1))
            targets.extend(example.ids[first:end])
    return PackedBatch(
        input_ids=torch.tensor([ids], dtype=torch.long),
        position_ids=torch.tensor([positions], dtype=torch.long),
        layout=tuple(GroupLayout(prompt=len(example.ids)) for example in examples),
        target_rows_T=torch.tensor(rows, dtype=torch.long),
        targets_T=torch.tensor(targets, dtype=torch.long),
        media=tuple(media),
    )


def view_count(example: TrainingExample) -> int:
    """Images, slices and frames that the vision tower reads for an example."""
    return sum(len(views) for views in (example.inputs or {}).get("pixel_values", ()))
