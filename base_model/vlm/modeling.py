"""The vision-language model: vision tower, 3D-resampler and a causal language model, as one transformers model.

Source: MiniCPM-V 4.5 (arXiv 2509.18154, section 2); parameter names are those of the official checkpoint (``vpm.*``,
``resampler.*``, ``llm.*``), so that one ``from_pretrained`` loads it and ours.

Legend: B rows of the batch, T tokens of a row, D language model width, Q tokens of one block (the resampler's queries),
P side of a patch, N patches of a view.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from base_model.vlm.configuration import MiniCPMVConfig
from base_model.vlm.resampler import Resampler
from base_model.vlm.vision import VisionTower

Views = Sequence[Sequence[Tensor]]
"""Per row, its views: patches [3, P, N * P] side by side."""


class MiniCPMV(PreTrainedModel, GenerationMixin):
    """Language model whose prompt can hold images and packed videos.

    The four media arguments of ``forward``, ``generate`` and ``embed`` are what the processor returns, one entry per
    row: ``pixel_values`` (views), ``tgt_sizes`` [views, 2] (rows and columns of patches), ``temporal_ids`` (packages of
    views: ``[-1]`` for each view of an image, ticks of 0.1 s for frames), and ``image_bound`` [packages, 2] (first
    token and end of the block that each package fills).
    """

    config_class = MiniCPMVConfig
    base_model_prefix = ""
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ("SiglipEncoderLayer", "Resampler")

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        self.llm = AutoModelForCausalLM.from_config(config.text_config, dtype=torch.get_default_dtype())
        self.vpm = VisionTower(
            config.vision_config,
            drop_last_layer=config.drop_vision_last_layer,
            batch_size=config.vision_batch_size,
        )
        self.resampler = Resampler(config.query_num, config.text_config.hidden_size, config.vision_config.hidden_size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisionTower | Resampler):
            module.init_weights()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the language model's head."""
        self.llm.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """The language model without its head."""
        return self.llm.get_decoder()

    def image_features(
        self, pixel_values: Views, tgt_sizes: Sequence[Tensor], temporal_ids: Sequence[Any] | None = None
    ) -> Tensor:
        """Tokens [packages, Q, D] of all rows' packages, in order; one row's media are computed like any other's.

        Args:
            pixel_values: per row, its views [3, P, N * P].
            tgt_sizes: per row, [views, 2].
            temporal_ids: per row, temporal ids of each package's views; None = all views are images.
        """
        views = list(chain.from_iterable(pixel_values))
        grids = [(int(rows), int(columns)) for sizes in tgt_sizes for rows, columns in sizes.tolist()]
        _check_views(views, grids)
        packages = None if temporal_ids is None else list(chain.from_iterable(temporal_ids))
        return self.resampler(self.vpm(views, grids), grids, packages)

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Views | None = None,
        tgt_sizes: Sequence[Tensor] | None = None,
        image_bound: Sequence[Tensor] | None = None,
        temporal_ids: Sequence[Any] | None = None,
    ) -> Tensor:
        """What the language model reads: token embeddings [B, T, D] with every block filled by its package's tokens.

        Args:
            input_ids: [B, T].
            pixel_values, tgt_sizes, image_bound, temporal_ids: see the class; None = no media.

        Raises:
            ValueError: blocks and packages do not match.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        if pixel_values is None or not any(len(views) for views in pixel_values):
            return embeddings
        if tgt_sizes is None or image_bound is None:
            raise ValueError("pixel_values came without tgt_sizes and image_bound; pass all that the processor returns")
        features = self.image_features(pixel_values, tgt_sizes, temporal_ids)
        rows, columns = _block_places(image_bound, features.shape[0], self.config.query_num)
        places = (rows.to(embeddings.device), columns.to(embeddings.device))
        return embeddings.index_put(places, features.flatten(0, 1).to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Views | None = None,
        tgt_sizes: Sequence[Tensor] | None = None,
        image_bound: Sequence[Tensor] | None = None,
        temporal_ids: Sequence[Any] | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's output; ``kwargs`` (attention_mask, position_ids, labels, ...) are its own.

        Args:
            input_ids: [B, T].
            pixel_values, tgt_sizes, image_bound, temporal_ids: see the class; None = no media.
            inputs_embeds: [B, T, D], in place of all of these.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("neither input_ids nor inputs_embeds was given; pass one of them")
            inputs_embeds = self.embed(input_ids, pixel_values, tgt_sizes, image_bound, temporal_ids)
        kwargs.pop("image_sizes", None)
        return self.llm(inputs_embeds=inputs_embeds, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Views | None = None,
        tgt_sizes: Sequence[Tensor] | None = None,
        image_bound: Sequence[Tensor] | None = None,
        temporal_ids: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's ``generate`` after the media were read once; returns prompt and continuation."""
        kwargs.pop("image_sizes", None)
        self.llm.generation_config = self.generation_config  # the one that was loaded, and that users change
        embeddings = self.embed(input_ids, pixel_values, tgt_sizes, image_bound, temporal_ids)
        return self.llm.generate(input_ids=input_ids, inputs_embeds=embeddings, **kwargs)


def _check_views(views: Sequence[Tensor], grids: Sequence[tuple[int, int]]) -> None:
    if len(views) != len(grids):
        raise ValueError(f"got {len(views)} views and the sizes of {len(grids)}; pass all that the processor returns")
    for view, (rows, columns) in zip(views, grids, strict=True):
        if view.ndim != 3 or view.shape[0] != 3 or view.shape[2] != rows * columns * view.shape[1]:
            raise ValueError(
                f"a view has shape {list(view.shape)}, which is not {rows} x {columns} RGB patches side by side; "
                "pass all that the processor returns"
            )


def _block_places(image_bound: Iterable[Tensor], packages: int, queries: int) -> tuple[Tensor, Tensor]:
    """Row and column [packages * Q] of every token that a package's features replace, in the packages' order."""
    rows: list[int] = []
    columns: list[Tensor] = []
    for row, bounds in enumerate(image_bound):
        for start, end in bounds.tolist():
            if end - start != queries:
                raise ValueError(
                    f"a block of row {row} has {end - start} tokens, but the model makes {queries} of each view or "
                    "package; the processor's image_feature_size must be the model's query_num"
                )
            rows += [row] * queries
            columns.append(torch.arange(start, end))
    if len(columns) != packages:
        raise ValueError(
            f"the prompts have {len(columns)} blocks for {packages} views or packages; "
            "pass all that the processor returns"
        )
    return torch.tensor(rows), torch.cat(columns)
