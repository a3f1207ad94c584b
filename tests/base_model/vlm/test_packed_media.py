"""The packed forward pass with images and videos against a padded one, and what it does once per prompt."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.branches import Branch, pack_branches
from base_model.config import LoraSettings
from base_model.packed_lm import PackedCausalLM, load_packed, merged_weights, save_merged
from base_model.packing import TokenGroup, pack_groups, pack_sequences
from base_model.vlm import MiniCPMV
from rollouts import LongMode
from rollouts.prompts import MediaPrompt, render_media_prompt
from tests.base_model.vlm.small import picture, tiny, video

LENGTHS = [(7, 1, 12), (5,), (9, 9), (4, 6), (3, 2)]


def _prompts(processor: Any) -> list[MediaPrompt]:
    """An image, a sliced image, two images, a packed video, and text alone."""
    image, clip = {"type": "image"}, {"type": "video"}
    given = [
        ([image], [picture(100, 120)], []),
        ([image], [picture(300, 200, 1)], []),
        ([image, image], [picture(90, 90, 2), picture(100, 80, 3)], []),
        ([clip], [], [video([3, 3, 1])]),
        ([], [], []),
    ]
    return [
        render_media_prompt(
            processor,
            [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}],
            images,
            videos,
            LongMode(),
        )
        for parts, images, videos in given
    ]


def _groups(processor: Any) -> list[TokenGroup]:
    generator = torch.Generator().manual_seed(1)
    return [
        TokenGroup(
            prompt=prompt.ids,
            responses=[torch.randint(3, 200, (n,), generator=generator).tolist() for n in lengths],
            inputs=prompt.inputs or None,
        )
        for prompt, lengths in zip(_prompts(processor), LENGTHS, strict=True)
    ]


def _padded_logprobs(model: MiniCPMV, groups: list[TokenGroup], temperature: float) -> Tensor:
    """The reference: every prompt + response as a right-padded row with its own media, full logits."""
    rows = [(group, response) for group in groups for response in group.responses]
    width = max(len(group.prompt) + len(response) for group, response in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, (group, response) in enumerate(rows):
        whole = torch.tensor([*group.prompt, *response])
        ids[number, : len(whole)], mask[number, : len(whole)] = whole, 1
    none = {"pixel_values": [[]], "tgt_sizes": [torch.zeros(0, 2, dtype=torch.int32)], "temporal_ids": [[]]}
    none["image_bound"] = [torch.zeros(0, 2, dtype=torch.long)]
    media = {name: [(group.inputs or none)[name][0] for group, _ in rows] for name in none}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **media).logits.float() / temperature
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    spans = [(len(g.prompt) - 1, len(g.prompt) - 1 + len(r)) for g, r in rows]
    return torch.cat([logprobs[i, start:end] for i, (start, end) in enumerate(spans)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint directory and its processor."""
    path = tmp_path_factory.mktemp("packed") / "model"
    model, processor = tiny()
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path, processor


def _plain(path: Path) -> MiniCPMV:
    return MiniCPMV.from_pretrained(path, dtype=torch.float32).train()


def test_logprobs_and_gradients_equal_the_padded_forward(saved) -> None:
    path, processor = saved
    packed, plain = load_packed(path, temperature=0.7), _plain(path)
    groups = _groups(processor)
    batch = pack_groups(groups)
    weights_T = torch.linspace(-1, 1, len(batch.targets_T))

    expected_T = _padded_logprobs(plain, groups, 0.7)
    (expected_T * weights_T).sum().backward()
    loss, logprobs_T = packed(batch, lambda logprobs_C, span: (logprobs_C * weights_T[span]).sum())
    loss.backward()

    torch.testing.assert_close(logprobs_T, expected_T.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed.logprobs(batch), logprobs_T, atol=1e-5, rtol=1e-5)
    named = dict(plain.named_parameters())
    for name, parameter in packed.model.named_parameters():
        assert parameter.grad is not None, name
        scale = float(named[name].grad.abs().max())
        torch.testing.assert_close(
            parameter.grad, named[name].grad, atol=1e-4 * max(scale, 1.0), rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    parts = {name.split(".")[0] for name in named if named[name].grad.abs().max() > 1e-3}
    assert parts == {"llm", "vpm", "resampler"}


def test_the_media_really_reach_the_responses(saved) -> None:
    path, processor = saved
    packed = load_packed(path)
    groups = _groups(processor)
    other = [picture(100, 120, 9)]
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    changed = render_media_prompt(processor, [{"role": "user", "content": parts}], other, [], LongMode())
    assert changed.ids == groups[0].prompt
    swapped = TokenGroup(prompt=changed.ids, responses=groups[0].responses, inputs=changed.inputs)
    before, after = (packed.logprobs(pack_groups([group])) for group in (groups[0], swapped))
    assert (before - after).abs().max() > 1e-2


def test_the_tower_sees_each_prompts_views_once(saved) -> None:
    path, processor = saved
    packed = load_packed(path)
    groups = _groups(processor)
    views: list[int] = []
    packed.causal_lm.vpm.register_forward_pre_hook(lambda _module, args: views.append(len(args[0])))
    tokens: list[int] = []
    packed.causal_lm.llm.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: tokens.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    packed(pack_groups(groups), lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
    slices = len(groups[1].inputs["pixel_values"][0])
    assert slices > 2
    assert views == [1 + slices + 2 + 7]  # one call for all prompts of the batch
    assert tokens == [sum(group.packed_tokens for group in groups)]


def test_splitting_into_micro_batches_changes_nothing(saved) -> None:
    path, processor = saved
    packed, groups = load_packed(path), _groups(processor)

    def gradients(parts: list[list[TokenGroup]]) -> dict[str, Tensor]:
        packed.zero_grad()
        for part in parts:
            packed(pack_groups(part), lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
        return {name: p.grad.clone() for name, p in packed.model.named_parameters()}

    whole, single = gradients([groups]), gradients([[group] for group in groups])
    for name, gradient in whole.items():
        torch.testing.assert_close(single[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_a_sampled_placeholder_token_stays_text(saved) -> None:
    path, processor = saved
    packed, plain = load_packed(path), _plain(path)
    unk = processor.tokenizer.convert_tokens_to_ids("<unk>")
    prompt = _groups(processor)[0]
    group = TokenGroup(prompt=prompt.prompt, responses=[[unk, 7, unk]], inputs=prompt.inputs)
    expected = _padded_logprobs(plain, [group], 1.0).detach()
    torch.testing.assert_close(packed.logprobs(pack_groups([group])), expected, atol=1e-4, rtol=1e-4)


def test_training_sequences_take_their_media_along(saved) -> None:
    path, processor = saved
    packed, plain = load_packed(path), _plain(path)
    groups = [TokenGroup(prompt=g.prompt, responses=g.responses[:1], inputs=g.inputs) for g in _groups(processor)]
    batch = pack_sequences([(g.prompt, g.responses[0]) for g in groups], [g.inputs for g in groups])
    expected = _padded_logprobs(plain, groups, 1.0).detach()
    torch.testing.assert_close(packed.logprobs(batch), expected, atol=1e-4, rtol=1e-4)


def test_branches_follow_prompts_with_media(saved) -> None:
    path, processor = saved
    packed, plain = load_packed(path), _plain(path)
    groups = _groups(processor)
    branches = [[Branch(response=2, keep=5, tokens=(11, 12)), Branch(tokens=(13, 14, 15))], [], [], [], []]
    branches[3] = [Branch(response=1, keep=6, tokens=(16,)), Branch(tokens=(17,))]
    found = packed.branch_logprobs(pack_groups(groups), pack_branches(groups, branches))
    flat = [(group, branch) for group, own in zip(groups, branches, strict=True) for branch in own]
    for logprobs, (group, branch) in zip(found, flat, strict=True):
        kept = group.responses[branch.response][: branch.keep] if branch.keep else []
        whole = TokenGroup(prompt=group.prompt, responses=[[*kept, *branch.tokens]], inputs=group.inputs)
        expected = _padded_logprobs(plain, [whole], 1.0)[len(kept) :].detach()
        torch.testing.assert_close(logprobs, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", [("vpm",), ("vpm", "resampler"), ("llm",)])
def test_frozen_parts_get_no_gradient_and_no_graph(saved, frozen: tuple[str, ...]) -> None:
    path, processor = saved
    packed = load_packed(path)
    for name, parameter in packed.model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in frozen)
    graphs: list[bool] = []
    packed.causal_lm.vpm.register_forward_hook(lambda _module, _args, out: graphs.append(out[0].requires_grad))
    packed(pack_groups(_groups(processor)), lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
    assert graphs == ["vpm" not in frozen]
    for name, parameter in packed.model.named_parameters():
        assert (parameter.grad is None) == (name.split(".")[0] in frozen), name


def test_gradient_checkpointing_gives_the_same_gradients(saved) -> None:
    path, processor = saved
    gradients = []
    for checkpointing in (False, True):
        packed = load_packed(path, gradient_checkpointing=checkpointing)
        packed(pack_groups(_groups(processor)), lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
        gradients.append({n: p.grad for n, p in packed.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_train_alone_and_fold_into_the_plain_model(saved, tmp_path: Path, checkpointing: bool) -> None:
    path, processor = saved
    packed = load_packed(path, lora=LoraSettings(rank=4, alpha=8), gradient_checkpointing=checkpointing)
    batch = pack_groups(_groups(processor))
    for name, parameter in packed.model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = packed.logprobs(batch)
    assert (adapted - load_packed(path).logprobs(batch)).abs().max() > 1e-2
    packed(batch, lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
    assert all(p.grad is not None for p in packed.parameters() if p.requires_grad)
    assert set(merged_weights(packed.model)) == set(merged_weights(load_packed(path).model))
    save_merged(packed.model, tmp_path / "merged")
    torch.testing.assert_close(load_packed(tmp_path / "merged").logprobs(batch), adapted, atol=1e-4, rtol=1e-4)


def test_a_language_model_refuses_media(saved, tmp_path: Path) -> None:
    from tests.tiny import make_tiny_model

    packed = load_packed(make_tiny_model(tmp_path))
    with pytest.raises(ValueError, match="use a vision-language model"):
        packed.logprobs(pack_groups(_groups(saved[1])[:1]))


def test_the_saved_names_are_those_of_the_checkpoint(saved, tmp_path: Path) -> None:
    from safetensors import safe_open

    path, _ = saved
    packed: PackedCausalLM = load_packed(path)
    save_merged(packed.model, tmp_path / "again")
    with (
        safe_open(tmp_path / "again" / "model.safetensors", "pt") as mine,
        safe_open(path / "model.safetensors", "pt") as given,
    ):
        names = set(mine.keys())
        assert names == set(given.keys())
        assert {name.split(".")[0] for name in names} == {"llm", "vpm", "resampler"}
