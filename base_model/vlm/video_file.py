"""Video files through PyAV (FFmpeg): what a clip holds, and its frames in order.

A clip is read twice. The first pass takes the compressed packets apart without decoding them: it finds what is really
there (a header of a cut file promises more), its duration, and the keyframes. The second decodes. Neither holds more
than a few frames.

Files are hostile: only the containers below are opened, so that a playlist dressed as a clip cannot make FFmpeg read
other files or the network; frame sizes, packets and memory are bounded; what breaks midway is counted, not fatal.
"""

from __future__ import annotations

import io
import math
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from base_model.vlm.frame_choice import MAX_PIXELS, Losses, TimedFrame, VideoError

AV_VERSION = "18.1.0"
"""Version of PyAV that this was written for."""
CONTAINERS = (
    "mov", "mp4", "matroska", "webm", "avi", "gif", "mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "flv", "ogg",
    "asf", "ivf", "mjpeg", "nut", "rm", "mp3", "wav", "flac", "aac",
)  # fmt: skip
"""FFmpeg's demuxers that may open a file. None of them follows references to other files; those of sound are there so
that their files are refused for what they are."""
MAX_PACKETS = 4_000_000
"""Packets that are read of a clip: 18 hours at 60 frames per second."""
FALLBACK_FPS = 25.0
MAX_PERIOD = 600.0
"""Seconds from frame to frame, on average, beyond which time stamps are taken for damage: one flipped bit can put a
frame a million years later, and then all others share the clip's first moment."""


class VideoFile:
    """An open video file; a FrameSource, to be used in a `with` statement.

    Args:
        source: a path, or the file's content.
        name: what to call it in messages.

    Raises:
        VideoError: not a video, no picture in it, or nothing of it can be read.
        ImportError: PyAV is not installed.
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self._av = _import_av()
        self._source, self._name = source, name
        self.losses = Losses()
        self.tick, self.duration, self.frame_count = 0.0, 0.0, 0
        self.keyframes: Sequence[float] = ()
        self._zero: float | None = None
        self._rate = FALLBACK_FPS
        self._timed, self._by_order = True, False
        self._container = self._open()
        try:
            self._scan()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._container.close()

    def frames(self, start: float | None = None) -> Iterator[TimedFrame]:
        """See FrameSource. Damaged frames are passed over; a time stamp that is missing or goes back is replaced."""
        if start is None:
            self._container.close()
            self._container = self._open()
            self.losses.unreadable_packets = self.losses.corrupt_frames = self.losses.repaired_times = 0
        elif not self._seek(start):
            return
        last = -math.inf
        for frame in self._decoded():
            time = self._time(frame, last)
            last = time
            if frame.is_corrupt:
                self.losses.corrupt_frames += 1
                continue
            yield TimedFrame(time=time, picture=partial(self._picture, frame))

    def _open(self) -> Any:
        options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
        file = io.BytesIO(self._source) if isinstance(self._source, bytes) else str(self._source)
        try:
            container = self._av.open(file, mode="r", container_options=options, metadata_errors="replace")
        except (self._av.error.FFmpegError, ValueError, OSError) as error:
            raise VideoError(
                f"{self._name} is not a video file that can be read ({_reason(error)}): "
                "leave it out, or convert it to MP4 first."
            ) from None
        try:
            self._stream = self._video_stream(container)
        except VideoError:
            container.close()
            raise
        return container

    def _video_stream(self, container: Any) -> Any:
        covers = self._av.stream.Disposition.attached_pic
        pictures = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not pictures:
            other = "only sound" if container.streams.audio else "no picture"
            raise VideoError(f"{self._name} holds {other}, and a video needs a stream of pictures: leave it out.")
        readable = [stream for stream in pictures if stream.codec_context is not None]
        if not readable:
            raise VideoError(f"{self._name} is in a format that this build of FFmpeg cannot decode: convert it first.")
        stream = max(readable, key=lambda one: one.width * one.height)
        if stream.width * stream.height > MAX_PIXELS:
            raise VideoError(
                f"{self._name} has frames of {stream.width} x {stream.height} pixels, and {MAX_PIXELS} pixels is the "
                "limit: scale it down first."
            )
        # The decoder refuses larger frames that follow later, too. One thread, so that a broken file decodes the same
        # way each time; data loaders run several processes anyway.
        stream.codec_context.options.update(max_pixels=str(MAX_PIXELS))
        stream.codec_context.thread_count = 1
        return stream

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream until its end or the first that cannot be read; the last, empty ones flush the
        decoder."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (self._av.error.FFmpegError, OSError) as error:
                self.losses.ended_early = _reason(error)
                return
            yield packet

    def _scan(self) -> None:
        """Counts packets, and finds start, duration, rate and keyframes."""
        self._aspect = self._stream.sample_aspect_ratio
        # AVI holds no presentation stamps, and those that FFmpeg makes up for frames out of order are wrong.
        counted = self._container.format.name == "avi"
        base = self._stream.time_base
        self.tick = float(base) if base else 0.0
        first, last, end, lengths = math.inf, -math.inf, -math.inf, 0.0
        keyframes, presented = array("d"), True
        for packet in self._packets():
            if not packet.size or packet.is_discard:
                continue
            self.frame_count += 1
            if self.frame_count > MAX_PACKETS:
                self.frame_count = MAX_PACKETS
                self.losses.ended_early = f"only the first {MAX_PACKETS} frames of a clip are read"
                break
            lengths += (packet.duration or math.nan) * self.tick
            stamp = packet.dts if packet.pts is None else packet.pts
            self._by_order |= counted and packet.pts != packet.dts
            presented &= packet.pts is not None
            if stamp is None:
                continue
            time = stamp * self.tick
            first, last = min(first, time), max(last, time)
            end = max(end, time + (packet.duration or 0) * self.tick)
            if packet.is_keyframe and packet.pts is not None:
                keyframes.append(time)
        if not self.frame_count:
            why = f" ({self.losses.ended_early})" if self.losses.ended_early else ""
            raise VideoError(f"{self._name} holds no frame{why}: leave it out.")
        self._set_times(first, last, end, lengths)
        if self._timed and presented and not self._by_order:
            # Decoding stamps count packets in order of decoding, so only presentation stamps say where the clip starts.
            self._zero = first
            self.keyframes = array("d", sorted(time - first for time in keyframes))

    def _set_times(self, first: float, last: float, end: float, lengths: float) -> None:
        """Rate and duration from the packets: the first and last start, the last end, and the sum of their lengths
        (NaN if one has none)."""
        # The lengths first: they come from the stream itself, and for a bare stream FFmpeg's average is always 25.
        stated = self.frame_count / lengths if lengths > 0 else self._stream.average_rate or self._stream.guessed_rate
        if stated and 1 / MAX_PERIOD <= float(stated) <= 1000:
            self._rate = float(stated)
        latest = first + MAX_PERIOD * self.frame_count
        self._timed = first < last <= latest or (self.frame_count == 1 and first == last)
        if not self._timed:
            self.duration = self.frame_count / self._rate
            return
        if last > first:
            self._rate = (self.frame_count - 1) / (last - first)
        self.duration = end - first if last < end <= latest else last - first + 1 / self._rate

    def _seek(self, start: float) -> bool:
        stamp = round((start + (self._zero or 0.0)) / self.tick)
        try:
            self._container.seek(stamp, stream=self._stream)
        except (self._av.error.FFmpegError, OSError):
            return False
        return True

    def _decoded(self) -> Iterator[Any]:
        for packet in islice(self._packets(), MAX_PACKETS + 1):
            try:
                yield from packet.decode()
            except (self._av.error.FFmpegError, ValueError):
                self.losses.unreadable_packets += bool(packet.size)

    def _time(self, frame: Any, last: float) -> float:
        """Seconds since the start; later than `last`."""
        stamp = frame.dts if frame.pts is None or self._by_order else frame.pts
        if self._timed and stamp is not None:
            time = stamp * self.tick
            if self._zero is None:
                self._zero = time
            if time - self._zero > last:
                return time - self._zero
        self.losses.repaired_times += 1
        return 0.0 if last == -math.inf else last + 1 / self._rate

    def _picture(self, frame: Any) -> Image.Image:
        try:
            image = frame.to_image()
            matrix = _display_matrix(frame)
        except (self._av.error.FFmpegError, ValueError, OSError) as error:
            raise VideoError(f"{self._name} has a frame that cannot be converted ({_reason(error)}).") from None
        return upright(square_pixels(image, self._aspect), matrix)


def upright(image: Image.Image, matrix: Sequence[int] | None) -> Image.Image:
    """The image as its display matrix shows it, for the eight orientations of right angles and mirrors; any other
    matrix is left alone.

    Args:
        image: as it was coded.
        matrix: the nine numbers of FFmpeg's display matrix (libavutil/display.h): a point (p, q) of the coded frame, y
            downwards, is shown at (a p + c q, b p + d q), with a, b, c, d at positions 0, 1, 3, 4.
    """
    if matrix is None:
        return image
    a, b, c, d = (int(np.sign(matrix[index])) for index in (0, 1, 3, 4))
    turn = _TURNS.get((a, b, c, d))
    return image if turn is None else image.transpose(turn)


_TURNS = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # a quarter turn clockwise: the top row becomes the right column
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


def square_pixels(image: Image.Image, aspect: Any) -> Image.Image:
    """The image stretched sideways where its pixels are not square, or squeezed in height where it would become larger
    than MAX_PIXELS.

    Args:
        image: as it was coded.
        aspect: width of a pixel over its height; None or 0 = unknown, taken as 1, as is anything beyond 1:4 to 4:1.
    """
    if not aspect or aspect == 1 or not 0.25 <= aspect <= 4:
        return image
    width, height = image.width * float(aspect), float(image.height)
    if width * height > MAX_PIXELS:
        width, height = float(image.width), image.height / float(aspect)
    return image.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BICUBIC)


def _display_matrix(frame: Any) -> Sequence[int] | None:
    try:
        data = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return None
    except ValueError:  # another piece of side data is of a kind that PyAV does not know
        return _ROTATIONS.get(frame.rotation % 360)
    return [int(value) for value in np.frombuffer(bytes(data), dtype=np.int32, count=9)]


_ROTATIONS = {90: (0, -1, 0, 1, 0), 180: (-1, 0, 0, 0, -1), 270: (0, 1, 0, -1, 0)}
"""Degrees counter-clockwise -> the first five numbers of the matrix, as signs."""


def _reason(error: Exception) -> str:
    """The cause in few words, without the path that FFmpeg repeats."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0][:200]


def _import_av() -> Any:
    try:
        import av
        import av.stream  # the enumeration of dispositions
    except ImportError:
        raise ImportError(
            f"Video files are read with PyAV, which is not installed: run `pip install av=={AV_VERSION}`."
        ) from None
    return av
