"""Sizes of the vision-language model: one name fixes language model, vision tower, resampler and image scale."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from base_model.vlm.configuration import OFFICIAL_VISION, MiniCPMVConfig
from base_model.vlm.image_processing import MiniCPMVImageProcessor
from base_model.vlm.local_start import start_resampler, start_tower
from base_model.vlm.modeling import MiniCPMV
from base_model.vlm.processing import MiniCPMVProcessor, add_vision_tokens

_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": {
            "image_size": 112,
            "query_num": 16,
            "vision_config": {
                "hidden_size": 128,
                "intermediate_size": 512,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 224,
                "patch_size": 14,
            },
            "text": {
                "model_type": "qwen3",
                "vocab_size": 4096,
                "hidden_size": 256,
                "intermediate_size": 384,
                "num_hidden_layers": 5,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 64,
                "max_position_embeddings": 8192,
                "rope_theta": 10_000.0,
                "tie_word_embeddings": True,
            },
        },
        "smollm2-135m": {
            "image_size": 448,
            "query_num": 64,
            "vision_config": {
                "hidden_size": 384,
                "intermediate_size": 1536,
                "num_hidden_layers": 12,
                "num_attention_heads": 6,
                "image_size": 980,
                "patch_size": 14,
            },
            "text": {
                "model_type": "llama",
                "vocab_size": 49152,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "head_dim": 64,
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-5,
                "rope_theta": 100_000.0,
                "tie_word_embeddings": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 2,
            },
        },
        "minicpm-v-4.5": {
            "image_size": 448,
            "query_num": 64,
            "vision_config": OFFICIAL_VISION,
            "text": {
                "model_type": "qwen3",
                "vocab_size": 151748,
                "hidden_size": 4096,
                "intermediate_size": 12288,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "max_position_embeddings": 40960,
                "max_window_layers": 36,
                "rope_theta": 1_000_000.0,
                "sliding_window": None,
                "tie_word_embeddings": False,
                "bos_token_id": 151643,
                "eos_token_id": 151645,
            },
        },
    }
)

SIZES = tuple(_PRESETS)
"""Names of the presets, smallest first."""


PREFIXES = MappingProxyType({"vision tower": "vpm.", "resampler": "resampler.", "language model": "llm."})
"""Parts of a model, and how the names of their parameters begin."""


class Part(NamedTuple):
    """Size of one part of a model."""

    parameters: int
    bytes: int  # of the weights, at the type they have


def preset_config(size: str, **changes: Any) -> MiniCPMVConfig:
    """Configuration of a preset.

    Args:
        size: one of ``SIZES``.
        **changes: fields of ``MiniCPMVConfig``, and of the language model, that differ from the preset's.

    Raises:
        ValueError: there is no such preset.
    """
    preset, text = _preset(size)
    return MiniCPMVConfig(text_model_type=text.pop("model_type"), **(preset | text | changes))


def _preset(size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The preset's own fields, and its language model's."""
    if size not in _PRESETS:
        raise ValueError(f"there is no model size {size!r}; choose one of {', '.join(SIZES)}")
    preset = dict(_PRESETS[size])
    return preset, dict(preset.pop("text"))


def image_processor_for(config: MiniCPMVConfig) -> MiniCPMVImageProcessor:
    """The image processor that fits a model: same scale, patches, tokens per view and slicing."""
    return MiniCPMVImageProcessor(
        max_slice_nums=config.slice_config["max_slice_nums"],
        scale_resolution=config.slice_config["scale_resolution"],
        patch_size=config.patch_size,
        use_image_id=config.use_image_id,
        image_feature_size=config.query_num,
        slice_mode=config.slice_mode,
    )


def build(
    size: str, tokenizer: Any, *, llm: PreTrainedModel | None = None, seed: int = 0, **changes: Any
) -> tuple[MiniCPMV, MiniCPMVProcessor]:
    """A new model of a preset and its processor, in fp32; tower and resampler begin by looking locally
    (``local_start``).

    Args:
        size: one of ``SIZES``.
        tokenizer: gets the special tokens it lacks; the vocabulary is sized by it.
        llm: trained causal language model to start from, in place of the preset's; its weights are copied, and its
            vocabulary grows with the tokenizer's.
        seed: of all other weights; torch's own generator is left as it was.
        **changes: fields that differ from the preset's.
    """
    add_vision_tokens(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config_with(size, tokenizer, changes) if llm is None else _config_of(llm, size, tokenizer, changes)
        model = MiniCPMV(config)
        start_resampler(model.resampler, config.image_size // config.patch_size)
        start_tower(model.vpm, config.image_size // config.patch_size)
    if llm is not None:
        model.llm.load_state_dict(llm.state_dict())
    return model, MiniCPMVProcessor(image_processor_for(config), tokenizer)


def _config_with(size: str, tokenizer: Any, changes: Mapping[str, Any]) -> MiniCPMVConfig:
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return preset_config(size, **({"vocab_size": len(tokenizer)} | tokens | dict(changes)))


def _config_of(llm: PreTrainedModel, size: str, tokenizer: Any, changes: Mapping[str, Any]) -> MiniCPMVConfig:
    """Everything but the language model from the preset; the vocabulary grows by the tokens that it lacks."""
    if llm.get_input_embeddings().num_embeddings < len(tokenizer):
        llm.resize_token_embeddings(len(tokenizer))
    return MiniCPMVConfig(text_config=llm.config, **(_preset(size)[0] | dict(changes)))


def parts(model: nn.Module) -> dict[str, Part]:
    """Parameters and bytes of the parts that are trained and loaded apart: tower, resampler, language model.

    Tied weights count once. Works on the meta device, so the largest preset can be measured anywhere.
    """
    sizes = {}
    for part, prefix in PREFIXES.items():
        weights = [weight for name, weight in model.named_parameters() if name.startswith(prefix)]
        count = sum(weight.numel() for weight in weights)
        sizes[part] = Part(count, sum(weight.numel() * weight.element_size() for weight in weights))
    return sizes
