"""Exports a model: one plain checkpoint (adapters folded in), 4-bit weights for vLLM, GGUF files for llama.cpp.

What was rounded is compared with the original on held-out rows, what llama.cpp will run is run by llama.cpp, and the
report says what each part takes in memory. Each format is a folder under `out`, complete or absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recipes.cli import CONFIGS, run_recipe
from recipes.models import ModelConfig
from recipes.tasks import TaskConfig
from recipes.warmup import AnswerFormat
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from base_model.export.checkpoint import Checkpoint

Format = Literal["merged", "int4", "gguf"]


class Int4Config(BaseModel):
    """The 4-bit checkpoint (W4A16, compressed-tensors) that vLLM and transformers load."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    group: Literal[32, 64, 128] = 32
    """Weights of a row that share a scale: fewer are closer to the original, more are smaller."""


class GgufConfig(BaseModel):
    """The files for llama.cpp."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    type: Literal["f32", "f16", "bf16", "q8_0", "q4_1", "q4_0"] = "q4_0"
    """How the language model's matrices are stored; with a 4-bit type, embeddings and head get 8 bits."""
    vision: Literal["auto", "f16", "f32", "none"] = "auto"
    """How the vision projector's matrices are stored; auto = f16 where llama.cpp can run the layout, none elsewhere."""
    run: Literal["auto", "always", "never"] = "auto"
    """Whether llama.cpp answers a prompt, and transformers too, for comparison; auto = where it is installed."""
    prompt: str = "Name three colours."
    """What they are asked; with a projector, also about a drawn image."""
    max_tokens: int = Field(24, ge=1)
    """Length of the answers."""


class QualityConfig(BaseModel):
    """The check of what rounding costs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    rows: int = Field(100, ge=1)
    """Held-out rows whose right answer is scored, from the first on."""
    mode: Literal["short", "long"] = "short"
    """Mode of prompt and answer; long needs rows with a worked solution."""
    max_drop: float = Field(0.1, ge=0)
    """Most that the mean log-probability per answer token may fall, in nats."""
    on_drop: Literal["refuse", "warn"] = "refuse"
    """What happens beyond that: no such export is left behind, or it is, with a warning."""
    seed: int = 0
    """Seed of the interval."""


class ExportConfig(BaseModel):
    """What to export, how, and how it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: ModelConfig
    """The checkpoint or run directory; an adapter's directory too."""
    base: Path | None = None
    """Checkpoint that an adapter was trained on; null = the one that its own settings name."""
    out: Path = Path("runs/export")
    """Folder for the exports and for export.json."""
    formats: list[Format] = ["merged", "int4", "gguf"]
    """merged (safetensors), int4 (4-bit safetensors), gguf."""
    dtype: Literal["keep", "bfloat16", "float16", "float32"] = "keep"
    """Type of the merged checkpoint's weights."""
    int4: Int4Config = Int4Config()
    """The 4-bit checkpoint."""
    gguf: GgufConfig = GgufConfig()
    """The files for llama.cpp."""
    task: TaskConfig | None = None
    """Rows for the quality check; null = rounded exports are not checked, which is said."""
    modes: ModesConfig = ModesConfig()
    """The prompts' modes."""
    answer: AnswerFormat = AnswerFormat()
    """How a right answer is written."""
    quality: QualityConfig = QualityConfig()
    """The check of what rounding costs."""
    measure: bool = True
    """For a vision-language model: measure peak memory with its parts loaded in turn and both at once."""
    context: int = Field(4096, ge=1)
    """Tokens whose keys and values are counted in the computed memory."""
    overwrite: bool = False
    """Replace what is in the folder already."""

    @field_validator("formats")
    @classmethod
    def _some(cls, formats: list[Format]) -> list[Format]:
        if not formats or len(set(formats)) != len(formats):
            raise ValueError(f"{formats} names no format, or one twice: choose from merged, int4 and gguf")
        return formats


def main(config: ExportConfig) -> None:
    """Export, check, report."""
    from recipes.console import say
    from recipes.export_report import memory_report, table
    from rl.files import atomic_write_json

    wanted = [format_ for format_ in ("merged", "int4", "gguf") if format_ in config.formats]
    _check_out(config, wanted)
    source = find_source(config.model)
    report: dict[str, Any] = {"model": str(source)}
    if (source / "adapter_config.json").is_file() and "merged" not in wanted:
        wanted.insert(0, "merged")
        say("an adapter is folded into its base first, so the merged checkpoint is written too")
    if "merged" in wanted:
        source = _merged(config, source)
        say(f"merged checkpoint: {source}")
    checkpoint = _open(source)
    checker = _checker(config, checkpoint)
    if "int4" in wanted:
        report["int4"] = _int4(config, checkpoint, checker)
    if "gguf" in wanted:
        report["gguf"] = _gguf(config, checkpoint, checker)
    report["memory"] = memory_report(checkpoint, config.int4.group, config.context, measured=config.measure)
    atomic_write_json(config.out / "export.json", report)
    for line in table(report["memory"]):
        say(line)
    say(f"written to {config.out}; figures in {config.out / 'export.json'}")


def find_source(model: ModelConfig) -> Path:
    """The checkpoint or adapter to export: as for every recipe, and a run's newest adapter too.

    Raises:
        ValueError: there is none.
    """
    from recipes.models import resolve_model

    folder = Path(model.path).expanduser()
    if (folder / "adapter_config.json").is_file():
        return folder
    try:
        return resolve_model(model)
    except ValueError:
        steps = {int(p.name[5:]): p for p in (folder / "checkpoints").glob("step_*") if p.name[5:].isdigit()}
        adapters = [p for _, p in sorted(steps.items()) if (p / "adapter_config.json").is_file()]
        if not adapters:
            raise
        return adapters[-1]


def _check_out(config: ExportConfig, wanted: Sequence[str]) -> None:
    taken = [name for name in wanted if (config.out / name).exists()]
    if taken and not config.overwrite:
        raise ValueError(f"{config.out / taken[0]} exists already: choose another out, or set overwrite")


def _open(source: Path) -> Checkpoint:
    from base_model.export.checkpoint import Checkpoint

    return Checkpoint(source)


def _merged(config: ExportConfig, source: Path) -> Path:
    from base_model.export.merge import write_merged
    from rl.files import atomic_directory

    target = config.out / "merged"
    with atomic_directory(target) as folder:
        write_merged(source, folder, config.dtype, base=config.base)
    return target


def _checker(config: ExportConfig, checkpoint: Checkpoint) -> Any:
    from recipes.console import say
    from recipes.export_quality import QualityCheck

    if config.task is None:
        if {"int4", "gguf"} & set(config.formats):
            say("no task is given, so what rounding costs is not checked")
        return None
    return QualityCheck(config.task, config.modes, config.answer, config.quality, checkpoint)


def _int4(config: ExportConfig, checkpoint: Checkpoint, checker: Any) -> dict[str, Any]:
    from base_model.export.int4 import write_int4
    from base_model.export.load import load_plain
    from recipes.console import say
    from rl.files import atomic_directory

    with atomic_directory(config.out / "int4") as folder:
        write_int4(checkpoint, folder, group=config.int4.group)
        found: dict[str, Any] = {"bytes": _bytes(folder)}
        if checker is not None:
            found["quality"] = checker("int4", load_plain(folder))
    say(f"4-bit checkpoint: {config.out / 'int4'}")
    return found


def _gguf(config: ExportConfig, checkpoint: Checkpoint, checker: Any) -> dict[str, Any]:
    from base_model.export.gguf_file import FOUR_BIT
    from base_model.export.gguf_text import write_text
    from base_model.export.load import load_gguf
    from recipes.console import say
    from recipes.export_run import run_gguf
    from rl.files import atomic_directory

    with atomic_directory(config.out / "gguf") as folder:
        text = folder / f"model-{config.gguf.type}.gguf"
        write_text(checkpoint, text, config.gguf.type)
        projector = _projector(config.gguf, checkpoint, folder)
        found: dict[str, Any] = {"files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())}}
        if checker is not None and config.gguf.type in FOUR_BIT:
            found["quality"] = checker("gguf", load_gguf(text, checkpoint))
        found |= run_gguf(config.gguf, checkpoint, text, projector)
    say(f"GGUF files: {', '.join(str(config.out / 'gguf' / name) for name in found['files'])}")
    return found


def _projector(config: GgufConfig, checkpoint: Checkpoint, folder: Path) -> Path | None:
    from base_model.export.gguf_vision import check_vision, write_vision
    from recipes.console import say

    if config.vision == "none" or (config.vision == "auto" and not checkpoint.has_vision):
        return None
    kind: Literal["f16", "f32"] = "f32" if config.vision == "f32" else "f16"
    try:
        check_vision(checkpoint)
    except ValueError as error:
        if config.vision != "auto":
            raise
        say(f"no vision projector: {error}")
        return None
    path = folder / f"mmproj-{kind}.gguf"
    write_vision(checkpoint, path, kind)
    return path


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, ExportConfig, doc=__doc__, default_config=CONFIGS / "export.yaml"))
