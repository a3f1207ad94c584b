"""Probabilities of references for the audit, against plain forward passes; and the audit that uses them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.audit_policy import with_reference_probs
from recipes.audit_reward import main
from rollouts.modes import LongMode, ShortMode
from rollouts.prompts import render_prompt
from tests.tiny import make_tiny_model

ROWS = [
    {"question": "What is 3 + 4?", "response": "so\n</think>\n\n7", "reference": "seven or 7", "expected": True},
    {"question": "What is 3 + 4?", "response": "8", "reference": "seven or 7", "expected": False, "mode": "short"},
    {"question": "What?", "response": "never closed", "reference": "42", "expected": False, "mode": "long"},
]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), spread=0.5)


def test_probabilities_are_those_of_the_whole_text(model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float64, attn_implementation="eager")

    def probs(prefix: str | list[int], reference: str) -> list[float]:
        tokens = tokenizer(reference, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prefix, *tokens]]), use_cache=False).logits[0]
        return [float(logits[len(prefix) - 1 + i].softmax(-1)[token]) for i, token in enumerate(tokens)]

    found = with_reference_probs(ROWS, model_path, quiet=True)
    messages = [{"role": "user", "content": "What is 3 + 4?"}]
    long, short = (list(render_prompt(tokenizer, messages, mode)) for mode in (LongMode(), ShortMode()))
    thought = tokenizer("so\n</think>\n\n", add_special_tokens=False)["input_ids"]
    assert found[0]["reference_probs"] == pytest.approx(probs([*long, *thought], "seven or 7"), abs=1e-5)
    assert found[0]["baseline_probs"] == pytest.approx(probs(short, "seven or 7"), abs=1e-5)
    assert found[1]["reference_probs"] == pytest.approx(found[1]["baseline_probs"], abs=1e-6)  # nothing before either
    assert found[2]["reference_probs"] == []
    assert [row["response"] for row in found] == [row["response"] for row in ROWS]


def test_the_audit_asks_the_policy(tmp_path: Path, model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases, report = tmp_path / "cases.jsonl", tmp_path / "report.json"
    cases.write_text("".join(json.dumps(row | {"mode": row.get("mode", "long")}) + "\n" for row in ROWS))
    code = "def undebiased(*, reference_probs):\n    return sum(reference_probs) / max(1, len(reference_probs))\n"
    (tmp_path / "mine.py").write_text(code)
    call = ["--reward", f"{tmp_path}/mine.py:undebiased", "--cases", str(cases), "--json", str(report), "--quiet"]
    assert main(call) == 2
    assert "name a checkpoint with --policy" in capsys.readouterr().err
    assert main([*call, "--policy", str(model_path)]) == 0
    figures = json.loads(report.read_text())
    assert (figures["n"], figures["crashes"]) == (3, 0)
    assert figures["auc"] is not None, "graded scores came from the policy"
    cases.write_text(json.dumps({"response": "x", "reference": "y"}) + "\n")
    assert main([*call, "--policy", str(model_path)]) == 2
    assert "case 1 has no question" in capsys.readouterr().err
