"""Candidates, division by the policy and labels, interrupted in the middle and continued, on one real engine."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from base_model.video_settings import VideoSettings
from recipes.models import ModelConfig
from recipes.rlaif.candidates import FILE, PART, PROMPTS_PER_CALL, Candidate, make_candidates
from recipes.rlaif.config import CandidatesConfig, LabelingConfig, ModelDividerConfig
from recipes.rlaif.division import CACHE, divide
from recipes.rlaif.engines import EngineRoom, Served
from recipes.rlaif.feedback import conquer, read_claims
from recipes.rlaif.instructions import Instruction
from rl.claims import Claim, ClaimKind, Division
from rollouts.modes import ShortMode
from tests.base_model.vlm.small import picture
from tests.recipes.runs import records
from tests.rollouts.vision import CONFIG, save_tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
VIDEO = VideoSettings()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("policy")
    save_tiny(path)
    with EngineRoom(CONFIG, path / "engine.log") as room:
        first = room.serve(ModelConfig(path=str(path)))
        assert room.serve(ModelConfig(path=str(path))) is first
        yield first


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Instruction]:
    """More than one call of the engine takes; the third prompt is too long for it."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for index in range(PROMPTS_PER_CALL + 2):
        path = folder / f"{index}.png"
        picture(64, 56, index).save(path)
        text = {"type": "text", "text": "What is it? " * (200 if index == 2 else 1)}
        message = {"role": "user", "content": [{"type": "image"}, text]}
        made.append(Instruction(index=index, place=str(index), messages=(message,), images=(str(path),)))
    return made


def candidates(folder: Path, rows: list[Instruction], served: Served, **changes: Any) -> list[Candidate]:
    folder.mkdir(exist_ok=True)
    return make_candidates(
        folder,
        rows,
        lambda: served,
        mode=ShortMode(max_tokens=8),
        config=CandidatesConfig(n=2, temperature=1.0, keep_truncated=True),
        seed=0,
        step=1,
        video=VIDEO,
        **changes,
    )


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_interrupted_candidates_go_on_and_are_the_same(tmp_path: Path, rows: list[Instruction], served: Served) -> None:
    whole = candidates(tmp_path / "whole", rows, served)
    with pytest.raises(KeyboardInterrupt):
        candidates(tmp_path / "part", rows, served, on_progress=interrupt)
    assert len(records(tmp_path / "part" / PART)) == 2 * PROMPTS_PER_CALL
    with open(tmp_path / "part" / PART, "a") as torn:
        torn.write('{"instruction": 1')
    assert candidates(tmp_path / "part", rows, served) == whole
    assert (tmp_path / "part" / FILE).read_bytes() == (tmp_path / "whole" / FILE).read_bytes()
    assert not (tmp_path / "part" / PART).exists()
    assert [candidate.reason for candidate in whole[4:6]] == ["prompt cannot be asked"] * 2
    assert "max_model_len" in whole[4].detail
    assert all(candidate.reason is None for candidate in whole[6:])
    assert len({candidate.response for candidate in whole}) > len(rows)


def test_interrupted_labels_are_not_paid_for_twice(tmp_path: Path, rows: list[Instruction], served: Served) -> None:
    made = [Candidate(instruction=row.index, sample=at, answer="a") for row in rows for at in (0, 1)]
    questions = ("Is it red?", "Is it blue?")
    divisions: list[Division | None] = [
        Division(claims=tuple(Claim(text=q, question=q, kind=ClaimKind.COLOUR) for q in questions[: 1 + each.sample]))
        for each in made
    ]
    divisions[3] = Division()
    divisions[5] = Division(problem="malformed")

    def label(folder: Path, **changes: Any) -> Any:
        folder.mkdir(exist_ok=True)
        place = {"config": LabelingConfig(), "labels": folder / "labels.jsonl", "video": VIDEO}
        return conquer(folder, rows, made, divisions, lambda: served, **place, **changes)  # type: ignore[arg-type]

    whole, counts = label(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "part", on_progress=interrupt)
    paid = len(records(tmp_path / "part" / "labels.jsonl"))
    assert 0 < paid < counts.asked
    again, rest = label(tmp_path / "part")
    assert paid + rest.asked == counts.asked
    assert [asdict(each) for each in again] == [asdict(each) for each in whole]
    assert read_claims(tmp_path / "part") == again
    assert [(whole[at].reason, whole[at].score) for at in (3, 5)] == [("no claim", None), ("cannot be divided", None)]
    known, none = label(tmp_path / "part")
    assert (none.asked, known) == (0, again)


def test_a_missing_picture_leaves_its_claims_without_verdict(tmp_path: Path, served: Served) -> None:
    row = Instruction(index=0, place="0", images=(str(tmp_path / "gone.png"),))
    claim = Claim(text="It is red.", question="Is it red?", kind=ClaimKind.COLOUR)
    (found,), counts = conquer(
        tmp_path,
        [row],
        [Candidate(instruction=0, sample=0, answer="It is red.")],
        [Division(claims=(claim,))],
        lambda: served,
        config=LabelingConfig(),
        labels=tmp_path / "labels.jsonl",
        video=VIDEO,
    )
    assert (found.score, found.reason, counts.failed) == (None, "no verdict", 1)
    assert "cannot be read" in found.detail


def test_a_model_that_writes_no_claims_is_a_reason_for_each_response(tmp_path: Path, served: Served) -> None:
    config = ModelDividerConfig.model_validate(
        {"kind": "model", "modes": {"mode": "short"}, "division": {"attempts": 2, "max_tokens": 8}}
    )
    texts = ["It rains.", "It snows. " * 100, " "]
    found, usage = divide(texts, config, tmp_path, lambda: served)
    assert all(division.problem for division in found)
    assert usage.requests == 4
    again, usage = divide(texts, config, tmp_path, lambda: served)
    assert (again, usage.requests) == (found, 0)
    assert len(records(tmp_path / CACHE)) == 3
