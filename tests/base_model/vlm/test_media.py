"""Handles of a row are opened whatever their form, and rendered into prompts."""

import pytest
from PIL import Image

from base_model.video_settings import VideoSettings
from base_model.vlm.media import open_image, open_video
from tests.base_model.vlm.clips import number_of, numbered, write_clip


def test_an_image_is_the_same_from_a_path_its_bytes_and_memory(tmp_path):
    image = Image.new("RGB", (20, 10), (10, 20, 30))
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    opened = [open_image(handle) for handle in (tmp_path / "a.png", str(tmp_path / "a.png"), data, image)]
    assert {(each.mode, each.size, each.tobytes()) for each in opened} == {("RGB", (20, 10), image.tobytes())}
    with pytest.raises(ValueError, match="not an image"):
        open_image(b"nothing")


def test_a_video_file_is_read_with_the_settings(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", frames=30, fps=10)
    video = open_video(clip, VideoSettings(fps=2.0, package=3))
    assert [len(package) for package in video.packages] == [3, 3]
    assert [number_of(frame) for package in video.packages for frame in package] == [2, 7, 12, 17, 22, 27]


def test_frames_with_times_are_planned_like_a_file():
    clip = {"frames": [numbered(n) for n in range(12)], "times": [n * 0.5 for n in range(12)]}
    video = open_video(clip, VideoSettings(fps=2.0, package=6))
    assert [len(package) for package in video.packages] == [6, 6]
    assert [time for package in video.times for time in package] == clip["times"]
    slower = open_video(clip, VideoSettings(fps=1.0, package=2))
    assert [number_of(frame) for package in slower.packages for frame in package] == [1, 3, 5, 7, 9, 11]


def test_frames_may_be_files(tmp_path):
    frames = [numbered(n) for n in range(3)]
    for at, frame in enumerate(frames):
        frame.save(tmp_path / f"{at}.png")
    times = [0.0, 0.5, 1.0]
    paths = [tmp_path / f"{at}.png" for at in range(3)]
    found, expected = (open_video({"frames": each, "times": times}) for each in (paths, frames))
    assert [[image.tobytes() for image in package] for package in found.packages] == [
        [image.tobytes() for image in package] for package in expected.packages
    ]


def test_programs_that_draw_are_no_images(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match="PostScript is a program"):
        open_image(tmp_path / "a.eps")


@pytest.mark.parametrize("times", [[0.0], [0.5, 0.5], [-1.0, 0.0], [0.0, float("nan")]])
def test_frames_without_fitting_times_are_refused(times):
    with pytest.raises(ValueError, match="ascending"):
        open_video({"frames": [Image.new("RGB", (8, 8))] * 2, "times": times})


def test_no_frames_at_all_are_refused():
    with pytest.raises(ValueError, match="0 frames"):
        open_video({"frames": [], "times": []})
