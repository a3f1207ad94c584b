import json
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.export.checkpoint import Checkpoint
from base_model.export.int4 import best_scales, language_matrices, packed, rounded, write_int4
from base_model.export.load import load_plain
from tests.base_model.export.models import text_checkpoint, vision_checkpoint


def test_hand_computed_group() -> None:
    on_the_grid = torch.tensor([[-8.0, 7.0, 3.0, 0.0] * 8])
    assert best_scales(on_the_grid, 32).tolist() == [[1.0]]
    off_it = torch.tensor([[-9.0, 7.6, 3.4, -0.4] * 8])
    assert rounded(off_it, torch.ones(1, 1))[0, :4].tolist() == [-8.0, 7.0, 3.0, 0.0]


def test_packing_is_that_of_the_format() -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    stored = packed(weight, 32)
    values = unpack_from_int32(stored["weight_packed"], 4, stored["weight_shape"])
    assert stored["weight_packed"].shape == (6, 8)
    assert torch.equal(values.float(), rounded(weight, stored["weight_scale"]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e3))
def test_the_error_is_at_most_that_of_plain_rounding(seed: int, size: float) -> None:
    weight = size * torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
    scale = best_scales(weight, 32)
    plain = (weight.unflatten(1, (2, 32)).abs().amax(2) / 7).to(torch.bfloat16)

    def error(by: torch.Tensor) -> float:
        back = rounded(weight, by).unflatten(1, (2, 32)) * by.float()[..., None]
        return float((back.flatten(1) - weight).square().sum())

    assert error(scale) <= error(plain) * (1 + 1e-6)


def test_a_group_of_zeros_stays_zero() -> None:
    stored = packed(torch.zeros(2, 32), 32)
    assert torch.isfinite(stored["weight_scale"]).all()
    assert (unpack_from_int32(stored["weight_packed"], 4, stored["weight_shape"]) == 0).all()


@pytest.mark.parametrize("vision", [False, True])
def test_transformers_loads_it_and_only_the_language_models_matrices_changed(tmp_path: Path, vision: bool) -> None:
    source = (vision_checkpoint if vision else text_checkpoint)(tmp_path / "model")
    target = tmp_path / "int4"
    target.mkdir()
    write_int4(source, target)
    before, after = (load_plain(folder).state_dict() for folder in (source.folder, target))
    matrices = language_matrices(source)
    assert len(matrices) == 14  # q, k, v, o, gate, up, down in two layers
    for name in source.files:
        if name in matrices:
            rounding = (after[name].float() - before[name]).norm() / before[name].norm()
            assert 0.01 < rounding < 0.15, name
        else:
            assert torch.equal(after[name].to(torch.bfloat16), before[name].to(torch.bfloat16)), name


def test_the_config_keeps_the_vision_part_out(tmp_path: Path) -> None:
    (tmp_path / "int4").mkdir()
    write_int4(vision_checkpoint(tmp_path / "model"), tmp_path / "int4", group=64)
    scheme = json.loads((tmp_path / "int4/config.json").read_text())["quantization_config"]
    assert scheme["config_groups"]["group_0"]["weights"]["group_size"] == 64
    assert "re:.*vpm\\..*" in scheme["ignore"]


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not made of groups of 128"):
        write_int4(text_checkpoint(tmp_path / "model"), tmp_path, group=128)


def test_a_rounded_checkpoint_is_not_rounded_again(tmp_path: Path) -> None:
    (tmp_path / "int4").mkdir()
    write_int4(text_checkpoint(tmp_path / "model"), tmp_path / "int4")
    with pytest.raises(ValueError, match="quantised already"):
        Checkpoint(tmp_path / "int4")
