"""Images and videos on their way to the engine, and what is refused before one starts. No engine runs."""

import pickle
from importlib.metadata import EntryPoints

import numpy as np
import pytest
from PIL import Image

import rollouts.engine
from rollouts import EngineConfig
from rollouts.engine import check_plugin, reads_images
from rollouts.media import MediaPacker, frames_with_metadata, vllm_prompt
from rollouts.records import PromptMedia
from rollouts.worker import check_ids
from tests.base_model.vlm.small import picture, video


def test_a_group_sends_its_media_once():
    media = PromptMedia(text="two", images=(picture(200, 150, 1), picture(80, 90, 2)))
    packer = MediaPacker()
    sent = [packer.pack(media) for _ in range(8)]
    one, eight = (len(pickle.dumps(sent[:count])) for count in (1, 8))
    assert one > 200 * 150 * 3
    assert eight < one + 200
    received = pickle.loads(pickle.dumps(sent))
    assert all(each is received[0] for each in received)


def test_an_image_of_several_prompts_is_packed_once_and_a_copy_of_it_sent_once():
    image = picture(60, 50)
    packer = MediaPacker()
    prompts = [PromptMedia(text=str(at), images=(each,)) for at, each in enumerate((image, image, image.copy()))]
    items = [packer.pack(media).images[0] for media in prompts]
    assert items[0] is items[1] is items[2]


def test_names_in_the_caches_tell_times_packages_and_kinds_apart():
    clip = video([2, 1])
    later = (clip.packages, [[time + 1 for time in package] for package in clip.times])
    other = ([[frame] for package in clip.packages for frame in package], [[t] for each in clip.times for t in each])
    media = PromptMedia(text="", images=(clip.packages[0][0], clip.packages[0][1]), videos=(clip, later, other))
    packed = MediaPacker().pack(media)
    assert len({item.uuid for item in (*packed.images, *packed.videos)}) == 5
    again = MediaPacker().pack(media)
    assert again == packed


def test_the_worker_gets_the_pixels_that_were_given():
    clip = video([2, 1])
    image = picture(60, 50)
    prompt = vllm_prompt(MediaPacker().pack(PromptMedia(text="x", images=(image,), videos=(clip,))), packed_videos=True)
    assert prompt["prompt"] == "x"
    assert np.array_equal(prompt["multi_modal_data"]["image"][0], image)
    [(packages, times)] = prompt["multi_modal_data"]["video"]
    assert [len(package) for package in packages] == [2, 1]
    assert times == clip.times
    assert np.array_equal(packages[1][0], clip.packages[1][0])
    assert [len(names) for names in prompt["multi_modal_uuids"].values()] == [1, 1]


def test_other_models_get_the_frames_in_one_array_with_their_rate():
    pixels, metadata = frames_with_metadata(*video([2, 2, 1], size=(30, 20), step=0.5))
    assert pixels.shape == (5, 20, 30, 3)
    assert (metadata["fps"], metadata["total_num_frames"], metadata["duration"]) == (2.0, 5, 2.5)
    with pytest.raises(ValueError, match=r"frames of sizes \[\(20, 30\), \(40, 40\)\]"):
        frames_with_metadata([[picture(30, 20), picture(40, 40)]], [[0.0, 1.0]])


def test_an_image_that_cannot_be_sent_is_refused(tmp_path):
    file = tmp_path / "a.png"
    picture(50, 50).save(file)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"image <.*> cannot be sent to the engine"):
        MediaPacker().pack(PromptMedia(text="x", images=(Image.open(file),)))


def test_only_vision_language_models_need_a_tokenizer_and_limits(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    text = EngineConfig().vllm_arguments(tmp_path)
    (tmp_path / "config.json").write_text('{"vision_config": {}}')
    vision = EngineConfig(max_images=3).vllm_arguments(tmp_path)
    assert reads_images(tmp_path)
    assert text["skip_tokenizer_init"]
    assert "skip_tokenizer_init" not in vision
    assert vision["limit_mm_per_prompt"] == {"image": 3, "video": 4}
    assert {name: value for name, value in vision.items() if name in text} == {
        name: value for name, value in text.items() if name != "skip_tokenizer_init"
    }


def test_a_missing_plug_in_is_named_before_anything_starts(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    monkeypatch.setattr(rollouts.engine, "entry_points", lambda group: EntryPoints())
    check_plugin(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["MiniCPMV"]}')
    with pytest.raises(ValueError, match=r"plug-in tandem_vlm, .* install it again"):
        check_plugin(tmp_path)


def test_ids_that_vllm_would_not_make_are_refused():
    check_ids([1, 2, 3], [1, 2, 3])
    check_ids([1, 2, 3], [1, 2, 3, 4])  # a prefix that goes on past the prompt
    with pytest.raises(ValueError, match=r"vLLM makes 3 tokens .* and the caller 4, which differ from token 1 on"):
        check_ids([1, 2, 3], [1, 9, 3, 4])
    with pytest.raises(ValueError, match=r"vLLM makes 3 tokens .* and the caller 2, which differ from token 2 on"):
        check_ids([1, 2, 3], [1, 2])
