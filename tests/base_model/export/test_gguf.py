import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

from base_model.export.gguf_text import write_text
from base_model.export.gguf_tokenizer import splitting_rule
from base_model.export.gguf_vision import exact_grid, table_entries, write_vision
from base_model.export.load import load_gguf, load_plain
from tests.base_model.export.models import text_checkpoint, vision_checkpoint

IDS = torch.tensor([[5, 9, 40, 7, 3]])


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("llama", {}), ("llama", {"tied": False}), ("qwen2", {"vocab_size": 400}), ("qwen3", {"head_dim": 64})],
)
def test_transformers_reads_the_file_as_the_same_model(tmp_path: Path, architecture: str, options: Any) -> None:
    source = text_checkpoint(tmp_path / "model", architecture, **options)
    write_text(source, tmp_path / "f32.gguf", "f32")
    with torch.no_grad():
        wanted = load_plain(source.folder)(IDS).logits
        got = load_gguf(tmp_path / "f32.gguf", source)(IDS).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_the_language_model_of_a_vision_language_model(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    write_text(source, tmp_path / "f32.gguf", "f32")
    with torch.no_grad():
        wanted = load_plain(source.folder)(input_ids=IDS).logits
        got = load_gguf(tmp_path / "f32.gguf", source)(input_ids=IDS).logits
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)


def test_four_bits_for_the_layers_and_eight_for_embeddings(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model", tied=False)
    write_text(source, tmp_path / "q4.gguf", "q4_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "q4.gguf").tensors}
    assert {kinds["token_embd.weight"], kinds["output.weight"]} == {"Q8_0"}
    assert {kind for name, kind in kinds.items() if name.startswith("blk") and "norm" not in name} == {"Q4_0"}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}


def test_the_tokenizer_is_in_the_file(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model")
    write_text(source, tmp_path / "f16.gguf", "f16")
    fields = GGUFReader(tmp_path / "f16.gguf").fields
    spec = json.loads((source.folder / "tokenizer.json").read_text())
    assert len(fields["tokenizer.ggml.tokens"].data) == source.text_config.vocab_size
    assert len(fields["tokenizer.ggml.merges"].data) == len(spec["model"]["merges"])
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"].contents() == source.config.eos_token_id


def test_splitting_rules_by_llama_cpps_names() -> None:
    digits = {"type": "Digits", "individual_digits": True}
    qwen = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    qwen += r"|\s*[\r\n]+|\s+(?!\S)|\s+"

    def rule(*steps: dict[str, Any], model: str = "BPE") -> str:
        return splitting_rule(
            {"model": {"type": model}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}
        )

    split = {"type": "Split", "pattern": {"Regex": qwen}}
    assert rule({"type": "ByteLevel"}) == "gpt-2"
    assert rule(digits, {"type": "ByteLevel"}) == "smollm"
    assert rule(split, {"type": "ByteLevel", "use_regex": False}) == "qwen2"
    assert rule({**split, "pattern": {"Regex": qwen.replace(r"\p{N}| ", r"\p{N}{1,3}| ")}},
                {"type": "ByteLevel", "use_regex": False}) == "llama-bpe"  # fmt: skip
    for steps, model in (([{"type": "Metaspace"}], "BPE"), ([split, {"type": "ByteLevel"}], "BPE"),
                         ([{"type": "ByteLevel"}], "Unigram")):  # fmt: skip
        with pytest.raises(ValueError, match="none that this export knows"):
            rule(*steps, model=model)


def test_architectures_and_positions_that_are_not_written_are_refused(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "gemma", "gemma2")
    with pytest.raises(ValueError, match="the language model is a gemma2"):
        write_text(source, tmp_path / "x.gguf", "f16")
    scaled = text_checkpoint(
        tmp_path / "scaled", "llama", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    )
    with pytest.raises(ValueError, match=r"scales its positions \(linear\)"):
        write_text(scaled, tmp_path / "x.gguf", "f16")


def test_every_weight_of_tower_and_resampler_is_in_the_projector(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    write_vision(source, tmp_path / "v.gguf", "f32")
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(tmp_path / "v.gguf").tensors}
    vision = [name for name in source.files if not name.startswith("llm.")]
    assert len(tensors) == len(vision) + 4 + 1  # in_proj is cut in three, twice; an unused table is added
    proj = torch.from_numpy(tensors["resampler.proj.weight"].copy())
    assert torch.equal(proj, source.tensor("resampler.proj").T)
    down = torch.from_numpy(tensors["v.blk.1.ffn_down.weight"].copy())
    assert torch.equal(down, source.tensor("vpm.encoder.layers.1.mlp.fc2.weight"))


def test_a_hidden_size_that_llama_cpps_heads_do_not_divide_is_refused(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model", hidden_size=192, num_attention_heads=4)
    with pytest.raises(ValueError, match="do not divide this language model's hidden size 192"):
        write_vision(source, tmp_path / "v.gguf", "f16")


@pytest.mark.parametrize(("side", "exact"), [(70, 1024), (35, 1024), (14, 1024), (16, 12)])
def test_the_enlarged_position_table(side: int, exact: int) -> None:
    assert exact_grid(side) == exact
    entries = table_entries(side).view(70, 70)
    for patches in range(1, min(exact, 100) + 1):
        for patch in range(patches):
            row = int(entries[70 * patch // patches, 0]) // side
            assert row == side * patch // patches


def test_a_position_table_larger_than_llama_cpps_is_refused() -> None:
    with pytest.raises(ValueError, match="70 entries a side, and this model's 71"):
        table_entries(71)
