"""The same responses as Tandem's trainer, TRL and verl see them, and a reward file for all three."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.environment import reward_sample
from rollouts.modes import LongMode, Mode, ShortMode
from rollouts.prompts import split_response
from rollouts.records import Rollout, Status
from tests.tiny import make_tiny_tokenizer

MINE = """
from rewards import reward

@reward("concise", weight=0.3)
def concise(*, answer: str, mode: str, hint: str) -> float | None:
    return float(len(answer) < 30 and hint not in answer) if mode == "short" else None

def two_parts(prompt, response, thinking):
    return {"echo": float(response in prompt), "thought": len(thinking or "") / 100}
"""

YAML = """
rewards:
  - accuracy
  - {name: format, weight: 0.2}
  - {name: repetition, weight: 0.5}
  - mine.py:concise
  - {name: mine.py:two_parts, weight: 0.1}
"""
GROUP = "  - {name: length, weight: 0.4, args: {tau: 4}}\n"

LOOP = "the same again and again " * 40


@dataclass(frozen=True)
class Row:
    """A data row, as `rl.environment` wants it."""

    index: int
    question: str
    reference: str
    columns: dict[str, Any]
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": "You calculate."}, {"role": "user", "content": self.question}]


ROWS = [
    (Row(0, "What is 3 + 4?", "7", {"hint": "zzz"}), ShortMode(), ["7", "The answer is 7.", "8", LOOP]),
    (
        Row(1, "What is 12 + 7?", "19", {"hint": "The"}),
        LongMode(),
        ["12+7=19</think>\n\n19", "<think>no</think> 19", "unfinished 19", "a</think> 3 </think> 19"],
    ),
    (Row(2, "What is 2 + 2?", "4", {"hint": "4"}), ShortMode(), ["4", "", "<think>x</think>4", "\\boxed{4}  "]),
]


@dataclass(frozen=True)
class Response:
    """One response: the row, the mode and the rollout."""

    row: Row
    mode: Mode
    rollout: Rollout


def write_rewards(folder: Path, *, group: bool) -> Path:
    """Write the reward file and the user's functions beside it."""
    (folder / "mine.py").write_text(MINE)
    path = folder / "my_rewards.yaml"
    path.write_text(YAML + (GROUP if group else ""))
    return path


def groups() -> list[list[Response]]:
    """Return the groups; the last token ends a response, except where its text says `unfinished`."""
    tokenizer = make_tiny_tokenizer()
    return [
        [Response(row, mode, _rollout(tokenizer, row, mode, sample, text)) for sample, text in enumerate(texts)]
        for row, mode, texts in ROWS
    ]


def tandem_groups() -> list[list[dict[str, Any]]]:
    """Return the samples that Tandem's trainer hands to its rewards."""
    return [[reward_sample(item.row, item.rollout) for item in group] for group in groups()]


def _rollout(tokenizer: Any, row: Row, mode: Mode, sample: int, text: str) -> Rollout:
    ended = "unfinished" not in text
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) + (tokenizer.eos_token_id,) * ended
    split = split_response(tokenizer, ids, mode)
    return Rollout(
        row=row.index,
        sample=sample,
        mode=mode.name,
        prompt_ids=(1,),
        response_ids=ids,
        logprobs=(0.0,) * len(ids),
        response=split.response,
        thinking=split.thinking,
        answer=split.answer,
        answer_start=split.answer_start,
        status=Status.FINISHED if ended else Status.TRUNCATED,
        policy_version=0,
    )
