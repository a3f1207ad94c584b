"""The stages of a round, each skipped where its product is there and continued where it was interrupted.

instructions.jsonl  media/                     what is asked for
labels.jsonl  divisions.jsonl  costs.jsonl     paid for once
round_0/evaluation/                            the model before
round_K/candidates.jsonl                       responses
       /claims.jsonl                           claims, verdicts, scores, reasons
       /pairs.jsonl  pairs.json                TRL's preference format; statistics
       /dpo.yaml  dpo/                         the run of recipes.dpo
       /evaluations/step_N/                    of each checkpoint
       /round.json                             figures, and the checkpoint that goes on
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.console import StepBar, say
from recipes.models import ModelConfig
from recipes.rlaif.candidates import Candidate, make_candidates
from recipes.rlaif.config import ModelDividerConfig, RlaifVConfig
from recipes.rlaif.costs import counted
from recipes.rlaif.division import divide
from recipes.rlaif.engines import EngineRoom, Served
from recipes.rlaif.evaluation import Evaluator
from recipes.rlaif.feedback import FILE as CLAIMS
from recipes.rlaif.feedback import LABELS, Judged, conquer, read_claims
from recipes.rlaif.instructions import Instruction, round_slice, write_instructions
from recipes.rlaif.pairing import STATISTICS, make_pairs
from recipes.rlaif.selection import Figures, choose, refusal
from recipes.rlaif.training import train, trained_steps
from rl.claims import Division
from rl.files import atomic_write_json

ROUND = "round.json"


def round_folder(run: Path, number: int) -> Path:
    """The folder of a round; 0 = of the model before."""
    return run / f"round_{number}"


class Loop:
    """All rounds of a run."""

    def __init__(self, config: RlaifVConfig, room: EngineRoom, evaluator: Evaluator) -> None:
        """Args:
        config: Of the run, whose directory exists.
        room: For engines.
        evaluator: Evaluates checkpoints.
        """
        self.config = config
        self.run = config.run
        self._room = room
        self._evaluator = evaluator
        self._mode = config.modes.active()[0]

    def go(self) -> Figures:
        """Run what is missing; returns the model that the last round chose."""
        with counted(self.run, 0, "instructions"):
            rows = write_instructions(self.config.instructions, self.run)
        first = current = self._evaluated(0, self._start(), round_folder(self.run, 0) / "evaluation", 0)
        for number in range(1, self.config.rounds + 1):
            current = self._round(number, rows, current, first)
        self._room.close()
        return current

    def _start(self) -> Path:
        from recipes.models import resolve_model

        return resolve_model(self.config.model)

    def _round(self, number: int, rows: list[Instruction], start: Figures, first: Figures) -> Figures:
        folder = round_folder(self.run, number)
        if (folder / ROUND).is_file():
            return Figures(**json.loads((folder / ROUND).read_text())["chosen"])
        folder.mkdir(exist_ok=True)
        say(f"\nround {number} of {self.config.rounds}, from {start.checkpoint}")
        own = round_slice(rows, number, self.config.prompts_per_round)
        pairs = self._pairs(number, folder, own, start)
        found: list[Figures] = []
        if pairs["pairs"]:
            self._room.close()  # the trainer needs the memory
            with counted(self.run, number, "DPO"):
                made = train(self.config, folder, Path(start.checkpoint), pairs["pairs"], number)
            found += [
                self._evaluated(number, path, folder / "evaluations" / path.name, trained_steps(path)) for path in made
            ]
        else:
            say("there is no pair of responses with different scores, so nothing to learn from in this round")
        chosen = choose(found, start, first, self.config.selection)
        self._say_choice(found, chosen, start, first)
        atomic_write_json(
            folder / ROUND,
            {
                "round": number,
                "start": start.to_dict(),
                "checkpoints": [
                    {**figures.to_dict(), "refusal": refusal(figures, first, self.config.selection)}
                    for figures in found
                ],
                "chosen": chosen.to_dict(),
            },
        )
        return chosen

    # ---- feedback ----

    def _pairs(self, number: int, folder: Path, rows: Sequence[Instruction], start: Figures) -> dict[str, Any]:
        """Candidates, claims and pairs; returns the pairs' statistics."""
        if (folder / STATISTICS).is_file():
            return json.loads((folder / STATISTICS).read_text())
        judged = self._claims(number, folder, rows, start)
        with counted(self.run, number, "pairs"):
            statistics = make_pairs(
                folder,
                rows,
                judged,
                mode=self._mode,
                config=self.config.pairs,
                seed=self.config.seed,
                step=number,
            )
        kept = statistics["kept"]
        say(
            f"pairs: {statistics['pairs']} of {kept['prompts']} prompts (chosen {kept['chosen']['words']:.1f} words, "
            f"rejected {kept['rejected']['words']:.1f})"
        )
        return statistics

    def _claims(self, number: int, folder: Path, rows: Sequence[Instruction], start: Figures) -> list[Judged]:
        if (folder / CLAIMS).is_file():
            return read_claims(folder)
        policy = ModelConfig(path=start.checkpoint, trust_remote_code=self.config.model.trust_remote_code)
        candidates = self._candidates(number, folder, rows, policy)
        divisions = self._divisions(number, candidates, policy)
        labeler = self.config.labeler.model or policy
        with counted(self.run, number, "conquer") as cost, StepBar("conquer", len(rows)) as bar:
            judged, counts = conquer(
                folder,
                rows,
                candidates,
                divisions,
                lambda: self._served(labeler),
                config=self.config.labeler,
                labels=self.run / LABELS,
                video=self.config.video,
                on_progress=lambda done, _total: bar.update(done),
            )
            cost |= {"asked": counts.asked, "cached": counts.cached, "failed": counts.failed}
        claims = sum(len(each.claims) for each in judged)
        say(f"claims: {claims} in {len(judged)} responses; {counts.asked} questions asked, {counts.cached} known")
        details = {each.reason: each.detail for each in reversed(judged) if each.reason}
        for reason, count in Counter(each.reason for each in judged if each.reason).items():
            first = f"; the first: {details[reason]}" if details[reason] else ""
            say(f"  {count} responses without a score: {reason}{first}")
        return judged

    def _candidates(
        self, number: int, folder: Path, rows: Sequence[Instruction], policy: ModelConfig
    ) -> list[Candidate]:
        total = len(rows) * self.config.candidates.n
        with counted(self.run, number, "candidates") as cost, StepBar("candidates", total) as bar:
            candidates = make_candidates(
                folder,
                rows,
                lambda: self._served(policy),
                mode=self._mode,
                config=self.config.candidates,
                seed=self.config.seed,
                step=number,
                video=self.config.video,
                on_progress=lambda done, _total: bar.update(done),
            )
            cost |= {"responses": len(candidates), "tokens": sum(candidate.tokens for candidate in candidates)}
        say(f"candidates: {len(candidates)} responses to {len(rows)} instructions, {cost['tokens']} tokens")
        return candidates

    def _divisions(self, number: int, candidates: Sequence[Candidate], policy: ModelConfig) -> list[Division | None]:
        """A division of each candidate that is judged."""
        judged = [candidate.answer for candidate in candidates if candidate.reason is None]
        divider = self.config.divider
        model = (divider.model if isinstance(divider, ModelDividerConfig) else None) or policy
        with counted(self.run, number, "divide") as cost, StepBar("divide", len(set(judged))) as bar:
            made, usage = divide(
                judged,
                divider,
                self.run,
                lambda: self._served(model),
                seed=self.config.seed,
                on_progress=lambda done, _total: bar.update(done),
            )
            cost |= {
                "asked": usage.requests,
                "failed": usage.failed,
                "prompt_tokens": usage.prompt_tokens,
                "tokens": usage.completion_tokens,
            }
        found = iter(made)
        return [next(found) if candidate.reason is None else None for candidate in candidates]

    def _served(self, model: ModelConfig) -> Served:
        return self._room.serve(model)

    # ---- evaluation ----

    def _evaluated(self, number: int, path: Path, folder: Path, step: int) -> Figures:
        """Figures of a model, from its folder where they are there."""
        known = self._evaluator.read(folder)
        if known is not None:
            return known
        model = ModelConfig(path=str(path), trust_remote_code=self.config.model.trust_remote_code)
        with counted(self.run, number, "evaluation"):
            figures = self._evaluator.evaluate(self._served(model), folder, step)
        say(f"evaluated {path}: {line(figures)}")
        return figures

    def _say_choice(self, found: Sequence[Figures], chosen: Figures, start: Figures, first: Figures) -> None:
        for figures in found:
            why = refusal(figures, first, self.config.selection)
            if why:
                say(f"step {figures.step} may not go on: {why}")
        if found and chosen is start:
            say("no checkpoint of this round is better within the bounds: the model before it goes on")
        elif found:
            say(f"step {chosen.step} goes on")


def line(figures: Figures) -> str:
    """The figures in a line."""
    parts = []
    if "hallucination" in figures.details:
        parts = [
            f"CHAIR_i {_percent(figures.chair_i)}",
            f"CHAIR_s {_percent(figures.chair_s)}",
            f"{figures.words:.1f} words",
        ]
    if figures.accuracy is not None:
        parts.append(f"held-out accuracy {_percent(figures.accuracy)}")
    return ", ".join(parts) or "nothing is measured (hallucination and held_out are null)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
