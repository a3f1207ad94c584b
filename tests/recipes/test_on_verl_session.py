"""The session of a run on verl against this library's own trainer state, on the same responses; no verl, no engine."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from recipes.cli import load_config
from recipes.hybrid_grpo import HybridGrpoConfig
from recipes.on_verl.session import STOP, Response, Session
from rl.advantages import group_advantages
from rl.environment import ScoredGroup
from rl.interrupt import InterruptGuard
from rl.run_directory import RunDirectory
from rollouts.modes import ModeSampler
from tests.recipes.runs import grpo_config, records
from tests.tiny import make_tiny_model

STEPS, PROMPTS, GROUP = 3, 4, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def make_config(folder: Path, model: Path, **changes: Any) -> HybridGrpoConfig:
    trainer = {"steps": STEPS, "prompts_per_step": PROMPTS, **changes.pop("trainer", {})}
    path = grpo_config(folder, model, backend="verl", trainer=trainer, verl={"gpus_per_node": 1}, **changes)
    rewards = yaml.safe_load(path.read_text())["rewards"]
    return load_config(HybridGrpoConfig, [str(path), "--rewards", json.dumps([{"name": rewards[0]}])])


def open_run(config: HybridGrpoConfig) -> RunDirectory:
    dumped = config.model_dump(mode="json", exclude={"resume", "overwrite"})
    return RunDirectory.create(config.run, dumped, resume=False)


def answer(session: Session, step: int) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
    """A step whose responses are made up: as many letters as the sample's number, then the end of the turn."""
    session.begin(step)
    letter = session.environment.tokenizer("a", add_special_tokens=False)["input_ids"]
    end = session.stop_ids[0]

    def rollout(slots: Any) -> list[ScoredGroup]:
        responses = [
            [
                Response(sample=n, ids=(ids := [*letter * ((n + slot.position) % 4), end]), logprobs=[-0.5] * len(ids))
                for n in range(GROUP)
            ]
            for slot in slots
        ]
        return session.score(step, slots, responses)

    accepted, generated = session.state.collect(step, session.slots, rollout)
    session.collected(accepted, generated)
    session.write(step, {"actor/grad_norm": 0.5}, {"gen": 1.0})
    return accepted, generated


def test_prompts_modes_and_budgets_are_the_librarys(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model)
    with open_run(config):
        session = Session(config.run, None)
        session.begin(2)
        expected = ModeSampler(config.modes, config.seed).mode_batch(2, PROMPTS)
        assert [slot.mode.name for slot in session.slots] == [mode.name for mode in expected]
        for slot in session.slots:
            asked = session.ask(2, slot)
            requests = session.environment.requests(2, slot)
            assert asked["prompt_ids"] == list(requests[0].prompt_ids)
            assert asked["seeds"] == [request.seed for request in requests]
            assert asked["max_tokens"] == slot.mode.max_tokens
            assert len(set(asked["seeds"])) == GROUP
            json.dumps(asked)  # it crosses processes
        session.close()


def test_a_response_never_takes_more_than_the_context_leaves(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model, engine={"max_model_len": 64, "max_num_seqs": 4})
    with open_run(config):
        session = Session(config.run, None)
        session.begin(1)
        long = session.slots[0].mode.model_copy(update={"max_tokens": 60})
        asked = session.ask(1, SimpleNamespace(mode=long, position=0))
        assert len(asked["prompt_ids"]) + asked["max_tokens"] == 64
        session.close()


def test_what_is_written_of_a_step(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model)
    with open_run(config):
        session = Session(config.run, None)
        for step in range(1, STEPS + 1):
            accepted, _ = answer(session, step)
            assert len(accepted) == PROMPTS
        session.close()
    metrics, rollouts = records(config.run / "metrics.jsonl"), records(config.run / "rollouts.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert len(rollouts) == STEPS * PROMPTS * GROUP
    for line in metrics:
        own = [rollout for rollout in rollouts if rollout["step"] == line["step"]]
        assert line["reward/total"] == pytest.approx(sum(r["total"] for r in own) / len(own))
        assert line["grad_norm"] == 0.5
        assert line["time/generate"] == 1.0
    for at in range(0, len(rollouts), GROUP):
        group = rollouts[at : at + GROUP]
        expected = group_advantages(torch.tensor([r["total"] for r in group], dtype=torch.float64))
        assert [r["advantage"] for r in group] == pytest.approx(expected.tolist())
        assert len({(r["row"], r["mode"]) for r in group}) == 1
    assert {r["status"] for r in rollouts} == {"finished"}
    ledger = json.loads((config.run / "ledger.json").read_text())
    assert ledger["total"]["generated"] == sum(r["response_tokens"] for r in rollouts)
    assert ledger["total"]["responses"] == len(rollouts)


def test_responses_that_never_came_and_those_without_an_end(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model)
    with open_run(config):
        session = Session(config.run, None)
        session.begin(1)
        slot = session.slots[0]
        word = session.environment.tokenizer("sum", add_special_tokens=False)["input_ids"]
        cut = Response(sample=2, ids=word, logprobs=[-1.0] * len(word))
        spoilt = Response(sample=3, ids=word, logprobs=[float("nan")] * len(word))
        group, empty = session.score(1, [slot, session.slots[1]], [[cut, spoilt], []])
        assert [(rollout.sample, str(rollout.status)) for rollout in group.rollouts] == [(2, "truncated")]
        assert not empty.rollouts
        session.close()


def test_a_wish_to_stop_is_seen_after_the_step(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model)
    with open_run(config):
        session = Session(config.run, None)
        answer(session, 1)
        assert not session.stop_requested
        with InterruptGuard(quiet=True, then=(config.run / STOP).touch) as guard:
            signal.raise_signal(signal.SIGINT)
        assert guard.requested
        assert session.stop_requested
        session.close()


def test_filtered_prompts_are_drawn_again_in_the_same_mode(tmp_path: Path, model: Path) -> None:
    config = make_config(
        tmp_path,
        model,
        trainer={"filter": {"warmup_steps": 1, "init_steps": 1, "beta": 50, "max_generation_rounds": 2}},
    )
    with open_run(config):
        session = Session(config.run, None)
        answer(session, 1)
        accepted, generated = answer(session, 2)
        assert not accepted
        modes = [group.mode for group in generated]
        assert modes[:PROMPTS] == modes[PROMPTS:]
        assert [group.slot.position for group in generated] == list(range(PROMPTS, 3 * PROMPTS))
        session.close()
    assert records(config.run / "metrics.jsonl")[1]["groups/trained"] == 0


def test_a_checkpoint_brings_everything_back(tmp_path: Path, model: Path) -> None:
    config = make_config(tmp_path, model, trainer={"filter": {"warmup_steps": 1, "init_steps": 1, "beta": 0.1}})
    with open_run(config):
        session, folder = Session(config.run, None), tmp_path / "saved"
        folder.mkdir()
        answer(session, 1)
        session.save(folder)
        answer(session, 2)
        uninterrupted = records(config.run / "rollouts.jsonl"), session.state.to_dict()
        session.close()
        again = Session(config.run, None)
        again.restore(folder)
        assert [line["step"] for line in records(config.run / "metrics.jsonl")] == [1]
        answer(again, 2)
        assert (records(config.run / "rollouts.jsonl"), again.state.to_dict()) == uninterrupted
        again.close()
