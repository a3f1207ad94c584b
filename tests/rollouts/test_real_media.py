"""Real and awkward media through processor, torch model and engine: development data where it is, and files made here.

The data is in the folder that TANDEM_DEV_DATA names, else in `shared/data` beside the repository.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from base_model.video_settings import VideoSettings
from base_model.vlm.media import open_image, open_video
from rollouts.prompts import render_media_prompt
from tests.base_model.vlm.clips import write_animation, write_clip
from tests.base_model.vlm.small import picture
from tests.rollouts.vision import MODE, largest_gap, requests_of

pytestmark = pytest.mark.slow

DATA = Path(os.environ.get("TANDEM_DEV_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data") / "mm"
FEW_PACKAGES = VideoSettings(fps=2.0, package=6, max_packages=20)


def _message(kind):
    return [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "What is it?"}]}]


def check(served, images=(), videos=()):
    """Each medium in a prompt of its own, all in one call: the log-probabilities are the torch model's."""
    given = [("image", [image], []) for image in images] + [("video", [], [video]) for video in videos]
    prompts = [
        render_media_prompt(served.processor, _message(kind), pictures, clips, MODE) for kind, pictures, clips in given
    ]
    requests = [request for row, prompt in enumerate(prompts) for request in requests_of(prompt, row)]
    for rollout in served.engine.generate(requests):
        assert largest_gap(served.model, prompts[rollout.row], rollout) < 1e-4


def saved(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture(200, 80), "JPEG", exif=exif)


def awkward():
    """Name -> content of an image file, or an image."""
    grey = picture(130, 90).convert("L")
    return {
        "sideways": turned(),
        "huge": picture(6000, 4000),
        "one pixel": picture(1, 1),
        "thin": picture(900, 2),
        "grey": saved(grey, "PNG"),
        "16 bits": grey.convert("I").convert("I;16"),
        "alpha": saved(picture(90, 70).convert("RGBA"), "PNG"),
        "palette": saved(picture(90, 70).convert("P"), "GIF"),
        "CMYK": saved(picture(90, 70).convert("CMYK"), "JPEG"),
        "animated": saved(picture(60, 60), "GIF", save_all=True, append_images=[picture(60, 60, 1)]),
        "truncated": turned()[:-600],
    }


def test_images_of_every_shape_and_damage(served):
    check(served, images=[open_image(handle) for handle in awkward().values()])


def test_clips_and_animations_whole_and_cut(served, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", rotation=90)
    cut = clip.read_bytes()[: 2 * clip.stat().st_size // 3]
    stream = write_clip(tmp_path / "b.mkv", frames=50)
    handles = [clip, stream, stream.read_bytes()[:-1500], write_animation(tmp_path / "c.gif", [100] * 5)]
    check(served, videos=[open_video(handle, FEW_PACKAGES) for handle in handles])
    with pytest.raises(ValueError, match="the video of"):
        open_video(cut, FEW_PACKAGES)  # an MP4 without its index at the end


@pytest.mark.parametrize("folder", ["images", "photos"])
def test_development_pictures(served, folder):
    files = sorted((DATA / folder).glob("*")) if DATA.is_dir() else []
    if not files:
        pytest.skip(f"{DATA / folder} is not here: the development data is not part of the repository")
    check(served, images=[open_image(file) for file in files])


def test_development_clips(served):
    files = sorted((DATA / "videos").glob("*")) if DATA.is_dir() else []
    if not files:
        pytest.skip(f"{DATA / 'videos'} is not here: the development data is not part of the repository")
    check(served, videos=[open_video(file, FEW_PACKAGES) for file in files])
