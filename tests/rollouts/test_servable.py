"""What vLLM is given of a training checkpoint."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from rollouts.servable import ServableFolder
from rollouts.weights import checkpoint_shapes


def test_the_optimizers_state_is_no_weight(tmp_path: Path) -> None:
    save_file({"embed.weight": torch.ones(2, 3)}, tmp_path / "model.safetensors")
    save_file({"embed.weight|exp_avg": torch.ones(2, 3)}, tmp_path / "optimizer.safetensors")
    (tmp_path / "config.json").write_text("{}")
    folder = ServableFolder(tmp_path)
    assert {path.name for path in folder.path.iterdir()} == {"model.safetensors", "config.json"}
    assert checkpoint_shapes(folder.path) == {"embed.weight": (2, 3)}
    folder.close()
    assert not folder.path.exists()
    assert (tmp_path / "model.safetensors").is_file()


def test_a_plain_model_is_served_from_its_own_folder(tmp_path: Path) -> None:
    save_file({"embed.weight": torch.ones(2, 3)}, tmp_path / "model.safetensors")
    folder = ServableFolder(tmp_path)
    assert folder.path == tmp_path
    folder.close()
    assert tmp_path.is_dir()
