"""Video files written and read by PyAV: codecs and containers, odd time stamps, damage, hostile files."""

import json
import os
import random
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from base_model.vlm.frame_choice import SEEK_FRAMES
from base_model.vlm.video import VideoError, VideoSettings, read_video
from base_model.vlm.video_file import VideoFile
from tests.base_model.vlm.clips import number_of, read_or_sentence, write_clip

av = pytest.importorskip("av", reason="PyAV is not installed")

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("TANDEM_DEV_DATA") or ROOT.parent / "shared" / "data")

KINDS = [
    ("mpeg4", "mp4"),
    ("mpeg4", "avi"),
    ("mpeg4", "mkv"),
    ("libx264", "mp4"),
    ("libx264", "mkv"),
    ("libx264", "ts"),
    ("libvpx-vp9", "webm"),
    ("mjpeg", "avi"),
    ("mjpeg", "mov"),
]


def clip(folder, codec, suffix, **options):
    if codec not in av.codec.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    return write_clip(folder / f"clip.{suffix}", codec, **options)


def numbers(video):
    return [number_of(image) for image in chain(*video.packages)]


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_every_kind_of_file_gives_the_planned_frames_and_times(tmp_path, codec, suffix, as_bytes):
    path = clip(tmp_path, codec, suffix, frames=60)
    video = read_video(path.read_bytes() if as_bytes else path, VideoSettings(fps=2, package=6))
    assert numbers(video) == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47, 52, 57]
    assert [len(package) for package in video.packages] == [6, 6]
    assert list(chain(*video.times)) == pytest.approx([0.2 + k / 2 for k in range(12)], abs=0.002)
    assert (video.frame_count, video.duration) == (60, pytest.approx(6, abs=0.11))
    assert video.losses.sentence() == ""


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rates_keep_their_times(tmp_path, suffix):
    stamps = [0, 40, 80, 1200, 1240, 2000, 5000, 5040, 5080, 5120]
    video = read_video(clip(tmp_path, "mpeg4", suffix, frames=10, stamps_ms=stamps), VideoSettings(fps=1))
    assert list(chain(*video.times)) == pytest.approx([stamps[n] / 1000 for n in numbers(video)], abs=0.002)
    targets = [(k + 0.5) * video.duration / 5 for k in range(5)]
    assert numbers(video) == sorted({max(i for i, s in enumerate(stamps) if s / 1000 <= t) for t in targets})


def test_a_stream_without_time_stamps_is_timed_by_its_frame_rate(tmp_path):
    path = clip(tmp_path, "libx264", "h264", frames=40, container_format="h264")
    video = read_video(path, VideoSettings(fps=10))
    assert numbers(video) == list(range(40))
    assert list(chain(*video.times)) == pytest.approx([n / 10 for n in range(40)])
    assert video.duration == pytest.approx(4)  # the stream itself says 10 per second; FFmpeg's average says 25
    assert "got one by the frame rate" in video.losses.sentence()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_avi_with_frames_out_of_order_is_timed_by_their_order(tmp_path, codec):
    """AVI has no presentation stamps; those that FFmpeg makes up for B-frames jump back and forth."""
    video = read_video(clip(tmp_path, codec, "avi", frames=40, b_frames=2), VideoSettings(fps=10))
    assert numbers(video) == list(range(40))
    assert list(chain(*video.times)) == pytest.approx([n / 10 for n in range(40)])
    assert video.duration == pytest.approx(4)


def test_a_container_whose_tick_is_a_frame_gives_every_frame(tmp_path):
    video = read_video(clip(tmp_path, "libvpx-vp9", "ivf", frames=20), VideoSettings(fps=10))
    assert numbers(video) == list(range(20))
    assert video.losses.sentence() == ""


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(tmp_path, degrees, turns):
    plain = read_video(clip(tmp_path, "mpeg4", "mp4", frames=3), VideoSettings(fps=10))
    turned = read_video(clip(tmp_path, "mpeg4", "mov", frames=3, rotation=degrees), VideoSettings(fps=10))
    for before, after in zip(chain(*plain.packages), chain(*turned.packages), strict=True):
        expected = np.rot90(np.asarray(before, dtype=int), turns)
        assert np.abs(np.asarray(after, dtype=int) - expected).mean() < 4


@pytest.mark.parametrize(
    ("codec", "suffix"), [("mpeg4", "mkv"), ("mpeg4", "avi"), ("libx264", "ts"), ("libx264", "mp4")]
)
def test_files_cut_anywhere_give_what_is_there_or_one_sentence(tmp_path, codec, suffix):
    content = clip(tmp_path, codec, suffix, frames=40).read_bytes()
    rng = random.Random(0)
    shortened = 0
    for _ in range(25):
        cut = content[: rng.randrange(1, len(content))]
        video = read_or_sentence(cut)
        if isinstance(video, str):
            continue
        found = numbers(video)
        assert found
        whole = found[:-1]  # the frame at the cut may be decoded without its end, and no codec need say so
        assert whole == sorted(set(whole))
        shortened += len(found) < 40
    assert shortened or suffix == "mp4"  # the index of an MP4 is at its end: without it nothing can be read


DAMAGED_KINDS = [
    ("libx264", "mp4"),
    ("libx264", "mkv"),
    ("libx264", "ts"),
    ("libx264", "h264"),
    ("libvpx-vp9", "webm"),
    ("libvpx-vp9", "ivf"),
    ("mpeg4", "avi"),
    ("mjpeg", "avi"),
]


@pytest.mark.parametrize(("codec", "suffix"), DAMAGED_KINDS)
def test_damaged_files_neither_crash_nor_hang_nor_fill_the_memory(tmp_path, codec, suffix):
    path = clip(tmp_path, codec, suffix, frames=24)
    command = [sys.executable, "-m", "tests.base_model.vlm.damaged_clips", str(path), "40", "4"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    read, refused = map(int, run.stdout.split())
    assert read + refused == 40
    assert read >= 10


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="only sound"):
        read_video(path)


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_playlist_dressed_as_a_clip_reads_no_other_file(tmp_path, text):
    other = clip(tmp_path, "libx264", "ts")
    disguise = tmp_path / "clip.mp4"
    disguise.write_text(text.format(other))
    with pytest.raises(VideoError, match="is not a video file that can be read"):
        read_video(disguise)


def test_text_and_zeros_are_refused_in_one_sentence():
    for content in (b"hello, world " * 100, b"\0" * 5000, random.Random(2).randbytes(5000)):
        with pytest.raises(VideoError) as caught:
            read_video(content)
        assert len(str(caught.value).splitlines()) == 1


def test_seeking_finds_the_frames_that_reading_through_finds(tmp_path):
    path = clip(tmp_path, "mpeg4", "mp4", frames=900)
    settings = VideoSettings(fps=0.1)
    with VideoFile(path, "clip") as whole:
        assert whole.frame_count > 40 * SEEK_FRAMES
        assert len(whole.keyframes) > 100
    assert numbers(read_video(path, settings)) == [50 + 100 * k for k in range(9)]


def test_a_file_is_closed_after_an_error(tmp_path):
    path = tmp_path / "sound_only.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 100)
    with pytest.raises(VideoError):
        read_video(path)
    path.unlink()


def test_development_clips_are_read_whole_as_they_are_shown():
    """One of them has a smeared stretch near its end. That damage was there before it was coded as it is now: its
    bits are sound, so no decoder can report it, and its frames are read as any others."""
    listing = DATA / "mm_video.jsonl"
    if not listing.is_file():
        pytest.skip(f"{listing} is not here: the development data is not part of the repository")
    for row in map(json.loads, listing.read_text(encoding="utf-8").splitlines()):
        video = read_video(DATA / row["video"], VideoSettings(fps=3, package=6))
        assert video.frame_count == row["frames"]
        assert video.duration == pytest.approx(row["frames"] / row["fps"], rel=0.001)
        assert len(list(chain(*video.times))) == 30
        assert video.losses.sentence() == ""
        with av.open(str(DATA / row["video"])) as container:
            aspect = container.streams.video[0].sample_aspect_ratio or 1  # the listing has coded sizes
        assert {image.size for image in chain(*video.packages)} == {(round(row["width"] * aspect), row["height"])}
