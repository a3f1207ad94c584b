"""The packed forward pass of the Qwen-VL family against each model's own, one sequence at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from base_model.backbones import MROPE_FAMILIES, MropeBackbone, backbone_class
from base_model.branches import Branch, pack_branches
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup, pack_groups, pack_sequences
from tests.base_model.other_vlms import IMAGE, qwen_config, qwen_group, save_tiny

GRIDS = [[(1, 4, 6)], [(1, 8, 4), (1, 2, 4)], [(3, 4, 4)], [(1, 4, 4), (2, 2, 4), (1, 2, 2)], []]
LENGTHS = [[7, 1, 5], [4, 6], [3], [5, 2], [4, 3]]


@pytest.fixture(scope="module", params=MROPE_FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    kind = request.param
    return kind, save_tiny(tmp_path_factory.mktemp(kind), qwen_config(kind))


def _groups(kind: str) -> list[TokenGroup]:
    return [qwen_group(grids, own, seed, kind) for seed, (grids, own) in enumerate(zip(GRIDS, LENGTHS, strict=True))]


def _own_logprobs(model: Any, group: TokenGroup, response: Any) -> Tensor:
    """The model's own forward on one whole sequence, positions and all."""
    ids = torch.tensor([[*group.prompt, *response]])
    inputs = dict(group.inputs or {})
    if inputs:
        types = inputs["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.nn.functional.pad(types, (0, len(response)))
    model.model.rope_deltas = None
    logits = model(input_ids=ids, use_cache=False, **inputs).logits[0].float()
    start = len(group.prompt) - 1
    return logits[start:-1].log_softmax(-1).gather(1, ids[0, start + 1 :, None])[:, 0]


def _expected(model: Any, groups: list[TokenGroup]) -> Tensor:
    return torch.cat([_own_logprobs(model, group, response) for group in groups for response in group.responses])


def test_logprobs_and_gradients_equal_the_models_own(saved: tuple[str, Path]) -> None:
    kind, path = saved
    packed = load_packed(path)
    assert backbone_class(packed.causal_lm.config) is MropeBackbone
    plain = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").train()
    groups = _groups(kind)
    batch = pack_groups(groups)
    weights_T = torch.linspace(-1, 1, len(batch.targets_T))
    expected_T = _expected(plain, groups)
    (expected_T * weights_T).sum().backward()
    loss, logprobs_T = packed(batch, lambda logprobs_C, span: (logprobs_C * weights_T[span]).sum())
    loss.backward()
    torch.testing.assert_close(logprobs_T, expected_T.detach(), atol=1e-4, rtol=1e-4)
    named = dict(plain.named_parameters())
    for name, parameter in packed.model.named_parameters():
        assert parameter.grad is not None, name
        scale = max(float(named[name].grad.abs().max()), 1.0)
        torch.testing.assert_close(
            parameter.grad, named[name].grad, atol=1e-4 * scale, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any("visual" in name and p.grad.abs().max() > 1e-3 for name, p in named.items())


def test_the_tower_sees_each_prompts_patches_once(saved: tuple[str, Path]) -> None:
    kind, path = saved
    packed = load_packed(path)
    patches: list[int] = []
    packed.causal_lm.model.visual.register_forward_pre_hook(lambda _module, args: patches.append(len(args[0])))
    packed.logprobs(pack_groups(_groups(kind)))
    images = sum(h * w for grids in GRIDS for t, h, w in grids if t == 1)
    frames = sum(t * h * w for grids in GRIDS for t, h, w in grids if t > 1)
    assert patches == [images, frames]


def test_a_sampled_image_token_stays_text(saved: tuple[str, Path]) -> None:
    kind, path = saved
    packed, group = load_packed(path), qwen_group([(1, 4, 6)], [3], 5, kind)
    odd = TokenGroup(prompt=group.prompt, responses=[[7, IMAGE, 9], group.responses[0]], inputs=group.inputs)
    found = packed.logprobs(pack_groups([odd]))
    assert found.isfinite().all()
    torch.testing.assert_close(found[3:], packed.logprobs(pack_groups([group])), atol=1e-5, rtol=1e-5)


def test_sequences_and_branches_have_the_same_positions(saved: tuple[str, Path]) -> None:
    kind, path = saved
    packed, groups = load_packed(path), _groups(kind)
    plain = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    pairs = [(group.prompt, group.responses[0]) for group in groups]
    found = packed.logprobs(pack_sequences(pairs, [group.inputs for group in groups]))
    firsts = [TokenGroup(prompt=g.prompt, responses=g.responses[:1], inputs=g.inputs) for g in groups]
    torch.testing.assert_close(found, _expected(plain, firsts).detach(), atol=1e-4, rtol=1e-4)

    branches = [[Branch(response=1, keep=1, tokens=(11, 12, 13)), Branch(tokens=(14, 15))] for _ in groups]
    branches[2] = [Branch(response=0, keep=2, tokens=(16,))]
    scored = packed.branch_logprobs(pack_groups(groups), pack_branches(groups, branches))
    flat = [(group, branch) for group, own in zip(groups, branches, strict=True) for branch in own]
    for logprobs, (group, branch) in zip(scored, flat, strict=True):
        kept = group.responses[branch.response][: branch.keep] if branch.keep else []
        expected = _own_logprobs(plain, group, [*kept, *branch.tokens])[len(kept) :]
        torch.testing.assert_close(logprobs, expected.detach(), atol=1e-4, rtol=1e-4)
