"""One optimiser step: what accumulation and batches without trained parts change, and that data positions are saved."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import TrainingArguments

from base_model import packed_attention
from base_model.example_packing import pack_examples
from base_model.packed_lm import PackedCausalLM
from base_model.sample_loader import Labelled
from base_model.stage_trainer import POSITION, StageTrainer, newest_checkpoint
from base_model.throughput import Meter
from base_model.trainable import set_trainable
from base_model.training_settings import PARTS, OptimizerSettings
from tests.base_model.vlm.examples import example, mixed_examples
from tests.base_model.vlm.small import tiny


class Batches(IterableDataset[dict[str, Any]]):
    """Packed batches of given examples."""

    def __init__(self, groups: list[list[Any]]) -> None:
        self.groups = groups

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, group in enumerate(self.groups, start=1):
            samples = [Labelled("mixed", each) for each in group]
            yield {"batch": pack_examples(group), "samples": samples, "position": {"batch": number}}


def _trained(folder: Path, groups: list[list[Any]], parts: Any, *, steps: int = 1, **arguments: Any) -> StageTrainer:
    model, _ = tiny()
    packed_attention.register()
    model.llm.set_attn_implementation(packed_attention.NAME)
    set_trainable(model, parts)
    given = {"save_strategy": "no", "logging_steps": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    args = TrainingArguments(output_dir=str(folder), max_steps=steps, ignore_data_skip=True, **(given | arguments))
    loader: Any = Batches(groups)
    settings = OptimizerSettings(learning_rate=1e-3)
    trainer = StageTrainer(
        PackedCausalLM(model), args, loader, optimizer_settings=settings, meter=Meter(None, 1.0, 1000)
    )
    trainer.train()
    return trainer


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    examples = mixed_examples(tiny()[1])
    whole = _trained(tmp_path, [examples], PARTS).state.log_history[0]
    parts = _trained(tmp_path, [examples[:1], examples[1:]], PARTS, gradient_accumulation_steps=2).state.log_history[0]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5)


def test_text_alone_teaches_the_resampler_nothing(tmp_path: Path) -> None:
    trainer = _trained(tmp_path, [[example(tiny()[1], "The sum of 3 and 4 is 7.")]], ["resampler"])
    assert trainer.state.log_history[0]["loss"] > 0
    assert trainer.state.log_history[0]["grad_norm"] == 0
    for trained, fresh in zip(trainer.model.model.parameters(), tiny()[0].parameters(), strict=True):
        assert torch.equal(trained, fresh)


def test_checkpoints_tell_where_the_data_were(tmp_path: Path) -> None:
    examples = mixed_examples(tiny()[1])
    groups = [[each] for each in examples[:4]]
    trainer = _trained(tmp_path, groups, ["resampler"], steps=4, save_strategy="steps", save_steps=1)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    assert all(a != b for a, b in pairwise(losses))
    newest = newest_checkpoint(tmp_path)
    assert newest == tmp_path / "checkpoint-4"
    assert json.loads((newest / POSITION).read_text()) == {"batch": 4}
    (newest / POSITION).unlink()  # as if the process had been killed while it was written
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert newest_checkpoint(tmp_path / "none") is None
