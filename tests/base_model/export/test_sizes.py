from pathlib import Path

import pytest
import torch

from base_model.export.gguf_text import write_text
from base_model.export.gguf_vision import write_vision
from base_model.export.int4 import write_int4
from base_model.export.load_order import measure
from base_model.export.sizes import key_value_bytes, loaded, part_sizes
from base_model.vlm import MiniCPMV
from base_model.vlm.presets import parts, preset_config
from tests.base_model.export.models import text_checkpoint, vision_checkpoint


def test_the_largest_layout_by_part() -> None:
    with torch.device("meta"):
        model = MiniCPMV(preset_config("minicpm-v-4.5"))
    sizes = part_sizes(model)
    assert {part: size.parameters for part, size in sizes.items()} == {
        "vision tower": 417_792_240,
        "resampler": 88_907_776,
        "embeddings and head": 1_243_123_712,
        "layers": 6_946_071_552,
    }
    assert sum(size.parameters for size in sizes.values()) == sum(part.parameters for part in parts(model).values())
    assert sizes["layers"].int4 / sizes["layers"].bf16 == pytest.approx(4.5 / 16, rel=1e-3)
    # 36 layers, keys and values, 8 heads of 128, 2 bytes.
    assert key_value_bytes(model.config, 1000) == 36 * 2 * 8 * 128 * 2 * 1000
    memory = loaded(sizes, "q4_0", 0)
    assert memory["at once"] - memory["in turn"] == sizes["vision tower"].q4_0 + sizes["resampler"].q4_0


@pytest.mark.parametrize("vision", [False, True])
def test_computed_sizes_are_those_of_the_files(tmp_path: Path, vision: bool) -> None:
    source = (vision_checkpoint if vision else text_checkpoint)(tmp_path / "model")
    (tmp_path / "int4").mkdir()
    write_int4(source, tmp_path / "int4")
    write_text(source, tmp_path / "t.gguf", "q4_0")
    if vision:
        write_vision(source, tmp_path / "v.gguf", "f16")
    sizes = part_sizes(source.skeleton()).values()
    header = 20_000  # of safetensors; a GGUF file holds the tokenizer too
    assert 0 <= (tmp_path / "int4/model.safetensors").stat().st_size - sum(size.int4 for size in sizes) < header
    files = sum(path.stat().st_size for path in tmp_path.glob("*.gguf"))
    table = (4900 - 256) * 128 * 4 if vision else 0  # the position table enlarged from 16 x 16
    assert 0 <= files - table - sum(size.q4_0 for size in sizes) < 3 * header


@pytest.mark.slow
def test_both_load_orders_compute_the_same_and_in_turn_needs_no_more(tmp_path: Path) -> None:
    """With a tower as large as the language model, loading in turn must save most of it."""
    big = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 4}
    source = vision_checkpoint(tmp_path, vision_config={**big, "image_size": 224, "patch_size": 14}, vocab_size=40_000)
    size = {part: sizes.bf16 * 2 for part, sizes in part_sizes(source.skeleton()).items()}  # it is in fp32
    once, turn = measure(tmp_path, "at once"), measure(tmp_path, "in turn")
    assert once.logit_sum == turn.logit_sum
    saved = min(size["vision tower"], size["embeddings and head"] + size["layers"])
    assert once.peak - turn.peak > saved / 2
    assert once.model >= sum(size.values()) * 0.9


def test_without_a_vision_tower_there_is_no_order(tmp_path: Path) -> None:
    text_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no order of loading"):
        measure(tmp_path, "in turn")
