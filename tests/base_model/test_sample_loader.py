"""Packed batches of a mixture: the same ones whatever the workers, and after a resumption from any of them."""

import json
from itertools import islice
from typing import Any

import pytest
import torch

from base_model import sample_loader
from base_model.sample_loader import PackedLoader, Phase
from base_model.sample_packer import Budget
from base_model.training_example import TrainingExample


def fetch(source: str, number: int) -> TrainingExample | None:
    """Lengths between 2 and 40; every seventh is left out; ids tell source and number."""
    if number % 7 == 3:
        return None
    length = 2 + (number * 17 + len(source)) % 39
    ids = (ord(source[0]), number, *range(length - 2))
    inputs = {"pixel_values": [[torch.full((2, 2), float(number))]], "names": ["x"]} if source == "image" else None
    return TrainingExample(ids=ids, target_spans=((1, 2),), inputs=inputs)


def loader(**changes: Any) -> PackedLoader:
    phases = [
        Phase(batches=6, source_of=lambda draw: "text" if draw % 3 else "image"),
        Phase(batches=6, source_of=lambda draw: "extra" if draw % 2 else "image"),
    ]
    return PackedLoader(fetch, phases, Budget(80, views=4), **({"window": 9} | changes))


def contents(batch: dict[str, Any]) -> tuple[Any, ...]:
    views = [view.tolist() for media in batch["batch"].media for view in media.inputs["pixel_values"][0]]
    return batch["batch"].input_ids.tolist(), [source for source, _ in batch["samples"]], views, batch["position"]


def test_every_sample_comes_in_time_and_once() -> None:
    batches = list(loader())
    assert len(batches) == 12
    got = [(example.ids[0], example.ids[1]) for batch in batches for _, example in batch["samples"]]
    assert len(set(got)) == len(got)
    final = batches[-1]["position"]
    waiting = {(ord(source[0]), number) for source, number in final["waiting"]}
    drawn = {
        (ord(source[0]), number)
        for source, count in final["counts"].items()
        for number in range(count)
        if fetch(source, number) is not None
    }
    assert set(got) | waiting == drawn
    assert final["draw"] == sum(final["counts"].values())
    assert "extra" not in batches[5]["position"]["counts"]
    assert final["counts"]["extra"] > 5


@pytest.mark.parametrize("stop", [1, 5, 6, 9])
def test_a_resumed_loader_goes_on_exactly(stop: int) -> None:
    batches = [contents(batch) for batch in loader()]
    position = json.loads(json.dumps(batches[stop - 1][3]))
    assert [contents(batch) for batch in loader(position=position)] == batches[stop:]


def test_workers_change_nothing() -> None:
    assert [contents(batch) for batch in loader(workers=2)] == [contents(batch) for batch in loader()]


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(islice(loader(), 2))
    assert torch.equal(torch.rand(1), expected)


def test_sources_that_give_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_loader, "MOST_DROPPED", 20)
    nothing = PackedLoader(lambda *_: None, [Phase(batches=1, source_of=lambda _: "empty")], Budget(8))
    with pytest.raises(ValueError, match="20 samples in succession were left out, the last one number 19 of 'empty'"):
        next(iter(nothing))
