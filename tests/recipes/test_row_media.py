"""Media of data rows: which files a row may name, and where they stand in the messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from recipes.check_data import CheckDataConfig, main
from recipes.row_media import MissingMedia, PathRefused, media_handle, media_key, media_path, placed
from recipes.tasks import Row, TaskConfig, load_rows, prompt_key

IMAGE, VIDEO = {"type": "image"}, {"type": "video"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("content", "images", "videos", "expected"),
    [
        ("What is 2 + 3?", 0, 0, "What is 2 + 3?"),
        ("<image>\nWhat is this?", 1, 0, [IMAGE, text("What is this?")]),
        ("Compare <image> with <image>.", 2, 0, [text("Compare"), IMAGE, text("with"), IMAGE, text(".")]),
        ("What is this?", 1, 0, [IMAGE, text("What is this?")]),
        ("<image> moves as in the clip?", 1, 1, [VIDEO, IMAGE, text("moves as in the clip?")]),
        ([text("Look:"), IMAGE], 1, 0, [text("Look:"), IMAGE]),
        ([{"type": "image", "image": "a.png"}, text("<image>")], 1, 0, [IMAGE, text("<image>")]),
    ],
)
def test_places(content, images, videos, expected):
    assert placed([user(content)], images, videos) == (user(expected),)


def test_media_without_a_place_stand_in_the_first_turn_of_the_user():
    messages = [{"role": "system", "content": "Be brief."}, user("And?"), {"role": "assistant", "content": "<image>"}]
    found = placed([*messages, user("More?")], 1, 0)
    assert found == (messages[0], user([IMAGE, text("And?")]), messages[2], user("More?"))


@pytest.mark.parametrize(
    ("content", "images", "match"),
    [
        ("<image> and <image>", 1, r"2 places for images \(<image>\), and the row has 1 images"),
        ("<image>", 0, "1 places for images .* 0 images"),
        ([{"type": "audio"}], 0, "must be of type image, video, or text"),
        ([], 0, "must be text or a list of parts"),
        (None, 0, "must be text or a list of parts"),
    ],
)
def test_what_does_not_fit_is_refused(content, images, match):
    with pytest.raises(ValueError, match=match):
        placed([user(content)], images, 0)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "link.png", "sub/../../secret.png", "up/secret.png"]
)
def test_a_row_names_no_file_outside_its_folder(tmp_path: Path, name: str):
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    with pytest.raises(PathRefused, match="lies outside"):
        media_path(name, folder)
    assert media_path(name, folder, outside=True).exists()


@pytest.mark.parametrize(
    "name", ["https://example.org/a.png", "file:///etc/hostname", "data:image/png;base64,xx", "s3://b"]
)
def test_urls_are_refused_even_where_paths_may_leave(tmp_path: Path, name: str):
    with pytest.raises(PathRefused, match="is a URL"):
        media_path(name, tmp_path, outside=True)


@pytest.mark.parametrize("name", ["nothing.png", "x" * 5000, "."])
def test_missing_files(tmp_path: Path, name: str):
    with pytest.raises(MissingMedia, match="there is no file"):
        media_path(name, tmp_path)


def test_handles(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"x")
    picture = Image.new("RGB", (3, 2))
    assert media_handle({"path": "a.png", "bytes": None}, tmp_path) == tmp_path / "a.png"
    assert media_handle({"path": "a.png", "bytes": b"xyz"}, None) == b"xyz"
    assert media_handle(picture, None) is picture
    clip = {"frames": ["a.png"], "times": [0.0]}
    assert media_handle(clip, tmp_path) == {"frames": [tmp_path / "a.png"], "times": [0.0]}
    with pytest.raises(PathRefused):
        media_handle({"frames": ["../a.png"], "times": [0.0]}, tmp_path)
    with pytest.raises(PathRefused, match="its row comes from no file"):
        media_handle("a.png", None)
    with pytest.raises(ValueError, match="is not an image or video"):
        media_handle(7, tmp_path)


def test_rows_with_the_same_words_and_other_pictures_differ():
    def row(*images: Any) -> Row:
        return Row(index=0, messages=(user([IMAGE, text("How many?")]),), columns={}, images=images)

    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    keys = {prompt_key(row(each)) for each in (red, blue, red.resize((2, 8)), Path("a.png"), b"x")}
    assert len(keys) == 5
    assert prompt_key(row(red)) == prompt_key(row(red.copy()))
    clips = [{"frames": [red, blue], "times": times} for times in ((0.0, 1.0), (0.0, 2.0))]
    assert media_key(clips[0]) != media_key(clips[1])


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    Image.new("RGB", (30, 40), "blue").save(folder / "blue.png")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_task_with_images(tmp_path: Path):
    rows = [
        {"prompt": "Colour?", "answer": "red", "image": "red.png"},
        {"prompt": "Colour?", "answer": "blue", "image": ["blue.png"]},
        {"prompt": "Is <image> wider than <image>?", "answer": "yes", "image": ["red.png", "blue.png"]},
        {"prompt": "What is 2 + 3?", "answer": "5", "image": None},
    ]
    source = {"kind": "files", "train": str(write(tmp_path / "data", rows))}
    config = TaskConfig.model_validate({"source": source, "reference": "answer", "images": "image", "eval_size": 0})
    loaded = load_rows(config)
    assert [row.images for row in loaded[:2]] == [(tmp_path / "data/red.png",), (tmp_path / "data/blue.png",)]
    assert loaded[2].messages[0]["content"][1] == IMAGE
    assert (loaded[3].messages[0]["content"], loaded[3].images) == ("What is 2 + 3?", ())


def test_a_row_that_does_not_fit_is_named_in_one_sentence(tmp_path: Path):
    path = write(tmp_path, [{"prompt": "<image>", "answer": "x", "image": "gone.png"}])
    config = TaskConfig.model_validate({"source": {"kind": "files", "train": str(path)}, "images": "image"})
    with pytest.raises(ValueError, match=r"rows.jsonl, line 1: there is no file 'gone.png' in .*\.$"):
        load_rows(config)


def test_the_check_finds_bad_media_and_keeps_other_pictures_apart(tmp_path: Path, capsys):
    rows = [
        {"prompt": "Colour?", "answer": "red", "image": "red.png"},
        {"prompt": "Colour?", "answer": "blue", "image": "blue.png"},
        {"prompt": "Colour?", "answer": "red", "image": "red.png"},
        {"prompt": "Broken?", "answer": "x", "image": "broken.png"},
        {"prompt": "Gone?", "answer": "x", "image": "gone.png"},
        {"prompt": "Thin?", "answer": "x", "image": "thin.png"},
    ]
    path = write(tmp_path / "data", rows)
    (tmp_path / "data/broken.png").write_bytes((tmp_path / "data/red.png").read_bytes()[:60])
    Image.new("RGB", (900, 20)).save(tmp_path / "data/thin.png")
    task = {"source": {"kind": "files", "train": str(path)}, "reference": "answer", "images": "image"}
    main(CheckDataConfig.model_validate({"task": task, "out": tmp_path / "out"}))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    found = {reason: figures["rows"] for reason, figures in summary["reasons"].items() if figures["rows"]}
    assert found == {"unreadable": 1, "bad_media": 2, "duplicate": 1}
    assert summary["kept"] == 2
    assert "task.media_folder" in capsys.readouterr().out
    clean = {**task, "source": {"kind": "files", "train": str(tmp_path / "out/clean.jsonl")}, "eval_size": 0}
    again = load_rows(TaskConfig.model_validate({**clean, "media_folder": str(tmp_path / "data")}))
    assert [row.images[0].name for row in again] == ["red.png", "blue.png"]
