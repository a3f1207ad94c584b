"""What kind of model a checkpoint directory holds, and its tokenizer or processor."""

import json
from pathlib import Path
from typing import Any


def has_vision(path: str | Path) -> bool:
    """Whether the checkpoint is a vision-language model: its configuration describes a vision tower."""
    return "vision_config" in json.loads((Path(path) / "config.json").read_text())


def load_processor(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a language model, the processor (which has it as ``tokenizer``) of a vision-language model.

    Both render prompts, and both write their files with ``save_pretrained``.

    Raises:
        ValueError: the processor needs a package that is not installed, or is not there.
    """
    from transformers import AutoProcessor, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    if not has_vision(path):
        return AutoTokenizer.from_pretrained(path, **options)
    import base_model.vlm  # noqa: F401  makes the Auto classes know the layout

    try:
        return AutoProcessor.from_pretrained(path, **options)
    except (ImportError, OSError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"the processor of {path} cannot be loaded ({problem[:200]}); check its files") from error
