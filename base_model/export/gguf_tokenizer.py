"""The tokenizer inside a GGUF file: byte-level BPE, as SmolLM2, Qwen and Llama 3 have it.

llama.cpp does not read a tokenizer's own splitting rule; it has the known ones built in, under names. A rule that it
does not have is refused here, since it would silently cut texts in other places.
"""

import json
from pathlib import Path
from typing import Any

_LETTERS_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LETTERS_LLAMA3 = _LETTERS_QWEN.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
_BY_PATTERN = {_LETTERS_QWEN: "qwen2", _LETTERS_LLAMA3: "llama-bpe"}


def add_tokenizer(writer: Any, folder: Path, vocabulary: int) -> None:
    """Add the tokenizer of a checkpoint directory.

    Args:
        writer: a ``gguf.GGUFWriter``.
        folder: holds ``tokenizer.json``.
        vocabulary: rows of the embedding table; ids without a token become unused ones.

    Raises:
        ValueError: there is no ``tokenizer.json``, or llama.cpp has no such tokenizer.
    """
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} holds no tokenizer.json: a GGUF file contains its tokenizer, copy it there")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())  # as transformers uses it, not as the file says
    rule = splitting_rule(spec)
    texts, kinds = _tokens(tokenizer, vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in spec["model"]["merges"]])
    _add_special(writer, tokenizer)


def splitting_rule(spec: dict[str, Any]) -> str:
    """llama.cpp's name (``tokenizer.ggml.pre``) of a tokenizer's splitting rule.

    Raises:
        ValueError: it has none.
    """
    steps = _steps(spec.get("pre_tokenizer"))
    kinds = [step["type"] for step in steps]
    if spec["model"]["type"] == "BPE":
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
            pattern = steps[0]["pattern"].get("Regex")
            if pattern in _BY_PATTERN:
                return _BY_PATTERN[pattern]
    raise ValueError(
        f"the tokenizer ({spec['model']['type']} after {' + '.join(kinds) or 'no splitting'}) is none that this export "
        "knows by llama.cpp's names (gpt-2, smollm, qwen2, llama-bpe); convert the merged checkpoint with llama.cpp's "
        "convert_hf_to_gguf.py instead"
    )


def _steps(rule: dict[str, Any] | None) -> list[dict[str, Any]]:
    if rule is None:
        return []
    return list(rule["pretokenizers"]) if rule["type"] == "Sequence" else [rule]


def _tokens(tokenizer: Any, vocabulary: int) -> tuple[list[str], list[Any]]:
    """Text and kind of every id; llama.cpp finds control tokens in a prompt before it splits the rest."""
    from gguf import TokenType

    names = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(names) >= vocabulary:
        raise ValueError(
            f"the tokenizer has an id {max(names)}, but the model only has {vocabulary} embeddings: "
            "export the checkpoint with the tokenizer it was trained with"
        )
    added = tokenizer.added_tokens_decoder
    texts = [names.get(number, f"[PAD{number}]") for number in range(vocabulary)]
    kinds = [
        TokenType.UNUSED
        if number not in names
        else TokenType.NORMAL
        if number not in added
        else TokenType.CONTROL
        if added[number].special
        else TokenType.USER_DEFINED
        for number in range(vocabulary)
    ]
    return texts, kinds


def _add_special(writer: Any, tokenizer: Any) -> None:
    """Special ids, the chat template, and that nothing is added: prompts are rendered whole by the template."""
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    for name in ("bos", "eos", "pad", "unk"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
