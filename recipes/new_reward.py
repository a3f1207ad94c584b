"""Start a reward of your own: a file that works, with its reward file, labelled cases and a test.

    python -m recipes.new_reward my_reward.py

Writes my_reward.py, my_reward.yaml, my_reward_cases.jsonl and test_my_reward.py into the folder of the name, and says
what to do next. Nothing is overwritten.
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates" / "reward"
FILES = {
    "{name}.py": "reward.py.txt",
    "{name}.yaml": "reward.yaml",
    "{name}_cases.jsonl": "cases.jsonl",
    "test_{name}.py": "test_reward.py.txt",
}
"""The files written, and their templates, in which NAME stands for the reward's name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; return the exit status: 0, or 2 for a bad call."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.new_reward", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("file", type=Path, help="the file to write, such as my_reward.py")
    options = parser.parse_args(argv)
    try:
        written = write_reward(options.file)
    except (ValueError, OSError) as error:
        print(f"new_reward: {error}", file=sys.stderr)
        return 2
    print(next_steps(written))
    return 0


def write_reward(path: Path) -> list[Path]:
    """Write the four files.

    Args:
        path: the Python file; its name without `.py` names the reward.

    Returns:
        The files, in the order of FILES.

    Raises:
        ValueError: a name that Python or the registry does not take, or a file that exists.
    """
    from rl.files import atomic_write_text

    name = _checked_name(path)
    files = {path.parent / target.format(name=name): TEMPLATES / source for target, source in FILES.items()}
    there = [target for target in files if target.exists()]
    if there:
        raise ValueError(f"{there[0]} exists, and nothing is overwritten: choose another name, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, source in files.items():
        atomic_write_text(target, source.read_text(encoding="utf-8").replace("NAME", name))
    return list(files)


def next_steps(written: Sequence[Path]) -> str:
    """Return what to print: the files, and the commands in the order in which one needs them."""
    code, rewards, cases, test = written
    name = code.stem
    audit = f"python -m recipes.audit_reward --rewards-file {rewards} --reward {name} --cases {cases} --min-precision 1"
    train = f"python -m recipes.hybrid_grpo my_run.yaml --rewards {rewards.resolve()} --evaluation.metric {name}"
    return "\n".join(
        [
            "Written: " + ", ".join(str(path) for path in written),
            "",
            f"1. Write: change the rule in {code}, and the cases so that they say what it must accept and refuse.",
            f"2. Test:  python -m pytest {test}",
            f"3. Audit: {audit}",
            f"4. Train: {train}",
            "",
            "The same YAML drives TRL and verl: docs/rewards.md.",
        ]
    )


def _checked_name(path: Path) -> str:
    from rewards.registry import BUILTIN

    name = path.stem
    if path.suffix != ".py" or not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"{path.name!r} cannot be imported: name a file such as my_reward.py (a-z, digits and _, then .py)."
        )
    if name in BUILTIN or name in sys.stdlib_module_names:
        kind = "built-in reward" if name in BUILTIN else "module of Python"
        raise ValueError(f"{name!r} is the name of a {kind}: choose another.")
    if name in ("rewards", "rollouts", "rl", "base_model", "recipes"):
        raise ValueError(f"{name!r} is the name of a package of Tandem, which it would hide: choose another.")
    return name


if __name__ == "__main__":
    sys.exit(main())
