"""The check of weight names and the image in anonymous shared memory."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from rollouts.weights import MappedWeights, WeightsImage, checkpoint_shapes, select_tensors

EXPECTED = {"embed.weight": (5, 3), "norm.weight": (3,)}


def named(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"embed.weight": torch.arange(15.0).view(5, 3), "norm.weight": torch.ones(3), **more}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_image_is_read_by_safetensors_as_it_was_written(dtype):
    tensors = named(scalar=torch.tensor(2.5), transposed=torch.randn(4, 6).t())
    image = WeightsImage(tensors, dtype)
    read = load_file(image.path)
    image.close()
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.to(getattr(torch, dtype)))


def test_the_reader_sees_an_update_in_the_memory_it_has_mapped():
    image, reader = WeightsImage(named(), "bfloat16"), MappedWeights()
    first = reader.read(image.path)
    assert {name: tensor.tolist() for name, tensor in first.items()} == {n: t.tolist() for n, t in named().items()}
    image.write({name: -tensor for name, tensor in named().items()})
    again = reader.read(image.path)
    assert again["embed.weight"].data_ptr() == first["embed.weight"].data_ptr()
    assert torch.equal(again["embed.weight"], -named()["embed.weight"].bfloat16())
    other = WeightsImage(named(), "float32")  # after a restart of the trainer's side: another file
    image.close()
    assert torch.equal(reader.read(other.path)["embed.weight"], named()["embed.weight"])
    other.close()


def test_closing_gives_the_memory_back():
    before = len(os.listdir("/proc/self/fd"))
    image = WeightsImage(named(), "float32")
    image.close()
    image.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_shapes_are_read_from_the_headers(tmp_path):
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "model-1.safetensors", metadata={"format": "pt"})
    save_file({"b": torch.zeros(4)}, tmp_path / "model-2.safetensors")
    assert checkpoint_shapes(tmp_path) == {"a": (2, 3), "b": (4,)}


def test_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no"):
        checkpoint_shapes(tmp_path)


def test_second_name_of_a_tied_head_is_dropped():
    tensors = named()
    tensors["lm_head.weight"] = tensors["embed.weight"].clone()
    assert select_tensors(tensors.items(), EXPECTED, tied=True).keys() == EXPECTED.keys()


@pytest.mark.parametrize(
    ("tensors", "tied", "message"),
    [
        ({"norm.weight": torch.ones(3)}, True, "missing: embed.weight"),
        (named(other=torch.ones(1)), True, "unknown: other"),
        (named(lm_head=torch.ones(5, 3)), True, "unknown: lm_head"),  # a head that has come apart from the embedding
        (named(lm_head=torch.arange(15.0).view(5, 3)), False, "unknown: lm_head"),
        (named() | {"norm.weight": torch.ones(4)}, True, r"norm.weight has shape \(4,\) instead of \(3,\)"),
        ({f"x{i}": torch.ones(1) for i in range(5)}, True, "unknown: x0, x1, x2 and 2 more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tensors, tied, message):
    with pytest.raises(ValueError, match=message):
        select_tensors(tensors.items(), EXPECTED, tied)
