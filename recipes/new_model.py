"""Makes a new vision-language model: a preset with fresh weights, its processor and its tokenizer, as one folder that
transformers, vLLM and every recipe load.

The tokenizer is trained on the rendered data's texts, or comes with the language model that the new one starts from:

    python -m recipes.new_model --size tiny --out models/tiny
    python -m recipes.new_model --size smollm2-135m --llm smollm2-135m-instruct --out models/smollm2-vlm

`--tower` takes a trained vision tower from another model of this layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recipes.cli import run_recipe
from recipes.render import RenderSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from base_model.vlm.modeling import MiniCPMV


class TokenizerTexts(BaseModel):
    """What a tokenizer is trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    vocab_size: int = Field(1024, ge=1)
    """Tokens in all, special ones included."""
    source: RenderSource = RenderSource()
    """Rendered data whose questions, answers and worked solutions are read."""
    rows: int = Field(1000, ge=0)
    """Rendered rows read."""
    files: list[Path] = []
    """Further texts: .txt files (UTF-8), or the text of every field of .jsonl, .json and .parquet files."""
    seed: int = 0
    """Seed of the rendered rows."""


class NewModelConfig(BaseModel):
    """The model to make."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    size: Literal["tiny", "smollm2-135m", "minicpm-v-4.5"] = "tiny"
    """Preset: tiny (images of 112 pixels), smollm2-135m or minicpm-v-4.5 (448 pixels)."""
    out: Path = Path("models/tiny")
    """Folder of the model; complete or absent."""
    llm: str | None = None
    """Trained language model to start from, with its tokenizer: checkpoint folder, run directory, hub name or
    smollm2-135m-instruct; null = fresh weights."""
    tower: str | None = None
    """Vision-language model of this layout whose trained vision tower is taken, with its size and image scale:
    checkpoint folder or run directory; null = fresh weights."""
    tokenizer: str | None = None
    """Model whose tokenizer is taken; null = that of `llm`, or else a new one is trained on `texts`."""
    texts: TokenizerTexts = TokenizerTexts()
    """What a new tokenizer is trained on."""
    changes: dict[str, Any] = {}
    """Fields of the model's configuration that differ from the preset's, such as {query_num: 25}."""
    seed: int = 0
    """Seed of the fresh weights."""
    overwrite: bool = False
    """Replace the folder if it is there."""


def main(config: NewModelConfig) -> None:
    """Build the model and write its folder."""
    from recipes.console import say

    if config.out.exists() and not config.overwrite:
        raise ValueError(f"{config.out} is there already: choose another folder with --out, or add --overwrite true")
    import base_model.vlm  # noqa: F401 (makes the Auto classes know the layout)
    from base_model.vlm.presets import build, parts

    llm = _language_model(config)
    tokenizer = _tokenizer(config)
    seeing = _vision_model(config)
    changes = config.changes if seeing is None else _scale(seeing) | config.changes
    model, processor = build(config.size, tokenizer, llm=llm, seed=config.seed, **changes)
    if seeing is not None:
        model.vpm.load_state_dict(seeing.vpm.state_dict())
    write_model(model, processor, config.out)
    for name, part in parts(model).items():
        say(f"  {name}: {part.parameters:,} parameters")
    say(f"a new model of size {config.size} with {len(tokenizer)} tokens: {config.out}")


def write_model(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Write model, tokenizer and processor as one folder, complete or absent."""
    from transformers import GenerationConfig

    from rl.files import atomic_directory

    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
    )
    with atomic_directory(folder) as building:
        model.save_pretrained(building)
        processor.save_pretrained(building)


def _language_model(config: NewModelConfig) -> PreTrainedModel | None:
    if config.llm is None:
        return None
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        _folder(config.llm), dtype=torch.float32, use_safetensors=True, local_files_only=True
    )


def _vision_model(config: NewModelConfig) -> MiniCPMV | None:
    """The model whose tower is taken. Raises ValueError for another layout, or changes of the tower."""
    if config.tower is None:
        return None
    from transformers import AutoConfig

    from base_model.vlm.configuration import MiniCPMVConfig
    from base_model.vlm.modeling import MiniCPMV

    folder = _folder(config.tower)
    kind = AutoConfig.from_pretrained(folder, local_files_only=True)
    if not isinstance(kind, MiniCPMVConfig):
        raise ValueError(f"tower: {folder} is of kind {kind.model_type!r}, without a vision tower of this layout")
    if "vision_config" in config.changes:
        raise ValueError(f"changes has a vision_config, but the tower comes from {config.tower}: leave one of them out")
    return MiniCPMV.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def _scale(seeing: MiniCPMV) -> dict[str, Any]:
    """The tower's size, and the scale of the images that it has learned from."""
    return {"vision_config": seeing.config.vision_config.to_dict(), "image_size": seeing.config.image_size}


def _tokenizer(config: NewModelConfig) -> Any:
    """The one given, the language model's, or a new one."""
    from base_model.vlm.tokenizer import train_tokenizer

    given = config.tokenizer or config.llm
    if given is None:
        return train_tokenizer(corpus(config.texts), vocab_size=config.texts.vocab_size)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_folder(given), local_files_only=True)


def _folder(path: str) -> Path:
    from recipes.models import ModelConfig, resolve_model

    return resolve_model(ModelConfig(path=path))


def corpus(texts: TokenizerTexts) -> Iterator[str]:
    """The texts that a tokenizer is trained on: of rendered rows, then of files."""
    for row in islice(texts.source.rows("train", texts.seed, texts.rows), texts.rows):
        yield from _strings({name: row.values[name] for name in ("prompt", "reference", "solution")})
    for path in texts.files:
        yield from _file_texts(path)


def _file_texts(path: Path) -> Iterator[str]:
    from recipes.sources import read_file

    if path.suffix != ".txt":
        for row in read_file(path):
            yield from _strings(row.values)
        return
    try:
        yield from path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text ({type(error).__name__}): check the file.") from None


def _strings(value: Any) -> Iterator[str]:
    """All texts inside a value of JSON's types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, NewModelConfig, doc=__doc__))
