"""Packed batches of numbered samples: the same ones whatever the workers, and after a resumption from any of them."""

import json
from itertools import islice
from typing import Any

import pytest
import torch

from base_model import sample_loader
from base_model.sample_loader import Labelled, PackedLoader, Phase
from base_model.sample_packer import Budget
from base_model.training_example import TrainingExample


def labelled(source: str, number: int) -> Labelled:
    """Lengths between 2 and 96, some of which exceed the budget; ids tell source and number."""
    length = 2 + (number * 17 + len(source)) % 39 + 60 * (number % 7 == 3)
    ids = (ord(source[0]), number, *range(length - 2))
    inputs = {"pixel_values": [[torch.full((2, 2), float(number))]], "names": ["x"]} if number % 2 else None
    return Labelled(source, TrainingExample(ids=ids, target_spans=((1, 2),), inputs=inputs), {"note": number})


def loader(**changes: Any) -> PackedLoader:
    phases = [
        Phase(batches=6, sample=lambda number: labelled("captions" if number % 3 else "text", number)),
        Phase(batches=6, sample=lambda number: labelled("extra", number)),
    ]
    return PackedLoader(phases, Budget(80, views=4), **({"window": 9} | changes))


def contents(batch: dict[str, Any]) -> tuple[Any, ...]:
    views = [view.tolist() for media in batch["batch"].media for view in media.inputs["pixel_values"][0]]
    labels = [(sample.source, sample.notes) for sample in batch["samples"]]
    return batch["batch"].input_ids.tolist(), labels, views, batch["position"]


def test_every_sample_comes_in_time_and_once() -> None:
    whole = loader()
    batches = list(whole)
    assert len(batches) == 12
    got = [sample.example.ids[:2] for batch in batches for sample in batch["samples"]]
    assert len(set(got)) == len(got)
    assert not any(sample.source == "extra" for batch in batches[:6] for sample in batch["samples"])
    turn, end = batches[5]["position"], batches[-1]["position"]
    assert (turn["phase"], end["phase"], end["batch"]) == (0, 1, 12)
    drawn = [("captions" if n % 3 else "text", n) for n in range(turn["number"])]
    drawn += [("extra", n) for n in range(end["number"])]
    fitting = {(ord(s[0]), n) for s, n in drawn if len(labelled(s, n).example.ids) <= 80}
    assert set(got) | {(ord("e"), number) for _, number in end["waiting"]} == fitting
    assert whole.dropped == len(drawn) - len(fitting) > 3


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


def test_a_budget_that_nothing_fits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_loader, "MOST_DROPPED", 5)
    small = PackedLoader([Phase(batches=1, sample=lambda _: labelled("large", 3))], Budget(20))
    with pytest.raises(ValueError, match="5 samples in succession exceed a batch's 20 tokens or 0 views"):
        next(iter(small))
