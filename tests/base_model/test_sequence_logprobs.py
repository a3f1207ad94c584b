"""Differentiable log-probs against the full logits, for a loss that is not token-local."""

import pytest
import torch

from base_model.fused_head import HeadShape
from base_model.sequence_logprobs import target_logprobs


@pytest.mark.parametrize("shape", [HeadShape(), HeadShape(scale=0.25, softcap=2.0, temperature=1.3)])
@pytest.mark.parametrize("frozen_head", [False, True])
def test_gradients_equal_the_full_logits(shape: HeadShape, frozen_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [slice(0, 5), slice(5, 8), slice(8, 13)]
    monkeypatch.setattr("base_model.fused_head._chunks", lambda _tokens, _v: spans)
    torch.manual_seed(0)
    hidden_TD = torch.randn(13, 16, requires_grad=True)
    weight_VD = torch.randn(50, 16, requires_grad=not frozen_head)
    targets_T = torch.randint(0, 50, (13,))
    logprobs_T = target_logprobs(hidden_TD, weight_VD, targets_T, shape)
    torch.sigmoid(logprobs_T[:6].sum() - logprobs_T[6:].sum()).backward()

    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in (hidden_TD, weight_VD))
    logits = hidden @ weight.T * shape.scale
    if shape.softcap:
        logits = torch.tanh(logits / shape.softcap) * shape.softcap
    reference_T = (logits / shape.temperature).log_softmax(-1)[torch.arange(13), targets_T]
    torch.sigmoid(reference_T[:6].sum() - reference_T[6:].sum()).backward()

    torch.testing.assert_close(logprobs_T.double(), reference_T, atol=1e-5, rtol=1e-5)
    assert hidden_TD.grad is not None
    torch.testing.assert_close(hidden_TD.grad.double(), hidden.grad, atol=1e-6, rtol=1e-4)
    if frozen_head:
        assert weight_VD.grad is None
    else:
        torch.testing.assert_close(weight_VD.grad.double(), weight.grad, atol=1e-6, rtol=1e-4)
