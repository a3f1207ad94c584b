"""Supervised fine-tuning on (prompt, response) token pairs: packed, unpadded, loss on the response only.

The optimiser loop, schedules, logging and resuming are transformers' ``Trainer``; this file adds the packed batch,
the fused head and checkpoints in the model's own layout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import Trainer, TrainingArguments

from base_model.packed_lm import PackedCausalLM
from base_model.packing import pack_sequences


@dataclass(frozen=True, kw_only=True, slots=True)
class SftExample:
    """Token ids of one training sequence; the prompt holds everything that is given, the mode's prefill included."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    inputs: Mapping[str, Any] | None = None  # of the prompt's images and videos; see packing.PackedMedia


class SftDataset(Dataset[SftExample]):
    """A list of examples as torch sees it."""

    def __init__(self, examples: Sequence[SftExample]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> SftExample:
        return self.examples[index]


def collate_packed(examples: Sequence[SftExample]) -> dict[str, Any]:
    """One packed batch out of examples, attention isolated per example."""
    return {"batch": pack_sequences([(e.prompt_ids, e.response_ids) for e in examples], [e.inputs for e in examples])}


class PackedTrainer(Trainer):
    """``Trainer`` over ``PackedCausalLM``: mean loss per response token over the whole optimiser step.

    Args:
        model: the packed model.
        args: transformers' arguments.
        data: examples, packed batch by batch; or a stream of batches that are packed already.
        **kwargs: as for ``Trainer``.
    """

    def __init__(
        self,
        model: PackedCausalLM,
        args: TrainingArguments,
        data: Sequence[SftExample] | IterableDataset[dict[str, Any]],
        **kwargs: Any,
    ) -> None:
        dataset = data if isinstance(data, IterableDataset) else SftDataset(data)
        super().__init__(model=model, args=args, train_dataset=dataset, data_collator=collate_packed, **kwargs)
        self.model_accepts_loss_kwargs = True  # the denominator of a step is passed in, so accumulation changes nothing

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], int]:
        """The micro-batches of one optimiser step, and the response tokens they hold together."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        return batches, sum(len(b["batch"].targets_T) for b in batches)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Summed negative log-likelihood of the response tokens over the step's token count."""
        batch = inputs["batch"].to(self.args.device)
        denominator = float(num_items_in_batch) if num_items_in_batch else float(max(1, len(batch.targets_T)))
        loss, logprobs_T = model(batch, lambda logprobs_C, _span: -logprobs_C.sum() / denominator)
        return (loss, {"logprobs_T": logprobs_T}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the wrapped model as a plain checkpoint directory."""
        target = Path(output_dir or self.args.output_dir)
        target.mkdir(parents=True, exist_ok=True)
        self.accelerator.unwrap_model(self.model).model.save_pretrained(target)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(target)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read a checkpoint written by ``_save`` into the wrapped model."""
        from safetensors.torch import load_file

        wrapped = self.accelerator.unwrap_model(model or self.model).model
        folder = Path(resume_from_checkpoint)
        adapters = folder / "adapter_model.safetensors"
        if adapters.exists():
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(wrapped, load_file(adapters))
            return
        tensors: dict[str, torch.Tensor] = {}
        for shard in sorted(folder.glob("model*.safetensors")):
            tensors |= load_file(shard)
        missing, unexpected = wrapped.load_state_dict(tensors, strict=False)
        wrapped.tie_weights()
        tied = set(getattr(wrapped, "all_tied_weights_keys", None) or ())
        if unexpected or set(missing) - tied:
            raise ValueError(f"{folder} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")
