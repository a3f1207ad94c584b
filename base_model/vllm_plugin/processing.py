"""Media and prompts for vLLM: places in the text become blocks of tokens, images and frames become patches.

vLLM asks in this order, and each answer comes from `base_model.vlm`:

    parse        media in any form         -> RgbImages, PackedVideos (base_model.vllm_plugin.media)
    process      those that are not cached -> patches, grids, ticks of 0.1 s
    updates      one block of tokens per item, without the number that an image gets by its place in the prompt
    apply        text with places          -> ids with blocks, the ids of `MiniCPMVProcessor`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdateDetails,
)
from vllm.multimodal.processing.processor import PlaceholderFeaturesInfo

from base_model.vllm_plugin.media import MAX_PACKAGES, MediaParser, PackedVideos, RgbImages
from base_model.vlm.image_processing import MiniCPMVImageProcessor
from base_model.vlm.processing import IMAGE_TAG, MAX_PACKAGE, PLACES, VIDEO_TAG, PackedVideo, ticks_of

TAGS = {"image": IMAGE_TAG, "video": VIDEO_TAG}
_MODALITY = {tag: modality for modality, tag in TAGS.items()}

_FIELDS = ("pixel_values", "tgt_sizes")
_VIDEO_FIELDS = ("video_pixel_values", "video_tgt_sizes", "video_ticks", "video_packages")


class ProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the checkpoint."""

    takes_packed_videos = True

    @cached_property
    def image_processor(self) -> MiniCPMVImageProcessor:
        """The checkpoint's."""
        config = self.ctx.model_config
        return MiniCPMVImageProcessor.from_pretrained(config.model, revision=config.revision)

    def get_data_parser(self) -> MediaParser:
        """See `MediaParser`."""
        return MediaParser()

    def get_default_tok_params(self) -> Any:
        """No special tokens are added to a text prompt: chat templates write them."""
        return super().get_default_tok_params().with_kwargs(add_special_tokens=False)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Images and videos, as many as the user allows."""
        return {"image": None, "video": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Feature tokens of the largest image, and of the longest video that the context holds."""
        processor = self.image_processor
        views = 1 + (processor.max_slice_nums if processor.slice_mode else 0)
        return {
            "image": processor.image_feature_size * views,
            "video": processor.image_feature_size * self.packages_that_fit(seq_len),
        }

    def packages_that_fit(self, seq_len: int) -> int:
        """Packages of the longest video that a context of so many tokens holds; at least one."""
        return max(1, min(MAX_PACKAGES, seq_len // (self.image_processor.image_feature_size + 3)))


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):
    """The largest media, with which vLLM measures memory before it starts."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """One place for each item."""
        return "".join(tag * mm_counts.get(modality, 0) for modality, tag in TAGS.items())

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Images with the largest grid; videos of as many full packages as the context holds."""
        side = self.info.image_processor.scale_resolution
        cells = self.info.image_processor.max_slice_nums
        frame = Image.new("RGB", (side, side))
        package = [frame] * MAX_PACKAGE
        count = self.info.packages_that_fit(seq_len)
        video = PackedVideo([package] * count, [[float(at) for at in range(MAX_PACKAGE)]] * count)
        return {
            "image": [Image.new("RGB", (side, side * cells))] * mm_counts.get("image", 0),
            "video": [video] * mm_counts.get("video", 0),
        }


class MultiModalProcessor(BaseMultiModalProcessor[ProcessingInfo]):
    """The processor of `base_model.vlm` in the parts that vLLM calls one by one, so that it can cache each item."""

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, Any]) -> BatchFeature:
        most = self._max_slices(hf_kwargs)
        data: dict[str, Any] = {}
        if images := hf_data.get("images"):
            done = self.info.image_processor.preprocess([[image] for image in images], most)
            data |= {name: done[name] for name in _FIELDS}
        if videos := hf_data.get("videos"):
            frames = [[frame for package in video.packages for frame in package] for video in videos]
            done = self.info.image_processor.preprocess(frames, 1)
            ticks = [ticks_of(video) for video in videos]
            data |= {f"video_{name}": done[name] for name in _FIELDS}
            data["video_ticks"] = [torch.tensor([tick for package in each for tick in package]) for each in ticks]
            data["video_packages"] = [torch.tensor([len(package) for package in each]) for each in ticks]
        return BatchFeature(data)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, Any]
    ) -> Mapping[str, MultiModalFieldConfig]:
        def field(name: str, modality: str) -> MultiModalFieldConfig:
            return MultiModalFieldConfig.batched(modality, keep_on_cpu=not name.endswith("pixel_values"))

        return {name: field(name, "image") for name in _FIELDS} | {name: field(name, "video") for name in _VIDEO_FIELDS}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        processor, most = self.info.image_processor, self._max_slices(hf_processor_mm_kwargs)

        def image_block(index: int) -> PromptUpdateDetails:
            size = mm_items.get_items("image", RgbImages).get_image_size(index)
            return self._block(processor.get_slice_image_placeholder(size, 0, most, use_image_id=False))

        def video_block(index: int) -> PromptUpdateDetails:
            video = mm_items.get_items("video", PackedVideos).get(index)
            return self._block(processor.get_video_placeholder(len(video.packages)))

        blocks = {"image": image_block, "video": video_block}
        return [PromptReplacement(name, self._encode(tag), blocks[name]) for name, tag in TAGS.items()]

    def _apply_prompt_updates(
        self, token_ids: list[int], mm_prompt_updates: Mapping[str, Sequence[Any]]
    ) -> tuple[list[int], dict[str, list[PlaceholderFeaturesInfo]]]:
        """Ids with a block in every place, and where the blocks are.

        As `MiniCPMVProcessor` does it: what stands between the places is tokenized piece by piece. An image's number
        depends on its place, not on the image, so it is no part of the cached block.
        """
        text = self.info.get_tokenizer().decode(token_ids, clean_up_tokenization_spaces=False)
        pieces = PLACES.split(text)
        self._check_places(pieces, mm_prompt_updates)
        found: dict[str, list[PlaceholderFeaturesInfo]] = {modality: [] for modality in mm_prompt_updates}
        ids: list[int] = []
        for piece in pieces:
            if piece not in _MODALITY:
                ids += self._encode(piece)
                continue
            items = found[_MODALITY[piece]]
            ids += self._number(len(items)) if piece == IMAGE_TAG else []
            content = mm_prompt_updates[_MODALITY[piece]][len(items)][0].content
            mask = content.is_embed(content.full)
            items.append(PlaceholderFeaturesInfo(_MODALITY[piece], len(items), len(ids), content.full, mask))
            ids += content.full
        return ids, found

    def _check_places(self, pieces: Sequence[str], updates: Mapping[str, Sequence[Any]]) -> None:
        for modality, tag in TAGS.items():
            places, items = pieces.count(tag), len(updates.get(modality, ()))
            if places != items:
                raise ValueError(
                    f"the prompt has {places} places {tag} for {items} items of type {modality}; "
                    "write one where each of them belongs"
                )

    def _number(self, index: int) -> list[int]:
        """Ids of an image's number, where images are numbered."""
        processor = self.info.image_processor
        return self._encode(f"{processor.im_id_start}{index}{processor.im_id_end}") if processor.use_image_id else []

    def _block(self, text: str) -> PromptUpdateDetails:
        tokenizer = self.info.get_tokenizer()
        feature = tokenizer.convert_tokens_to_ids(self.info.image_processor.unk)
        return PromptUpdateDetails.select_token_id(self._encode(text), feature)

    def _encode(self, text: str) -> list[int]:
        return self.info.get_tokenizer().encode(text, add_special_tokens=False)

    def _max_slices(self, kwargs: Mapping[str, Any]) -> int | None:
        """The one option that a request may set."""
        options = self.info.ctx.get_merged_mm_kwargs(kwargs)
        if unknown := sorted(set(options) - {"max_slice_nums"}):
            raise ValueError(f"mm_processor_kwargs has {', '.join(unknown)}; this model knows max_slice_nums alone")
        return options.get("max_slice_nums")
