"""The video front end on animated images, which need no FFmpeg, and what it says of files that are none."""

import random
import sys
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from base_model.vlm.animated_image import AnimatedImage, on_white
from base_model.vlm.video import VideoError, VideoSettings, read_video
from base_model.vlm.video_file import square_pixels, upright
from tests.base_model.vlm.clips import number_of, numbered, read_or_sentence, write_animation

FORMATS = (".gif", ".webp", ".png")


def test_the_reports_example_clip_takes_two_packages(tmp_path):
    """6 s at 2 frames per second in packages of 6: two packages, that is 128 tokens."""
    path = write_animation(tmp_path / "clip.gif", [100] * 60)
    video = read_video(path, VideoSettings(fps=2, package=6))
    assert [len(package) for package in video.packages] == [6, 6]
    assert [[number_of(image) for image in package] for package in video.packages] == [
        [2, 7, 12, 17, 22, 27],
        [32, 37, 42, 47, 52, 57],
    ]
    assert video.times[1] == pytest.approx([3.2, 3.7, 4.2, 4.7, 5.2, 5.7])
    assert (video.package, video.duration, video.frame_count) == (6, pytest.approx(6.0), 60)
    assert video.losses.sentence() == ""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_variable_durations_keep_their_times(tmp_path, suffix, as_bytes):
    durations = [50, 400, 50, 1000, 100, 100, 700]
    path = write_animation(tmp_path / f"clip{suffix}", durations)
    video = read_video(path.read_bytes() if as_bytes else path, VideoSettings(fps=2.5, package=4))
    assert video.duration == pytest.approx(2.4)
    # Targets 0.2, 0.6, 1.0, 1.4, 1.8, 2.2: two pairs of them see the same frame.
    assert [number_of(image) for image in chain(*video.packages)] == [1, 3, 6]
    assert list(chain(*video.times)) == pytest.approx([0.05, 0.5, 1.7])
    assert video.losses.missing_frames == 3


def test_a_frame_without_a_usable_duration_is_shown_for_a_tenth_of_a_second(tmp_path):
    path = write_animation(tmp_path / "clip.gif", [10, 10, 10])
    assert read_video(path).duration == pytest.approx(0.3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_still_image_is_a_clip_of_one_frame(tmp_path, suffix):
    path = tmp_path / f"still{suffix}"
    numbered(5).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    video = read_video(path, VideoSettings(package=6))
    assert [[number_of(image) for image in package] for package in video.packages] == [[5]]
    assert video.times == [[0.0]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_cut_and_damaged_animations_give_what_is_there_or_one_sentence(tmp_path, suffix):
    content = write_animation(tmp_path / f"clip{suffix}", [100] * 20).read_bytes()
    rng = random.Random(suffix)
    outcomes = set()
    for attempt in range(60):
        damaged = bytearray(content)
        if attempt % 3:
            del damaged[rng.randrange(12, len(content)) :]
        else:
            for _ in range(5):
                damaged[rng.randrange(12, len(content))] = rng.randrange(256)
        video = read_or_sentence(bytes(damaged))
        if isinstance(video, str):
            assert "0x" not in video
            outcomes.add("refused")
            continue
        times = list(chain(*video.times))
        assert times == sorted(times)
        assert times
        if attempt % 3:
            assert [number_of(image) for image in chain(*video.packages)] == list(range(len(times)))
            outcomes.add("shortened" if len(times) < 20 else "whole")
            assert len(times) < 20 or video.frame_count == 20
    assert "refused" in outcomes
    assert suffix == ".webp" or "shortened" in outcomes  # libwebp opens whole files only


def test_a_cut_animation_says_so(tmp_path):
    content = write_animation(tmp_path / "clip.gif", [100] * 20).read_bytes()
    losses = read_video(content[: len(content) * 2 // 3], VideoSettings(fps=10)).losses
    assert "reading ended early" in losses.sentence() or losses.missing_frames == 0
    assert losses.ended_early


def test_large_frames_are_scaled_down_to_the_memory_and_it_is_said(tmp_path):
    frames = [numbered(index, (800, 640)) for index in range(4)]
    frames[0].save(tmp_path / "large.gif", save_all=True, append_images=frames[1:], duration=500)
    video = read_video(tmp_path / "large.gif", VideoSettings(fps=2, max_bytes=2**20))
    images = list(chain(*video.packages))
    assert sum(3 * image.width * image.height for image in images) <= 2**20
    assert [number_of(image) for image in images] == [0, 1, 2, 3]
    assert images[0].width / images[0].height == pytest.approx(1.25, rel=0.01)
    assert "800 x 640" in video.losses.sentence()


def test_more_pixels_than_can_be_decoded_in_bounded_time_are_left_out_and_it_is_said(tmp_path, monkeypatch):
    path = write_animation(tmp_path / "clip.gif", [100] * 20)
    monkeypatch.setattr("base_model.vlm.animated_image.MAX_DECODED", 7 * 80 * 48 + 1)
    video = read_video(path, VideoSettings(fps=10))
    assert [number_of(image) for image in chain(*video.packages)] == list(range(7))
    assert video.losses.ended_early == "only the first 7 frames of such a size are read"


def test_training_draws_change_rate_and_package_and_repeat(tmp_path):
    path = write_animation(tmp_path / "clip.gif", [50] * 100)
    settings = VideoSettings()
    shapes = set()
    for sample in range(12):
        video = read_video(path, settings.drawn(7, sample))
        again = read_video(path, settings.drawn(7, sample))
        assert video.times == again.times
        shapes.add((video.package, sum(map(len, video.times))))
    assert len(shapes) > 6


def test_transparent_frames_lie_on_white():
    layer = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    layer.putpixel((1, 1), (10, 20, 30, 255))
    flat = on_white(layer)
    assert flat.getpixel((0, 0)) == (255, 255, 255)
    assert flat.getpixel((1, 1)) == (10, 20, 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.mp4", "there is no such file"),
        (lambda folder: folder, "is a directory"),
        (lambda folder: b"", "is empty"),
        (lambda folder: b"GIF89a", "is not an image that can be read"),
        (lambda folder: b"GIF89a" + b"\xff" * 400, "GIF|frame|image"),
        (lambda folder: "a\0b.mp4", "cannot be opened"),
        (lambda folder: folder / "two\nlines.mp4", "there is no such file"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_sentence(tmp_path, make, message):
    with pytest.raises(VideoError, match=message) as caught:
        read_video(make(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_an_oversized_frame_is_refused_before_it_is_decoded(tmp_path):
    """13 million pixels more than the limit, in a file of a few hundred bytes."""
    numbered(1).save(tmp_path / "large.gif")
    content = bytearray((tmp_path / "large.gif").read_bytes())
    content[6:10] = (8000).to_bytes(2, "little") + (10000).to_bytes(2, "little")
    with pytest.raises(VideoError, match="8000 x 10000 pixels, and 67108864 pixels is the limit"):
        read_video(bytes(content))


def test_without_pyav_the_error_names_the_package_and_is_not_the_clips_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install av==18\.1\.0"):
        read_video(b"\0\0\0\x18ftypmp42")


# FFmpeg's matrix for each way of holding the camera, and numpy's way of showing it.
MATRICES = [
    ((1, 0, 0, 1), lambda a: a),
    ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    ((1, 0, 0, -1), lambda a: a[::-1]),
    ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
    ((0, 1, 1, 0), lambda a: a.T),
    ((0, -1, -1, 0), lambda a: a[::-1, ::-1].T),
    ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
]


@pytest.mark.parametrize(("signs", "turned"), MATRICES)
def test_the_eight_orientations_move_each_pixel_as_the_matrix_says(signs, turned):
    a, b, c, d = signs
    pixels = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6)
    shown = np.asarray(upright(Image.fromarray(pixels), [a << 16, b << 16, 0, c << 16, d << 16, 0, 7, 7, 1 << 30]))
    assert np.array_equal(shown, turned(pixels))
    points = {(p, q): (a * p + c * q, b * p + d * q) for q in range(4) for p in range(6)}
    left, top = min(x for x, _ in points.values()), min(y for _, y in points.values())
    assert all(shown[y - top, x - left] == pixels[q, p] for (p, q), (x, y) in points.items())


def test_skewed_matrices_and_odd_pixel_shapes_are_left_alone():
    image = numbered(3)
    assert upright(image, [40000, 40000, 0, -40000, 40000, 0, 0, 0, 1 << 30]) is image
    assert upright(image, None) is image
    assert square_pixels(image, 2).size == (160, 48)
    assert all(square_pixels(image, aspect) is image for aspect in (None, 0, 1, 1000))


def test_the_source_holds_one_decoded_frame_per_step(tmp_path):
    path = write_animation(tmp_path / "clip.gif", [100] * 5)
    with AnimatedImage(path, "clip") as clip:
        assert [number_of(frame.picture()) for frame in clip.frames()] == [0, 1, 2, 3, 4]
        assert [number_of(frame.picture()) for frame in clip.frames()] == [0, 1, 2, 3, 4]
