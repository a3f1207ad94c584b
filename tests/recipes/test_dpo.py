"""The recipe: it learns real pairs, resumes exactly, shares its cache, reports, and refuses what it cannot read."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes.dpo import CACHE, DpoConfig, main
from recipes.dpo_data import encode_pairs
from recipes.pairs import Pair, read_pairs
from recipes.row_media import MediaFiles
from rl.prompts import PromptMaker
from rollouts.modes import ModesConfig
from rollouts.prompts import render_prompt
from tests.recipes.preference_pairs import loop_pairs, write_pairs
from tests.recipes.runs import ENVIRONMENT, ROOT, comparable, records
from tests.tiny import make_tiny_model, make_tiny_tokenizer


def write_config(folder: Path, name: str, **changes: Any) -> Path:
    config = {
        "run": str(folder / name),
        "model": {"path": str(folder / "base")},
        "pairs": str(folder / "pairs.jsonl"),
        "eval_size": 30,
        "learner": {"learning_rate": 2e-3, "precision": "float32", "micro_batch_tokens": 700},
        "trainer": {"epochs": 1.5, "batch_pairs": 8, "eval_every": 10},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


SERVER = """
import json, os, sys, traceback
import matplotlib.figure, torch, transformers
import base_model.packed_lm, recipes.dpo_data, recipes.dpo_report, rl.preference_trainer
from recipes.dpo import DpoConfig, main
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            main(DpoConfig.model_validate(json.loads(line)))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Imports once what takes seconds, and runs the recipe in a process of its own for every line it reads."""


class Server:
    """Runs of the recipe, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, path: Path, **more: Any) -> int:
        """Start a run of a configuration file; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**yaml.safe_load(path.read_text()), **more}) + "\n")
        self._process.stdin.flush()
        return int(self._number())

    def status(self) -> int:
        """Wait for the end of the run; its exit status, negative for a signal."""
        return int(self._number())

    def finish(self, path: Path, **more: Any) -> None:
        """A whole run."""
        self.start(path, **more)
        assert self.status() == 0

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _number(self) -> str:
        """The next line that is a number; what the runs print stands between."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip().lstrip("-").isdigit():
                return line
        raise AssertionError("the server has died")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs and a base model."""
    folder = tmp_path_factory.mktemp("dpo")
    make_tiny_model(folder / "base", spread=0.05)
    write_pairs(folder / "pairs.jsonl", loop_pairs(120))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, server: Server) -> Path:
    server.finish(write_config(folder, "run"))
    return folder / "run"


@pytest.mark.slow
def test_the_policy_comes_to_prefer_the_chosen_side_on_held_out_pairs(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())["eval"]
    assert evaluation["n"] >= 30
    assert evaluation["ci_low"] > 0.5, evaluation
    assert evaluation["margin"] > 0
    assert evaluation["loss"] < 0.69
    metrics, evaluations = records(run / "metrics.jsonl"), records(run / "evaluations.jsonl")
    trained_on = json.loads((run / "run.json").read_text())["pairs"]
    assert trained_on + evaluation["n"] == 120
    assert len(metrics) == metrics[-1]["step"] == -(-3 * trained_on // 16)
    assert [e["step"] for e in evaluations] == [0, 10, len(metrics)]
    assert evaluations[0]["eval"]["margin"] == 0.0  # the policy is the reference
    assert evaluations[-1]["eval"]["accuracy"] == evaluation["accuracy"]
    assert metrics[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    samples = records(run / "evaluation_samples.jsonl")
    right = [sample["reward_chosen"] > sample["reward_rejected"] for sample in samples]
    assert sum(right) / len(right) == evaluation["accuracy"]


@pytest.mark.slow
def test_the_rewards_are_those_of_two_ordinary_models(folder: Path, run: Path) -> None:
    """The checkpoint, loaded without this project, gives the very rewards that were written down."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    last = records(run / "metrics.jsonl")[-1]["step"]
    paths = (run / "checkpoints" / f"step_{last}", folder / "base")
    models = [AutoModelForCausalLM.from_pretrained(path).eval() for path in paths]
    tokenizer = AutoTokenizer.from_pretrained(paths[0])
    sample = records(run / "evaluation_samples.jsonl")[0]
    prompt = render_prompt(tokenizer, sample["prompt"], ModesConfig().short)
    response = [*tokenizer(sample["chosen"])["input_ids"], tokenizer.eos_token_id]
    ids = torch.tensor([[*prompt, *response]])
    sums = [
        m(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[-len(response) :].sum().item() for m in models
    ]
    assert 0.1 * (sums[0] - sums[1]) == pytest.approx(sample["reward_chosen"], abs=1e-3)


@pytest.mark.slow
def test_the_report_shows_figures_curves_and_pairs(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "accuracy of the implicit reward" in page
    assert "data:image/png;base64," in page
    assert page.count('<span class="tag">chosen</span>') == 8
    assert "<script" not in page


@pytest.mark.slow
def test_adapters_end_as_a_plain_model_and_a_shared_cache_is_used(folder: Path, run: Path, server: Server) -> None:
    shared = folder / "shared.jsonl"
    shared.write_bytes((run / CACHE).read_bytes())
    before = shared.read_bytes()
    changes = {"lora": {"rank": 4}, "reference_cache": str(shared), "trainer": {"steps": 2, "batch_pairs": 8}}
    server.finish(write_config(folder, "lora", **changes))
    lora = folder / "lora"
    assert shared.read_bytes() == before  # nothing was computed again
    assert (lora / "model/config.json").exists()
    assert not (lora / "model/adapter_config.json").exists()
    assert not (lora / CACHE).exists()


def fingerprint(run: Path, step: int) -> dict[str, object]:
    """Everything of a run that must not depend on interruptions."""
    checkpoint = run / "checkpoints" / f"step_{step}"
    return {
        "metrics": comparable(records(run / "metrics.jsonl")),
        "evaluations": records(run / "evaluations.jsonl"),
        "samples": records(run / "evaluation_samples.jsonl"),
        "cache": sorted((run / CACHE).read_text().splitlines()),
        "weights": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "optimizer": hashlib.sha256((checkpoint / "optimizer.safetensors").read_bytes()).hexdigest(),
    }


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(folder: Path, run: Path, server: Server) -> None:
    """Killed while the reference is computed, between steps, and while it saves."""
    steps = records(run / "metrics.jsonl")[-1]["step"]
    trainer = {"epochs": 1.5, "batch_pairs": 8, "eval_every": 10, "save_every": 3}
    config, path = write_config(folder, "killed", trainer=trainer), folder / "killed"
    rng = random.Random(5)
    killed = 0
    for watched, wanted in ((CACHE, 20), (CACHE, 60), ("metrics.jsonl", 4), ("metrics.jsonl", 9)):
        pid = server.start(config, resume=(path / "config.yaml").exists())
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            if (path / watched).exists() and (path / watched).read_bytes().count(b"\n") >= wanted:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        killed += server.status() == -signal.SIGKILL
    assert killed >= 3
    server.finish(config, resume=True)
    actual, expected = fingerprint(path, steps), fingerprint(run, steps)
    for name, value in expected.items():
        assert actual[name] == value, f"{name} differs after {killed} kills"


# ---- the pairs ----

TOKENIZER = make_tiny_tokenizer()


def maker() -> PromptMaker:
    return PromptMaker(TOKENIZER)


def pair(prompt: str = "p", chosen: str = "yes", rejected: str = "no", **more: Any) -> Pair:
    return Pair(
        messages=({"role": "user", "content": prompt},), chosen=chosen, rejected=rejected, place="line 1", **more
    )


def test_prompts_are_rendered_as_rollouts_render_them() -> None:
    modes = ModesConfig(mode="short")
    found = encode_pairs([pair(), pair(mode="long")], maker(), modes, 100)
    for encoded, mode in zip(found.encoded, (modes.short, modes.long), strict=True):
        assert encoded.prompt_ids == render_prompt(TOKENIZER, found.pairs[0].messages, mode)
        assert TOKENIZER.decode(encoded.chosen_ids) == "yes<|im_end|>"
        assert encoded.rejected_ids[-1] == TOKENIZER.eos_token_id


def test_pairs_that_cannot_be_used_are_counted() -> None:
    pairs = [pair(), pair(chosen="no"), pair(rejected="a b c " * 200), pair("p " * 300)]
    found = encode_pairs(pairs, maker(), ModesConfig(mode="short"), 100)
    assert found.pairs == (pairs[0],)
    assert found.left_out == {"with two equal sides": 1, "too long": 2}
    assert encode_pairs([], maker(), ModesConfig(), 100).encoded == ()
    with pytest.raises(ValueError, match=r"none of the 1 held-out pairs can be used \(1 too long"):
        encode_pairs(pairs[3:], maker(), ModesConfig(mode="short"), 100, what="held-out pairs")


def test_modes_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValueError, match="has the mode 'medium', and there are short, long"):
        encode_pairs([pair(mode="medium")], maker(), ModesConfig(mode="short"), 100)
    with pytest.raises(ValueError, match="no column `mode`, and modes"):
        encode_pairs([pair()], maker(), ModesConfig(mode="hybrid"), 100)


def media_row(**changes: Any) -> dict[str, Any]:
    content = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
    row = {"prompt": [{"role": "user", "content": content}], "chosen": "c", "rejected": "r", "images": ["a.png"]}
    return row | changes


def read_media(place: Path, row: dict[str, Any], **options: Any) -> Pair:
    (found,) = read_pairs([write_pairs(place / "pairs.jsonl", [row])], media=MediaFiles(**options))
    return found


def test_images_are_found_and_stand_in_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    found = read_media(tmp_path, media_row())
    assert (found.images, found.problem) == ((tmp_path / "a.png",), None)
    assert found.messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "What?"}]
    for prompt in ("What?", "<image>What?"):
        assert read_media(tmp_path, media_row(prompt=prompt)).messages == found.messages
    assert read_media(tmp_path, media_row(images=["b.png"])).prompt_key != found.prompt_key
    for wrong in ({"images": []}, {"images": ["a.png", "b.png"]}):
        with pytest.raises(ValueError, match=r"line 1: the messages have .* write one place for each"):
            read_media(tmp_path, media_row(**wrong))
    with pytest.raises(ValueError, match="has 'images', and a reward model is trained on text only"):
        read_pairs([tmp_path / "pairs.jsonl"])


@pytest.mark.parametrize(
    ("image", "reason"),
    [("gone.png", "media_missing"), ("../a.png", "path_refused"), ("http://a/b.png", "path_refused"), (7, "malformed")],
)
def test_images_that_are_not_there_are_the_rows_problem(tmp_path: Path, image: Any, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "data").mkdir()
    found = read_media(tmp_path / "data", media_row(images=[image]))
    assert found.problem is not None
    assert (found.problem.reason, found.images, found.prompt_key) == (reason, (), found.place)
    with pytest.raises(ValueError, match=rf"none of the 1 pairs can be used \(1 {reason.replace('_', ' ')}.*line 1"):
        encode_pairs([found], maker(), ModesConfig(mode="short"), 100)
    assert read_media(tmp_path / "data", media_row(), folder=tmp_path).images == (tmp_path / "a.png",)
    outside = read_media(tmp_path / "data", media_row(images=[str(tmp_path / "a.png")]), outside=True)
    assert outside.images == (tmp_path / "a.png",)


def test_the_prompt_of_two_whole_conversations_is_what_they_begin_with(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}]
    sides = {name: [*turns, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    (found,) = read_pairs([write_pairs(tmp_path / "pairs.jsonl", [sides])])
    assert list(found.messages) == turns
    assert (found.chosen, found.rejected) == ("chosen", "rejected")


def test_refusals_come_before_the_model_is_loaded(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "a.png").write_bytes(b"a")
    write_pairs(tmp_path / "pairs.jsonl", [media_row()])
    config = {"model": {"path": str(tmp_path)}, "pairs": str(tmp_path / "pairs.jsonl"), "run": str(tmp_path / "run")}
    with pytest.raises(ValueError, match="line 1 has images or videos, but the model is a language model"):
        main(DpoConfig.model_validate({**config, "eval_size": 0}))
    assert not (tmp_path / "run").exists()
