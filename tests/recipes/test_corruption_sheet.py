"""The sheet of corrupted pages: drawn from files and without, self-contained, hostile texts escaped."""

import base64
import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from base_model.vlm.corruption import corrupt_page
from recipes.cli import run_recipe
from recipes.corruption_sheet import COLOURS, CorruptionSheetConfig, built_in_page, main


def run(*arguments):
    return run_recipe(main, CorruptionSheetConfig, argv=[str(argument) for argument in arguments])


def images(page: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]


def test_the_built_in_page_and_its_samples(tmp_path, capsys):
    out = tmp_path / "made" / "sheet.html"
    assert run("--out", out, "--samples", 3, "--seed", 4, "--corruption.region_share", 0.6) == 0
    text = out.read_text()
    clean, *drawn = images(text)
    page, regions = built_in_page()
    assert clean.tobytes() == page.tobytes()
    assert len(drawn) == 3
    settings = CorruptionSheetConfig().corruption.model_copy(update={"region_share": 0.6})
    expected = [corrupt_page(page, regions, settings, seed=4, sample=sample) for sample in range(3)]
    for image, one in zip(drawn, expected, strict=True):
        left, top, right, bottom = one.targets[-1].box
        assert image.crop((left, top, right, bottom)).tobytes() == one.image.crop((left, top, right, bottom)).tobytes()
    assert {target.level for one in expected for target in one.targets} == set(COLOURS)
    assert str(out) in capsys.readouterr().out
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert all(
        region.box[0] >= 0 and region.box[2] <= page.width and region.box[3] <= page.height for region in regions
    )


def test_a_page_and_regions_of_ones_own_with_hostile_text(tmp_path):
    Image.new("L", (120, 60), 255).save(tmp_path / "page.png")
    rows = [{"box": [5, 5, 100, 30], "text": "<script>alert(1)</script>"}]
    (tmp_path / "regions.json").write_text(json.dumps(rows))
    out = tmp_path / "sheet.html"
    assert run("--page", tmp_path / "page.png", "--regions", tmp_path / "regions.json", "--out", out) == 0
    assert "<script>" not in out.read_text()
    assert "&lt;script&gt;" in out.read_text()
    assert run("--out", out) == 2
    assert run("--out", out, "--overwrite", "true") == 0


@pytest.mark.parametrize(
    ("page", "regions", "message"),
    [
        (None, "[]", "add --page"),
        (b"GIF89a", None, "add --regions"),
        (b"GIF89a", '[{"box": [0, 0, 5, 5], "text": "a"}]', "is not an image that can be read"),
        ("good", "[]", "at least one region"),
        ("good", "{", "is not JSON"),
        ("good", "[" * 100000, "is not JSON"),
        ("good", '[{"box": [0, 0, 5], "text": "a"}]', "region 0 has the box"),
        ("good", '[{"box": [0, 0, 5, true], "text": "a"}]', "region 0 is not of the form"),
        ("good", '[{"box": [0, 0, 5, 5]}]', "region 0 is not of the form"),
        ("good", '[{"box": [90, 0, 99, 5], "text": "a"}]', "lies outside the page"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(tmp_path, capsys, page, regions, message):
    arguments = ["--out", tmp_path / "sheet.html"]
    if page is not None:
        arguments += ["--page", tmp_path / "page.gif"]
        Image.new("RGB", (20, 20)).save(tmp_path / "page.gif")
        if page != "good":
            (tmp_path / "page.gif").write_bytes(page)
    if regions is not None:
        arguments += ["--regions", tmp_path / "regions.json"]
        (tmp_path / "regions.json").write_text(regions)
    assert run(*arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "sheet.html").exists()


def test_the_command_line_lists_its_keys_without_torch():
    code = "import recipes.corruption_sheet, sys; assert not {'torch', 'transformers', 'av'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
