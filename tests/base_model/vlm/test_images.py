"""Pictures of every kind become upright RGB, views and patches."""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from base_model.vlm import MiniCPMVImageProcessor
from base_model.vlm.images import load_image, to_rgb
from tests.base_model.vlm.small import picture


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_plain_rgb_comes_back_unchanged() -> None:
    image = picture(30, 20)
    assert to_rgb(image) is image


@pytest.mark.parametrize(("orientation", "size"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))])
def test_sideways_photos_are_turned_upright(orientation: int, size: tuple[int, int]) -> None:
    image = picture(30, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = load_image(_file(image, "PNG", exif=exif))
    assert turned.size == size
    upright = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    method = upright[orientation]
    assert turned.tobytes() == (image if method is None else image.transpose(method)).tobytes()
    assert to_rgb(turned) is turned  # once


def test_transparency_lies_over_white() -> None:
    pixels = np.zeros((1, 2, 4), dtype=np.uint8)
    pixels[0, 1] = (0, 0, 0, 255)
    image = load_image(_file(Image.fromarray(pixels), "PNG"))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = to_rgb(picture(9, 7).convert("RGBA").convert(mode) if mode == "RGBA" else picture(9, 7).convert(mode))
    assert (image.mode, image.size) == ("RGB", (9, 7))


def test_sixteen_bit_grey_keeps_its_brightness() -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    image = load_image(_file(Image.fromarray(values), "PNG"))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = _file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(BytesIO(data)) as image:
        image.seek(1)
        assert to_rgb(image).getpixel((0, 0)) == (255, 0, 0)


def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    data = _file(picture(200, 200), "JPEG")
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    image = load_image(tmp_path / "half.jpg")
    assert image.size == (200, 200)
    assert np.asarray(image)[:20].std() > 10
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # the process-wide switch is as it was
    with pytest.raises(ValueError, match="truncated"):
        load_image(tmp_path / "half.jpg", strict=True)


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"^{len(data)} bytes: "):
        load_image(data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks about damaged tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_files_are_read_or_refused_in_one_sentence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)  # a damaged header may ask for any size
    whole = _file(picture(40, 30), kind)
    rng = random.Random(kind)
    for _ in range(100):
        data = bytearray(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.4 else whole)
        for _ in range(rng.randrange(6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        outcome = _outcome(bytes(data))
        assert outcome == "RGB" or outcome.startswith(f"{len(data)} bytes: "), outcome


def _outcome(data: bytes) -> str:
    try:
        return load_image(data).mode
    except ValueError as error:
        return str(error)


def test_arrays_and_tensors_are_images_too() -> None:
    pixels = np.asarray(picture(10, 6))
    for array in (pixels, torch.from_numpy(pixels.copy()), torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        assert to_rgb(array).tobytes() == pixels.tobytes()
    with pytest.raises(ValueError, match=r"shape \[6, 10, 3\] and type float32"):
        to_rgb(pixels.astype(np.float32))


def test_patches_hold_every_pixel_in_its_place() -> None:
    processor = MiniCPMVImageProcessor()
    view = picture(42, 28)
    patches, grid = processor.patches(view)
    assert grid == (2, 3)
    assert patches.shape == (3, 14, 6 * 14)
    pixels = np.asarray(view)
    for row, column in ((0, 0), (0, 2), (1, 1)):
        number = row * 3 + column
        patch = patches[:, :, number * 14 : (number + 1) * 14].permute(1, 2, 0).numpy()
        cut = pixels[row * 14 : (row + 1) * 14, column * 14 : (column + 1) * 14]
        np.testing.assert_allclose(patch, (cut / 255 - 0.5) / 0.5, atol=1e-6)


def test_cells_cover_the_image_row_by_row() -> None:
    processor = MiniCPMVImageProcessor(scale_resolution=28, max_slice_nums=9)
    image = Image.new("RGB", (84, 56))
    for number in range(6):
        image.paste(
            (number * 40, 0, 0), ((number % 3) * 28, number // 3 * 28, number % 3 * 28 + 28, number // 3 * 28 + 28)
        )
    views = processor.views(image)
    assert [view.getpixel((14, 14))[0] for view in views[1:]] == [0, 40, 80, 120, 160, 200]


def test_samples_of_images_keep_their_shape() -> None:
    processor = MiniCPMVImageProcessor()
    big, small = picture(640, 480), picture(100, 50)
    done = processor([[big, small], [], [small]])
    assert [len(views) for views in done["pixel_values"]] == [4, 0, 1]
    assert [sizes.tolist() for sizes in done["tgt_sizes"]][1:] == [[], [[23, 45]]]
    assert [[size.tolist() for size in sizes] for sizes in done["image_sizes"]] == [
        [[640, 480], [100, 50]],
        [],
        [[100, 50]],
    ]
    frames = processor([[big]], max_slice_nums=1)
    assert [len(views) for views in frames["pixel_values"]] == [1]


def test_token_counts() -> None:
    """The report's figures: 64 tokens for 448 x 448, 640 at most."""
    processor = MiniCPMVImageProcessor()
    assert processor.num_tokens((448, 448)) == 64
    assert processor.num_tokens((640, 480)) == 192
    assert processor.num_tokens((1344, 1344)) == 640
    assert processor.get_slice_image_placeholder((448, 448)).count("<unk>") == 64
    assert processor.get_slice_image_placeholder((1344, 1344)).count("<unk>") == 640
    assert processor.get_video_placeholder(2).count("<unk>") == 128  # 6 s at 2 frames a second, 6 frames a package


def test_placeholder_text() -> None:
    processor = MiniCPMVImageProcessor(image_feature_size=2)
    features = "<unk><unk>"
    cell = f"<slice>{features}</slice>"
    assert (
        processor.get_slice_image_placeholder((800, 600), 3)
        == f"<image_id>3</image_id><image>{features}</image>{cell}{cell}\n{cell}{cell}"
    )
    assert processor.get_slice_image_placeholder((800, 600), 3, 1, False) == f"<image>{features}</image>"
    assert processor.get_video_placeholder(2) == f"<image>{features}</image>\n<image>{features}</image>"


def test_saved_settings_come_back(tmp_path: Path) -> None:
    from transformers.models.auto.image_processing_auto import AutoImageProcessor  # the short name wants torchvision

    saved = MiniCPMVImageProcessor(max_slice_nums=4, scale_resolution=112, image_feature_size=16)
    saved.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is MiniCPMVImageProcessor
    assert loaded.to_dict() == saved.to_dict()
