"""DPO on images, videos: equal to each family's own model on unpacked rows, and the vision tower runs once a pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.packed_lm import load_packed
from rl.media_content import media_hash
from rl.preference_config import PreferenceLearnerConfig
from rl.preference_learner import EncodedPair, PreferenceLearner, SideLogprobs
from tests.base_model import other_vlms
from tests.base_model.vlm.small import picture
from tests.rollouts import vision

SETTINGS: dict[str, Any] = {"beta": 0.2, "label_smoothing": 0.1, "sft_weight": 0.3}
LENGTHS = [[7, 4], [3, 6], [5, 5], [1, 9]]
GRIDS: list[list[tuple[int, int, int]]] = [[(1, 4, 6)], [(3, 4, 4), (1, 2, 4)], [(1, 4, 4)], []]
Saved = tuple[Path, list[EncodedPair]]


def drawn(lengths: Sequence[int], seed: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(3, 180, (n,), generator=generator).tolist()) for n in lengths]


def as_pair(group: Any) -> EncodedPair:
    chosen, rejected = map(tuple, group.responses)
    return EncodedPair(
        prompt_ids=tuple(group.prompt),
        chosen_ids=chosen,
        rejected_ids=rejected,
        load_inputs=(lambda: group.inputs) if group.inputs else None,
    )


def own_pairs(processor: Any) -> list[EncodedPair]:
    """An image in slices, two images, a packed video of frames of different sizes with an image, and text."""
    pairs = []
    for seed, name in enumerate(("sliced image", "two images", "videos and an image", "text")):
        prompt = vision.render(processor, name)
        chosen, rejected = drawn(LENGTHS[seed], seed)
        inputs = dict(prompt.inputs) if name != "text" else None
        pairs.append(
            EncodedPair(
                prompt_ids=prompt.ids,
                chosen_ids=chosen,
                rejected_ids=rejected,
                load_inputs=(lambda given=inputs: given) if inputs else None,
            )
        )
    return pairs


@pytest.fixture(scope="module", params=["minicpmv", "qwen2_5_vl", "qwen3_vl", "llava"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    kind, path = request.param, tmp_path_factory.mktemp(request.param)
    if kind == "minicpmv":
        return path, own_pairs(vision.save_tiny(path)[1])
    if kind == "llava":
        groups = [other_vlms.llava_group(n, LENGTHS[n], seed=n) for n in (1, 2, 0)]
        return other_vlms.save_tiny(path, other_vlms.llava_config()), list(map(as_pair, groups))
    groups = [other_vlms.qwen_group(GRIDS[n], LENGTHS[n], n, kind) for n in range(4)]
    return other_vlms.save_tiny(path, other_vlms.qwen_config(kind)), list(map(as_pair, groups))


def own_logprob(model: Any, pair: EncodedPair, response: Sequence[int]) -> Tensor:
    """The model's own forward on one whole sequence."""
    ids = torch.tensor([[*pair.prompt_ids, *response]])
    inputs = {name: in_double(value) for name, value in (pair.load_inputs() if pair.load_inputs else {}).items()}
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(response)))
    if hasattr(getattr(model, "model", None), "rope_deltas"):
        model.model.rope_deltas = None
    logits = model(input_ids=ids, use_cache=False, **inputs).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, ids[0, 1:, None])[-len(response) :, 0].sum()


def in_double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return [in_double(each) for each in value] if isinstance(value, list) else value


def separate_loss(
    path: Path, pairs: Sequence[EncodedPair], reference: Sequence[SideLogprobs]
) -> tuple[float, dict[str, Tensor | None]]:
    """The formula over chosen and rejected rows run one by one, in float64."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").train()
    beta, smoothing, sft = (SETTINGS[key] for key in ("beta", "label_smoothing", "sft_weight"))
    tokens = sum(len(pair.chosen_ids) for pair in pairs)
    loss = torch.zeros((), dtype=torch.float64)
    for pair, ref in zip(pairs, reference, strict=True):
        chosen, rejected = (own_logprob(model, pair, ids) for ids in (pair.chosen_ids, pair.rejected_ids))
        margin = beta * ((chosen - ref.chosen) - (rejected - ref.rejected))
        soft = (1 - smoothing) * torch.log1p(torch.exp(-margin)) + smoothing * torch.log1p(torch.exp(margin))
        loss = loss + soft / len(pairs) - sft * chosen / tokens
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


def make_learner(path: Path, **settings: Any) -> PreferenceLearner:
    config = {"precision": "float32", "learning_rate": 1e-3, "max_grad_norm": 0.0, "warmup_steps": 0, **SETTINGS}
    return PreferenceLearner(load_packed(path), PreferenceLearnerConfig(**{**config, **settings}), total_steps=10)


def test_loss_and_gradients_equal_separate_unpacked_rows(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pairs = saved
    learner = make_learner(path)
    reference = [SideLogprobs(s.chosen + 2.0, s.rejected - n) for n, s in enumerate(learner.logprobs(pairs))]
    gradients: dict[str, Tensor | None] = {}
    monkeypatch.setattr(
        learner.optimisation.optimizer,
        "step",
        lambda *_: gradients.update({n: None if p.grad is None else p.grad.clone() for n, p in named(learner)}),
    )
    metrics = learner.update(pairs, reference)
    expected_loss, expected = separate_loss(path, pairs, reference)
    assert metrics["loss"] == pytest.approx(expected_loss, abs=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        other = expected[name]
        assert (gradient is None) == (other is None), name
        if gradient is not None and other is not None:
            scale = max(1.0, float(other.abs().max()))
            torch.testing.assert_close(gradient.double(), other, atol=1e-4 * scale, rtol=1e-3, msg=name)
    seen = [g for n, g in gradients.items() if g is not None and ("vis" in n or n.startswith(("vpm", "resampler")))]
    assert max(float(g.abs().max()) for g in seen) > 1e-3


def named(learner: PreferenceLearner) -> Any:
    return learner.model.named_parameters()


def test_micro_batches_do_not_change_the_update(saved: Saved) -> None:
    path, pairs = saved
    reference = [SideLogprobs(s.chosen - 1.0, s.rejected + 1.0) for s in make_learner(path).logprobs(pairs)]
    whole, cut = (make_learner(path, micro_batch_tokens=budget).update(pairs, reference) for budget in (0, 1))
    assert cut == pytest.approx(whole, rel=1e-3, abs=1e-5)


def test_the_vision_tower_and_the_prompt_run_once_a_pair(tmp_path: Path) -> None:
    _, processor = vision.save_tiny(tmp_path)
    pairs = own_pairs(processor)
    learner = make_learner(tmp_path, micro_batch_tokens=0)
    reference = learner.logprobs(pairs)
    views: list[int] = []
    tokens: list[int] = []
    model = learner.packed.causal_lm
    model.vpm.register_forward_pre_hook(lambda _module, args: views.append(len(args[0])))
    model.llm.model.register_forward_pre_hook(
        lambda _module, _args, given: tokens.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    learner.update(pairs, reference)
    loaded = [pair.load_inputs() for pair in pairs if pair.load_inputs]
    assert views == [sum(len(inputs["pixel_values"][0]) for inputs in loaded)]
    assert tokens == [sum(len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs)]


def test_pixels_are_made_when_their_batch_comes(tmp_path: Path) -> None:
    """Never those of two micro-batches at once."""
    _, processor = vision.save_tiny(tmp_path)
    events: list[str] = []
    pairs = []
    for number, pair in enumerate(own_pairs(processor)[:3]):
        load = pair.load_inputs
        assert load is not None

        def loading(number: int = number, load: Any = load) -> Any:
            events.append(f"load {number}")
            return load()

        pairs.append(
            EncodedPair(
                prompt_ids=pair.prompt_ids,
                chosen_ids=pair.chosen_ids,
                rejected_ids=pair.rejected_ids,
                load_inputs=loading,
            )
        )
    learner = make_learner(tmp_path, micro_batch_tokens=1)
    reference = [side for pair in pairs for side in learner.logprobs([pair])]
    events.clear()
    learner.packed.causal_lm.vpm.register_forward_pre_hook(lambda _module, _args: events.append("tower"))
    learner.update(pairs, reference)
    assert events == ["load 0", "tower", "load 1", "tower", "load 2", "tower"]


def test_a_hash_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    image = picture(20, 30)
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    data = (tmp_path / "a.png").read_bytes()
    assert media_hash(tmp_path / "a.png") == media_hash(str(tmp_path / "b.png")) == media_hash(data)
    assert media_hash(data + b"\0") != media_hash(data)
    assert media_hash(image) == media_hash(image.copy()) != media_hash(picture(20, 30, 1))
    assert media_hash(image.resize((30, 20))) != media_hash(image)
    clip = {"frames": [tmp_path / "a.png", image], "times": [0.0, 0.5]}
    assert media_hash(clip) == media_hash({**clip, "frames": [data, image]})
    assert media_hash(clip) != media_hash({**clip, "times": [0.0, 0.6]})
