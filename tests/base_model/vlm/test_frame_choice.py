"""Frames chosen from sources that are written out here, with and without seeking, against a direct look-up."""

import random
from bisect import bisect_right
from itertools import pairwise

import pytest
from PIL import Image

from base_model.vlm.frame_choice import Losses, TimedFrame, choose_frames

IMAGE = Image.new("RGB", (2, 2))


class WrittenSource:
    """A clip given by its frame times; counts what is decoded and what is kept alive at once."""

    def __init__(self, times, duration, keyframes=(), tick=0.0, off_by=0):
        self.times, self.duration, self.keyframes, self.tick = times, duration, keyframes, tick
        self.frame_count = len(times)
        self.losses = Losses()
        self.decoded = 0
        self.starts = []
        self.off_by = off_by
        """Frames by which seeking misses its keyframe."""

    def frames(self, start=None):
        self.starts.append(start)
        first = 0 if start is None else self.times.index(start) + self.off_by
        for time in self.times[first:]:
            self.decoded += 1
            yield TimedFrame(time=time, picture=lambda: IMAGE)


def shown(times, targets):
    """What is on the screen at each target, every frame once."""
    positions = [bisect_right(times, target + 1e-9) - 1 for target in targets]
    return [times[p] for p, before in zip(positions, [-1, *positions], strict=False) if p >= 0 and p != before]


def clip(rng, frames):
    times = [0.0]
    for _ in range(frames - 1):
        times.append(times[-1] + rng.choice([0.01, 0.04, 0.04, 0.04, 1.5]))
    return times


@pytest.mark.parametrize("off_by", [0, 1, -3])
def test_variable_rates_and_seeking_give_the_frame_on_the_screen(off_by):
    rng = random.Random(off_by)
    for _ in range(150):
        times = clip(rng, rng.randint(1, 400))
        duration = times[-1] + 0.04
        count = rng.randint(1, 40)
        targets = [(k + 0.5) * duration / count for k in range(count)]
        every = rng.choice([1, 10, 50])
        plain = WrittenSource(times, duration)
        seeking = WrittenSource(times, duration, keyframes=times[::every], off_by=off_by)
        if off_by == -3:
            seeking.keyframes = seeking.keyframes[1:] if every > 3 else ()
        chosen = [frame.time for frame in choose_frames(plain, targets)]
        assert chosen == shown(times, targets)
        assert [frame.time for frame in choose_frames(seeking, targets)] == chosen
        assert plain.losses.missing_frames == seeking.losses.missing_frames == count - len(chosen)
        assert all(a < b for a, b in pairwise(chosen))


def test_seeking_spares_most_of_a_long_clip_and_an_inexact_seek_is_given_up_once():
    times = [i / 30 for i in range(30 * 600)]
    targets = [(k + 0.5) * 20 for k in range(30)]
    exact = WrittenSource(times, 600, keyframes=times[::60])
    list(choose_frames(exact, targets))
    assert exact.decoded < 30 * 64
    wrong = WrittenSource(times, 600, keyframes=times[::60], off_by=2)
    assert [f.time for f in choose_frames(wrong, targets)] == shown(times, targets)
    assert len(wrong.starts) == 3
    assert wrong.starts[2] is None


def test_reading_stops_after_the_last_wanted_frame():
    source = WrittenSource([i / 10 for i in range(100000)], 10000)
    list(choose_frames(source, [0.05, 0.25]))
    assert source.decoded <= 4


def test_stamps_rounded_up_by_a_coarse_tick_do_not_shift_the_choice():
    """Matroska rounds to milliseconds; 30 frames per second at 3 chosen per second meet whole frames exactly."""
    exact = [i / 30 for i in range(300)]
    rounded = [round(time, 3) for time in exact]
    targets = [(k + 0.5) / 3 for k in range(30)]
    chosen = [rounded.index(f.time) for f in choose_frames(WrittenSource(rounded, 10, tick=0.001), targets)]
    assert chosen == [int(i * 10 + 5) for i in range(30)]


@pytest.mark.parametrize("tick", [0.1, 0.2])
def test_ticks_as_long_as_frames_are_not_taken_for_rounding(tick):
    times = [i * tick for i in range(60)]
    targets = [(k + 0.5) * tick / 2 for k in range(120)]
    source = WrittenSource(times, 60 * tick, tick=tick)
    assert [f.time for f in choose_frames(source, targets)] == times
    late = [i * tick + 0.99 * tick for i in range(60)]
    assert [f.time for f in choose_frames(WrittenSource(times, 60 * tick, tick=tick), late)] == times


def test_a_lost_start_or_end_is_counted():
    source = WrittenSource([4.0, 5.0, 6.0], 20)
    assert [f.time for f in choose_frames(source, [1, 3, 4.5, 6.5, 12, 18])] == [4.0, 6.0]
    assert source.losses.missing_frames == 4
    assert source.losses.sentence() == "4 planned frames were not there"
    empty = WrittenSource([], 1)
    empty.frame_count = 5
    assert list(choose_frames(empty, [0.5])) == []
