"""The logic around PyAV, on a small stand-in for it: what is done with missing stamps, errors midway, odd streams.

test_video_file.py reads real files with PyAV itself, where it is installed.
"""

import sys
from fractions import Fraction
from itertools import chain
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from base_model.vlm import video_file
from base_model.vlm.video import VideoError, VideoSettings, read_video
from tests.base_model.vlm.clips import number_of, numbered

CONTENT = b"\0\0\0\x18ftypmp42"
TICK = Fraction(1, 1000)


class FFmpegError(Exception):
    def __init__(self, strerror):
        super().__init__(1, strerror)
        self.strerror = strerror


class Frame:
    def __init__(self, number, pts, dts=None, corrupt=False, matrix=None):
        self.number, self.pts, self.dts, self.is_corrupt = number, pts, dts, corrupt
        self.side_data = {} if matrix is None else {"DISPLAYMATRIX": np.array(matrix, dtype=np.int32).tobytes()}

    def to_image(self):
        if self.number < 0:
            raise FFmpegError("no such conversion")
        return numbered(self.number)


class Packet:
    def __init__(self, number, pts, dts=None, **frame):
        self.number, self.pts, self.dts, self.frame = number, pts, dts, frame
        self.size, self.duration, self.is_discard = 100, 100, False
        self.is_keyframe = number % 8 == 0

    def decode(self):
        if self.frame.get("unreadable"):
            raise FFmpegError("Invalid data found")
        return [Frame(self.number, self.pts, self.dts, **self.frame)]


class Flush(Packet):
    def __init__(self):
        super().__init__(0, None)
        self.size = 0

    def decode(self):
        return []


class Container:
    """Packets, or an error in their place, behind PyAV's interface."""

    def __init__(self, packets, stream, *, audio=(), seek=True):
        self.packets, self.may_seek, self.position = packets, seek, 0
        self.streams = SimpleNamespace(video=[stream] if stream else [], audio=audio)
        self.closed = 0
        self.format = SimpleNamespace(name="mov")
        self.seeks = 0

    def demux(self, stream):
        for packet in self.packets[self.position :]:
            if isinstance(packet, Exception):
                raise packet
            yield packet
        yield Flush()

    def seek(self, stamp, *, stream):
        self.seeks += 1
        if not self.may_seek:
            raise FFmpegError("Operation not permitted")
        before = [i for i, p in enumerate(self.packets) if p.is_keyframe and p.pts <= stamp]
        self.position = before[-1]

    def close(self):
        self.closed += 1
        self.position = 0


def stream(**values):
    codec = SimpleNamespace(options={}, thread_count=0)
    usual = {
        "codec_context": codec,
        "disposition": 0,
        "width": 80,
        "height": 48,
        "time_base": TICK,
        "average_rate": Fraction(10),
        "guessed_rate": None,
        "sample_aspect_ratio": None,
    }
    return SimpleNamespace(**usual | values)


@pytest.fixture
def opened(monkeypatch):
    """Call with a Container (or an error) that `av.open` is to give."""

    def give(container):
        av, av_stream = ModuleType("av"), ModuleType("av.stream")
        av_stream.Disposition = SimpleNamespace(attached_pic=1024)
        av.error, av.stream = SimpleNamespace(FFmpegError=FFmpegError), av_stream

        def open_(file, mode, container_options, metadata_errors):
            assert mode == "r"
            assert "hls" not in container_options["format_whitelist"].split(",")
            assert container_options["protocol_whitelist"] == "file"
            if isinstance(container, Exception):
                raise container
            return container

        av.open = open_
        monkeypatch.setitem(sys.modules, "av", av)
        monkeypatch.setitem(sys.modules, "av.stream", av_stream)
        return container

    return give


def numbers(video):
    return [number_of(image) for image in chain(*video.packages)]


def packets(count, start=0, **frame):
    return [Packet(i, start + 100 * i, start + 100 * i, **frame) for i in range(count)]


def test_a_sound_clip_starts_at_zero_and_is_closed(opened):
    container = opened(Container(packets(60, start=1400), stream()))
    video = read_video(CONTENT, VideoSettings(fps=2, package=6))
    assert numbers(video) == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47, 52, 57]
    assert list(chain(*video.times)) == pytest.approx([0.2 + k / 2 for k in range(12)])
    assert (video.duration, video.losses.sentence()) == (pytest.approx(6), "")
    assert container.closed == 2  # the counting pass and the decoding pass
    assert container.streams.video[0].codec_context.options == {"max_pixels": "67108864"}


def test_without_durations_the_last_frame_is_as_long_as_the_mean(opened):
    made = packets(60)
    for packet in made:
        packet.duration = None
    opened(Container(made, stream(average_rate=None)))
    assert read_video(CONTENT).duration == pytest.approx(6)


@pytest.mark.parametrize("rate", [Fraction(20), None])
def test_without_any_time_stamp_the_frame_rate_counts(opened, rate):
    made = [Packet(i, None) for i in range(40)]
    opened(Container(made, stream(average_rate=rate, time_base=None)))
    video = read_video(CONTENT, VideoSettings(fps=10))
    fps = float(rate or video_file.FALLBACK_FPS)
    assert video.duration == pytest.approx(40 / fps)
    assert list(chain(*video.times)) == pytest.approx([n / fps for n in numbers(video)])
    assert "got one by the frame rate" in video.losses.sentence()


def test_decoding_stamps_stand_in_for_presentation_stamps(opened):
    opened(Container([Packet(i, None, 500 + 100 * i) for i in range(20)], stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    assert numbers(video) == list(range(20))
    assert list(chain(*video.times)) == pytest.approx([i / 10 for i in range(20)])


@pytest.mark.parametrize("stamp", [None, 300, 0])
def test_a_stamp_that_is_missing_or_goes_back_is_repaired(opened, stamp):
    made = packets(20)
    made[7].pts = made[7].dts = stamp
    opened(Container(made, stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    times = list(chain(*video.times))
    assert times == sorted(set(times))
    assert times[7] == pytest.approx(0.7)
    assert video.losses.repaired_times == 1


def test_damaged_frames_are_passed_over_and_counted(opened):
    made = packets(20)
    made[3].frame = {"corrupt": True}
    made[9].frame = {"unreadable": True}
    made[12].number = -1
    opened(Container(made, stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    assert numbers(video) == [n for n in range(20) if n not in (3, 9, 12)]
    losses = video.losses
    assert (losses.corrupt_frames, losses.unreadable_packets, losses.missing_frames) == (2, 1, 3)


def test_a_clip_that_breaks_off_is_planned_by_what_is_there(opened):
    opened(Container([*packets(20), FFmpegError("Input/output error")], stream()))
    video = read_video(CONTENT, VideoSettings(fps=5))
    assert (video.duration, len(numbers(video))) == (pytest.approx(2), 10)
    assert video.losses.sentence() == "reading ended early (Input/output error)"


@pytest.mark.parametrize("field", ["pts", "duration"])
@pytest.mark.parametrize("at", [5, 19])
def test_one_stamp_of_a_million_years_costs_no_frame(opened, field, at):
    made = packets(20)
    setattr(made[at], field, 2**55)
    opened(Container(made, stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    assert numbers(video) == list(range(20))
    assert list(chain(*video.times)) == pytest.approx([n / 10 for n in range(20)])
    assert video.duration == pytest.approx(2)


@pytest.mark.parametrize("may_seek", [True, False])
def test_long_gaps_are_jumped_where_the_container_can(opened, may_seek):
    container = opened(Container(packets(900), stream(), seek=may_seek))
    video = read_video(CONTENT, VideoSettings(fps=0.1))
    assert numbers(video) == [50 + 100 * k for k in range(9)]
    assert container.seeks == (9 if may_seek else 1)


def test_packets_that_are_not_to_be_shown_do_not_count(opened):
    made = packets(20)
    for packet in made[:5]:
        packet.is_discard = True
        packet.decode = list
    opened(Container(made, stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    assert (video.frame_count, numbers(video)) == (15, list(range(5, 20)))
    assert video.times[0] == [0.0]


def test_more_packets_than_the_limit_are_left_out(opened, monkeypatch):
    monkeypatch.setattr(video_file, "MAX_PACKETS", 10)
    opened(Container(packets(50), stream()))
    video = read_video(CONTENT, VideoSettings(fps=10))
    assert numbers(video) == list(range(10))
    assert video.losses.ended_early == "only the first 10 frames of a clip are read"


def test_frames_stand_upright_with_square_pixels(opened):
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    opened(Container(packets(3, matrix=clockwise), stream(sample_aspect_ratio=Fraction(2))))
    image = read_video(CONTENT).packages[0][0]
    assert image.size == (48, 160)
    expected = numbered(1).resize((160, 48)).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(image, dtype=int) - np.asarray(expected, dtype=int)).mean() < 4


def test_wide_pixels_do_not_make_a_frame_larger_than_the_limit(monkeypatch):
    monkeypatch.setattr(video_file, "MAX_PIXELS", 80 * 48)
    assert video_file.square_pixels(numbered(1), Fraction(2)).size == (80, 24)
    assert video_file.square_pixels(numbered(1), Fraction(1, 2)).size == (40, 48)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (FFmpegError("Invalid data found when processing input"), r"can be read \(Invalid data found"),
        (Container([], None, audio=["sound"]), "holds only sound"),
        (Container([], None), "holds no picture"),
        (Container([], stream(disposition=1024), audio=["sound"]), "holds only sound"),
        (Container([], stream(codec_context=None)), "cannot decode"),
        (Container([], stream(width=20000, height=20000)), "frames of 20000 x 20000 pixels"),
        (Container([], stream()), "holds no frame: leave it out"),
        (Container([FFmpegError("End of file")], stream()), r"holds no frame \(End of file\)"),
        (Container(packets(5, unreadable=True), stream()), r"no frame that can be decoded \(5 packets could not"),
        (Container(packets(5, corrupt=True), stream()), r"no frame that can be decoded \(5 damaged frames"),
        (Container([Packet(-1, 0)], stream()), r"no frame that can be decoded \(1 damaged frames"),
    ],
)
def test_a_clip_without_a_frame_is_refused_in_one_sentence_and_closed(opened, container, message):
    opened(container)
    with pytest.raises(VideoError, match=message) as caught:
        read_video(CONTENT)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(container, Exception) or container.closed
