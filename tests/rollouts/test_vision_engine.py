"""Images and videos through the engine, against the torch model of the trainer. Real engines run."""

import copy
from dataclasses import replace

import pytest
import torch

from rollouts.records import PromptMedia
from tests.base_model.vlm.small import picture, video
from tests.rollouts.vision import CLOSE, CONFIG, CONTINUATION, Served, cases, largest_gap, requests_of, torch_logprobs

pytestmark = pytest.mark.slow


@pytest.fixture
def restored(served):
    """The shared engine, which the test may load other weights into."""
    yield served
    served.engine.load_weights(served.model.named_parameters(), 0)


def with_media(prompt, *, images=None, videos=None, processor=None):
    """The prompt with other media of the same sizes: the same ids."""
    media = replace(prompt.media, images=images or prompt.media.images, videos=videos or prompt.media.videos)
    given = {name: list(items) for name, items in (("images", media.images), ("videos", media.videos)) if items}
    out = processor(text=media.text, **given)
    inputs = {name: value for name, value in out.items() if name not in ("input_ids", "attention_mask")}
    assert out["input_ids"][0].tolist() == list(prompt.ids)
    return prompt._replace(media=media, inputs=inputs)


@pytest.mark.parametrize("name", cases())
def test_logprobs_are_those_of_the_torch_model(served, name):
    prompt = served.prompt(name)
    for rollout in served.engine.generate(requests_of(prompt, samples=2)):
        assert largest_gap(served.model, prompt, rollout) < CLOSE
    assert served.scores([prompt])[0] == served.expected(prompt)


def test_another_language_model_behind_the_same_tower(tmp_path):
    llama = Served(tmp_path, "llama")
    with llama.engine:
        prompts = [llama.prompt(name) for name in cases()]
        for prompt, score in zip(prompts, llama.scores(prompts), strict=True):
            assert score == llama.expected(prompt)
        changed = _perturbed(llama.model, "")
        llama.engine.load_weights(changed.named_parameters(), 1)
        assert llama.scores(prompts[1:2])[0] == llama.expected(prompts[1], changed)


def test_order_and_size_of_a_batch_change_nothing(served):
    prompts = [served.prompt(name) for name in cases()]
    together = served.scores(prompts)
    for prompt, score in zip(prompts, together, strict=True):
        assert score == served.expected(prompt)
    assert served.scores(prompts[::-1])[::-1] == [pytest.approx(score, abs=1e-5) for score in together]


def test_more_requests_than_fit_at_a_time_and_the_same_bits_again(served):
    prompts = [served.prompt(name) for name in cases()]
    requests = [r for row, prompt in enumerate(prompts) for r in requests_of(prompt, row, samples=4)]
    first = served.engine.generate(requests)
    assert len(first) > 2 * CONFIG.max_num_seqs
    assert max(largest_gap(served.model, prompts[rollout.row], rollout) for rollout in first) < CLOSE
    served.engine.generate(requests[:5])
    assert served.engine.generate(requests) == first


def test_responses_of_one_prompt_share_its_blocks_and_its_media(served):
    prompt = served.prompt("two images")
    rollouts = served.engine.generate(requests_of(prompt, samples=4))
    assert [r.cached_tokens for r in rollouts] == [0, 64, 64, 64]


def test_same_ids_with_other_images_hit_no_cache(served):
    prompt = served.prompt("sliced image")
    other = with_media(prompt, images=(picture(300, 200, 77),), processor=served.processor)
    first, second, again = served.scores([prompt, other, prompt])
    assert first == again == served.expected(prompt)
    assert second == served.expected(other)
    assert second != pytest.approx(first, abs=0.01)
    requests = [*requests_of(prompt, 0), *requests_of(other, 1), *requests_of(prompt, 2)]
    rollouts = served.engine.generate(requests)
    assert [r.cached_tokens for r in rollouts] == [0, 0, 64]
    for rollout, each in zip(rollouts, (prompt, other, prompt), strict=True):
        assert largest_gap(served.model, each, rollout) < CLOSE


def test_the_same_frames_at_other_times_or_in_other_packages_hit_no_cache(served):
    prompt = served.prompt("video")
    packages, times = prompt.media.videos[0]
    later = [[9 * time for time in package] for package in times]
    moved = [[packages[0][0]], [*packages[0][1:], packages[1][0]], [packages[1][1], packages[2][0]]]
    moments = [[times[0][0]], [*times[0][1:], times[1][0]], [times[1][1], times[2][0]]]
    variants = [
        prompt,
        with_media(prompt, videos=((packages, later),), processor=served.processor),
        with_media(prompt, videos=((moved, moments),), processor=served.processor),
    ]
    scores = served.scores(variants)
    for variant, score in zip(variants, scores, strict=True):
        assert score == served.expected(variant)
    assert scores[1] != pytest.approx(scores[0], abs=1e-3)
    assert scores[2] != pytest.approx(scores[0], abs=1e-3)
    requests = [r for row, variant in enumerate(variants) for r in requests_of(variant, row)]
    for rollout, variant in zip(served.engine.generate(requests), variants, strict=True):
        assert largest_gap(served.model, variant, rollout) < CLOSE


def test_a_prompt_of_block_tokens_without_media_is_text(served):
    prompt = served.prompt("image")
    bare = prompt._replace(media=PromptMedia(text=prompt.media.text), inputs={})
    with_image, without = served.scores([prompt, bare])
    assert with_image == served.expected(prompt)
    assert without == served.expected(bare)
    assert without != pytest.approx(with_image, abs=0.01)


def test_scores_after_a_prefix_that_goes_on_past_the_prompt(served):
    prompt = served.prompt("image")
    whole = torch_logprobs(served.model, prompt, [15, 16, *CONTINUATION])
    [score] = served.engine.score([[*prompt.ids, 15, 16]], [CONTINUATION], media=[prompt.media])
    assert score == pytest.approx(whole[2:], abs=CLOSE)


def _perturbed(model, prefix):
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in changed.named_parameters():
            if name.startswith(prefix):
                tensor += 0.3 * (tensor.std() + 0.05) * torch.randn(tensor.shape, generator=generator)
    return changed


@pytest.mark.parametrize("part", ["vpm.", "resampler.", "llm.", ""])
def test_loaded_weights_of_every_part_are_used_for_an_image_seen_before(restored, part):
    prompts = [restored.prompt(name) for name in ("image", "video")]
    requests = [r for row, prompt in enumerate(prompts) for r in requests_of(prompt, row, samples=2)]
    before = restored.engine.generate(requests)
    changed = _perturbed(restored.model, part)
    restored.engine.load_weights(changed.named_parameters(), 3)
    after = restored.engine.generate(requests)
    assert max(largest_gap(changed, prompts[r.row], r) for r in after) < CLOSE
    assert max(largest_gap(changed, prompts[r.row], r) for r in before) > 100 * CLOSE
    for prompt, score in zip(prompts, restored.scores(prompts), strict=True):
        assert score == restored.expected(prompt, changed)


@pytest.mark.parametrize(("kind", "most"), [("images", 6), ("videos", 2)])
def test_more_media_than_the_engine_allows_are_refused(served, kind, most):
    one = picture(20, 20) if kind == "images" else video([1])
    media = PromptMedia(text="x", **{kind: (one,) * (most + 1)})
    with pytest.raises(ValueError, match=rf"row 4 has {most + 1} {kind}, but engine.max_{kind} is {most}; raise"):
        served.engine.generate([replace(requests_of(served.prompt("image"), 4)[0], media=media)])
