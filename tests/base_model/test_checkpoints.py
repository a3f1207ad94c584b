"""Tokenizers and processors of checkpoint directories."""

import importlib.util
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from base_model.checkpoints import has_vision, load_processor
from base_model.vlm import MiniCPMVProcessor
from tests.base_model.other_vlms import qwen_config
from tests.base_model.vlm.small import shared
from tests.tiny import QWEN3_CHAT_TEMPLATE, make_tiny_tokenizer


def _directory(path: Path, config: dict[str, object]) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_language_model_has_a_tokenizer_and_a_vision_language_model_a_processor(tmp_path: Path) -> None:
    text = _directory(tmp_path / "text", {"model_type": "llama"})
    make_tiny_tokenizer(chat_template=QWEN3_CHAT_TEMPLATE).save_pretrained(text)
    assert not has_vision(text)
    assert isinstance(load_processor(text), PreTrainedTokenizerFast)
    model, processor = shared()
    images = _directory(tmp_path / "images", model.config.to_dict())
    processor.save_pretrained(images)
    assert has_vision(images)
    assert isinstance(load_processor(images), MiniCPMVProcessor)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_that_needs_another_package_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = _directory(tmp_path / "qwen", qwen_config("qwen2_vl").to_dict())
    make_tiny_tokenizer().save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"})
    )
    with pytest.raises(ValueError, match=r"cannot be loaded .*[Tt]orchvision"):
        load_processor(path)
