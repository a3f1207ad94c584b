"""The page of a loop: everything a person wants to see, and nothing of what a model wrote is taken for HTML."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from recipes.render.source import render_item
from recipes.rlaif.claim_kinds import kind_rows
from recipes.rlaif.config import RlaifVConfig
from recipes.rlaif.costs import counted
from recipes.rlaif.feedback import Judged
from recipes.rlaif.instructions import Instruction
from recipes.rlaif.pairing import make_pairs
from recipes.rlaif.report import console_table, write_rlaif_report
from recipes.rlaif.run_files import problems, read_all_instructions, read_rounds
from recipes.rlaif.selection import Figures
from recipes.yaml_config import dump
from rl.claims import Claim, ClaimKind, ScoreConfig, judge, verdict_record
from rl.preference_pairs import PairConfig
from rollouts.modes import ShortMode

HOSTILE = "</pre><script>alert(1)</script>\x00\u202e It is red."
INTERVAL = {"value": 0.4, "low": 0.3, "high": 0.5}


def figures(checkpoint: str, step: int, value: float) -> Figures:
    found = {name: {**INTERVAL, "value": value} for name in ("chair_i", "chair_s")}
    held_out = {"accuracy": 0.61, "ci_low": 0.5, "ci_high": 0.7}
    return Figures(
        checkpoint=checkpoint,
        step=step,
        chair_i=value,
        chair_s=value,
        words=12.0,
        accuracy=0.61,
        details={"hallucination": found, "held_out": held_out},
    )


def claim(text: str, p_yes: float) -> dict[str, Any]:
    made = Claim(text=text, question=f"{text}?", kind=ClaimKind.COLOUR)
    return verdict_record(judge(made, p_yes, 1 - p_yes, ScoreConfig()))


def judged(sample: int, text: str, claims: list[dict[str, Any]], reason: str | None = None) -> Judged:
    score = None if reason else float(-sum(not record["accepted"] for record in claims))
    return Judged(
        instruction=0,
        sample=sample,
        response=text,
        answer=text,
        tokens=4,
        score=score,
        reason=reason,
        detail="because <b>",
        claims=claims,
        dropped=[{"text": HOSTILE, "reason": "opinion"}],
    )


def write(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))


def make_run(run: Path, rendered: dict[str, Any] | None = None) -> None:
    """A finished loop of one round: one instruction, three responses, one pair, two checkpoints."""
    folder = run / "round_1"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(run / "red.png")
    parts = [{"type": "image"}, {"type": "text", "text": HOSTILE}]
    rows = [
        Instruction(
            index=0,
            place="row <0>",
            messages=({"role": "user", "content": parts},),
            images=(str(run / "red.png"),),
            rendered=rendered,
        ),
        Instruction(index=1, place="row 1", problem="there is no file '<img>'"),
    ]
    found = [
        judged(0, f"good {HOSTILE}", [claim("The top left object is red.", 0.9)]),
        judged(1, f"worse {HOSTILE}", [claim("The top left object is blue.", 0.2)]),
        judged(2, "", [], "empty response"),
    ]
    config = {"run": str(run), "model": {"path": "m"}, "instructions": {"source": {"kind": "render"}}, "rounds": 1}
    (run / "config.yaml").write_text(dump(RlaifVConfig.model_validate(config).model_dump(mode="json")))
    write(run / "instructions.jsonl", rows)
    write(folder / "claims.jsonl", found)
    make_pairs(folder, rows[:1], found, mode=ShortMode(), config=PairConfig(), seed=0, step=1)
    before, one, two = figures("m", 0, 0.4), figures("step_1", 1, 0.35), figures("step_2", 2, 0.2)
    (run / "round_0" / "evaluation").mkdir(parents=True)
    (run / "round_0" / "evaluation" / "figures.json").write_text(json.dumps(before.to_dict()))
    checkpoints = [{**one.to_dict(), "refusal": None}, {**two.to_dict(), "refusal": None}]
    record = {"round": 1, "start": before.to_dict(), "checkpoints": checkpoints, "chosen": two.to_dict()}
    (folder / "round.json").write_text(json.dumps(record))
    with counted(run, 1, "conquer") as cost:
        cost |= {"asked": 1234, "cached": 7}


def test_the_page_shows_the_loop_and_no_markup_of_others(tmp_path: Path) -> None:
    make_run(tmp_path)
    page = write_rlaif_report(tmp_path).read_text()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 2  # the curves and the pair's picture
    for text in ("deterministic splitter", "empty response", "1,234", "goes on", "not the best", "40.0 [30.0, 50.0]"):
        assert text in page, text
    for text in ("The top left object is blue.", "0.200", "0.800", "rejected", "there is no file"):
        assert text in page, text


def test_the_console_shows_every_model(tmp_path: Path) -> None:
    make_run(tmp_path)
    head, before, one, two = console_table(tmp_path)
    assert head.startswith("model")
    assert before.startswith("before")
    assert "35.0" in one
    assert two.endswith("goes on")


def test_what_was_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    make_run(tmp_path)
    found = problems(read_all_instructions(tmp_path), read_rounds(tmp_path))
    assert [(each.what, each.reason, each.count) for each in found] == [
        ("instruction", "cannot be read", 1),
        ("response", "empty response", 1),
    ]


def test_verdicts_are_checked_where_the_truth_is_known(tmp_path: Path) -> None:
    item = next(
        item
        for item in (render_item("grid", 0, at) for at in range(50))
        if item.scene["objects"][0]["place"] == "top left"
    )
    make_run(tmp_path, {"kind": "grid", "scene": item.scene})
    rows = {row.index: row for row in read_all_instructions(tmp_path)}
    truths = [item.scene["objects"][0]["colour"] == colour for colour in ("red", "blue")]
    right = sum(truth == accepted for truth, accepted in zip(truths, (True, False), strict=True))
    ((kind, judged_count, accepted, known, true, verdicts),) = kind_rows(read_rounds(tmp_path)[0], rows)
    assert (kind, judged_count, accepted, known) == ("colour", "2", "50.0", "2")
    assert true == f"{50 * sum(truths):.1f}"
    assert verdicts.startswith(f"{50 * right:.1f} [")


def test_an_unfinished_loop_has_a_page_too(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "round_1" / "round.json").unlink()
    page = write_rlaif_report(tmp_path).read_text()
    assert "0 of 1" in page
