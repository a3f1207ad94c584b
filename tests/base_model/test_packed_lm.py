"""The packed forward pass against transformers' plain padded one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.config import LoraSettings
from base_model.packed_lm import PackedCausalLM, load_packed, merged_weights
from base_model.packing import TokenGroup, pack_groups, pack_sequences, split_by_tokens
from tests.tiny import make_tiny_model

ARCHITECTURES = {
    "llama": {},
    "qwen3": {"tied": False},
    "mistral": {"sliding_window": 16},
    "gemma2": {"sliding_window": 16, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"sliding_window": 16},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 2.0},
}
GROUPS = [((19, (7, 1, 12))), (3, (5,)), (30, (9, 9))]


def _groups() -> list[TokenGroup]:
    generator = torch.Generator().manual_seed(1)

    def draw(n: int) -> list[int]:
        return torch.randint(3, 300, (n,), generator=generator).tolist()

    return [TokenGroup(prompt=draw(p), responses=[draw(n) for n in lengths]) for p, lengths in GROUPS]


def _padded_logprobs(model: torch.nn.Module, groups: list[TokenGroup], temperature: float) -> Tensor:
    """The reference: every prompt + response as a right-padded row of its own, full logits, plain attention."""
    rows = [(g.prompt, r) for g in groups for r in g.responses]
    width = max(len(p) + len(r) for p, r in rows)
    ids = torch.tensor([[*p, *r, *([0] * (width - len(p) - len(r)))] for p, r in rows])
    mask = torch.tensor([[1] * (len(p) + len(r)) + [0] * (width - len(p) - len(r)) for p, r in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float() / temperature
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return torch.cat([logprobs[i, len(p) - 1 : len(p) - 1 + len(r)] for i, (p, r) in enumerate(rows)])


def _pair(directory: Path, architecture: str, temperature: float) -> tuple[PackedCausalLM, torch.nn.Module]:
    from transformers import AutoModelForCausalLM

    path = make_tiny_model(directory, architecture, **ARCHITECTURES[architecture])
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    return load_packed(path, temperature=temperature), plain


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_gradients_equal_the_padded_forward(tmp_path: Path, architecture: str, temperature: float) -> None:
    packed, plain = _pair(tmp_path, architecture, temperature)
    groups = _groups()
    batch = pack_groups(groups)
    weights_T = torch.linspace(-1, 1, len(batch.targets_T))

    expected_T = _padded_logprobs(plain, groups, temperature)
    (expected_T * weights_T).sum().backward()
    loss, logprobs_T = packed(batch, lambda logprobs_C, span: (logprobs_C * weights_T[span]).sum())
    loss.backward()

    torch.testing.assert_close(logprobs_T, expected_T.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed.logprobs(batch), logprobs_T, atol=1e-5, rtol=1e-5)
    named = dict(plain.named_parameters())
    for name, parameter in packed.model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, named[name].grad, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_windowed_case_really_cuts_attention(tmp_path: Path) -> None:
    """Without the window the same weights give other log-probs, so the parity above tests the window."""
    packed, _ = _pair(tmp_path / "a", "mistral", 1.0)
    path = make_tiny_model(tmp_path / "b", "mistral", sliding_window=None)
    batch = pack_groups(_groups())
    assert (packed.logprobs(batch) - load_packed(path).logprobs(batch)).abs().max() > 1e-2


def test_splitting_into_micro_batches_changes_nothing(tmp_path: Path) -> None:
    packed, _ = _pair(tmp_path, "llama", 1.0)
    groups = _groups()
    weights_T = torch.linspace(-1, 1, sum(len(r) for g in groups for r in g.responses))

    def gradients(ranges: list[range]) -> dict[str, Tensor]:
        packed.zero_grad()
        done = 0
        for part in ranges:
            batch = pack_groups([groups[i] for i in part])
            share = weights_T[done : done + len(batch.targets_T)]
            done += len(batch.targets_T)
            packed(batch, lambda logprobs_C, span, share=share: (logprobs_C * share[span]).sum())[0].backward()
        return {n: p.grad.clone() for n, p in packed.model.named_parameters()}

    whole = gradients(list(split_by_tokens([g.packed_tokens for g in groups], 0)))
    parts = gradients(list(split_by_tokens([g.packed_tokens for g in groups], 1)))
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-4)


def test_sequences_are_isolated_from_each_other(tmp_path: Path) -> None:
    packed, plain = _pair(tmp_path, "llama", 1.0)
    pairs = [(g.prompt, r) for g in _groups() for r in g.responses]
    expected = _padded_logprobs(plain, [TokenGroup(prompt=p, responses=[r]) for p, r in pairs], 1.0)
    torch.testing.assert_close(packed.logprobs(pack_sequences(pairs)), expected.detach(), atol=1e-4, rtol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path)
    batch = pack_groups(_groups())
    gradients = []
    for checkpointing in (False, True):
        packed = load_packed(path, gradient_checkpointing=checkpointing)
        packed(batch, lambda logprobs_C, _span: logprobs_C.sum())[0].backward()
        gradients.append({n: p.grad for n, p in packed.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_adapters_train_alone_and_fold_into_the_plain_model(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path)
    packed = load_packed(path, lora=LoraSettings(rank=4, alpha=8))
    plain = load_packed(path)
    batch = pack_groups(_groups())
    names_of_plain = set(merged_weights(plain.model))
    for name, parameter in packed.model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = packed.logprobs(batch)
    assert (adapted - plain.logprobs(batch)).abs().max() > 1e-2
    merged = merged_weights(packed.model)
    assert set(merged) == names_of_plain
    plain.model.load_state_dict(merged, strict=False)
    torch.testing.assert_close(plain.logprobs(batch), adapted, atol=1e-4, rtol=1e-4)


def test_the_prompt_is_counted_once_and_nothing_is_padded() -> None:
    batch = pack_groups(_groups())
    assert batch.input_ids.shape == (1, 19 + 7 + 1 + 12 + 3 + 5 + 30 + 9 + 9)
    assert len(batch.targets_T) == 7 + 1 + 12 + 5 + 9 + 9
    assert batch.position_ids[0, 19:22].tolist() == [19, 20, 21]
    assert batch.target_rows_T[:3].tolist() == [18, 19, 20]
    assert batch.target_rows_T[7].item() == 18  # the second response starts from the prompt's end again


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        pack_groups([TokenGroup(prompt=[], responses=[[1]])])
    with pytest.raises(ValueError, match=r"config\.json"):
        load_packed(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [([3, 3, 3], 6, [[0, 1], [2]]), ([9, 1, 1], 4, [[0], [1, 2]]), ([1, 2], 0, [[0, 1]]), ([], 5, [])],
)
def test_split_by_tokens(sizes: list[int], budget: int, expected: list[list[int]]) -> None:
    assert [list(part) for part in split_by_tokens(sizes, budget)] == expected
