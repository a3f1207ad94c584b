from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from base_model.export.checkpoint import INDEX, Checkpoint, write_index
from base_model.export.load import load_plain
from base_model.export.merge import write_merged
from tests.base_model.export.models import text_checkpoint, vision_checkpoint

IDS = torch.tensor([[5, 9, 40, 7, 3]])


def _target(tmp_path: Path) -> Path:
    target = tmp_path / "merged"
    target.mkdir()
    return target


def test_a_plain_checkpoint_keeps_every_bit_and_its_companions(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    target = _target(tmp_path)
    write_merged(source.folder, target)
    before, after = (load_file(folder / "model.safetensors") for folder in (source.folder, target))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.jinja"):
        assert (target / name).read_bytes() == (source.folder / name).read_bytes()


def test_training_state_is_left_behind(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model")
    (source.folder / "optimizer.safetensors").write_bytes(b"x")
    (source.folder / "state.json").write_text("{}")
    target = _target(tmp_path)
    write_merged(source.folder, target)
    assert not {"optimizer.safetensors", "state.json"} & {path.name for path in target.iterdir()}


def test_the_type_of_the_weights_is_in_file_and_config(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model")
    target = _target(tmp_path)
    write_merged(source.folder, target, "bfloat16")
    assert {tensor.dtype for tensor in load_file(target / "model.safetensors").values()} == {torch.bfloat16}
    assert Checkpoint(target).config.dtype is torch.bfloat16


def test_shards_stay_shards(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model")
    tensors = load_file(source.folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: tensors[name] for name in chosen}, source.folder / file, metadata={"format": "pt"})
    write_index({name: file for file, chosen in halves.items() for name in chosen}, source.folder)
    (source.folder / "model.safetensors").unlink()
    target = _target(tmp_path)
    write_merged(source.folder, target)
    assert (target / INDEX).is_file()
    assert sorted(Checkpoint(target).files) == names
    assert torch.equal(load_plain(target)(IDS).logits, load_plain(source.folder)(IDS).logits)


@pytest.mark.parametrize("vision", [False, True])
def test_an_adapter_is_folded_into_its_base(tmp_path: Path, vision: bool) -> None:
    source = (vision_checkpoint if vision else text_checkpoint)(tmp_path / "model")
    adapted = get_peft_model(
        load_plain(source.folder), LoraConfig(r=4, target_modules=r".*layers.*q_proj", init_lora_weights=False)
    ).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    target = _target(tmp_path)
    write_merged(tmp_path / "adapter", target)
    with torch.no_grad():
        wanted = adapted(input_ids=IDS).logits
        torch.testing.assert_close(load_plain(target)(input_ids=IDS).logits, wanted, atol=1e-4, rtol=0)
        assert not torch.allclose(load_plain(source.folder)(input_ids=IDS).logits, wanted, atol=1e-2)


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "nowhere"}')
    with pytest.raises(ValueError, match="is an adapter to 'nowhere'"):
        write_merged(tmp_path, _target(tmp_path))


@pytest.mark.parametrize("name", ["../outside.safetensors", "absent.safetensors"])
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    source = text_checkpoint(tmp_path / "model")
    (tmp_path / "outside.safetensors").write_bytes(b"")
    (source.folder / INDEX).write_text(f'{{"weight_map": {{"lm_head.weight": "{name}"}}}}')
    with pytest.raises(ValueError, match="which is not in that directory"):
        Checkpoint(source.folder)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model")
    (source.folder / "model.safetensors").unlink()
    (source.folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="pickled weights are not read"):
        Checkpoint(source.folder)
