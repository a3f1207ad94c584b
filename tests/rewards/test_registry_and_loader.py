"""Names, files, modules, entry points; what is refused, and how the user is told."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rewards import RewardError, build, group_reward, reward
from rewards.loader import load
from rewards.registry import BUILTIN, REGISTRY

SAMPLE = {
    "prompt": "2+2?",
    "response": "4",
    "thinking": None,
    "answer": "4",
    "reference": "4",
    "mode": "short",
    "response_ids": [4],
    "truncated": False,
}


@pytest.fixture(autouse=True)
def _registry():
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def write(folder: Path, code: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(code))
    return path


def total(spec, sample=SAMPLE, columns=(), base_dir=None) -> float:
    with build([spec], columns=columns, base_dir=base_dir) as rewards:
        return rewards.score([[sample]])[0][0].total


def test_import_is_light():
    code = "import sys, time; t = time.process_time(); import rewards; d = time.process_time() - t\n"
    code += "heavy = {'torch', 'sympy', 'transformers', 'pydantic', 'math_verify'} & set(sys.modules)\n"
    code += "assert not heavy, heavy; assert d < 0.3, d"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_builtin_loads():
    for name in BUILTIN:
        if name == "preference":  # a class, which needs a model
            continue
        found, _ = load(name, {})
        assert found.name == name


def test_three_lines_of_python_two_of_yaml(tmp_path):
    write(tmp_path, "def brief(answer):\n    return float(len(answer) < 3)\n")
    assert total({"name": "mine.py:brief", "weight": 0.5}, base_dir=tmp_path) == 0.5


def test_path_is_relative_to_the_yaml_then_to_here(tmp_path, monkeypatch):
    near, here = tmp_path / "yaml", tmp_path / "here"
    near.mkdir()
    here.mkdir()
    write(near, "def which():\n    return 1.0\n", "a.py")
    write(here, "def which():\n    return 2.0\n", "a.py")
    write(here, "def which():\n    return 3.0\n", "b.py")
    monkeypatch.chdir(here)
    assert total("a.py:which", base_dir=near) == 1.0
    assert total("b.py:which", base_dir=near) == 3.0


def test_module_function_class_and_callable_object(tmp_path, monkeypatch):
    write(
        tmp_path,
        """
        class Longer:
            def __init__(self, limit=0):
                self.limit = limit
            def __call__(self, answer):
                return float(len(answer) > self.limit)
        ready = Longer(0)
        async def slow(answer, scale=1.0):
            return scale
        """,
        "plugin_of_test.py",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert total({"name": "plugin_of_test:Longer", "args": {"limit": 5}}) == 0.0
    assert total({"name": "plugin_of_test:Longer", "args": {"limit": 0}}) == 1.0
    assert total("plugin_of_test:ready") == 1.0
    assert total({"name": "plugin_of_test:slow", "args": {"scale": 3}}) == 3.0


def test_decorated_function_keeps_name_and_weight_and_stays_callable(tmp_path):
    path = write(
        tmp_path,
        """
        from rewards import reward
        @reward("polite", weight=0.25)
        def please(*, answer: str) -> float:
            return float("please" in answer)
        """,
    )
    with build([f"{path}:please"]) as rewards:
        score = rewards.score([[{**SAMPLE, "answer": "please"}]])[0][0]
    assert score.breakdown == {"polite": 1.0}
    assert score.total == 0.25
    module = sys.modules[REGISTRY["polite"].function.__module__]
    assert module.please(answer="no") == 0.0


def install(folder: Path, name: str, code: str, points: str) -> None:
    """Lay out a package as pip would leave it: a module and its dist-info."""
    write(folder, code, f"{name}.py")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[tandem.rewards]\n{points}\n")


def test_rewards_of_an_installed_package(tmp_path, monkeypatch):
    code = """
    from rewards import group_reward, reward

    def from_package(answer):
        return 7.0

    @reward("polite", weight=0.25)
    def please(*, answer):
        return 1.0

    @group_reward("most_polite")
    def most(*, answer):
        return [2.0] * len(answer)

    class Longer:
        def __init__(self, limit):
            self.limit = limit
        def __call__(self, answer):
            return float(len(answer) > self.limit)

    def of_trl(completions, **columns):
        return [3.0 for _ in completions]
    """
    targets = {"lucky": "from_package", "polite": "please", "most": "most", "longer": "Longer", "theirs": "of_trl"}
    points = "\n".join(f"{name} = installed_rewards:{target}" for name, target in targets.items())
    install(tmp_path, "installed_rewards", code, points)
    monkeypatch.syspath_prepend(str(tmp_path))
    specs = ["lucky", "polite", "most", {"name": "longer", "args": {"limit": 5}}, "theirs", "format"]
    with build(specs) as rewards:
        [[score]] = rewards.score([[SAMPLE]])
    expected = {"lucky": 7.0, "polite": 1.0, "most_polite": 2.0, "longer": 0.0, "theirs": 3.0, "format": 1.0}
    assert score.breakdown == expected
    assert score.total == pytest.approx(7.0 + 0.25 + 2.0 + 3.0 + 1.0)
    assert total({"name": "longer", "args": {"limit": 0}}) == 1.0  # its constants are those of this run


def test_entry_points_that_cannot_be_used(tmp_path, monkeypatch):
    install(tmp_path, "first_package", "def f(answer):\n    return 1.0\n", "same = first_package:f")
    install(tmp_path, "second_package", "import no_such\n", "same = second_package:f\nbroken = second_package:f")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RewardError, match=r"two installed packages give a reward named 'same'.*Name one by its module"):
        build(["same"])
    with pytest.raises(RewardError, match=r"'broken' \(entry point second_package:f\) fails to import.*no_such"):
        build(["broken"])
    with pytest.raises(RewardError, match=r"no reward is named 'brokn'\. Did you mean 'broken'"):
        build(["brokn"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", "no reward is named 'maths'. Did you mean 'math'?"),
        ("missing.py:f", "the reward file 'missing.py' does not exist"),
        ("no_such_package.x:f", "no module 'no_such_package.x'"),
        ("rewards.text:normalize", "has no 'normalize'. Did you mean 'normalise'?"),
        ("rewards.text:MAX_CHARS", "is a int, not a function"),
        ({"name": "format", "weight": float("nan")}, "weight must be a finite number"),
        (
            {"name": "format", "args": {"answer_tags": "a"}},
            "has no argument 'answer_tags' for its `args`. Did you mean",
        ),
        ({"name": "format", "args": {"answer_tag": "<a>"}}, "bare name of a tag"),
        ({"name": "accuracy", "args": {"verifier": "maths"}}, "`verifier` must be auto, math"),
        ({"name": "length"}, "`correct` names the reward"),
    ],
)
def test_refused_with_the_remedy(spec, message):
    with pytest.raises(RewardError) as error:
        build([spec])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unfillable_argument_lists_the_columns(tmp_path):
    write(tmp_path, "def hinted(hint):\n    return 1.0\n")
    with pytest.raises(RewardError, match=r"'hint' that nothing fills\. Did you mean 'hints'\?.*hints.*reference"):
        build(["mine.py:hinted"], columns=["hints"], base_dir=tmp_path)
    assert total("mine.py:hinted", {**SAMPLE, "hint": "x"}, columns=["hint"], base_dir=tmp_path) == 1.0


def test_the_policy_is_not_a_column(tmp_path):
    write(tmp_path, "def judged(policy):\n    return 1.0\n")
    with pytest.raises(RewardError, match="'policy' that nothing fills"):
        build(["mine.py:judged"], base_dir=tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(:\n", r"fails to import: SyntaxError: .*mine\.py:1"),
        ("import no_such_thing\n", r"ModuleNotFoundError: No module named 'no_such_thing' \(.*mine\.py:1\)"),
        ("x = 1\ny = x / 0\n", r"ZeroDivisionError: division by zero \(.*mine\.py:2\)"),
        ("def f(answer, /):\n    return 1.0\n", "cannot be filled by name"),
        ("def f(*args):\n    return 1.0\n", "cannot be filled by name"),
        ("def ff(answer):\n    return 1.0\n", "has no 'f'. Did you mean 'ff'"),
    ],
)
def test_faults_of_the_users_file(tmp_path, code, message):
    write(tmp_path, code)
    with pytest.raises(RewardError, match=message):
        build(["mine.py:f"], base_dir=tmp_path)


def test_duplicate_names_give_both_places(tmp_path):
    text = 'from rewards import reward\n@reward("twin")\ndef f(answer):\n    return 1.0\n'
    first, second = write(tmp_path, text, "one.py"), write(tmp_path, text, "two.py")
    build([f"{first}:f"])
    with pytest.raises(RewardError) as error:
        build([f"{second}:f"])
    assert "one.py:2" in str(error.value)
    assert "two.py:2" in str(error.value)


def test_one_reward_twice_needs_a_label():
    with pytest.raises(RewardError, match=r"two rewards of this run are named 'format'.*`label`"):
        build(["format", "format"])
    pair = build(["format", {"name": "format", "label": "strict", "args": {"answer_tag": "answer"}}])
    assert pair.names == ["format", "strict"]


def test_no_rewards():
    with pytest.raises(RewardError, match="no reward is configured"):
        build([])


def test_unknown_key_of_a_spec():
    with pytest.raises(ValueError, match="wieght"):
        build([{"name": "format", "wieght": 1.0}])


@pytest.mark.parametrize("name", ["", "a/b", "a:b", 3])
def test_bad_names_in_the_decorator(name):
    with pytest.raises(RewardError, match="name must be text"):
        reward(name)


def test_the_names_of_built_in_rewards_are_taken():
    with pytest.raises(RewardError, match="has the name 'math' of a built-in one"):
        reward("math")(lambda answer: 1.0)


@pytest.mark.parametrize("weight", [float("inf"), "1", True, None])
def test_bad_weights_in_the_decorator(weight):
    with pytest.raises(RewardError, match="finite number"):
        group_reward("x", weight=weight)


def test_the_same_function_may_register_again():
    def f(answer):
        return 1.0

    reward("again")(f)
    reward("again")(f)


def test_a_base_exception_in_the_users_file_passes(tmp_path):
    write(tmp_path, "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        build(["mine.py:f"], base_dir=tmp_path)


def test_scoring_inside_a_running_event_loop(tmp_path):
    write(tmp_path, "async def f(answer):\n    return 2.0\n")

    async def notebook() -> float:
        return total("mine.py:f", base_dir=tmp_path)

    assert asyncio.run(notebook()) == 2.0
