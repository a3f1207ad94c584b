"""Tasks: rows from every source, nothing evaluated that was trained on, errors in a sentence, the order of training."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.cli import load_config
from recipes.sources import generator_seed, task
from recipes.tasks import EpochOrder, TaskConfig, load_rows, prompt_key, render_template, rows_with_solution

ROOT = Path(__file__).parents[2]
GSM8K = Path(os.environ.get("TANDEM_DEV_DATA") or ROOT / "../shared/data") / "gsm8k_train.jsonl"


def _gym(size: int = 60, eval_size: int = 20, **more) -> TaskConfig:
    datasets = [
        {"name": "chain_sum", "weight": 3, "config": {"max_terms": 3, "max_digits": 2}},
        {"name": "spell_backward"},
    ]
    return TaskConfig(source={"kind": "reasoning_gym", "datasets": datasets}, size=size, eval_size=eval_size, **more)


def _files(train, eval=None, **more) -> TaskConfig:
    more = {"reference": "answer", "prompt": "question", **more}
    return TaskConfig(source={"kind": "files", "train": train, "eval": eval}, **more)


def _jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _numbers(count: int, start: int = 0) -> list[dict]:
    return [
        {"question": f"{n} + 1?", "answer": str(n + 1), "work": f"{n} + 1 = {n + 1}"}
        for n in range(start, start + count)
    ]


# ---- reasoning-gym ----


def test_gym_rows_are_repeatable_and_disjoint() -> None:
    train, evaluation = load_rows(_gym()), load_rows(_gym(), "eval")
    assert (len(train), len(evaluation)) == (60, 20)
    assert train == load_rows(_gym())
    assert [row.index for row in train] == list(range(60))
    keys = [prompt_key(row) for row in train + evaluation]
    assert len(set(keys)) == len(keys)
    assert load_rows(_gym(seed=1)) != train


def test_gym_seeds_of_the_splits_never_meet() -> None:
    """reasoning-gym makes item i from seed + i, so the two splits need ranges of their own, not only other numbers."""
    train = [generator_seed("train", seed, at) for seed in range(200) for at in range(3)]
    evaluation = [generator_seed("eval", seed, at) for seed in range(200) for at in range(3)]
    assert max(train) + 2**29 <= 2**30 <= min(evaluation)
    assert max(evaluation) < 2**31
    assert len({*train, *evaluation}) == 1200, "each generator of a mixture has a seed of its own"


def test_gym_evaluation_leaves_out_trained_prompts() -> None:
    """One-digit sums: 200 prompts in all, so the generators' streams are bound to meet."""
    source = {"kind": "reasoning_gym", "datasets": [{"name": "chain_sum", "config": {"max_terms": 2, "max_digits": 1}}]}
    config = TaskConfig(source=source, size=120, eval_size=25)
    keys = [prompt_key(row) for row in load_rows(config) + load_rows(config, "eval")]
    assert len(set(keys)) == 145
    for other in (config.model_copy(update={"seed": 1}), config.model_copy(update={"size": 60})):
        trained = {prompt_key(row) for row in load_rows(other)}
        assert not trained & set(keys[120:]), "held out whatever the seed and the number of rows"
    with pytest.raises(ValueError, match=r"only \d+ distinct prompts where task.eval_size asks for 100"):
        load_rows(TaskConfig(source=source, size=120, eval_size=100))
    with pytest.raises(ValueError, match=r"only \d+ distinct prompts where task.size asks for 500"):
        load_rows(TaskConfig(source=source, size=500))


def test_gym_mixture_follows_the_weights() -> None:
    rows = load_rows(_gym(size=400, columns=["dataset"]))
    counts = Counter(row.columns["dataset"] for row in rows)
    assert 270 <= counts["chain_sum"] <= 330
    sums = next(row for row in rows if row.columns["dataset"] == "chain_sum")
    assert sums.solution is not None
    assert sums.solution.endswith(f"= {sums.reference}")


def test_gym_leaves_out_wrong_labels() -> None:
    """Without parentheses, basic_arithmetic ignores the order of operations; such rows must not come through."""
    datasets = [
        {"name": "basic_arithmetic", "config": {"allow_parentheses": False, "max_digits": 1, "operators": ["+", "*"]}}
    ]
    rows = load_rows(TaskConfig(source={"kind": "reasoning_gym", "datasets": datasets}, size=150, eval_size=0))
    for row in rows:
        expression = row.messages[0]["content"].removeprefix("Calculate ").removesuffix(".")
        total = 0
        for term in expression.split("+"):
            product = 1
            for factor in term.split("*"):
                product *= int(factor)
            total += product
        assert str(total) == row.reference


def test_gym_refusals() -> None:
    def gym(name: str, **config) -> TaskConfig:
        return TaskConfig(source={"kind": "reasoning_gym", "datasets": [{"name": name, "config": config}]}, size=5)

    with pytest.raises(ValueError, match="no dataset 'chain_sums': did you mean 'chain_sum'"):
        load_rows(gym("chain_sums"))
    with pytest.raises(ValueError, match="chain_sum refuses the config"):
        load_rows(gym("chain_sum", min_term=2))
    with pytest.raises(ValueError, match="gives no reference answers"):
        load_rows(gym("rush_hour"))
    with pytest.raises(ValueError, match=r"task\.size is 0"):
        load_rows(_gym(size=0))
    with pytest.raises(ValueError, match=r"set task\.eval_size"):
        load_rows(_gym(eval_size=0), "eval")


# ---- files ----


def test_held_out_rows_are_stable_and_disjoint(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "d.jsonl", _numbers(50) + _numbers(10))  # ten prompts twice
    config = _files(path, eval_size=12)
    train, evaluation = load_rows(config), load_rows(config, "eval")
    assert (len(train), len(evaluation)) == (38, 12)
    assert not {prompt_key(row) for row in train} & {prompt_key(row) for row in evaluation}
    _jsonl(path, _numbers(51))
    moved = {prompt_key(row) for row in load_rows(config, "eval")} ^ {prompt_key(row) for row in evaluation}
    assert len(moved) <= 2
    assert {prompt_key(row) for row in load_rows(_files(path, eval_size=12, seed=1), "eval")} != {
        prompt_key(row) for row in evaluation
    }


def test_evaluation_file_loses_trained_prompts(tmp_path: Path) -> None:
    train = _jsonl(tmp_path / "a.jsonl", _numbers(10))
    evaluation = _jsonl(tmp_path / "b.jsonl", _numbers(10, start=5))
    rows = load_rows(_files(train, evaluation), "eval")
    assert [row.reference for row in rows] == ["11", "12", "13", "14", "15"]
    with pytest.raises(ValueError, match="no evaluation rows that are not trained on"):
        load_rows(_files(train, train), "eval")


def test_mapping_of_columns(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "d.jsonl", [{"q": "2 {x}?", "a": "so\n#### 7 ", "level": 3}])
    config = _files(
        path,
        prompt="{q} Box: \\boxed{{}}",
        reference="a",
        reference_pattern="#### (.+)",
        solution="a",
        solution_pattern="(?s)(.*)####",
        columns=["level"],
        system="Be brief.",
        eval_size=0,
    )
    (row,) = load_rows(config)
    assert row.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 {x}? Box: \\boxed{}"},
    )
    assert (row.reference, row.solution, row.columns) == ("7", "so", {"level": 3})
    assert rows_with_solution([row]) == [row]


def test_prompt_may_be_a_conversation(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c", "x": 1},
    ]
    path = _jsonl(tmp_path / "d.jsonl", [{"prompt": messages}])
    (row,) = load_rows(TaskConfig(source={"kind": "files", "train": path}, eval_size=0))
    assert [message["content"] for message in row.messages] == ["a", "b", "c"]
    assert row.reference is None
    _jsonl(path, [{"prompt": messages[:2]}])
    with pytest.raises(ValueError, match="the last one by the user"):
        load_rows(TaskConfig(source={"kind": "files", "train": path}, eval_size=0))


def test_parquet_and_json(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_numbers(6)), tmp_path / "d.parquet")
    (tmp_path / "d.json").write_text(json.dumps(_numbers(6)))
    rows = load_rows(_files(tmp_path / "d.parquet", eval_size=2))
    assert [row.reference for row in rows] == [
        row.reference for row in load_rows(_files(tmp_path / "d.json", eval_size=2))
    ]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        load_rows(_files(tmp_path / "bad.parquet"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ('{"question": "a", "answer": "b"}\n{"question": \n', "line 2: malformed JSON"),
        ("[" * 100_000 + "\n", "line 1: malformed JSON"),
        ('{"question": ' + "1" * 5000 + "}\n", "line 1: malformed JSON"),
        ('["a"]\n', "line 1: a row must be an object, and this is a list"),
        ('{"question": "a", "answr": "b"}\n', "line 1 has no column 'answer'; it has question, answr"),
        ('{"question": "a", "answer": "b"}\n\n{"question": " "}\n', "line 3"),
        (
            '{"question": "a", "answer": "1"}\n{"question": "b", "answer": null}\n{"question": "c", "answer": " "}\n',
            r"2 rows have no reference in 'answer' \(the first: .*line 2\)",
        ),
        ('{"question": 3, "answer": "b"}\n', "the prompt 'question' is 3, and must be text"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_rows(_files(tmp_path / "d.jsonl", eval_size=0))
    assert "\n" not in str(caught.value)


def test_missing_file_folder_and_ending(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.jsonl: there is no such file"):
        load_rows(_files(tmp_path / "absent.jsonl"))
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(ValueError, match="is a directory"):
        load_rows(_files(tmp_path / "x.jsonl"))
    with pytest.raises(ValueError, match=r"the ending '\.pkl' is not known"):
        load_rows(_files(tmp_path / "x.pkl"))
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_rows(_files(tmp_path / "latin.jsonl"))


def test_too_many_held_out(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "d.jsonl", _numbers(5))
    with pytest.raises(ValueError, match="eval_size is 5, and the data has 5 distinct prompts"):
        load_rows(_files(path, eval_size=5))
    with pytest.raises(ValueError, match="no evaluation rows"):
        load_rows(_files(path, eval_size=0), "eval")
    with pytest.raises(ValueError, match="no row has a worked solution"):
        rows_with_solution(load_rows(_files(path, eval_size=0)))


@pytest.mark.skipif(not GSM8K.exists(), reason="the development data lies beside the project, and is absent here")
def test_gsm8k() -> None:
    config = _files(
        GSM8K, reference_pattern="#### (.+)", solution="answer", solution_pattern="(?s)(.*)\n####", columns=["final"]
    )
    rows = load_rows(config)
    assert len(rows) == 800
    assert all(row.reference.replace(",", "") == row.columns["final"] for row in rows)
    assert len(rows_with_solution(rows)) == 800


# ---- hub and functions ----


def test_hub_layout_of_a_local_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mydata"
    folder.mkdir()
    _jsonl(folder / "train.jsonl", _numbers(8))
    _jsonl(folder / "test.jsonl", _numbers(4, start=100))
    source = {"kind": "hub", "name": str(folder), "eval_split": "test"}
    config = TaskConfig(source=source, prompt="question", reference="answer", eval_size=3)
    assert len(load_rows(config)) == 8
    assert [row.reference for row in load_rows(config, "eval")] == ["101", "102", "103"]
    wrong = TaskConfig(source={**source, "split": "training"}, prompt="question")
    with pytest.raises(ValueError, match=r"split 'training'.* cannot be loaded") as caught:
        load_rows(wrong)
    assert "\n" not in str(caught.value)


def test_function_of_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def squares(split, limit):\n"
        "    for n in range(0 if split == 'train' else 1, limit, 2):\n"
        "        yield {'prompt': f'{n} squared?', 'reference': str(n * n)}\n"
    )
    source = {"kind": "function", "function": f"{tmp_path / 'mine.py'}:squares", "args": {"limit": 10}}
    config = TaskConfig(source=source, reference="reference")
    assert [row.reference for row in load_rows(config)] == ["0", "4", "16", "36", "64"]
    assert [row.reference for row in load_rows(config, "eval")] == ["1", "9", "25", "49", "81"]
    with pytest.raises(ValueError, match=r"has no function .cubes."):
        load_rows(TaskConfig(source={"kind": "function", "function": f"{tmp_path / 'mine.py'}:cubes"}))
    with pytest.raises(ValueError, match="cannot be called with"):
        load_rows(TaskConfig(source={**source, "args": {"limits": 3}}))


def test_registered_task() -> None:
    @task("seven times")
    def seven(split: str):
        return [{"prompt": f"7 * {n}?"} for n in range(5)]

    source = {"kind": "function", "function": "seven times", "gives_eval": False}
    assert len(load_rows(TaskConfig(source=source, eval_size=2))) == 3
    with pytest.raises(ValueError, match="did you mean 'seven times'"):
        load_rows(TaskConfig(source={**source, "function": "seven time"}))
    with pytest.raises(ValueError, match="registered already"):
        task("seven times")(seven)


# ---- templates, configuration, order ----


@given(st.dictionaries(st.text("abc.[]", min_size=1, max_size=3), st.text(max_size=20), min_size=1))
def test_template_puts_texts_in_unchanged(values: dict[str, str]) -> None:
    template = "<" + "|".join(f"{{{name}}}" for name in values if not set(name) & set("[]")) + ">{{x}}"
    kept = [value for name, value in values.items() if not set(name) & set("[]")]
    assert render_template(template, values) == "<" + "|".join(kept) + ">{x}"


@pytest.mark.parametrize(
    "template", ["{q.__class__}", "{q[0]}", "{q!r}", "{q:>9999999999}", "{}", "{0}", "{q", "q}", "{r}"]
)
def test_template_reaches_nothing_else(template: str) -> None:
    with pytest.raises(ValueError, match="the template"):
        render_template(template, {"q": "x"})


def test_configuration_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("source: {kind: reasoning_gym, datasets: [{name: gcd}]}\nsize: 5\n")
    argv = [str(tmp_path / "c.yaml"), "--source.train", "d.jsonl", "--source.kind", "files"]
    assert load_config(TaskConfig, argv).source.train == Path("d.jsonl")
    for extra, words in (
        (["--source.kind", "fils"], "'source.kind' is 'fils'.*must be one of 'reasoning_gym', 'files'"),
        (["--source", "{kind: files, train: a, evall: b}"], "unknown key 'source.evall'.*did you mean 'source.eval'"),
        (["--source", "{kind: files}"], "missing required key 'source.train'"),
        (["--source", "{train: a, kind: hub}"], "source.train"),
        (["--reference_pattern", "abc"], "has 0 groups, and must have one"),
        (["--reference_pattern", "(abc"], "is not a regular expression"),
        (["--source.datasets.0.weight", "0"], "'source.datasets.0.weight' is 0.*greater than 0"),
    ):
        with pytest.raises(ValueError, match=words):
            load_config(TaskConfig, [str(tmp_path / "c.yaml"), *extra])


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 200), st.integers(0, 50))
def test_epoch_order(n_rows: int, seed: int, position: int, count: int) -> None:
    order = EpochOrder(n_rows, seed)
    run = order.rows(0, position + count)
    assert EpochOrder(n_rows, seed).rows(position, count) == run[position:], "a position is all the state there is"
    for start in range(0, len(run) - n_rows + 1, n_rows):
        assert sorted(run[start : start + n_rows]) == list(range(n_rows))


def test_epochs_and_seeds_differ() -> None:
    order = EpochOrder(50, 7)
    assert order.rows(0, 50) != order.rows(50, 50)
    assert order.rows(0, 50) != EpochOrder(50, 8).rows(0, 50)
    assert EpochOrder(5, 0).rows(0, 12) == [0, 2, 3, 1, 4, 2, 1, 3, 0, 4, 0, 4], (
        "the order of a stored run must stay what it was"
    )
    with pytest.raises(ValueError, match="the dataset is empty"):
        EpochOrder(0, 0)


def test_import_is_light() -> None:
    heavy = ("torch", "transformers", "datasets", "pyarrow", "reasoning_gym", "numpy")
    code = f"import recipes.tasks, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
