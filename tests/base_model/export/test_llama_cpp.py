"""The exported files, run by llama.cpp itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from base_model.export import llama_cpp
from base_model.export.gguf_text import write_text
from base_model.export.gguf_vision import write_vision
from base_model.export.load import load_plain
from base_model.export.parity import check_tokenizer, compare
from tests.base_model.export.models import needs_llama_cpp, prompt, text_checkpoint, vision_checkpoint


def _picture(width: int, height: int) -> Image.Image:
    colours = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


@needs_llama_cpp
@pytest.mark.parametrize(
    ("architecture", "options"), [("llama", {}), ("qwen2", {"vocab_size": 400, "head_dim": 16}), ("qwen3", {})]
)
def test_text_answers_are_those_of_transformers(tmp_path: Path, architecture: str, options: Any) -> None:
    source = text_checkpoint(tmp_path / "model", architecture, **options)
    write_text(source, tmp_path / "t.gguf", "f32")
    tokenizer = AutoTokenizer.from_pretrained(source.folder)
    found = compare(load_plain(source.folder), tokenizer, tmp_path / "t.gguf", prompt(), max_tokens=8)
    assert found.tokens >= 4
    assert found.equal, found
    assert found.logprob_difference < 2e-3


@needs_llama_cpp
def test_image_answers_are_those_of_transformers(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    write_text(source, tmp_path / "t.gguf", "f32")
    write_vision(source, tmp_path / "v.gguf", "f32")
    model, processor = load_plain(source.folder), AutoProcessor.from_pretrained(source.folder)
    check_tokenizer(processor.tokenizer, tmp_path / "t.gguf")
    # Neither is resized to another shape by llama.cpp; the second is cut in two.
    for size in ((112, 112), (224, 112)):
        found = compare(
            model, processor, tmp_path / "t.gguf", prompt(image=True),
            images=[_picture(*size)], projector=tmp_path / "v.gguf", max_tokens=8,
        )  # fmt: skip
        assert found.equal, found
        assert found.logprob_difference < 5e-3
    blank = compare(
        model, processor, tmp_path / "t.gguf", prompt(image=True),
        images=[Image.new("RGB", (112, 112))], projector=tmp_path / "v.gguf", max_tokens=8,
    )  # fmt: skip
    assert blank.transformers != found.transformers, "the image does not matter, so nothing was tested"


@needs_llama_cpp
def test_a_file_that_llama_cpp_cannot_load_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ValueError, match=r"llama\.cpp cannot run .*broken\.gguf: "):
        llama_cpp.complete(tmp_path / "broken.gguf", "x")


def test_without_llama_cpp_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "available", lambda: False)
    with pytest.raises(ValueError, match="pip install xllamacpp"):
        llama_cpp.complete(tmp_path / "m.gguf", "x")
