"""The vision-language model: images and packed videos read by any causal language model of transformers.

Importing this package makes the Auto classes of transformers know the layout (``model_type`` minicpmv), so that
``AutoModelForImageTextToText.from_pretrained`` and ``AutoProcessor.from_pretrained`` load the official checkpoint and
this project's own without remote code.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # the short name wants torchvision

from base_model.vlm.configuration import MiniCPMVConfig
from base_model.vlm.image_processing import MiniCPMVImageProcessor
from base_model.vlm.modeling import MiniCPMV
from base_model.vlm.processing import MiniCPMVProcessor, PackedVideo, add_vision_tokens

__all__ = [
    "MiniCPMV",
    "MiniCPMVConfig",
    "MiniCPMVImageProcessor",
    "MiniCPMVProcessor",
    "PackedVideo",
    "add_vision_tokens",
]

AutoConfig.register(MiniCPMVConfig.model_type, MiniCPMVConfig, exist_ok=True)
for _auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
    _auto.register(MiniCPMVConfig, MiniCPMV, exist_ok=True)
AutoImageProcessor.register(MiniCPMVConfig, image_processor_classes={"pil": MiniCPMVImageProcessor}, exist_ok=True)
AutoProcessor.register(MiniCPMVConfig, MiniCPMVProcessor, exist_ok=True)
