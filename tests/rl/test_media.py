"""Rows with images and videos on their way to the engine and to the learner."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from base_model.video_settings import VideoSettings
from recipes.prompt_checks import check_prompts
from recipes.tasks import Row
from rewards import RewardSet, Score
from rl.asking import Asked
from rl.config import LearnerConfig
from rl.environment import Environment, PromptSlot, reward_sample, rollout_record
from rl.learner import Learner, TrainGroup
from rl.prompts import PromptMaker, UnreadableMediaError, content_text
from rollouts.modes import LongMode, ModeSampler, ModesConfig, ShortMode
from rollouts.prompts import render_prompt
from rollouts.records import Rollout, Sampling, Status
from tests.base_model.vlm.small import picture, shared
from tests.tiny import make_tiny_tokenizer

SHORT = ShortMode(max_tokens=4)


def row(index: int, images: Sequence[Any] = (), videos: Sequence[Any] = (), text: str = "What?") -> Row:
    parts = [*[{"type": "image"}] * len(images), *[{"type": "video"}] * len(videos), {"type": "text", "text": text}]
    content = parts if images or videos else text
    messages = ({"role": "user", "content": content},)
    return Row(index=index, messages=messages, columns={}, reference="x", images=tuple(images), videos=tuple(videos))


def clip(count: int = 6) -> dict[str, Any]:
    return {"frames": [picture(60, 60, n) for n in range(count)], "times": [0.5 * n for n in range(count)]}


class _InOrder:
    def row(self, position: int) -> int:
        return position


def environment(rows: Sequence[Row]) -> Environment:
    return Environment(
        rows=rows,
        order=_InOrder(),
        modes=ModeSampler(ModesConfig(mode="short", short=SHORT), 0),
        rewards=RewardSet([]),
        tokenizer=shared()[1],
        sampling=Sampling(),
        group_size=2,
        seed=0,
        video=VideoSettings(fps=2.0, package=3),
    )


def test_a_groups_requests_share_the_opened_media(tmp_path: Path) -> None:
    picture(90, 70).save(tmp_path / "a.png")
    subject = environment([row(0, [tmp_path / "a.png"], [clip()]), row(1)])
    first, second = subject.requests(1, PromptSlot(mode=SHORT, position=0))
    assert first.media is second.media
    assert first.media is not None
    assert first.media.images[0].tobytes() == picture(90, 70).tobytes()
    assert [len(package) for package in first.media.videos[0].packages] == [3, 3]
    inputs = subject.media_inputs(PromptSlot(mode=SHORT, position=0))()
    blocks = inputs["image_bound"][0]
    assert len(blocks) == 1 + 2
    assert blocks[-1, 1] < len(first.prompt_ids)
    text = subject.requests(1, PromptSlot(mode=SHORT, position=1))[0]
    assert text.media is None
    assert text.prompt_ids == render_prompt(shared()[1].tokenizer, row(1).messages, SHORT)
    assert subject.media_inputs(PromptSlot(mode=SHORT, position=1)) is None


def test_pixels_beyond_the_bound_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(index, [picture(100, 100, index)]) for index in range(3)]
    size = 3 * 112 * 112 * 4  # one view in single precision
    maker = PromptMaker(shared()[1], kept_bytes=2 * size + 500)
    first = [maker.inputs(each, SHORT)()["pixel_values"][0][0] for each in rows]
    assert first[0].numel() * 4 == size
    assert [index for index, _ in maker._kept] == [1, 2]
    renders = []
    render = PromptMaker._render
    monkeypatch.setattr(
        PromptMaker, "_render", lambda self, *args: renders.append(args[0].index) or render(self, *args)
    )
    again = [maker.inputs(each, SHORT)()["pixel_values"][0][0] for each in reversed(rows)]
    assert renders == [0]
    for mine, theirs in zip(again, reversed(first), strict=True):
        assert torch.equal(mine, theirs)


def test_an_unreadable_row_is_a_failure_that_is_recorded_and_the_others_go_on() -> None:
    rows = [row(0, [b"no image"]), row(1, [picture(50, 50)]), row(2, [], [{"frames": [], "times": []}])]
    subject = environment(rows)
    slots = [PromptSlot(mode=SHORT, position=position) for position in range(3)]
    with pytest.raises(UnreadableMediaError, match=r"row 0: .*not an image"):
        subject.requests(1, slots[0])
    asked = subject.asked(1, slots)
    assert [request.row for request in asked.requests] == [1, 1]
    assert [(each.row, each.mode) for each in asked.unreadable] == [(0, "short"), (2, "short")]
    record = subject.unreadable_record(1, asked.unreadable[0])
    assert (record["status"], record["prompt"], record["total"]) == ("failed", "<image>\nWhat?", None)
    assert "not an image" in record["error"]


def test_responses_come_back_to_the_places_of_their_groups() -> None:
    subject = environment([row(0, [b"no image"]), row(1), row(2, [b"nor this"]), row(3)])
    asked = subject.asked(1, [PromptSlot(mode=SHORT, position=position) for position in range(4)])
    found = [_answer(request.row, request.sample) for request in asked.requests]
    seen: list[tuple[int, int]] = []
    on_result = asked.placed(lambda place, rollout: seen.append((place, rollout.row)))
    assert on_result is not None
    for index in (3, 0, 1, 2):
        on_result(index, found[index])
    assert seen == [(7, 3), (2, 1), (3, 1), (6, 3)]
    merged = asked.responses(found)
    assert [(each.row, each.sample) for each in merged] == [(r, s) for r in range(4) for s in range(2)]
    assert [each.status for each in merged[::2]] == [Status.FAILED, Status.FINISHED] * 2
    assert Asked(group_size=2).placed(None) is None


def _answer(index: int, sample: int) -> Rollout:
    return Rollout(
        row=index,
        sample=sample,
        mode="short",
        prompt_ids=(1,),
        response_ids=(2,),
        logprobs=(-1.0,),
        response="a",
        thinking=None,
        answer="a",
        answer_start=0,
        status=Status.FINISHED,
        policy_version=0,
    )


def test_rewards_get_the_media_and_records_a_marker() -> None:
    image, video = picture(10, 10), clip()
    data = row(5, [image], [video])
    sample = reward_sample(data, _answer(5, 0))
    assert sample["images"] == [image]
    assert sample["videos"] == [video]
    assert sample["prompt"] == "<image>\n<video>\nWhat?"
    record = rollout_record(data, _answer(5, 0), Score(total=1.0, breakdown={"a": 1.0}))
    assert record["prompt"] == "<image>\n<video>\nWhat?"
    assert "images" not in record
    assert content_text("plain") == "plain"


def test_prompts_are_checked_before_anything_is_loaded() -> None:
    processor = shared()[1]
    good = [row(0, [picture(50, 50)]), row(1)]
    check_prompts(good, [SHORT, LongMode()], processor, 200)
    with pytest.raises(ValueError, match=r"evaluation row 0: its prompt takes \d+ tokens in short mode"):
        check_prompts(good[:1], [SHORT], processor, 20, "evaluation ")
    with pytest.raises(ValueError, match=r"row 3: .*not an image"):
        check_prompts([row(3, [b"?"])], [SHORT], processor, 200)
    with pytest.raises(ValueError, match="row 0 has images or videos, but the model is a language model"):
        check_prompts(good, [SHORT], make_tiny_tokenizer(), 200)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "model"
    shared()[0].save_pretrained(path)
    return path


def _train_groups(rows: Sequence[Row], maker: PromptMaker) -> list[TrainGroup]:
    responses = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    return [
        TrainGroup(
            tokens=TokenGroup(prompt=maker.prompt(each, SHORT).ids, responses=responses),
            advantages_G=(1.0, -0.5, 0.25),
            engine_logprobs=tuple((-1.0,) * len(ids) for ids in responses),
            media=maker.inputs(each, SHORT),
        )
        for each in rows
    ]


def test_an_update_does_not_depend_on_micro_batches_nor_on_what_is_kept(model_path: Path) -> None:
    rows = [row(0, [picture(100, 90)]), row(1), row(2, [picture(200, 130, 1)], [clip()])]
    results = []
    for budget, kept in ((0, 2**30), (90, 0)):  # 90 tokens: even one group is cut, and its prompt repeated
        groups = _train_groups(rows, PromptMaker(shared()[1], VideoSettings(fps=2.0), kept_bytes=kept))
        config = LearnerConfig(learning_rate=1e-3, precision="float32", micro_batch_tokens=budget, updates_per_step=1)
        learner = Learner(load_packed(model_path), config, total_steps=1)
        metrics = learner.update(groups)
        results.append((metrics, learner.weights()))
    (whole, weights), (cut, others) = results
    assert cut["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-3)
    moved = {name: float((weights[name] - p.detach()).abs().max()) for name, p in shared()[0].named_parameters()}
    assert all(any(moved[name] > 1e-4 for name in moved if name.startswith(part)) for part in ("vpm", "resampler"))
    gap = max(float((others[name] - weights[name]).abs().mean()) for name in weights)
    assert gap < 1e-4
