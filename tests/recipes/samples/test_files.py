"""Users' files: every kind of row, what is refused and why, and what stands in for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import TypeAdapter
from torch.utils.data import DataLoader

from recipes.samples import DataConfig, EncodedStream, FilterReport, OpenSources, SampleSource
from recipes.samples.media import Opening
from recipes.samples.sample import Rejected, Sample
from tests.base_model.vlm.small import shared

IMAGE, VIDEO = {"type": "image"}, {"type": "video"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    Image.new("RGB", (40, 60), "blue").save(tmp_path / "blue.png")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=500)
    return tmp_path


def source(folder: Path, kind: str, *rows: Any, **settings: Any) -> Any:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return TypeAdapter(SampleSource).validate_python({"kind": kind, "data": str(path), "shuffle_rows": 1, **settings})


def one(folder: Path, kind: str, row: Any, **settings: Any) -> Sample:
    return source(folder, kind, row, **settings).open(Opening(split="train", seed=0)).sample(0)


def refusal(folder: Path, kind: str, row: Any, **settings: Any) -> Rejected:
    with pytest.raises(Rejected, match=r"line 1: .*\.$") as error:
        one(folder, kind, row, **settings)
    return error.value


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_questions(folder):
    row = {"question": "Colour?", "answer": 3, "image": "red.png", "why": "I look.", "options": ["a", "b"]}
    found = one(folder, "qa", row, question="{question} {options}", solution="why")
    assert found.prompt == ({"role": "user", "content": [IMAGE, text("Colour? ['a', 'b']")]},)
    assert (found.answer, found.thinking) == ("3", "I look.")
    assert [image.size for image in found.images] == [(60, 40)]


def test_captions(folder):
    found = one(folder, "caption", {"image": "red.png", "text": " A red plane. "}, prompts=["Describe."])
    assert found.messages[0]["content"] == [IMAGE, text("Describe.")]
    assert found.answer == "A red plane."


@pytest.mark.parametrize(
    "row",
    [
        {"content": [text("A"), {"type": "image", "image": "red.png"}, text("B")]},
        {"texts": ["A", None, "B"], "images": [None, "red.png", None]},
    ],
)
def test_interleaved_documents(folder, row):
    found = one(folder, "interleaved", row)
    assert found.document == (text("A"), IMAGE, text("B"))
    assert len(found.images) == 1


def test_pages(folder):
    regions = [{"box": [2, 2, 30, 10], "text": "Total"}, {"box": [2, 20, 30, 30], "text": "9.50"}]
    row = {"image": "red.png", "regions": regions}
    assert one(folder, "ocr", row, region_share=0).answer == "Total\n9.50"
    assert one(folder, "ocr", row, region_share=1).answer in ("Total", "9.50")
    found = one(folder, "ocr", row, task="document", corruption={"region_share": 1.0})
    assert (found.task, found.answer) == ("document", "Total\n9.50")


def test_videos_and_conversations(folder):
    clip = one(folder, "video", {"video": "clip.gif", "text": "Colours."}, prompts=["Describe."])
    assert clip.messages[0]["content"] == [VIDEO, text("Describe.")]
    assert sum(map(len, clip.videos[0].packages)) >= 1
    messages = [
        {"role": "user", "content": "<image> Hm?"},
        {"role": "assistant", "content": "<think>\nI look.\n</think>\n\nRed."},
    ]
    found = one(folder, "chat", {"messages": messages, "images": ["red.png"]})
    assert found.prompt == ({"role": "user", "content": [IMAGE, text("Hm?")]},)
    assert (found.answer, found.thinking) == ("Red.", "I look.")
    llava = [
        {"from": "human", "value": "<image>\nHm?"},
        {"from": "gpt", "value": "Red."},
        {"from": "human", "value": "Ok."},
    ]
    same = one(folder, "chat", {"conversations": llava, "image": "red.png"})
    assert (same.prompt, same.answer) == (found.prompt, "Red.")
    assert one(folder, "chat", {"text": "Words."}).document == (text("Words."),)
    talk = one(folder, "video", {"video": "clip.gif", "messages": [messages[0] | {"content": "Hm?"}, messages[1]]})
    assert talk.prompt[0]["content"] == [VIDEO, text("Hm?")]


def test_reasoning_of_earlier_turns_is_dropped(folder):
    said = "<think>\nI look.\n</think>\n\nRed."
    turns = [{"role": role, "content": words} for role, words in (("user", "A?"), ("assistant", said)) * 2]
    found = one(folder, "chat", {"messages": turns})
    assert [turn["content"] for turn in found.messages] == ["A?", "Red.", "A?", "Red."]
    assert found.thinking == "I look."


@pytest.mark.parametrize(
    ("kind", "row", "reason", "match"),
    [
        ("qa", {"question": "A?"}, "malformed", "'answer' must be text"),
        ("qa", {"question": "A?", "answer": "b", "image": "gone.png"}, "media_missing", "no file 'gone.png'"),
        ("qa", {"question": "A?", "answer": "b", "image": "../x.png"}, "path_refused", "lies outside"),
        ("qa", {"question": "A?", "answer": "b", "image": "http://h/x.png"}, "path_refused", "is a URL"),
        ("qa", {"question": "A?", "answer": "b", "image": 7}, "malformed", "is not an image"),
        ("qa", {"question": "<image> <image>", "answer": "b", "image": "red.png"}, "malformed", "2 places for images"),
        ("qa", {"question": "A?", "answer": "b", "image": "cut.png"}, "media_unreadable", "cannot be read"),
        ("qa", {"question": "A?", "answer": "b", "image": "qa.jsonl"}, "media_unreadable", "cannot be read"),
        ("qa", {"question": "A?", "answer": "b", "image": "small.png"}, "image_size", "5 x 5 pixels"),
        ("qa", {"question": "A?", "answer": "b", "image": "bomb.png"}, "image_size", "12000 x 12000"),
        ("qa", {"question": "A?", "answer": "b", "image": "thin.png"}, "image_shape", "longer than 20 : 1"),
        ("qa", {"question": "A?" * 60_000, "answer": "b"}, "too_long", "characters, more than 100000"),
        ("qa", {"question": "A?", "answer": "b", "images": ["red.png"] * 40}, "too_long", "40 media"),
        ("video", {"video": "red.txt", "text": "x"}, "media_unreadable", "red.txt"),
        ("interleaved", {"texts": ["a"], "images": []}, "malformed", "'images' must be a list"),
        ("interleaved", {"texts": ["a"], "images": ["x", None]}, "malformed", "1 entries and `images` 2"),
        ("interleaved", {"content": [{"type": "image", "image": "red.png"}]}, "malformed", "no text"),
        ("ocr", {"image": "red.png", "regions": [{"box": [1, 2, 3], "text": "a"}]}, "malformed", "region 0 must be"),
        ("ocr", {"image": "red.png", "regions": [{"box": [1, 2, 99, 9], "text": "a"}]}, "malformed", "within the page"),
        ("ocr", {"image": "red.png", "regions": [{"box": [0, 0, 9, 9], "text": " "}]}, "no_regions", "no region"),
        ("chat", {"messages": [{"role": "user", "content": "A?"}]}, "malformed", "no turn of the assistant"),
        ("chat", {"messages": [{"role": "tool", "content": "A?"}]}, "malformed", "needs a role"),
        ("chat", {"messages": "A?"}, "malformed", "'messages' must be a list"),
    ],
)  # fmt: skip
def test_refusals(folder, kind, row, reason, match):
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:70])
    (folder / "red.txt").write_text("not a video")
    for name, size in (("small", (5, 5)), ("thin", (640, 30)), ("bomb", (12_000, 12_000))):
        Image.new("1", size).save(folder / f"{name}.png")
    settings = {"region_share": 1.0} if kind == "ocr" else {}
    error = refusal(folder, kind, row, **settings)
    assert error.reason == reason
    assert match in str(error)


def rows(count: int, bad: set[int]) -> list[Any]:
    return ["{" if at in bad else {"question": f"{at}?", "answer": str(at)} for at in range(count)]


def test_the_next_row_stands_in_for_a_bad_one_and_each_is_reported_once(folder):
    made = source(folder, "qa", *rows(6, {1}), "[", {"question": "0?", "answer": "0"})
    opened = OpenSources({"mine": made}, "train", 0)
    report, answers = FilterReport(), []
    for position in range(9):  # the eighth begins the second epoch
        found, refused = opened.sample("mine", position)
        report.add("mine", refused)
        answers.append(found.answer)
    assert answers == ["0", "2", "2", "3", "4", "5", "0", "0", "2"]
    assert report.counts == {("mine", "malformed"): 3, ("mine", "duplicate"): 1}


def test_a_report_in_words(folder):
    made = source(folder, "qa", *rows(4, {1}), *rows(4, {1}))
    opened, report = OpenSources({"mine": made}, "train", 0), FilterReport()
    for position in range(5):
        report.add("mine", opened.sample("mine", position)[1])
    found = report.lines()
    assert found[0].startswith("mine: 4 of 5 rows left out: duplicate")
    assert "mine: 1 of 5 rows left out: malformed (the first: " in found[1]


def test_too_many_bad_rows_stop_the_run(folder):
    made = source(folder, "qa", *rows(200, set(range(0, 200, 4))), distinct=False)
    opened = OpenSources({"mine": made}, "train", 0, max_bad=0.2)

    def read(opened: OpenSources) -> None:
        for position in range(200):
            opened.sample("mine", position)

    said = r"1\d of 5\d rows of mine cannot be read, more than the share of 0.2 .* line \d+: malformed"
    with pytest.raises(ValueError, match=said):
        read(opened)
    read(OpenSources({"mine": made}, "train", 0, max_bad=0.3))


def test_a_file_of_nothing_but_bad_rows(folder):
    made = source(folder, "qa", *[f"{{{at}" for at in range(40)])
    with pytest.raises(ValueError, match=r"32 rows of mine were refused one after the other; the last one: .*line 32"):
        OpenSources({"mine": made}, "train", 0).sample("mine", 0)


def config(folder: Path) -> DataConfig:
    rows = [{"question": f"{at}?", "answer": str(at), "image": "red.png"} for at in range(37)] + ["{", {"answer": ""}]
    path = folder / "mine.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    pages = {"kind": "rendered", "task": "document", "render": {"side": [112, 112], "mixture": {"table": 1}}}
    mine = {"kind": "qa", "data": str(path), "shuffle_rows": 8}
    return DataConfig.model_validate({"sources": {"mine": mine, "pages": pages}, "weights": {"mine": [[0, 3], [1, 1]]}})


@pytest.mark.slow
def test_workers_change_nothing(folder):
    _, processor = shared()

    def taken(workers: int) -> list[Any]:
        stream = EncodedStream(config(folder).open(0, total=60), processor)
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        return [(each.source, each.position, each.example.ids, each.refused) for each in loader]

    alone = taken(0)
    assert taken(2) == alone
    assert len(alone) == 60
    stream = EncodedStream(config(folder).open(0, total=60), processor)
    later = [stream[index] for index in range(41, 60)]
    assert [(each.source, each.position, each.example.ids, each.refused) for each in later] == alone[41:]


def test_evaluation_takes_only_sources_with_data_for_it(folder):
    made = config(folder)
    assert made.open(0, total=10, split="eval").sources.names == ("pages",)
    files = DataConfig.model_validate({"sources": {"mine": made.sources["mine"].model_dump()}})
    with pytest.raises(ValueError, match="no source has data for eval"):
        files.open(0, split="eval")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights": {"other": 1}}, "names 'other', and the sources are a"),
        ({"weights": {"a": 1}, "shares": {"a": 0.5}}, "has a weight and a share"),
        ({"weights": {"a": 0}}, "all weights are 0"),
        ({"weights": {"a": [[0.5, 1], [0.5, 2]]}}, "must ascend"),
        ({"shares": {"a": 1.5}}, "add up to 1.5"),
    ],
)
def test_configurations_that_cannot_be(changes, match):
    with pytest.raises(ValueError, match=match):
        DataConfig.model_validate({"sources": {"a": {"kind": "rendered"}}, **changes})
