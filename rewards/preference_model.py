"""A reward model of transformers that scores token ids: one number per text, in batches bounded by tokens.

Imported when a preference reward is first used: it loads torch.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewards.registry import RewardError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class PreferenceModel:
    """An `AutoModelForSequenceClassification` checkpoint with one output."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        dtype: Dtype = "auto",
        batch_tokens: int = 16_384,
        trust_remote_code: bool = False,
        pad: int = 0,
    ) -> None:
        """Load the checkpoint, from safetensors only.

        Args:
            folder: a checkpoint of transformers.
            device: of torch; auto = the first GPU, the CPU without one.
            dtype: of the backbone's weights; auto = bf16 on a GPU, fp32 on the CPU. The head always computes in fp32.
            batch_tokens: most tokens of a batch, padding included; a longer text makes a batch of its own.
            trust_remote_code: run code that comes with the checkpoint.
            pad: token id to pad with; the state that is scored is the last one of another token.

        Raises:
            RewardError: the checkpoint has weights missing, such as the head of a reward model.
        """
        self.device = _device(device)
        self._batch_tokens = batch_tokens
        self._model = _load(folder, _dtype(dtype, self.device), trust_remote_code).to(self.device).eval()
        self._model.config.get_text_config().pad_token_id = self._pad = pad
        _head_in_fp32(self._model)

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return the model's output for each text of token ids, in fp32; which texts share a batch does not matter."""
        scores = [0.0] * len(texts)
        for indices in length_batches([len(text) for text in texts], self._batch_tokens):
            logits_B1 = self._model(**self._padded([texts[index] for index in indices])).logits
            for index, value in zip(indices, logits_B1[:, 0].float().tolist(), strict=True):
                scores[index] = value
        return scores

    def _padded(self, texts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return ids and mask [B, longest], padded on the right: what a causal model makes of a text stays the same."""
        longest = max(len(text) for text in texts)
        ids = [[*text, *[self._pad] * (longest - len(text))] for text in texts]
        mask = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
        return {
            "input_ids": torch.tensor(ids, device=self.device),
            "attention_mask": torch.tensor(mask, device=self.device),
        }


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of texts, longest first, in batches of at most `batch_tokens` tokens with their padding.

    Example:
        >>> list(length_batches([3, 9, 4, 8], 18))
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        count = max(1, batch_tokens // max(1, lengths[order[0]]))
        yield order[:count]
        del order[:count]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _dtype(name: Dtype, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)


def _load(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise RewardError(
            f"the reward model in {folder} lacks weights ({', '.join(sorted(info['missing_keys'])[:3])}), which would "
            "be random: give a checkpoint that was trained as a reward model."
        )
    model.config.get_text_config().use_cache = False
    return model


def _head_in_fp32(model: nn.Module) -> None:
    """Let the last layer compute in fp32: in bf16 its output has three digits, and good answers would tie."""
    head = getattr(model, "score", None)
    if isinstance(head, nn.Linear) and head.weight.dtype is not torch.float32:
        head.float()
        head.register_forward_pre_hook(lambda _module, arguments: (arguments[0].float(),))
