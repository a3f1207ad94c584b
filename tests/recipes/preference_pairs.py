"""Real preference pairs without a download: worked sums against answers that run into a loop."""

import json
from pathlib import Path
from typing import Any

from recipes.sources import GymDataset, GymSource

TERMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}


def loop_pairs(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of a worked answer and one of about its length that repeats its first line and never ends.

    Args:
        count: number of pairs, each with a prompt of its own.
        seed: of reasoning-gym's chain_sum.

    Returns:
        Rows of TRL's preference format, every other one as messages, with a column that is to be ignored.
    """
    source = GymSource(kind="reasoning_gym", datasets=[GymDataset(name="chain_sum", config=TERMS)])
    rows: list[dict[str, Any]] = []
    for raw in source.rows("train", seed, count):
        steps = str(raw.values["solution"])
        chosen = f"{steps}\nThe answer is {raw.values['answer']}."
        first = steps.splitlines()[0]
        rejected = f"{first}\n" * max(2, round(len(chosen) / (len(first) + 1)))
        rows.append(_row(str(raw.values["question"]), chosen, rejected.rstrip(), as_messages=len(rows) % 2 == 1))
        if len(rows) == count:
            break
    assert len(rows) == count
    return rows


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _row(prompt: str, chosen: str, rejected: str, *, as_messages: bool) -> dict[str, Any]:
    if not as_messages:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "gap": 1}
    turns = {"chosen": chosen, "rejected": rejected}
    messages = {key: [{"role": "assistant", "content": text}] for key, text in turns.items()}
    return {"prompt": [{"role": "user", "content": prompt}], **messages, "gap": 1}
