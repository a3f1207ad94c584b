"""How a packed batch becomes hidden states, for each family of models.

A language model reads token ids. A vision-language model reads embeddings, in which features of the media stand in
their blocks; its vision tower sees the media of all prompts of the batch together, each prompt's once, however many
responses follow. Some families also count positions in their own way. A model whose attention or positions are unknown
here runs on padded rows instead, one per response.

Legend: N packed tokens, M branch tokens, B padded rows, L longest of them, D hidden width.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from base_model import packed_attention
from base_model.branches import BranchBatch, BranchLayout, KeyValues
from base_model.packing import PackedBatch, PackedMedia


class Backbone(Protocol):
    """A model without its head, over packed batches."""

    attention: ClassVar[Any]
    """Attention that the model is to be loaded with: for all of it, by part, or None for its own."""

    def __init__(self, model: Any) -> None: ...

    def hidden(self, batch: PackedBatch, memory: KeyValues | None = None) -> Tensor:
        """Final hidden states [N, D]; ``memory`` keeps keys and values for branches."""

    def branch_hidden(self, batch: PackedBatch, branches: BranchBatch, memory: KeyValues) -> Tensor:
        """Final hidden states [M, D] of branches of the batch that ``memory`` was filled with."""


def backbone_class(config: Any) -> type[Backbone]:
    """The class for models of a transformers configuration."""
    if config.model_type == "minicpmv":
        return MiniCPMVBackbone
    if config.model_type in MROPE_FAMILIES:
        return MropeBackbone
    return PaddedBackbone if hasattr(config, "vision_config") else TextBackbone


class TextBackbone:
    """A causal language model with packed attention."""

    attention: ClassVar[Any] = packed_attention.NAME

    def __init__(self, model: Any) -> None:
        """Args:
        model: the transformers model, head included; its parameters are used in place.
        """
        self.model = model

    @property
    def decoder(self) -> Any:
        """The layers that the packed attention runs in."""
        return getattr(self.model, self.model.base_model_prefix)

    def hidden(self, batch: PackedBatch, memory: KeyValues | None = None) -> Tensor:
        """See ``Backbone``."""
        options = {"memory": memory} if memory is not None else {}
        return self._run(layout=batch.layout, **self._inputs(batch), **options)

    def branch_hidden(self, batch: PackedBatch, branches: BranchBatch, memory: KeyValues) -> Tensor:
        """See ``Backbone``."""
        return self._run(
            input_ids=branches.input_ids,
            position_ids=self._branch_positions(batch, branches),
            layout=BranchLayout(chunks=branches.chunks, memory=memory),
        )

    def _inputs(self, batch: PackedBatch) -> dict[str, Any]:
        """What the decoder reads of a batch."""
        if batch.media:
            raise ValueError(
                f"the prompts hold images or videos, but {self.model.config.model_type!r} is a language model; "
                "use a vision-language model, or rows without media"
            )
        return {"input_ids": batch.input_ids, "position_ids": batch.position_ids}

    def _branch_positions(self, batch: PackedBatch, branches: BranchBatch) -> Tensor:
        """Positions of the branches' tokens."""
        return branches.position_ids

    def _run(self, **inputs: Any) -> Tensor:
        return self.decoder(use_cache=False, **inputs).last_hidden_state[0]


class MiniCPMVBackbone(TextBackbone):
    """This project's vision-language model: features go to the blocks that the processor names.

    Its tower keeps its own attention, whatever the rest is loaded with.
    """

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return getattr(self.model.llm, self.model.llm.base_model_prefix)

    def _inputs(self, batch: PackedBatch) -> dict[str, Any]:
        media = joined_media(batch.media) if batch.media else {}
        return {"inputs_embeds": self.model.embed(batch.input_ids, **media), "position_ids": batch.position_ids}


def joined_media(media: Sequence[PackedMedia]) -> dict[str, Any]:
    """The media arguments of ``MiniCPMV`` for one row that holds all prompts end to end."""
    rows = [each.inputs for each in media]
    return {
        "pixel_values": [[view for row in rows for view in row["pixel_values"][0]]],
        "tgt_sizes": [torch.cat([row["tgt_sizes"][0] for row in rows])],
        "temporal_ids": [[package for row in rows for package in row["temporal_ids"][0]]],
        "image_bound": [torch.cat([each.inputs["image_bound"][0] + each.start for each in media])],
    }


MROPE_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Families with three rows of position ids (time, height, width; arXiv 2409.12191, section 2.1)."""

_FEATURES = (
    (1, "get_image_features", "pixel_values", "image_grid_thw"),
    (2, "get_video_features", "pixel_values_videos", "video_grid_thw"),
)
"""Token type of a medium's places, the method that computes its features, and that method's arguments."""


class MropeBackbone(TextBackbone):
    """The Qwen-VL family: three rows of positions, of which a prompt's are what the model itself gives it alone.

    After a prompt the three rows go on together from the largest position in it. Features go to the places that the
    processor names (``mm_token_type_ids``), not to token ids: a sampled image token is text.
    """

    attention: ClassVar[Any] = {
        "": packed_attention.NAME,
        "text_config": packed_attention.NAME,
        "vision_config": "sdpa",
    }

    @property
    def decoder(self) -> Any:
        """The language model without its head."""
        return self.model.model.language_model

    def _inputs(self, batch: PackedBatch) -> dict[str, Any]:
        embeddings = self.model.get_input_embeddings()(batch.input_ids)
        inputs: dict[str, Any] = {"inputs_embeds": embeddings, "position_ids": self._positions(batch)}
        found = [own for spec in _FEATURES if (own := self._features(batch, *spec))]
        if not found:
            return inputs
        columns, features = (torch.cat([own[i] for own in found]) for i in (0, 1))
        inputs["inputs_embeds"] = embeddings.index_put(
            (torch.zeros_like(columns), columns), features.to(embeddings.dtype)
        )
        if found[0][2]:
            inputs |= _deepstack(batch, columns, [own[2] for own in found])
        return inputs

    def _features(
        self, batch: PackedBatch, kind: int, method: str, pixels: str, grids: str
    ) -> tuple[Tensor, Tensor, list[Tensor]] | None:
        """Packed columns of one kind of media, their features, and those for deeper layers (Qwen3-VL)."""
        media = [each for each in batch.media if each.inputs.get(pixels) is not None]
        if not media:
            return None
        given = (torch.cat([each.inputs[name] for each in media]) for name in (pixels, grids))
        out = getattr(self.model.model, method)(*given, return_dict=True)
        columns = torch.cat([(_types(each) == kind).nonzero()[:, 0] + each.start for each in media])
        features = torch.cat(list(out.pooler_output))
        if len(columns) != len(features):
            raise ValueError(
                f"the prompts have {len(columns)} places for {len(features)} features; pass all that the processor "
                "returns"
            )
        return columns, features, list(getattr(out, "deepstack_features", None) or ())

    def _positions(self, batch: PackedBatch) -> Tensor:
        """[3, 1, N]"""
        positions = batch.position_ids.expand(3, -1, -1).clone()
        ends = dict(_group_spans(batch))
        for each in batch.media:
            own, shift = self._rope_index(batch, each)
            middle, end = each.start + own.shape[1], ends[each.start]
            positions[:, 0, each.start : middle] = own
            positions[:, 0, middle:end] += shift
        return positions

    def _rope_index(self, batch: PackedBatch, media: PackedMedia) -> tuple[Tensor, int]:
        """The prompt's own positions [3, P], and how far those of what follows it are moved."""
        given = {name: value for name, value in media.inputs.items() if name in _ROPE_ARGUMENTS}
        ids = batch.input_ids[:, media.start : media.start + len(_types(media))]
        positions, shifts = self.model.model.get_rope_index(ids, **given)
        return positions[:, 0], int(shifts[0])

    def _branch_positions(self, batch: PackedBatch, branches: BranchBatch) -> Tensor:
        shifts = {each.start: self._rope_index(batch, each)[1] for each in batch.media}
        moved = [shifts.get(start, 0) for start in branches.prompt_starts]
        lengths = torch.tensor(branches.lengths)
        shift_M = torch.tensor(moved).repeat_interleave(lengths).to(branches.position_ids.device)
        return (branches.position_ids + shift_M).expand(3, -1, -1)


_ROPE_ARGUMENTS = ("mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")


def _types(media: PackedMedia) -> Tensor:
    """[P] 0 = text, 1 = image, 2 = video."""
    return media.inputs["mm_token_type_ids"][0]


def _group_spans(batch: PackedBatch) -> list[tuple[int, int]]:
    """First packed row and end of every group."""
    ends = list(accumulate(group.total for group in batch.layout))
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _deepstack(batch: PackedBatch, columns: Tensor, layers: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """Features that Qwen3-VL adds again after its first layers, in the order of their places."""
    seen = torch.zeros_like(batch.input_ids, dtype=torch.bool)
    seen[0, columns] = True
    order = columns.argsort()
    return {
        "visual_pos_masks": seen,
        "deepstack_visual_embeds": [torch.cat(each)[order] for each in zip(*layers, strict=True)],
    }


class PaddedBackbone:
    """Any vision-language model of transformers, on right-padded rows of prompt and response.

    The model runs as it is, with its own attention and positions; so prompt and media are computed for every response.
    """

    attention: ClassVar[Any] = None

    def __init__(self, model: Any) -> None:
        """Args:
        model: the transformers model, head included; its parameters are used in place.
        """
        self.model = model

    def hidden(self, batch: PackedBatch, memory: KeyValues | None = None) -> Tensor:
        """See ``Backbone``; nothing is kept in ``memory``."""
        rows, media, places = _padded_rows(batch)
        hidden_BLD = self._run([batch.input_ids[0, row] for row in rows], media)
        return hidden_BLD[places[0], places[1]]

    def branch_hidden(self, batch: PackedBatch, branches: BranchBatch, memory: KeyValues) -> Tensor:
        """See ``Backbone``; each branch is a row of its own, prefix included."""
        by_start = {each.start: each for each in batch.media}
        prefixes = [batch.input_ids[0, rows] for rows in branches.prefix_rows()]
        tokens = branches.input_ids[0].split(list(branches.lengths))
        rows = [torch.cat(pair) for pair in zip(prefixes, tokens, strict=True)]
        hidden_BLD = self._run(rows, [by_start.get(start) for start in branches.prompt_starts])
        spans = zip(hidden_BLD, prefixes, branches.lengths, strict=True)
        return torch.cat([row_LD[len(prefix) : len(prefix) + length] for row_LD, prefix, length in spans])

    def _run(self, rows: Sequence[Tensor], media: Sequence[PackedMedia | None]) -> Tensor:
        """[B, L, D]"""
        longest = max(map(len, rows))
        ids_BL = torch.stack([_extended(row, longest) for row in rows])
        lengths_B = torch.tensor([len(row) for row in rows], device=ids_BL.device)
        mask_BL = (torch.arange(longest, device=ids_BL.device) < lengths_B[:, None]).long()
        backbone = getattr(self.model, self.model.base_model_prefix or "model")
        given = _collated([None if each is None else each.inputs for each in media], longest)
        return backbone(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False, **given).last_hidden_state


def _padded_rows(batch: PackedBatch) -> tuple[list[Tensor], list[PackedMedia | None], tuple[Tensor, Tensor]]:
    """Packed positions of every row, its media, and the (row, column) at which each packed position is computed."""
    by_start = {each.start: each for each in batch.media}
    rows: list[Tensor] = []
    media: list[PackedMedia | None] = []
    places = torch.empty(2, batch.input_ids.shape[1], dtype=torch.long)
    for (start, _), group in zip(_group_spans(batch), batch.layout, strict=True):
        at = start + group.prompt
        for number, length in enumerate(group.responses or (0,)):
            row = torch.cat([torch.arange(start, start + group.prompt), torch.arange(at, at + length)])
            new = row if number == 0 else row[group.prompt :]
            places[0, new], places[1, new] = len(rows), torch.arange(len(row) - len(new), len(row))
            rows.append(row)
            media.append(by_start.get(start))
            at += length
    device = batch.input_ids.device
    return [row.to(device) for row in rows], media, (places[0].to(device), places[1].to(device))


def _collated(inputs: Sequence[Mapping[str, Any] | None], longest: int) -> dict[str, Any]:
    """The processor's results for all rows; what is given per token goes on with zeros to the end of the row."""
    names = dict.fromkeys(name for own in inputs if own for name in own)
    return {name: _joined(name, inputs, longest) for name in names}


def _joined(name: str, inputs: Sequence[Mapping[str, Any] | None], longest: int) -> Any:
    if name.endswith("token_type_ids"):
        known = next(own[name] for own in inputs if own and name in own)
        rows = [own[name][0] if own and name in own else known.new_zeros(0) for own in inputs]
        return torch.stack([_extended(row, longest) for row in rows])
    values = [own[name] for own in inputs if own and name in own]
    if not all(isinstance(value, Tensor) for value in values):
        return [item for value in values for item in value]
    if len({value.shape[1:] for value in values}) > 1:
        raise ValueError(
            f"this model's processor gives {name} of different sizes ({[list(v.shape) for v in values]}), which cannot "
            "be joined; set micro_batch_tokens so low that every prompt is computed alone, or use images of one size"
        )
    return torch.cat(values)


def _extended(row: Tensor, length: int) -> Tensor:
    """The row with zeros after its end."""
    return torch.nn.functional.pad(row, (0, length - len(row)))
