"""A tiny random language model with a real tokenizer and chat template, for tests of the real engine or trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Qwen3's convention: with enable_thinking=False the template itself pre-fills an empty think block.
QWEN3_CHAT_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)

# Newer templates open the think block for the model.
OPENING_CHAT_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}"
)

_CORPUS = [
    "<think>\nFirst add 12 and 7: 12 + 7 = 19. Then take away 4: 19 - 4 = 15.\n</think>\n\nThe answer is 15.",
    "<think>\n\n</think>\n\nThe answer is 42.",
    "What is the sum of 3 and 4? State the final answer only, as a number.",
    "Work step by step. The user asks a question and the assistant answers it: yes, no, true or false.",
    "user assistant system\n0 1 2 3 4 5 6 7 8 9 10 20 30 + - * / = ( ) , . ; : ? !",
]


def make_tiny_tokenizer(vocab_size: int = 400, chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """Byte-level BPE tokenizer with `<|im_start|>`, `<|im_end|>` (the end of a turn) and `<|pad|>`.

    Args:
        vocab_size: Number of tokens wanted; at least 260 (256 bytes and the special tokens).
        chat_template: Jinja text, or None for a tokenizer without a chat template.

    Returns:
        A `PreTrainedTokenizerFast`; any text round-trips through it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def make_tiny_model(
    directory: str | Path,
    architecture: str = "llama",
    tied: bool = True,
    dtype: str = "float32",
    *,
    seed: int = 0,
    spread: float = 0.15,
    chat_template: str | None = CHAT_TEMPLATE,
    max_position_embeddings: int = 1024,
    **config: Any,
) -> Path:
    """Saves a random causal language model of 2 layers and hidden size 64 with its tokenizer, ready for vLLM.

    Args:
        directory: Where to save; created when absent.
        architecture: A `model_type` of transformers: "llama", "qwen3", "gemma2", "mistral", ...
        tied: Whether the LM head is the embedding matrix.
        dtype: Name of the torch dtype of the saved weights.
        seed: Seed of the weights; torch's global generator is left as it was.
        spread: Standard deviation of the weights: larger makes the next-token distribution less uniform.
        chat_template: Jinja text, or None for a tokenizer without one.
        max_position_embeddings: Longest context in tokens.
        **config: Further fields of the model's config (they override the defaults here).

    Returns:
        `directory` as a path.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tiny_tokenizer(chat_template=chat_template)
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # the smallest that vLLM's CPU attention takes
        "max_position_embeddings": max_position_embeddings,
        "initializer_range": spread,
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "gemma2":
        fields |= {"query_pre_attn_scalar": 32, "sliding_window": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(architecture, **(fields | config)), dtype=getattr(torch, dtype)
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)


def make_tiny_reward_model(directory: str | Path, *, seed: int = 0, **options: Any) -> Path:
    """Saves a random reward model: `make_tiny_model` with a head of one output in place of the LM head.

    Args:
        directory: Where to save; created when absent.
        seed: Seed of backbone and head.
        **options: As for `make_tiny_model`.

    Returns:
        `directory` as a path.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    path = make_tiny_model(directory, seed=seed, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    model.save_pretrained(path)
    return path
