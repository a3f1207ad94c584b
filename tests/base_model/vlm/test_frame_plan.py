"""The frame plan against the published figures and a second writing of the released script."""

import math
import random

import pytest
from pydantic import ValidationError

from base_model.video_settings import VideoSettings
from base_model.vlm.frame_plan import fitting_size, plan_frames


def script(duration: float, frame_count: int, fps: float, limit: int = 180, largest: int = 3) -> tuple[int, list[int]]:
    """Package size and frame indices as the released script has them, for clips with at least as many frames."""
    native = frame_count / duration
    if fps * int(duration) <= limit:
        package, count = 1, round(min(fps, native) * min(limit, duration))
    else:
        package = math.ceil(duration * fps / limit)
        count = round(duration * fps)
        if package > largest:
            package, count = largest, limit * largest
    gap = frame_count / count
    return package, [int(i * gap + gap / 2) for i in range(count)]


@pytest.mark.parametrize(
    ("duration", "fps", "package", "frames", "packages"),
    [
        (6, 2, None, 12, 12),
        (60, 3, None, 180, 180),
        (61, 3, None, 183, 92),  # 183 > 180: two by two
        (180, 3, None, 540, 180),
        (181, 3, None, 540, 180),  # the largest package by itself is 3: fewer frames per second
        (3600, 10, None, 540, 180),
        (6, 2, 6, 12, 2),  # 2 packages of 64 tokens: the 128 tokens of the report
        (108, 10, 6, 1080, 180),
        (7200, 10, 6, 1080, 180),
        (7200, 10, 1, 180, 180),
    ],
)
def test_published_figures(duration, fps, package, frames, packages):
    plan = plan_frames(duration, duration * 30, VideoSettings(fps=fps, package=package))
    assert (len(plan.targets), math.ceil(len(plan.targets) / plan.package)) == (frames, packages)


def test_plans_equal_the_released_script_on_random_clips():
    rng = random.Random(0)
    for _ in range(3000):
        native = rng.choice([12, 15, 23.976, 25, 29.97, 30, 50, 60])
        frame_count = rng.randint(30, 60000)
        duration, fps = frame_count / native, rng.choice([0.5, 1, 2, 3, 5, 10])
        plan = plan_frames(duration, frame_count, VideoSettings(fps=fps))
        package, indices = script(duration, frame_count, fps) if round(fps * duration) else (1, [frame_count // 2])
        ours = [math.floor(target * native + 1e-6) for target in plan.targets]
        theirs = [math.floor(index + 1e-6) for index in indices]
        assert plan.package == package
        assert len(ours) == len(theirs)
        # int(i * gap + gap / 2) of the script falls on either side of a whole number by rounding.
        assert all(
            abs(a - b) <= (abs(t * native - round(t * native)) < 1e-5)
            for a, b, t in zip(ours, theirs, plan.targets, strict=True)
        )


@pytest.mark.parametrize(("duration", "frame_count"), [(0, 1), (0.04, 1), (1e9, 1), (0.001, 3), (5, 2), (1e6, 7)])
def test_short_slow_and_odd_clips_give_one_to_all_of_their_frames(duration, frame_count):
    for package in (None, 1, 6):
        plan = plan_frames(duration, frame_count, VideoSettings(package=package))
        assert 1 <= len(plan.targets) <= frame_count
        assert list(plan.targets) == sorted(plan.targets)
        assert all(0 <= target <= duration for target in plan.targets)


def test_drawn_settings_are_pure_and_cover_every_value():
    settings = VideoSettings(largest_package=5)
    drawn = [settings.drawn(3, sample) for sample in range(2000)]
    assert drawn == [settings.drawn(3, sample) for sample in range(2000)]
    assert drawn != [settings.drawn(4, sample) for sample in range(2000)]
    pairs = {(one.fps, one.package) for one in drawn}
    assert len(pairs) == len(settings.training_fps) * len(settings.training_packages)
    for package in settings.training_packages:  # 2000 draws of probability 1/6: within five deviations
        assert abs(sum(one.package == package for one in drawn) - 2000 / 6) < 5 * math.sqrt(2000 * 5 / 36)
    assert all(one.largest_package == 5 for one in drawn)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fps": 11}, "less than or equal to 10"),
        ({"package": 7}, "less than or equal to 6"),
        ({"package": 0}, "greater than or equal to 1"),
        ({"training_fps": []}, "the list is empty"),
        ({"training_fps": [3, 12]}, "12.0 frames per second is outside 0 to 10"),
        ({"training_packages": [1, 7]}, "a package of 7 frames is outside 1 to 6"),
        ({"frames": 3}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        VideoSettings.model_validate(values)


def test_frames_are_scaled_to_the_memory_and_never_up():
    assert fitting_size(640, 480, 10, 2**30) == (640, 480)
    for width, height, frames in [(3840, 2160, 1080), (100000, 1, 1080), (1, 100000, 540), (7680, 4320, 180)]:
        fitted = fitting_size(width, height, frames, 2**30)
        assert 3 * frames * fitted[0] * fitted[1] <= 2**30
        assert min(fitted) >= 1
        if min(fitted) > 50:
            assert fitted[0] / fitted[1] == pytest.approx(width / height, rel=0.02)
