"""Branches scored from kept keys and values against a plain forward pass of each whole sequence."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from base_model.branches import Branch, pack_branches
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup, pack_groups
from tests.base_model.test_packed_lm import ARCHITECTURES
from tests.tiny import make_tiny_model


def draw(n: int, seed: int) -> list[int]:
    return torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


GROUPS = [
    TokenGroup(prompt=draw(19, 0), responses=[draw(7, 1), draw(1, 2), draw(12, 3)]),
    TokenGroup(prompt=draw(3, 4), responses=[draw(5, 5)]),
    TokenGroup(prompt=draw(30, 6), responses=[draw(9, 7), draw(9, 8)]),
]
BRANCHES = [
    [
        Branch(response=0, keep=7, tokens=tuple(draw(4, 10))),
        Branch(response=2, keep=5, tokens=tuple(draw(20, 11))),
        Branch(response=1, keep=1, tokens=tuple(draw(1, 12))),
        Branch(tokens=tuple(draw(6, 13))),  # after the prompt alone
    ],
    [],
    [Branch(response=1, keep=2, tokens=tuple(draw(3, 14))), Branch(response=1, keep=9, tokens=tuple(draw(2, 15)))],
]


def expected(plain: torch.nn.Module, temperature: float, groups=GROUPS, branches=BRANCHES) -> list[Tensor]:
    found = []
    for group, own in zip(groups, branches, strict=True):
        for branch in own:
            prefix = [*group.prompt, *(group.responses[branch.response][: branch.keep] if branch.keep else [])]
            ids = torch.tensor([[*prefix, *branch.tokens]])
            with torch.no_grad():
                logits = plain(input_ids=ids, use_cache=False).logits[0].double() / temperature
            rows = logits[len(prefix) - 1 : -1].log_softmax(-1)
            found.append(rows.gather(1, torch.tensor(branch.tokens)[:, None])[:, 0])
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_branches_equal_the_plain_forward(tmp_path: Path, architecture: str) -> None:
    path = make_tiny_model(tmp_path, architecture, **ARCHITECTURES[architecture])
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    packed = load_packed(path, temperature=0.7)
    found = packed.branch_logprobs(pack_groups(GROUPS), pack_branches(GROUPS, BRANCHES))
    for mine, theirs in zip(found, expected(plain, 0.7), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-5, rtol=1e-5)


def test_the_loss_pass_gives_the_same_and_no_gradient_of_its_own(tmp_path: Path) -> None:
    packed = load_packed(make_tiny_model(tmp_path), gradient_checkpointing=True)
    batch = pack_groups(GROUPS)

    def loss_of(logprobs_C: Tensor, _span: slice) -> Tensor:
        return logprobs_C.sum()

    packed(batch, loss_of)[0].backward()
    alone = {name: p.grad.clone() for name, p in packed.model.named_parameters()}
    packed.zero_grad()
    seen: list[list[Tensor]] = []
    loss, _ = packed(batch, loss_of, pack_branches(GROUPS, BRANCHES), lambda probs: bool(seen.append(probs)) or True)
    loss.backward()
    for name, parameter in packed.model.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name], atol=1e-6, rtol=1e-5)
    again = packed.branch_logprobs(batch, pack_branches(GROUPS, BRANCHES))
    for mine, theirs in zip(seen[0], again, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_batch_that_turns_out_to_be_worth_nothing_has_no_loss(tmp_path: Path) -> None:
    packed = load_packed(make_tiny_model(tmp_path))
    loss, logprobs = packed(
        pack_groups(GROUPS),
        lambda *_: pytest.fail("asked for a loss"),
        pack_branches(GROUPS, BRANCHES),
        lambda _: False,
    )
    assert loss == 0
    assert not loss.requires_grad
    assert not len(logprobs)


def test_no_branches_make_no_batch() -> None:
    assert pack_branches(GROUPS, [[], [], []]) is None


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_branches(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "branch-model"
    if not path.is_dir():
        make_tiny_model(path, "mistral", sliding_window=8)
    packed = load_packed(path)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    lengths = data.draw(st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(0, 9), max_size=3)), min_size=1))
    groups = [
        TokenGroup(prompt=draw(p, i), responses=[draw(n, 9 * i + j) for j, n in enumerate(own)])
        for i, (p, own) in enumerate(lengths)
    ]
    branches = []
    for i, group in enumerate(groups):
        count = data.draw(st.integers(0, 3))
        own = []
        for j in range(count):
            response = data.draw(st.integers(0, max(len(group.responses) - 1, 0)))
            room = len(group.responses[response]) if group.responses else 0
            keep = data.draw(st.integers(0, room))
            own.append(Branch(response=response, keep=keep, tokens=tuple(draw(data.draw(st.integers(1, 11)), i + j))))
        branches.append(own)
    batch = pack_branches(groups, branches)
    if batch is None:
        return
    found = packed.branch_logprobs(pack_groups(groups), batch)
    for mine, theirs in zip(found, expected(plain, 1.0, groups, branches), strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=2e-5, rtol=1e-5)
