"""The verifiers and the repetition reward on development data, where it is: in the folder that TANDEM_DEV_DATA names,
else in `shared/data` beside the repository.
"""

import json
import os
import time
from pathlib import Path

import pytest

from rewards.math import math
from rewards.repetition import inspect
from rewards.sandbox import shared

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = Path(os.environ.get("TANDEM_DEV_DATA") or BESIDE)


def rows(name: str) -> list[dict]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is not here: the development data is not part of the repository")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_labelled_answers():
    cases = rows("verifier_math.jsonl")
    right = [(math(answer=row["response"], reference=row["reference"]) == 1.0) == row["expected"] for row in cases]
    plain = [good for good, row in zip(right, cases, strict=True) if not row.get("convention")]
    assert sum(plain) / len(plain) >= 0.98
    assert sum(right) / len(right) >= 0.95


def test_no_hard_negative_scores():
    cases = rows("verifier_math_hardneg.jsonl")
    assert [row["id"] for row in cases if math(answer=row["response"], reference=row["reference"])] == []


def test_hostile_inputs_are_answered_in_time():
    shared().start()
    for row in rows("robust_inputs.jsonl"):
        start = time.perf_counter()
        math(answer=row["response"], reference=row["reference"])
        assert time.perf_counter() - start < 3.5, row["name"]  # 2 seconds, and what a busy machine may add


def test_repetition():
    cases = rows("repetition_cases.jsonl")
    assert [row["id"] for row in cases if inspect(row["text"]).degenerate != row["degenerate"]] == []
