"""A causal language model of transformers, with or without vision, run over packed batches: what every training step
in this project calls.

Legend: N packed tokens, T target tokens, D hidden width.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from base_model import packed_attention
from base_model.backbones import backbone_class
from base_model.branches import BranchBatch, KeyValues
from base_model.checkpoints import has_vision
from base_model.config import LoraSettings
from base_model.fused_head import HeadShape, TokenLoss, head_logprobs, head_loss
from base_model.memory import keep_freed_memory
from base_model.packing import PackedBatch

logger = logging.getLogger(__name__)

OnBranches = Callable[[list[Tensor]], bool]
"""(log-probs of each branch) -> whether the batch is worth a loss."""


class PackedCausalLM(nn.Module):
    """Backbone + fused head over packed batches.

    ``model`` is the transformers (or peft) model, loaded with the ``tandem_packed`` attention; its parameters are
    trained in place. Wrapping both halves in one module keeps DDP and autocast hooks on a single ``forward``.
    """

    def __init__(self, model: nn.Module, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.shape = head_shape(self.causal_lm.config, temperature)
        self._backbone = backbone_class(self.causal_lm.config)(self.causal_lm)

    @property
    def causal_lm(self) -> Any:
        """The transformers model itself, under adapters if there are any."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def decoder(self) -> Any:
        """The language model without its head; None where the model runs as it is, on padded rows."""
        return getattr(self._backbone, "decoder", None)

    def forward(
        self,
        batch: PackedBatch,
        token_loss: TokenLoss,
        branches: BranchBatch | None = None,
        on_branches: OnBranches | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss over the batch's targets and their detached log-probs [T]; ``token_loss`` as in
        ``fused_head.head_loss``.

        Where branches are given, their log-probs are known before the loss is taken: ``on_branches`` gets them, and
        says whether the batch has a loss at all (if not, it is a constant 0).
        """
        memory = KeyValues() if branches is not None else None
        hidden_TD = self._hidden(batch, memory)
        if branches is not None and memory is not None:
            assert on_branches is not None
            if not on_branches(self._branch_logprobs(batch, branches, memory)):
                return hidden_TD.new_zeros((), dtype=torch.float32), hidden_TD.new_zeros(0, dtype=torch.float32)
        return head_loss(hidden_TD, self._head_weight(), batch.targets_T, self.shape, token_loss)

    @torch.no_grad()
    def logprobs(self, batch: PackedBatch) -> Tensor:
        """Log-probs [T] of the targets at the sampling temperature, without gradient."""
        return head_logprobs(self._hidden(batch), self._head_weight(), batch.targets_T, self.shape)

    @torch.no_grad()
    def branch_logprobs(self, batch: PackedBatch, branches: BranchBatch) -> list[Tensor]:
        """Log-probs of every branch's tokens, one tensor per branch, at the sampling temperature, without gradient."""
        memory = KeyValues()
        self._hidden(batch, memory)
        return self._branch_logprobs(batch, branches, memory)

    @torch.no_grad()
    def _branch_logprobs(self, batch: PackedBatch, branches: BranchBatch, memory: KeyValues) -> list[Tensor]:
        hidden_MD = _for_head(self._backbone.branch_hidden(batch, branches, memory))
        logprobs_M = head_logprobs(hidden_MD, self._head_weight(), branches.targets_M, self.shape)
        return list(logprobs_M.split(list(branches.lengths)))

    def _head_weight(self) -> Tensor:
        head = self.causal_lm.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ValueError(
                "this model's LM head has a bias, which the fused head does not compute; choose another model"
            )
        return head.weight

    def _hidden(self, batch: PackedBatch, memory: KeyValues | None = None) -> Tensor:
        """Final hidden states [T, D] at the rows that predict the targets; ``memory`` keeps keys and values."""
        return _for_head(self._backbone.hidden(batch, memory)[batch.target_rows_T])


def _for_head(hidden: Tensor) -> Tensor:
    """Hidden states in the head's matmul dtype."""
    device = hidden.device.type
    return hidden.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden


def head_shape(config: Any, temperature: float) -> HeadShape:
    """Read a config's logit transforms: Gemma's soft cap, Cohere's multiplier, Granite's divisor."""
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0) / float(getattr(text, "logits_scaling", None) or 1.0)
    return HeadShape(scale=scale, softcap=getattr(text, "final_logit_softcapping", None), temperature=temperature)


def load_packed(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    lora: LoraSettings | None = None,
    gradient_checkpointing: bool = False,
    temperature: float = 1.0,
    trust_remote_code: bool = False,
) -> PackedCausalLM:
    """Load a checkpoint directory for packed training.

    Args:
        path: a transformers checkpoint directory (safetensors; pickled weights are refused).
        dtype: dtype of the weights (fp32 masters are the default; compute in bf16 is autocast's matter).
        lora: adapters to add, or None for full training.
        gradient_checkpointing: recompute layers in the backward pass instead of keeping their activations.
        temperature: sampling temperature that log-probs are taken at.
        trust_remote_code: run code that comes with the checkpoint; off unless the user says so.

    Raises:
        ValueError: the directory is no checkpoint, or the model cannot run packed attention.
    """
    if not (Path(path) / "config.json").is_file():
        raise ValueError(f"{path} holds no config.json: give the directory of a transformers checkpoint")
    packed_attention.register()
    keep_freed_memory()
    model = _load_model(path, dtype=dtype, trust_remote_code=trust_remote_code)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        model = _with_adapters(model, lora, gradient_checkpointing)
    return PackedCausalLM(model.train(), temperature=temperature)


def _load_model(path: str | Path, *, trust_remote_code: bool, **options: Any) -> Any:
    """The transformers model, with packed attention wherever its family allows it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForCausalLM
    if has_vision(path):
        import base_model.vlm  # noqa: F401  makes the Auto classes know this project's layout

        auto = AutoModelForImageTextToText
    given: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    attention = backbone_class(AutoConfig.from_pretrained(path, **given)).attention
    model = auto.from_pretrained(path, attn_implementation=attention, use_safetensors=True, **given, **options)
    if attention is not None and getattr(model, "is_stateful", False):
        raise ValueError(
            f"{path} is a recurrent or state-space model, whose state cannot be shared by packed responses"
        )
    return model


def _with_adapters(model: Any, lora: LoraSettings, gradient_checkpointing: bool) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    if gradient_checkpointing:
        model.enable_input_require_grads()
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The plain model's named tensors, adapters folded in, under the checkpoint's own names; tied copies appear once.

    Adapters are added to a copy: merging in place and undoing it would leave rounding in the base weights.
    """
    from transformers.core_model_loading import revert_weight_conversion

    if not hasattr(model, "get_base_model"):
        return revert_weight_conversion(model, {name: p.detach() for name, p in model.named_parameters()})
    return revert_weight_conversion(model.get_base_model(), _folded(model))


def _folded(model: Any) -> dict[str, Tensor]:
    """The base model's tensors under the names they have in memory, with the adapters' updates added."""
    from peft.tuners.lora import LoraLayer

    deltas = {}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            deltas[f"{name}.base_layer.weight"] = sum(module.get_delta_weight(a) for a in module.active_adapters)
    tensors = {}
    for name, parameter in model.get_base_model().named_parameters():
        if ".lora_" in name:
            continue
        tensor = parameter.detach()
        if name in deltas:
            tensor = tensor + deltas[name].detach().to(tensor.dtype)
        tensors[name.replace(".base_layer.", ".")] = tensor
    return tensors


def save_merged(model: nn.Module, directory: str | Path) -> None:
    """Write a plain checkpoint that transformers and vLLM load, adapters folded in (``model`` as in
    ``merged_weights``).
    """
    if not hasattr(model, "get_base_model"):
        model.save_pretrained(directory)
        return
    from safetensors.torch import save_file

    base: Any = model.get_base_model()
    Path(directory).mkdir(parents=True, exist_ok=True)
    base.config.save_pretrained(directory)
    if base.generation_config is not None:
        base.generation_config.save_pretrained(directory)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in merged_weights(model).items()}
    save_file(tensors, Path(directory) / "model.safetensors", metadata={"format": "pt"})


def compute_dtype(choice: Literal["auto", "bfloat16", "float32"]) -> torch.dtype:
    """The matmul dtype: ``auto`` is bf16 where the machine multiplies it in hardware, fp32 elsewhere."""
    if choice != "auto":
        return getattr(torch, choice)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
