"""Development pictures, where they are: in the folder that TANDEM_DEV_DATA names, else in `shared/data` beside the
repository. Pictures of every shape and damage are made here and always run.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from base_model.vlm.images import load_image
from tests.base_model.vlm.small import logits, picture, shared

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data"
PICTURES = Path(os.environ.get("TANDEM_DEV_DATA") or BESIDE) / "mm" / "images"
IMAGE = "(<image>./</image>)"


def _read(image: Image.Image) -> None:
    model, processor = shared()
    inputs = processor(f"{IMAGE} what is it?", images=[image])
    assert len(inputs["pixel_values"][0]) == len(inputs["image_bound"][0])
    assert logits(model, inputs).isfinite().all()


def test_development_pictures_are_read() -> None:
    files = sorted(PICTURES.glob("*"))[::12] if PICTURES.is_dir() else []
    if not files:
        pytest.skip(f"{PICTURES} is not here: the development data is not part of the repository")
    for file in files:
        _read(load_image(file))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (900, 2), (6000, 4000), (31, 33)])
def test_every_shape_is_read(size: tuple[int, int]) -> None:
    _read(picture(*size))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read(mode: str) -> None:
    image = picture(130, 90)
    _read(image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode))


def test_a_truncated_and_a_turned_photo_are_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    picture(200, 80).save(buffer, "JPEG", exif=exif)
    whole = load_image(buffer.getvalue())
    assert whole.size == (80, 200)
    _read(whole)
    _read(load_image(buffer.getvalue()[:-600]))


def test_views_of_one_picture_do_not_depend_on_how_it_was_given() -> None:
    _, processor = shared()
    buffer = BytesIO()
    picture(150, 90).save(buffer, "PNG")
    lazy = Image.open(BytesIO(buffer.getvalue()))
    views = [processor.image_processor(image)["pixel_values"][0] for image in (lazy, load_image(buffer.getvalue()))]
    assert all(torch.equal(first, second) for first, second in zip(*views, strict=True))
