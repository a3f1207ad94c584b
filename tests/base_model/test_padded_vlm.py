"""Vision-language models that run on padded rows, against the same model one sequence at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from base_model.backbones import PaddedBackbone, backbone_class
from base_model.branches import Branch, pack_branches
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup, pack_groups, pack_sequences
from tests.base_model.other_vlms import llava_config, llava_group, save_tiny

SHAPES = [(1, [7, 1, 5]), (2, [4]), (0, [3, 6])]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llava"), llava_config())


def _groups() -> list[TokenGroup]:
    return [llava_group(images, lengths, seed) for seed, (images, lengths) in enumerate(SHAPES)]


def _own_logprobs(model: Any, group: TokenGroup, response: Any) -> Tensor:
    ids = torch.tensor([[*group.prompt, *response]])
    logits = model(input_ids=ids, use_cache=False, **(group.inputs or {})).logits[0].float()
    start = len(group.prompt) - 1
    return logits[start:-1].log_softmax(-1).gather(1, ids[0, start + 1 :, None])[:, 0]


def test_logprobs_and_gradients_equal_the_models_own(saved: Path) -> None:
    packed = load_packed(saved)
    assert backbone_class(packed.causal_lm.config) is PaddedBackbone
    plain = AutoModelForImageTextToText.from_pretrained(saved, dtype=torch.float32).train()
    groups = _groups()
    batch = pack_groups(groups)
    weights_T = torch.linspace(-1, 1, len(batch.targets_T))
    expected_T = torch.cat([_own_logprobs(plain, group, response) for group in groups for response in group.responses])
    (expected_T * weights_T).sum().backward()
    loss, logprobs_T = packed(batch, lambda logprobs_C, span: (logprobs_C * weights_T[span]).sum())
    loss.backward()
    torch.testing.assert_close(logprobs_T, expected_T.detach(), atol=1e-4, rtol=1e-4)
    named = dict(plain.named_parameters())
    for name, parameter in packed.model.named_parameters():
        if parameter.grad is None:  # the tower's last layer and its pooling are not used
            assert named[name].grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, named[name].grad, atol=1e-4, rtol=1e-3, msg=name)


def test_sequences_and_branches(saved: Path) -> None:
    packed, groups = load_packed(saved), _groups()
    plain = AutoModelForImageTextToText.from_pretrained(saved, dtype=torch.float32)
    found = packed.logprobs(pack_sequences([(g.prompt, g.responses[0]) for g in groups], [g.inputs for g in groups]))
    expected = torch.cat([_own_logprobs(plain, group, group.responses[0]) for group in groups])
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)

    branches = [[Branch(response=2, keep=4, tokens=(11, 12, 13)), Branch(tokens=(14, 15))], [], [Branch(tokens=(16,))]]
    scored = packed.branch_logprobs(pack_groups(groups), pack_branches(groups, branches))
    flat = [(group, branch) for group, own in zip(groups, branches, strict=True) for branch in own]
    for logprobs, (group, branch) in zip(scored, flat, strict=True):
        kept = group.responses[branch.response][: branch.keep] if branch.keep else []
        own = _own_logprobs(plain, group, [*kept, *branch.tokens])[len(kept) :]
        torch.testing.assert_close(logprobs, own.detach(), atol=1e-4, rtol=1e-4)


def test_results_of_different_sizes_are_refused(saved: Path) -> None:
    groups = _groups()[:2]
    wide = {"pixel_values": torch.zeros(2, 3, 8, 12)}
    odd = TokenGroup(prompt=groups[1].prompt, responses=groups[1].responses, inputs=wide)
    with pytest.raises(ValueError, match="different sizes"):
        load_packed(saved).logprobs(pack_groups([groups[0], odd]))
