"""The layout of the official 8.7B checkpoint: every name and shape, sizes by part, and files written like it."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from base_model.vlm import MiniCPMV, MiniCPMVConfig, MiniCPMVProcessor
from base_model.vlm.presets import SIZES, parts, preset_config
from tests.base_model.vlm.small import logits, picture, shared, tiny

OFFICIAL_BYTES = 17_391_790_560
"""``total_size`` in the official ``model.safetensors.index.json``, bf16."""

OFFICIAL_CONFIG = {
    "version": 4.5,
    "architectures": ["MiniCPMV"],
    "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMVConfig", "AutoModel": "modeling_minicpmv.MiniCPMV"},
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151748,
    "batch_vision_input": True,
    "batch_3d_resampler": True,
    "drop_vision_last_layer": False,
    "image_size": 448,
    "model_type": "minicpmv",
    "patch_size": 14,
    "query_num": 64,
    "slice_config": {"max_slice_nums": 9, "patch_size": 14, "model_type": "minicpmv"},
    "slice_mode": True,
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 980,
        "intermediate_size": 4304,
        "model_type": "siglip",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "patch_size": 14,
    },
}


def official_shapes() -> dict[str, list[int]]:
    """Every tensor of the official checkpoint, written down by hand."""
    width, mlp, keys, vocabulary = 4096, 12288, 1024, 151748
    shapes = {"llm.model.embed_tokens.weight": [vocabulary, width], "llm.lm_head.weight": [vocabulary, width]}
    shapes["llm.model.norm.weight"] = [width]
    for layer in range(36):
        name = f"llm.model.layers.{layer}."
        shapes |= {
            f"{name}self_attn.q_proj.weight": [width, width],
            f"{name}self_attn.k_proj.weight": [keys, width],
            f"{name}self_attn.v_proj.weight": [keys, width],
            f"{name}self_attn.o_proj.weight": [width, width],
            f"{name}self_attn.q_norm.weight": [128],
            f"{name}self_attn.k_norm.weight": [128],
            f"{name}mlp.gate_proj.weight": [mlp, width],
            f"{name}mlp.up_proj.weight": [mlp, width],
            f"{name}mlp.down_proj.weight": [width, mlp],
            f"{name}input_layernorm.weight": [width],
            f"{name}post_attention_layernorm.weight": [width],
        }
    return shapes | _vision_shapes(1152, 4304) | _resampler_shapes(width, 1152)


def _vision_shapes(width: int, mlp: int) -> dict[str, list[int]]:
    shapes = {
        "vpm.embeddings.patch_embedding.weight": [width, 3, 14, 14],
        "vpm.embeddings.patch_embedding.bias": [width],
        "vpm.embeddings.position_embedding.weight": [4900, width],
        "vpm.post_layernorm.weight": [width],
        "vpm.post_layernorm.bias": [width],
    }
    for layer in range(27):
        name = f"vpm.encoder.layers.{layer}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= {f"{name}self_attn.{part}.weight": [width, width], f"{name}self_attn.{part}.bias": [width]}
        for part in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{name}{part}.weight": [width], f"{name}{part}.bias": [width]}
        shapes |= {f"{name}mlp.fc1.weight": [mlp, width], f"{name}mlp.fc1.bias": [mlp]}
        shapes |= {f"{name}mlp.fc2.weight": [width, mlp], f"{name}mlp.fc2.bias": [width]}
    return shapes


def _resampler_shapes(width: int, vision: int) -> dict[str, list[int]]:
    shapes = {
        "resampler.query": [64, width],
        "resampler.proj": [width, width],
        "resampler.kv_proj.weight": [width, vision],
        "resampler.attn.in_proj_weight": [3 * width, width],
        "resampler.attn.in_proj_bias": [3 * width],
        "resampler.attn.out_proj.weight": [width, width],
        "resampler.attn.out_proj.bias": [width],
    }
    for norm in ("ln_q", "ln_kv", "ln_post"):
        shapes |= {f"resampler.{norm}.weight": [width], f"resampler.{norm}.bias": [width]}
    return shapes


@pytest.mark.parametrize("source", ["preset", "file"])
def test_every_name_and_shape_of_the_official_checkpoint(tmp_path: Path, source: str) -> None:
    if source == "preset":
        config = preset_config("minicpm-v-4.5")
    else:
        (tmp_path / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
        config = MiniCPMVConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        model = MiniCPMV(config)
    assert {name: list(weight.shape) for name, weight in model.state_dict().items()} == official_shapes()
    assert 2 * sum(weight.numel() for weight in model.parameters()) == OFFICIAL_BYTES
    assert not list(model.vpm.buffers()) + list(model.resampler.buffers())
    assert model.resampler.attn.num_heads == 32
    assert model.vpm.embeddings.side == 70


def test_size_of_each_part_of_the_official_layout() -> None:
    with torch.device("meta"):
        model = MiniCPMV(preset_config("minicpm-v-4.5")).to(torch.bfloat16)
    sizes = parts(model)
    assert sum(part.bytes for part in sizes.values()) == OFFICIAL_BYTES
    shapes = official_shapes()
    for name, prefix in (("vision tower", "vpm."), ("resampler", "resampler."), ("language model", "llm.")):
        wanted = sum(math.prod(shape) for key, shape in shapes.items() if key.startswith(prefix))
        assert sizes[name] == (wanted, 2 * wanted)


def test_the_official_configuration_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
    config = MiniCPMVConfig.from_pretrained(tmp_path)
    assert config.text_config.model_type == "qwen3"
    assert config.dtype == config.text_config.dtype == config.vision_config.dtype == torch.bfloat16
    assert config.text_config.rope_parameters["rope_theta"] == 1_000_000
    assert config.slice_config == {**OFFICIAL_CONFIG["slice_config"], "scale_resolution": 448}
    saved = config.to_dict()
    same = set(OFFICIAL_CONFIG) - {"torch_dtype", "rope_theta", "rope_scaling", "transformers_version"}
    same -= {"vision_config", "slice_config"}
    assert {name: saved[name] for name in same} == {name: OFFICIAL_CONFIG[name] for name in same}
    tower = OFFICIAL_CONFIG["vision_config"]
    assert {name: saved["vision_config"][name] for name in tower} == tower | {"model_type": "siglip_vision_model"}


def test_a_checkpoint_written_by_other_hands_loads(tmp_path: Path) -> None:
    """The official files in small: legacy names in config.json, remote code named but not there, split weights."""
    from transformers import AutoModel

    model, processor = tiny(hidden_size=128, head_dim=32, tie_word_embeddings=False)
    small = OFFICIAL_CONFIG | {
        "hidden_size": 128,
        "head_dim": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(processor.tokenizer),
        "rope_theta": 10000,
        "query_num": 4,
        "torch_dtype": "float32",
        "vision_config": {
            "hidden_size": 128,
            "image_size": 224,
            "intermediate_size": 512,
            "model_type": "siglip",
            "num_attention_heads": 2,
            "num_hidden_layers": 4,
            "patch_size": 14,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(small))
    files = {}
    for number, part in enumerate(("llm", "vpm", "resampler"), 1):
        weights = {name: weight for name, weight in model.state_dict().items() if name.startswith(part)}
        file = f"model-0000{number}-of-00003.safetensors"
        save_file(weights, tmp_path / file, {"format": "pt"})
        files |= dict.fromkeys(weights, file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is MiniCPMV
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    inputs = processor("(<image>./</image>) 12", images=[picture(200, 100)])
    assert torch.equal(logits(loaded.eval(), inputs), logits(model, inputs))


def test_sizes_of_the_presets() -> None:
    totals = {}
    for size in SIZES:
        with torch.device("meta"):
            model = MiniCPMV(preset_config(size))
        totals[size] = sum(part.parameters for part in parts(model).values())
        assert totals[size] == sum(weight.numel() for weight in model.parameters())
    assert 2e6 < totals["tiny"] < 5e6
    assert 1.5e8 < totals["smollm2-135m"] < 2e8
    assert list(totals.values()) == sorted(totals.values())


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no model size 'huge'; choose one of tiny"):
        preset_config("huge")


def test_the_official_processor_files_load(tmp_path: Path) -> None:
    """They name remote code that is neither there nor wanted, and a tokenizer class that transformers lacks."""
    from transformers import AutoProcessor

    _, ours = shared()
    ours.tokenizer.save_pretrained(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer |= {
        "tokenizer_class": "MiniCPMVTokenizerFast",
        "auto_map": {"AutoTokenizer": ["tokenization_minicpmv_fast.MiniCPMVTokenizerFast", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (tmp_path / "config.json").write_text(json.dumps(OFFICIAL_CONFIG))
    images = {
        "image_processor_type": "MiniCPMVImageProcessor",
        "processor_class": "MiniCPMVProcessor",
        "auto_map": {
            "AutoProcessor": "processing_minicpmv.MiniCPMVProcessor",
            "AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor",
        },
        "max_slice_nums": 9,
        "scale_resolution": 448,
        "patch_size": 14,
        "use_image_id": True,
        "image_feature_size": 64,
        "im_start": "<image>",
        "im_end": "</image>",
        "slice_start": "<slice>",
        "slice_end": "</slice>",
        "unk": "<unk>",
        "im_id_start": "<image_id>",
        "im_id_end": "</image_id>",
        "slice_mode": True,
        "norm_mean": [0.5, 0.5, 0.5],
        "norm_std": [0.5, 0.5, 0.5],
        "version": 2.6,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor) is MiniCPMVProcessor
    inputs = processor("(<image>./</image>) 12", images=[picture(640, 480)])
    assert [len(views) for views in inputs["pixel_values"]] == [3]
    unk = processor.tokenizer.convert_tokens_to_ids("<unk>")
    assert (inputs["input_ids"] == unk).sum() == 192
