"""Packed examples against the model's own forward pass on one example at a time."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from base_model import packed_attention
from base_model.example_packing import pack_examples, view_count
from base_model.packed_lm import PackedCausalLM
from base_model.training_example import TrainingExample
from tests.base_model.vlm.examples import mixed_examples
from tests.base_model.vlm.small import tiny


def test_targets_are_predicted_from_the_token_before_them() -> None:
    first = TrainingExample(ids=(5, 6, 7, 8, 9), target_spans=((1, 2), (3, 5)))
    second = TrainingExample(ids=(1, 2, 3), target_spans=((2, 3),))
    batch = pack_examples([first, second])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 1, 2, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.target_rows_T.tolist() == [0, 2, 3, 6]
    assert batch.targets_T.tolist() == [6, 8, 9, 3]
    assert [group.prompt for group in batch.layout] == [5, 3]


def test_views_are_counted() -> None:
    _, processor = tiny()
    assert [view_count(example) for example in mixed_examples(processor)] == [0, 1, 6, 6, 1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_one_example_at_a_time(checkpointing: bool) -> None:
    model, processor = tiny()
    examples = mixed_examples(processor)
    total = sum(example.targets for example in examples)

    losses = []
    for example in examples:
        ids = torch.tensor([example.ids])
        logits = model(input_ids=ids, **(example.inputs or {})).logits[0]
        for start, end in example.target_spans:
            losses.append(cross_entropy(logits[start - 1 : end - 1], ids[0, start:end], reduction="sum"))
    plain = torch.stack(losses).sum() / total
    plain.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    packed_attention.register()
    model.llm.set_attn_implementation(packed_attention.NAME)
    if checkpointing:
        model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed, logprobs_T = PackedCausalLM(model)(pack_examples(examples), lambda logprobs, _: -logprobs.sum() / total)
    packed.backward()
    assert len(logprobs_T) == total
    assert packed.item() == pytest.approx(plain.item(), rel=1e-5)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max().clamp(min=1e-2 * largest)  # a key bias has none but rounding's
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, rtol=0, atol=1e-5, msg=name)
