"""The fused head against log-softmax and autograd on the full logits, over several chunks."""

import pytest
import torch

from base_model.fused_head import HeadShape, _chunks, head_logprobs, head_loss


@pytest.mark.parametrize(
    "shape",
    [HeadShape(), HeadShape(temperature=0.6), HeadShape(scale=0.25, softcap=2.0, temperature=1.3)],
    ids=["plain", "temperature", "scale-and-cap"],
)
def test_loss_logprobs_and_gradients_equal_the_full_logits(shape: HeadShape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "base_model.fused_head._chunks", lambda tokens, _v: [slice(0, 5), slice(5, 8), slice(8, tokens)]
    )
    torch.manual_seed(0)
    hidden_TD = torch.randn(13, 16, requires_grad=True)
    weight_VD = torch.randn(50, 16, requires_grad=True)
    targets_T = torch.randint(0, 50, (13,))
    weights_T = torch.randn(13)
    loss, logprobs_T = head_loss(
        hidden_TD, weight_VD, targets_T, shape, lambda lp_C, span: (weights_T[span] * lp_C.exp()).sum()
    )
    (3 * loss).backward()
    ours = hidden_TD.grad.clone(), weight_VD.grad.clone()

    hidden = hidden_TD.detach().double().requires_grad_()
    weight = weight_VD.detach().double().requires_grad_()
    logits = hidden @ weight.T * shape.scale
    if shape.softcap:
        logits = torch.tanh(logits / shape.softcap) * shape.softcap
    reference_T = (logits / shape.temperature).log_softmax(-1)[torch.arange(13), targets_T]
    reference = (weights_T * reference_T.exp()).sum()
    (3 * reference).backward()

    torch.testing.assert_close(loss.double(), reference.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logprobs_T.double(), reference_T.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[0].double(), hidden.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours[1].double(), weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head_logprobs(hidden_TD, weight_VD, targets_T, shape), logprobs_T)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden_TD = torch.randn(4, 8, requires_grad=True)
    weight_VD = torch.randn(9, 8)
    loss, _ = head_loss(hidden_TD, weight_VD, torch.tensor([1, 2, 3, 4]), HeadShape(), lambda lp_C, _span: lp_C.sum())
    loss.backward()
    assert hidden_TD.grad is not None
    assert weight_VD.grad is None


@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 10), (1000, 49152), (700, 2**21)])
def test_chunks_cover_every_token_within_the_bound(tokens: int, vocabulary: int) -> None:
    chunks = _chunks(tokens, vocabulary)
    assert [i for c in chunks for i in range(c.start, c.stop)] == list(range(tokens))
    assert all((c.stop - c.start) * vocabulary <= max(2**25, 64 * vocabulary) for c in chunks)
