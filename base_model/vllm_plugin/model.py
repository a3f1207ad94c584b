"""The model as vLLM runs it: tower and resampler of `base_model.vlm`, and vLLM's own class of the language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from base_model.vllm_plugin.processing import TAGS, DummyInputs, MultiModalProcessor, ProcessingInfo
from base_model.vlm.configuration import MiniCPMVConfig
from base_model.vlm.resampler import NO_TIME, Resampler
from base_model.vlm.vision import VisionTower

VERSION = 4.5
"""Of the layout: others have another tower, resampler or prompt."""


@MULTIMODAL_REGISTRY.register_processor(MultiModalProcessor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class PackedMiniCPMV(nn.Module, SupportsMultiModal, SupportsPP):
    """Any language model that vLLM serves, behind the vision tower and the 3D-resampler.

    Weights have the names of the checkpoint: ``llm.*``, ``vpm.*``, ``resampler.*``.
    """

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """The place of an item in a chat message."""
        return TAGS.get(modality)

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        _check(config)
        with self._mark_language_model(vllm_config):
            self.llm = init_vllm_registered_model(
                vllm_config, hf_config=config.text_config, prefix=maybe_prefix(prefix, "llm")
            )
        with self._mark_tower_model(vllm_config, {"image", "video"}):
            self.vpm = VisionTower(
                config.vision_config,
                drop_last_layer=config.drop_vision_last_layer,
                batch_size=config.vision_batch_size,
            )
            self.resampler = Resampler(
                config.query_num, config.text_config.hidden_size, config.vision_config.hidden_size
            )
        self.make_empty_intermediate_tensors = self.llm.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> list[Tensor]:
        """Features [tokens, D] of each image or video, in the order in which vLLM gave them.

        Args:
            **kwargs: fields of one modality as `MultiModalProcessor` made them, an entry per item.
        """
        features: list[Tensor] = []
        for name in kwargs:  # the order of the first fields is that of the modalities
            if name == "pixel_values":
                features += self._features(kwargs["pixel_values"], kwargs["tgt_sizes"], None)
            elif name == "video_pixel_values":
                features += self._features(kwargs["video_pixel_values"], kwargs["video_tgt_sizes"], _ticks(kwargs))
        return features

    def _features(
        self, views: Sequence[Any], grids: Sequence[Tensor], ticks: Sequence[list[list[int]]] | None
    ) -> list[Tensor]:
        """[tokens, D] of each item.

        Args:
            views: per item, its views [3, P, N * P].
            grids: per item, [views, 2] rows and columns of patches.
            ticks: per item, temporal ids of each package's frames; None = images.
        """
        packages = [[[NO_TIME]] * len(each) for each in views] if ticks is None else ticks
        sizes = [(int(rows), int(columns)) for each in grids for rows, columns in each.tolist()]
        weight = self.resampler.query
        patches = [view.to(weight.device) for each in views for view in each]
        tokens = self.resampler(self.vpm(patches, sizes), sizes, list(chain.from_iterable(packages)))
        return [part.flatten(0, 1) for part in tokens.split([len(each) for each in packages])]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's hidden states."""
        embeds = None if intermediate_tensors is not None else inputs_embeds
        return self.llm(input_ids, positions, intermediate_tensors, inputs_embeds=embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """The language model's."""
        return self.llm.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Loads tensors of the checkpoint's names; returns the names that were loaded."""
        return AutoWeightsLoader(self).load_weights(weights)

    def get_mm_mapping(self) -> MultiModelKeys:
        """How the names of each part's weights begin."""
        return MultiModelKeys.from_string_field(language_model="llm", connector="resampler", tower_model="vpm")


def _check(config: Any) -> None:
    if not isinstance(config, MiniCPMVConfig) or config.version != VERSION:
        raise ValueError(
            f"this checkpoint has version {getattr(config, 'version', None)} of the MiniCPM-V layout, and the plug-in "
            f"serves {VERSION}; set VLLM_PLUGINS to a list without tandem_vlm to use vLLM's own class"
        )


def _ticks(kwargs: Mapping[str, Any]) -> list[list[list[int]]]:
    """Per video, the temporal ids of each package's frames."""
    return [
        [part.tolist() for part in torch.split(ticks, sizes.tolist())]
        for ticks, sizes in zip(kwargs["video_ticks"], kwargs["video_packages"], strict=True)
    ]
