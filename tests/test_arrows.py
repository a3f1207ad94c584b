"""Imports between the packages run one way, and what must stay light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("rewards", "rollouts", "rl", "base_model", "recipes")
ALLOWED = {
    "rewards": set(),
    "rollouts": set(),
    "base_model": set(),
    "rl": {"rewards", "rollouts", "base_model"},
    "recipes": {"rewards", "rollouts", "base_model", "rl"},
}


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = _imported(path) & set(PACKAGES)
        assert ours <= ALLOWED[package] | {package}, f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


def test_nothing_imports_the_tests_or_relative_parents() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert "tests" not in _imported(path), path


@pytest.mark.parametrize(
    "module",
    [
        "rewards",
        "rewards.spec",
        "rewards.adapters.trl",
        "rewards.adapters.verl_groups",
        "rewards.preference",
        "rl.config",
        "base_model.config",
        "rollouts.engine",
        "recipes.hybrid_grpo",
        "recipes.reward_model",
        "recipes.rlaif_v",
    ],
)
def test_light_modules_do_not_import_torch(module: str) -> None:
    names = "{'torch', 'transformers', 'vllm', 'trl', 'verl', 'ray'}"
    code = f"import {module}, sys; heavy = {names} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["requirements-cpu.lock", "pyproject.toml"])
def test_no_cuda_build_slips_into_the_cpu_set_up(target: str) -> None:
    """On a CPU-only torch these three are CUDA builds and break transformers' import."""
    text = (ROOT / target).read_text().lower()
    assert not any(name in text for name in ("torchvision", "torchaudio", "torchcodec"))
