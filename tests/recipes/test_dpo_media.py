"""The recipes on images and videos: what cannot be read is counted, what is known is not paid for again."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from recipes import best_of_n, dpo
from recipes.best_of_n import BestOfNConfig
from recipes.dpo import CACHE, DpoConfig
from recipes.dpo_data import LEFT_OUT
from recipes.thumbnails import image_thumbnail, is_thumbnail, video_thumbnail
from tests.base_model.vlm.small import picture
from tests.recipes.preference_pairs import write_pairs
from tests.recipes.runs import comparable, records
from tests.rollouts.vision import save_tiny

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
STEPS = 6


def image_row(name: str, chosen: str, rejected: str, **changes: Any) -> dict[str, Any]:
    content = [{"type": "image"}, {"type": "text", "text": f"Which colour is {name}?"}]
    return {"prompt": [{"role": "user", "content": content}], "chosen": chosen, "rejected": rejected, **changes}


def make_rows(folder: Path) -> list[dict[str, Any]]:
    """Ten pictures of one colour, a clip, a text, and two pictures that cannot be read."""
    rows = []
    for number in range(10):
        colour, other = ("red", "blue") if number % 2 else ("blue", "red")
        Image.new("RGB", (56, 56 + number), COLOURS[colour]).save(folder / f"{number}.png")
        rows.append(image_row(str(number), f"It is {colour}.", f"It is {other}.", images=[f"{number}.png"]))
    clip = {"frames": ["1.png", "2.png", "3.png"], "times": [0.0, 0.5, 1.0]}
    rows.append({"prompt": "<video>What is it?", "chosen": "A film.", "rejected": "Red.", "video": clip})
    rows.append({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"})
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:20])
    rows.append(image_row("torn", "It is red.", "It is blue.", images=["torn.png"]))
    rows.append(image_row("gone", "It is red.", "It is blue.", images=["gone.png"]))
    return rows


def make_config(folder: Path, name: str, **changes: Any) -> DpoConfig:
    config = {
        "run": str(folder / name),
        "model": {"path": str(folder / "base")},
        "pairs": str(folder / "pairs.jsonl"),
        "eval_pairs": str(folder / "eval.jsonl"),
        "learner": {"learning_rate": 1e-3, "precision": "float32", "micro_batch_tokens": 300},
        "trainer": {"steps": STEPS, "batch_pairs": 6, "save_every": 3},
        "video": {"fps": 2.0},
        **changes,
    }
    return DpoConfig.model_validate(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision-language model, pairs to train on and others to evaluate on."""
    folder = tmp_path_factory.mktemp("dpo_media")
    save_tiny(folder / "base")
    write_pairs(folder / "pairs.jsonl", make_rows(folder))
    held = [image_row("nine", "Red.", "Blue.", images=["9.png"]), image_row("8", "Blue.", "Red.", images=["no.png"])]
    write_pairs(folder / "eval.jsonl", held)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    dpo.main(make_config(folder, "run"))
    return folder / "run"


@pytest.mark.slow
def test_a_run_learns_from_images_and_counts_what_it_cannot_read(folder: Path, run: Path) -> None:
    metrics = records(run / "metrics.jsonl")
    assert len(metrics) == STEPS
    assert metrics[-1]["reward/margin"] > metrics[0]["reward/margin"] + 0.01
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    summary = json.loads((run / "run.json").read_text())
    assert summary["pairs"] == 12
    assert summary["left_out"] == {"media unreadable": 1, "media missing": 1}
    assert summary["eval_left_out"] == {"media missing": 1}
    left_out = records(run / LEFT_OUT)
    assert [(each["pairs"], each["reason"]) for each in left_out] == [
        ("train", "media unreadable"),
        ("train", "media missing"),
        ("eval", "media missing"),
    ]
    assert "line 13" in left_out[0]["detail"]
    assert "gone.png" in left_out[1]["detail"]

    from base_model.packed_lm import load_packed

    trained, start = (
        load_packed(path).model.state_dict() for path in (run / f"checkpoints/step_{STEPS}", folder / "base")
    )
    for part in ("vpm.", "resampler.", "llm."):
        assert any(name.startswith(part) and not torch.equal(trained[name], start[name]) for name in start), part


@pytest.mark.slow
def test_the_report_shows_the_pictures_and_what_was_left_out(run: Path) -> None:
    (sample,) = records(run / "evaluation_samples.jsonl")
    assert [is_thumbnail(uri) for uri in sample["media"]] == [True]
    page = (run / "report.html").read_text()
    assert f'<img src="{sample["media"][0]}"' in page
    assert "2 media missing, 1 media unreadable" in page
    assert "user: &lt;image&gt; Which colour is nine?" in page


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_undisturbed_one(folder: Path, run: Path) -> None:
    copy = folder / "resumed"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / f"checkpoints/step_{STEPS}")
    for name in ("run.json", "evaluation.json", "evaluation_samples.jsonl"):
        (copy / name).unlink()
    config = (copy / "config.yaml").read_text().replace(str(run), str(copy))
    (copy / "config.yaml").write_text(config)
    shutil.move(folder / "5.png", folder / "away.png")
    with pytest.raises(ValueError, match="line 6 was used when the run began, and is not now"):
        dpo.main(make_config(folder, "resumed", resume=True))
    shutil.move(folder / "away.png", folder / "5.png")
    dpo.main(make_config(folder, "resumed", resume=True))
    assert comparable(records(copy / "metrics.jsonl")) == comparable(records(run / "metrics.jsonl"))
    weights = f"checkpoints/step_{STEPS}/model.safetensors"
    assert (
        hashlib.sha256((copy / weights).read_bytes()).digest() == hashlib.sha256((run / weights).read_bytes()).digest()
    )


@pytest.mark.slow
def test_the_reference_is_paid_for_again_only_where_an_images_content_changed(folder: Path, run: Path) -> None:
    other = folder / "elsewhere"
    other.mkdir()
    for path in folder.glob("*.png"):
        shutil.copy(path, other / path.name)
    shared = folder / "shared.jsonl"
    shared.write_bytes((run / CACHE).read_bytes())
    before = shared.read_bytes()
    trainer = {"steps": 1, "batch_pairs": 1}
    learner = {"learning_rate": 1e-3, "precision": "float32", "micro_batch_tokens": 1}
    options: dict[str, Any] = {"reference_cache": str(shared), "media_folder": str(other), "learner": learner}
    dpo.main(make_config(folder, "copies", trainer=trainer, **options))
    assert shared.read_bytes() == before  # the same contents under other names
    Image.new("RGB", (56, 59), (20, 200, 20)).save(other / "3.png")
    dpo.main(make_config(folder, "changed", trainer=trainer, **options))
    assert len(shared.read_bytes().splitlines()) == len(before.splitlines()) + 4  # two sides of one image and the clip


def test_when_nothing_is_left_there_is_one_error(folder: Path, tmp_path: Path) -> None:
    rows = [image_row("gone", "a", "b", images=["gone.png"]), image_row("torn", "a", "b", images=["torn.png"])]
    write_pairs(tmp_path / "pairs.jsonl", rows)
    (tmp_path / "torn.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"none of the 2 pairs can be used \(1 media missing, 1 media unreadable.*line 1"
    ):
        dpo.main(make_config(folder, "none", pairs=str(tmp_path / "pairs.jsonl"), eval_pairs=None, eval_size=0))
    assert not (folder / "none").exists()


def test_best_of_n_sees_the_image(folder: Path, tmp_path: Path) -> None:
    """The rewards are those of two ordinary models on the whole sequence, with the image."""
    from base_model.checkpoints import load_processor
    from base_model.vlm import MiniCPMV
    from recipes.tasks import Row
    from rl.prompts import PromptMaker
    from rollouts.modes import ShortMode

    save_tiny(tmp_path / "policy", vision_batch_size=2)
    weights = MiniCPMV.from_pretrained(tmp_path / "policy")
    with torch.no_grad():
        for weight in weights.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    weights.save_pretrained(tmp_path / "policy")
    turns = image_row("it", "", "")["prompt"]
    row = {"prompt": turns, "responses": ["Red.", "It is blue."]}
    rows = [{**row, "images": [f"{name}.png"]} for name in ("3", "gone", "4")]
    write_pairs(folder / "candidates.jsonl", rows)
    fields = {"model": {"path": str(tmp_path / "policy")}, "reference": {"path": str(folder / "base")}}
    files = {"candidates": str(folder / "candidates.jsonl"), "out": str(tmp_path / "best.jsonl")}
    best_of_n.main(BestOfNConfig.model_validate({**fields, **files}))
    first, gone, third = records(tmp_path / "best.jsonl")
    assert first["rewards"] != third["rewards"]
    assert (gone["best"], gone["rewards"]) == (None, None)
    assert "gone.png" in gone["problem"]

    maker = PromptMaker(load_processor(folder / "base"))
    asked = Row(index=0, messages=tuple(turns), columns={}, images=(folder / "3.png",))
    prompt, inputs = maker.prompt(asked, ShortMode()).ids, maker.inputs(asked, ShortMode())
    assert inputs is not None
    models = [MiniCPMV.from_pretrained(path).eval() for path in (tmp_path / "policy", folder / "base")]
    for text, reward in zip(row["responses"], first["rewards"], strict=True):
        ids = [*maker.tokenizer(text, add_special_tokens=False)["input_ids"], maker.tokenizer.eos_token_id]
        with torch.no_grad():
            logits = [m(input_ids=torch.tensor([[*prompt, *ids]]), **inputs()).logits[0] for m in models]
        logprobs = [own[len(prompt) - 1 : -1].log_softmax(-1) for own in logits]
        sums = [own.gather(1, torch.tensor(ids)[:, None]).sum().item() for own in logprobs]
        assert reward == pytest.approx(0.1 * (sums[0] - sums[1]) / len(ids), abs=1e-5)


def test_thumbnails() -> None:
    assert is_thumbnail(image_thumbnail(picture(900, 300)))
    clip = {"frames": [picture(60, 60, n) for n in range(6)], "times": [0.5 * n for n in range(6)]}
    assert is_thumbnail(video_thumbnail(clip))
    assert not is_thumbnail('data:text/html,"><script>')
    assert len(image_thumbnail(picture(900, 300))) < 20_000
