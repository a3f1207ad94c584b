import json
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from base_model.export.load import load_plain
from recipes.export import ExportConfig, find_source, main
from recipes.models import ModelConfig
from tests.base_model.export.models import needs_llama_cpp, text_checkpoint, vision_checkpoint


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = ({"prompt": f"What is the sum of {n} and 4?", "reference": str(n + 4)} for n in range(40))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _config(model: Path, out: Path, rows: Path | None = None, **options: Any) -> ExportConfig:
    task = rows and {
        "source": {"kind": "files", "train": str(rows)}, "reference": "reference", "eval_size": 10,
    }  # fmt: skip
    return ExportConfig(model=ModelConfig(path=str(model)), out=out, task=task, **options)


def test_a_vision_language_model_in_every_format(tmp_path: Path, rows: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    options = {"quality": {"max_drop": 5.0}, "gguf": {"run": "never"}, "measure": False}
    main(_config(source.folder, tmp_path / "out", rows, **options))
    out = tmp_path / "out"
    report = json.loads((out / "export.json").read_text())
    assert {path.name for path in out.iterdir()} == {"merged", "int4", "gguf", "export.json"}
    assert set(report["gguf"]["files"]) == {"model-q4_0.gguf", "mmproj-f16.gguf"}
    for name in ("int4", "gguf"):
        quality = report[name]["quality"]
        assert quality["rows"] == 10
        assert quality["drop_low"] <= quality["drop"] <= quality["drop_high"]
        assert quality["logprob_after"] != quality["logprob_before"]
    parts = report["memory"]["parts"]
    assert set(parts) == {"vision tower", "resampler", "embeddings and head", "layers"}
    with pytest.raises(ValueError, match=r"exists already: choose another out, or set overwrite"):
        main(_config(source.folder, out, rows, **options))


def test_a_fall_beyond_the_limit_leaves_no_export_behind(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = text_checkpoint(tmp_path / "model", "llama")
    options: dict[str, Any] = {"formats": ["int4"]}
    from base_model.export import quality as module

    with pytest.MonkeyPatch.context() as patch:
        real = module.answer_scores
        calls = iter((-1.0, 0.0))  # the export is scored first: one nat less on every answer

        def scored(model: Any, examples: Any) -> Any:
            shift = next(calls)
            return [module.AnswerScore(logprob=s.logprob + shift, tokens=s.tokens, exact=s.exact)
                    for s in real(model, examples)]  # fmt: skip

        patch.setattr(module, "answer_scores", scored)
        with pytest.raises(ValueError, match=r"the int4 export loses .* more than quality.max_drop 0.0"):
            main(_config(source.folder, tmp_path / "out", rows, quality={"max_drop": 0.0}, **options))
    assert not (tmp_path / "out" / "int4").exists()
    main(_config(source.folder, tmp_path / "warned", rows, quality={"max_drop": 0.0, "on_drop": "warn"}, **options))
    assert (tmp_path / "warned" / "int4" / "model.safetensors").is_file()


@needs_llama_cpp
def test_llama_cpp_answers_like_transformers(tmp_path: Path) -> None:
    source = vision_checkpoint(tmp_path / "model")
    main(
        _config(source.folder, tmp_path / "out", formats=["gguf"], gguf={"type": "f32", "vision": "f32"}, measure=False)
    )
    answers = json.loads((tmp_path / "out/export.json").read_text())["gguf"]["answers"]
    assert set(answers) == {"text", "image"}
    for answer in answers.values():
        assert answer["equal"]
        assert answer["logprob_difference"] < 5e-3


def test_a_runs_newest_adapter_is_found_and_merged(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model", "llama")
    adapted = get_peft_model(load_plain(source.folder), LoraConfig(r=2, target_modules=["q_proj"]))
    for step in (9, 10):
        adapted.save_pretrained(tmp_path / f"run/checkpoints/step_{step}")
    found = find_source(ModelConfig(path=str(tmp_path / "run")))
    assert found.name == "step_10"
    main(_config(tmp_path / "run", tmp_path / "out", formats=["merged"], measure=False))
    assert (tmp_path / "out/merged/model.safetensors").is_file()


def test_a_projector_that_cannot_be_is_refused_when_asked_for(tmp_path: Path) -> None:
    source = text_checkpoint(tmp_path / "model", "llama")
    asked = {"vision": "f16", "run": "never"}
    with pytest.raises(ValueError, match="has no vision tower: it has no projector file"):
        main(_config(source.folder, tmp_path / "out", formats=["gguf"], gguf=asked))
    assert not (tmp_path / "out/gguf").exists()


def test_formats_are_named_once() -> None:
    with pytest.raises(ValueError, match="names no format, or one twice"):
        ExportConfig(model=ModelConfig(), formats=["gguf", "gguf"])
