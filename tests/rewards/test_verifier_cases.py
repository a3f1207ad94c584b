"""Every verifier on its own labelled cases, hard negatives and hostile rows among them, through the audit tool."""

from pathlib import Path

import pytest

from recipes.audit_report import Result, disagreements
from recipes.audit_reward import audit, load_reward, read_cases, summarise
from rewards import RewardSpec
from rewards.accuracy import VERIFIERS
from rewards.sandbox import shared

CASES = Path(__file__).parent / "cases"
MAX_SECONDS = 2.0
NAMES = [*VERIFIERS, "instructions"]


@pytest.fixture(scope="module", autouse=True)
def _ready():
    shared().start()


def score(name: str, rows: list[dict], args: dict | None = None) -> tuple[list[Result], int]:
    return audit(load_reward(RewardSpec(name=name, args=args or {}), rows), rows, quiet=True)


def test_every_verifier_has_cases():
    assert sorted(path.stem for path in CASES.glob("*.jsonl")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cases(name):
    rows = read_cases(CASES / f"{name}.jsonl")
    assert len(rows) >= 25
    assert {row["expected"] for row in rows} == {True, False}
    results, timeouts = score(name, rows)
    report = summarise(results, timeouts)
    assert disagreements(results) == []
    assert (report["accuracy"], report["false_accepts"], report["crashes"]) == (1.0, 0, 0)
    assert report["max_seconds"] < MAX_SECONDS


@pytest.mark.parametrize("name", [name for name in VERIFIERS if name not in ("box", "point", "key_values", "table")])
def test_accuracy_gives_what_the_verifier_gives(name):
    rows = [row for row in read_cases(CASES / f"{name}.jsonl") if len(row["response"]) < 200][:25]
    extra = {key: rows[0][key] for key in rows[0] if key not in ("response", "reference", "expected", "choices")}
    plain = [row for row in rows if all(row[key] == value for key, value in extra.items())]
    own, _ = score(name, plain)
    routed, _ = score("accuracy", plain, {"verifier": name, "verifier_args": extra})
    assert [item.score for item in routed] == [item.score for item in own]
