"""Runs exported GGUF files with llama.cpp, and sets its answers beside those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base_model.export.checkpoint import Checkpoint
    from recipes.export import GgufConfig

SURE = 0.05
"""Nats by which 16-bit files may differ from the checkpoint in a token's log-probability (measured: 0.01)."""


def run_gguf(config: GgufConfig, checkpoint: Checkpoint, text: Path, projector: Path | None) -> dict[str, Any]:
    """Let llama.cpp answer, where the configuration wants it.

    Returns:
        For the report: the ``answers`` of both programs; nothing where llama.cpp does not run.

    Raises:
        ValueError: llama.cpp is wanted and not installed, cannot run the files, cuts texts differently, or (with
            unrounded files) answers differently.
    """
    from base_model.export import llama_cpp
    from recipes.console import say

    if config.run == "never":
        return {}
    if config.run == "auto" and not llama_cpp.available():
        say(f"llama.cpp (pip package {llama_cpp.PACKAGE}) is not installed, so the GGUF files were not run")
        return {}
    answers = _answers(config, checkpoint, text, projector)
    for kind, found in answers.items():
        same = "the same as" if found["equal"] else "not the same as"
        say(f"  llama.cpp, {kind}: {found['llama_cpp']!r}, {same} transformers' {found['transformers']!r}")
    return {"answers": answers}


def _answers(config: GgufConfig, checkpoint: Checkpoint, text: Path, projector: Path | None) -> dict[str, Any]:
    from transformers import AutoProcessor, AutoTokenizer

    from base_model.export.load import load_plain
    from base_model.export.parity import check_tokenizer, compare

    model = load_plain(checkpoint.folder)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    check_tokenizer(tokenizer, text)
    prompt = _rendered(tokenizer, config.prompt)
    found = {"text": compare(model, tokenizer, text, prompt, max_tokens=config.max_tokens)}
    if projector is not None:
        processor = AutoProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
        prompt = _rendered(tokenizer, f"(<image>./</image>)\n{config.prompt}")
        image = drawn(processor.image_processor.scale_resolution)
        found["image"] = compare(
            model, processor, text, prompt, images=[image], projector=projector, max_tokens=config.max_tokens
        )
    for kind, agreement in found.items():
        if config.type in ("f32", "f16", "bf16") and agreement.logprob_difference > SURE:
            raise ValueError(
                f"llama.cpp gives the answer's tokens ({kind}) log-probabilities that differ by up to "
                f"{agreement.logprob_difference:.3f} from transformers', more than rounding to 16 bits explains: the "
                "layout is not the one it expects, so this export would answer wrongly"
            )
    return {kind: agreement.as_dict() for kind, agreement in found.items()}


def _rendered(tokenizer: Any, content: str) -> str:
    if not tokenizer.chat_template:
        return content
    messages = [{"role": "user", "content": content}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def drawn(side: int) -> Any:
    """A square picture of one view's size, which neither program has to resize: a disc on stripes."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for at in range(0, side, max(2, side // 8)):
        draw.rectangle((at, 0, at + side // 16, side), fill=(40, 90, 200))
    draw.ellipse((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=(220, 40, 40))
    return image
