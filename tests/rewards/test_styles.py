"""Functions written for TRL and for verl, named in a YAML as they are."""

import textwrap

import pytest

from rewards import RewardError, build
from rewards.loader import load

GROUP = [
    {
        "prompt": "2+2?",
        "response": text,
        "thinking": None,
        "answer": text,
        "reference": "4",
        "mode": "short",
        "response_ids": list(range(len(text))),
        "truncated": False,
        "hint": "h",
    }
    for text in ("4", "five", "")
]


def totals(tmp_path, code: str, columns=("hint",), **spec) -> list:
    name = f"theirs{len(list(tmp_path.iterdir()))}.py"  # a file is imported once
    (tmp_path / name).write_text(textwrap.dedent(code))
    with build([{"name": f"{name}:f", **spec}], columns=columns, base_dir=tmp_path) as rewards:
        return [score.value("f") for score in rewards.score([GROUP])[0]]


def test_a_trl_function_for_chats(tmp_path):
    code = """
    def f(completions, solution, **kwargs):
        assert kwargs["trainer_state"] is None
        kwargs["log_metric"]("name", 1.0)
        kwargs["log_extra"]("name", [1, 2, 3])
        assert kwargs["prompts"] == [[{"role": "user", "content": "2+2?"}]] * 3
        assert kwargs["hint"] == ["h"] * 3
        assert "thinking" not in kwargs
        texts = [completion[0]["content"] for completion in completions]
        return [None if not text else float(text == right) for text, right in zip(texts, solution, strict=True)]
    """
    assert totals(tmp_path, code) == [1.0, 0.0, None]


def test_a_trl_function_for_texts_that_is_async(tmp_path):
    code = """
    async def f(prompts, completions, completion_ids, hint, scale=1.0):
        assert prompts == ["2+2?"] * 3 and hint == ["h"] * 3
        return [scale * len(text + "") + len(ids) for text, ids in zip(completions, completion_ids)]
    """
    assert totals(tmp_path, code, style="trl_text", args={"scale": 2.0}) == [3.0, 12.0, 0.0]


def test_answer_is_the_right_answer_for_trl_and_the_responses_for_tandem(tmp_path):
    assert totals(tmp_path, "def f(completions, answer):\n    return [float(a) for a in answer]\n") == [4.0] * 3
    assert totals(tmp_path, "def f(answer):\n    return len(answer)\n") == [1.0, 4.0, 0.0]


def test_a_column_goes_before_the_reference(tmp_path):
    code = "def f(completions, solution):\n    return [len(text) for text in solution]\n"
    (tmp_path / "theirs.py").write_text(code)
    with build(["theirs.py:f"], columns=["solution"], base_dir=tmp_path) as rewards:
        sample = {**GROUP[0], "solution": "worked out"}
        assert rewards.score([[sample]])[0][0].total == 10.0


def test_a_verl_function(tmp_path):
    code = """
    def f(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
        assert extra_info == {"hint": "h", "prompt": "2+2?", "mode": "short"}, extra_info
        assert data_source == "tandem"
        right = float(solution_str == ground_truth)
        return {"score": right + bonus, "acc": right, "pred": solution_str}
    """
    assert totals(tmp_path, code, args={"bonus": 0.5}) == [1.5, 0.5, 0.5]


def test_a_verl_function_that_is_async_and_takes_anything(tmp_path):
    code = """
    async def f(solution_str, **kwargs):
        assert sorted(kwargs) == ["data_source", "extra_info", "ground_truth"]
        return len(solution_str)
    """
    assert totals(tmp_path, code) == [1.0, 4.0, 0.0]
    assert totals(tmp_path, "def f(**kwargs):\n    return len(kwargs['solution_str'])\n", style="verl") == [1, 4, 0]


def test_a_class_written_for_verl(tmp_path):
    code = """
    class f:
        def __init__(self, bonus):
            self.bonus = bonus
        def __call__(self, data_source, solution_str, ground_truth, extra_info):
            return self.bonus
    """
    assert totals(tmp_path, code, args={"bonus": 3}) == [3.0] * 3


def test_styles_that_can_be_told_and_one_that_is_forced(tmp_path):
    (tmp_path / "m.py").write_text(
        "from rewards import reward\n"
        "def t(completions): return []\n"
        "def v(solution_str): return 0\n"
        "def n(answer): return 0\n"
        "@reward('marked')\ndef marked(*, completions): return float(completions)\n"
    )
    found = {name: load(f"m.py:{name}", {}, tmp_path)[0] for name in ("t", "v", "n", "marked")}
    assert {name: item.group for name, item in found.items()} == {"t": True, "v": False, "n": False, "marked": False}
    assert found["n"].function.__name__ == "n"
    with build(["m.py:marked"], columns=["completions"], base_dir=tmp_path) as rewards:
        assert rewards.score([[{**GROUP[0], "completions": 3}]])[0][0].total == 3.0
    assert load("m.py:t", {}, tmp_path, "tandem")[0].group is False


@pytest.mark.parametrize(
    ("code", "spec", "message"),
    [
        ("def f(completions, target): pass", {}, "'target' that nothing fills"),
        ("def f(answer): pass", {"style": "trl"}, "no argument 'completions', which style trl passes"),
        ("def f(answer): pass", {"style": "verl"}, "no argument 'solution_str', which style verl passes"),
        ("def f(completions): pass", {"args": {"scale": 1}}, "no argument 'scale', which its `args` name"),
        ("def f(completions): return [1.0]", {}, "returned 1 values for group 0 of 3 responses"),
        ("def f(solution_str): return {'acc': 1.0}", {}, "must return a number or a dict with 'score', got"),
    ],
)
def test_refused(tmp_path, code, spec, message):
    with pytest.raises(RewardError, match=message):
        totals(tmp_path, code + "\n", **spec)


def test_an_unknown_style(tmp_path):
    with pytest.raises(ValueError, match="style"):
        totals(tmp_path, "def f(answer): return 0\n", style="openrlhf")


def test_a_group_reward_looks_at_a_trl_function_named_before_it(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "def right(completions, solution):\n"
        "    return [float(c[0]['content'] == s) for c, s in zip(completions, solution)]\n"
    )
    length = {"name": "length", "args": {"correct": "right", "tau": 1}}
    with build(["theirs.py:right", length], base_dir=tmp_path) as rewards:
        values = [score.value("length") for score in rewards.score([GROUP])[0]]
    assert values == [0.25, -0.5, 0.0]  # lengths 1, 4, 0: only the right one may gain
