"""Real runs on a tiny model, as a user starts them, for tests of resuming and of refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_task(folder: Path, rows: int = 10) -> Path:
    """A local JSONL task of sums."""
    path = folder / "sums.jsonl"
    lines = [json.dumps({"prompt": f"What is {i} + {i + 3}?", "answer": str(2 * i + 3)}) for i in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def grpo_config(folder: Path, model_path: Path, **changes: Any) -> Path:
    """A small hybrid run's YAML: over two epochs in eight steps, filter and schedule on, so that all state counts."""
    config = {
        "run": str(folder / "run"),
        "model": {"path": str(model_path)},
        "task": {
            "source": {"kind": "files", "train": str(write_task(folder))},
            "prompt": "prompt",
            "reference": "answer",
            "eval_size": 2,
        },
        "modes": {"mode": "hybrid", "short": {"max_tokens": 6}, "long": {"max_tokens": 12}},
        "rewards": [f"{ROOT}/tests/recipes/letters.py:letters"],
        "group_size": 4,
        "learner": {
            "learning_rate": 1e-3,
            "lr_scheduler": "constant_with_warmup",
            "warmup_steps": 4,
            "updates_per_step": 2,
        },
        "trainer": {
            "steps": 8,
            "prompts_per_step": 3,
            "save_every": 2,
            "keep_last": 2,
            "filter": {"warmup_steps": 2, "init_steps": 1, "beta": 0.9, "max_generation_rounds": 2},
        },
        "engine": {"max_model_len": 128, "max_num_seqs": 16, "kv_cache_gib": 0.05, "threads": 1},
        "evaluation": None,
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        target: Any = config
        for parent in parents:
            target = target[parent]
        target[last] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def start(*arguments: str, recipe: str = "recipes.hybrid_grpo") -> subprocess.Popen[str]:
    """The recipe in a process of its own, output captured."""
    return subprocess.Popen(
        [sys.executable, "-m", recipe, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(*arguments: str, recipe: str = "recipes.hybrid_grpo", timeout: float = 300) -> tuple[int, str]:
    """Exit status and output of a whole run."""
    process = start(*arguments, recipe=recipe)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def records(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def comparable(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what may differ between identical runs: time and memory."""
    return [{k: v for k, v in m.items() if not k.startswith(("time/", "memory/"))} for m in metrics]
