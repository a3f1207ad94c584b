"""One checkpoint, three ways: torch, vLLM with the plug-in, vLLM's own class. Real engines run, each in a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base_model.vlm import PackedVideo
from rollouts.process import worker_environment
from tests.base_model.vlm.small import picture
from tests.rollouts.vision import save_tiny
from tests.rollouts.vllm_direct import from_reader, prompts_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(kind: str, directory: Path, **environment: str) -> dict:
    """What `vllm_direct` found."""
    settings = {**worker_environment(1, True), **environment}
    command = [sys.executable, "-m", "tests.rollouts.vllm_direct", kind, str(directory)]
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected(model, processor, prompt) -> tuple[list[int], list[float]]:
    """Ids of the processor and log-probabilities of the torch model."""
    text, images, videos = prompt
    media = {name: items for name, items in (("images", images), ("videos", videos)) if items}
    inputs = processor(text, **media)
    ids_T = inputs["input_ids"][0]
    with torch.no_grad():
        logprobs_TV = model(**inputs).logits[0, :-1].log_softmax(-1)
    return ids_T.tolist(), logprobs_TV.gather(1, ids_T[1:, None])[:, 0].tolist()


def check(found, model, processor, kind: str) -> None:
    for prompt, one in zip(prompts_of(kind), found, strict=True):
        ids, logprobs = expected(model, processor, prompt)
        assert one["ids"] == ids, prompt[0]
        assert one["logprobs"] == pytest.approx(logprobs, abs=1e-4), prompt[0]


def test_the_plug_in_with_every_cache_of_vllm(tmp_path):
    model, processor = save_tiny(tmp_path)
    answer = run("plugin", tmp_path)
    assert answer["module"] == "base_model.vllm_plugin.model"
    found = answer["found"]
    check(found, model, processor, "plugin")
    assert found[3]["logprobs"] != pytest.approx(found[4]["logprobs"], abs=1e-3)  # the same frames, later
    assert blocks_of(answer["by_reader"], processor) == -(-len(from_reader()[0]) // 2)
    assert_is_the_chat(answer["by_chat"], processor)


def blocks_of(ids: list[int], processor) -> int:
    return ids.count(processor.tokenizer.convert_tokens_to_ids("<image>"))


def assert_is_the_chat(ids: list[int], processor) -> None:
    """vLLM's reader takes every frame of so short a clip, and each is a package of its own."""
    frame = picture(80, 48)
    parts = [
        {"type": "image", "image": picture(300, 200)},
        {"type": "video", "video": PackedVideo([[frame]] * 20, [[0.0]] * 20)},
        {"type": "text", "text": "What is it?"},
    ]
    options = {"add_generation_prompt": True, "tokenize": True}
    expected = processor.apply_chat_template([{"role": "user", "content": parts}], **options)
    assert ids == expected["input_ids"][0].tolist()


def test_vllms_own_class_agrees_where_it_serves_the_layout(tmp_path):
    model, processor = save_tiny(tmp_path)
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "VLLM_PLUGINS": "none"}
    answer = run("in_tree", tmp_path, **modules, PYTHONPATH=os.pathsep.join([str(ROOT)]))
    assert answer["module"] == "vllm.model_executor.models.minicpmv"
    check(answer["found"], model, processor, "in_tree")
