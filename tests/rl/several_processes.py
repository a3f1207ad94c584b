"""Updates of tiny models as one of several training processes, for tests that compare them with one process.

    python -m tests.rl.several_processes FOLDER NAME ...

runs the named cases one after the other; each writes `FOLDER/NAME/<processes>/`: a checkpoint and `metrics.json`. The
processes find one another by the variables that torchrun sets.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from base_model.branches import Branch
from base_model.config import LoraSettings
from base_model.packed_lm import load_packed
from base_model.packing import TokenGroup
from base_model.video_settings import VideoSettings
from rl.config import LearnerConfig, ParallelConfig
from rl.learner import Learner
from rl.processes import Processes, join
from rl.prompts import PromptMaker
from rl.train_groups import TrainGroup

STEPS = 3
LENGTHS = [(11, (6, 9, 1)), (5, (4, 4)), (8, (3, 7, 5)), (20, (12, 2)), (4, (5, 5, 5)), (9, (1, 2)), (3, (2, 6))]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and how it is trained."""

    model: str = "text"
    kind: str = "ddp"
    dtype: torch.dtype = torch.float32
    learner: dict[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    late: bool = False
    first: int = 1
    """First step; an earlier one's checkpoint is continued."""
    last: int = STEPS


SIGNALS = {"asked": signal.SIGTERM, "killed": signal.SIGKILL}
"""What process 1 sends itself at the start of an update."""
SMALL = {"micro_batch_tokens": 30, "max_grad_norm": 0.05}
CASES = {
    "ddp": Case(learner=SMALL),
    "fsdp": Case(kind="fsdp", learner=SMALL),
    "fsdp_untied": Case(model="untied", kind="fsdp", learner={"aggregation": "sequence-mean", "weight_decay": 0.1}),
    "fsdp_double": Case(kind="fsdp", dtype=torch.float64, learner=SMALL),
    "ddp_double": Case(dtype=torch.float64, learner=SMALL),
    "ddp_several_updates": Case(learner={**SMALL, "updates_per_step": 3}),
    "fsdp_several_updates": Case(kind="fsdp", learner={**SMALL, "updates_per_step": 3}),
    "ddp_adapters": Case(lora=LoraSettings(rank=2), learner=SMALL),
    "ddp_late": Case(late=True, learner=SMALL),
    "fsdp_late": Case(late=True, kind="fsdp", learner=SMALL),
    "ddp_images": Case(model="vision", learner={"micro_batch_tokens": 200}),
    "fsdp_images": Case(model="vision", kind="fsdp", learner={"micro_batch_tokens": 200}),
    "ddp_resumed": Case(learner=SMALL, first=3),
    "fsdp_resumed": Case(kind="fsdp", learner=SMALL, first=3),
    "ddp_begun": Case(learner=SMALL, last=2),
    "fsdp_begun": Case(kind="fsdp", learner=SMALL, last=2),
}


def text_groups(step: int, *, late: bool = False) -> list[TrainGroup]:
    """Groups of very different sizes; one without signal."""
    generator = torch.Generator().manual_seed(step)

    def draw(n: int) -> list[int]:
        return torch.randint(3, 300, (n,), generator=generator).tolist()

    groups = []
    for number, (prompt, lengths) in enumerate(LENGTHS):
        tokens = TokenGroup(prompt=draw(prompt), responses=[draw(n) for n in lengths])
        engine = tuple(tuple((-5.0 - torch.rand(n, generator=generator)).tolist()) for n in lengths)
        waits = late and number % 2 == 0
        advantages = () if waits else advantages_of(number, len(lengths))
        branches = (Branch(tokens=(5, 6)), Branch(response=1, keep=1, tokens=(7,))) if waits else ()
        groups.append(TrainGroup(tokens=tokens, advantages_G=advantages, engine_logprobs=engine, branches=branches))
    return groups


def advantages_of(number: int, count: int) -> tuple[float, ...]:
    """Of one group; none in group 1."""
    return tuple(0.0 if number == 1 else (-1.0) ** place * (1 + place) / 2 for place in range(count))


def image_groups(step: int) -> list[TrainGroup]:
    """In the first step one group of three has images and one a clip as well; in the second only one has an image; in
    the third there are none.
    """
    from rollouts.modes import ShortMode
    from tests.base_model.vlm.small import picture, shared
    from tests.rl.test_media import clip, row

    rows = {
        1: [row(0, [picture(100, 90)]), row(1), row(2, [picture(200, 130, 1)], [clip()])],
        2: [row(3), row(4, [picture(60, 60, 2)]), row(5)],
        3: [row(6), row(7)],
    }[step]
    maker, mode = PromptMaker(shared()[1], VideoSettings(fps=2.0)), ShortMode(max_tokens=4)
    responses = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    return [
        TrainGroup(
            tokens=TokenGroup(prompt=maker.prompt(each, mode).ids, responses=responses),
            advantages_G=(1.0, -0.5, 0.25),
            engine_logprobs=tuple((-1.0,) * len(ids) for ids in responses),
            media=maker.inputs(each, mode),
        )
        for each in rows
    ]


def make_learner(folder: Path, case: Case, processes: Processes | None) -> Learner:
    """As every process makes it."""
    torch.manual_seed(7 if processes is None or processes.leads else 8)  # new adapters must come from process 0
    packed = load_packed(folder / "models" / case.model, dtype=case.dtype, lora=case.lora)
    config = LearnerConfig(**{"precision": "float32", "learning_rate": 1e-3, "lr_scheduler": "linear", **case.learner})
    parallel = ParallelConfig(kind=case.kind)
    return Learner(packed, config, total_steps=10, processes=processes, parallel=parallel)


def train(folder: Path, name: str, learner: Learner, *, start: Path | None = None) -> Path:
    """Process 0: the case's steps, its checkpoint and its metrics; returns where they are."""
    case, out = CASES[name], folder / name / str(learner.processes.count)
    if start is not None:
        learner.load(start)
    metrics: list[Any] = []
    for step in range(case.first, case.last + 1):
        torch.manual_seed(step)
        if case.model == "vision":
            metrics.append(learner.update(image_groups(step)))
        elif case.late:
            groups = text_groups(step, late=True)
            seen: dict[int, Any] = {}
            metrics.append(learner.update(groups, partial(_late, groups, seen)))
            metrics[-1] |= {f"branches/{number}/{i}/{j}": value for number, own in seen.items()
                            for i, each in enumerate(own) for j, value in enumerate(each)}  # fmt: skip
        else:
            metrics.append(learner.update(text_groups(step)))
    metrics.append({f"logprob/{i}": p for i, p in enumerate(_logprobs(learner, case))})
    learner.save(out, step=case.last, tokenizer=None, state={}, keep_last=0)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return out


def _logprobs(learner: Learner, case: Case) -> list[float]:
    return [] if case.model == "vision" else learner.logprobs([g.tokens for g in text_groups(1)]).tolist()


def _late(groups: list[TrainGroup], seen: dict[int, Any], number: int, found: list[list[float]]) -> tuple[float, ...]:
    seen[number] = found
    return advantages_of(number, len(groups[number].tokens.responses))


def expect_refusal(folder: Path, rank: int) -> None:
    """Note how a learner that is not told of the others takes them."""
    try:
        make_learner(folder, Case(), None)
    except ValueError as error:
        (folder / f"unexpected_{rank}").write_text(str(error))


def main(folder: Path, names: list[str]) -> None:
    with join() as processes:
        for name in names:
            start = folder / "ddp" / "1" / "checkpoints" / "step_2" if name.endswith("_resumed") else None
            if name == "unexpected":
                expect_refusal(folder, processes.rank)
                continue
            learner = make_learner(folder, CASES.get(name, Case()), processes)
            if not processes.leads:
                if name in SIGNALS:
                    share = learner._update_share
                    learner._update_share = lambda given, on=name, go=share: (
                        os.kill(os.getpid(), SIGNALS[on]),
                        go(given),
                    )[1]
                learner.follow()
            elif name in SIGNALS:
                learner.update(text_groups(1))
                (folder / name).write_text(str(learner.interrupted))
                processes.stop()
            else:
                train(folder, name, learner, start=start)
                pushed = {key: tensor.contiguous() for key, tensor in learner.weights().items()}
                save_file(pushed, folder / name / str(processes.count) / "pushed.safetensors")
                processes.stop()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except ValueError as error:
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun does once another process has ended
        raise SystemExit(f"error: {error}") from None
