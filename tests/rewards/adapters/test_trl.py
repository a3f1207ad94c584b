"""TRL's reward functions made of a reward file: the scores are Tandem's, the contract is TRL's."""

import pytest

from rewards import RewardError
from rewards.adapters.trl import trl_reward_funcs, trl_reward_weights
from rewards.reward_file import read_reward_file
from rewards.samples import make_sample
from tests.rewards.adapters.batches import groups, tandem_groups, write_rewards
from tests.tiny import make_tiny_tokenizer


def batch(*, chat: bool = True) -> dict:
    """Return the keyword arguments with which TRL calls a reward function."""
    items = [item for group in groups() for item in group]
    return {
        "prompts": [item.row.messages if chat else item.row.question for item in items],
        "completions": [
            [{"role": "assistant", "content": item.rollout.response}] if chat else item.rollout.response
            for item in items
        ],
        "completion_ids": [list(item.rollout.response_ids) for item in items],
        "solution": [item.row.reference for item in items],
        "hint": [item.row.columns["hint"] for item in items],
        "mode": [item.mode.name for item in items],
        "trainer_state": object(),
    }


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("num_generations", [None, 4])
def test_the_scores_are_those_of_tandem(tmp_path, chat, num_generations):
    path = write_rewards(tmp_path, group=True)
    expected = [score for group in read_reward_file(path).build(["hint"]).score(tandem_groups()) for score in group]
    options = {"reference": "solution", "num_generations": num_generations}
    extra, metrics = {}, {}
    [total] = trl_reward_funcs(path, **options)
    values = total(**batch(chat=chat), log_extra=extra.__setitem__, log_metric=metrics.__setitem__)
    assert values == [score.total for score in expected]
    assert len(set(values)) > 6  # the responses differ in what they deserve

    functions = trl_reward_funcs(path, separate=True, **options)
    call = batch(chat=chat)
    names = ["accuracy", "format", "repetition", "concise", "two_parts", "length"]
    assert [function.__name__ for function in functions] == names
    for function in functions:
        column = [score.value(function.__name__) for score in expected]
        assert function(**call) == column == extra[function.__name__]
    assert metrics["reward/concise"] == sum(v for v in extra["concise"] if v is not None) / 8
    assert None in extra["concise"]  # does not apply in long mode, and is no 0 there
    assert trl_reward_weights(path) == [1.0, 0.2, 0.5, 0.3, 0.1, 0.4]


def test_separate_functions_score_a_batch_once(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [counted.py:one, {name: format, label: f}]")
    (tmp_path / "counted.py").write_text(
        "calls = []\ndef one(answer):\n    calls.append(answer)\n    return len(calls)\n"
    )
    one, form = trl_reward_funcs(tmp_path / "r.yaml", separate=True)
    completions = ["a", "b"]
    assert one(prompts=["p"] * 2, completions=completions) == [1, 2]
    assert form(prompts=["p"] * 2, completions=completions) == [1.0, 1.0]
    assert one(prompts=["p"] * 2, completions=completions) == [3, 4]  # asked again: scored again


def test_nothing_applies(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [accuracy]")
    [total] = trl_reward_funcs(tmp_path / "r.yaml")
    assert total(prompts=["a", "b"], completions=["7", "7"], reference=[None, "7"]) == [None, 1.0]


def test_modes_without_a_column(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [m.py:m]")
    (tmp_path / "m.py").write_text("def m(mode, answer, thinking):\n    return {mode: len(answer)}\n")
    texts = {"prompts": ["p"] * 2, "completions": ["why</think>ab", "abc"]}
    extra = {}
    [told] = trl_reward_funcs(tmp_path / "r.yaml")
    assert told(**texts, log_extra=extra.__setitem__) == [2.0, 3.0]
    [fixed] = trl_reward_funcs(tmp_path / "r.yaml", mode="long")
    assert fixed(**texts) == [2.0, 0.0]
    [written] = trl_reward_funcs(tmp_path / "r.yaml", mode="short")
    assert written(**texts) == [13.0, 3.0]
    with pytest.raises(RewardError, match="mode 'train' is none of short, long"):
        told(**texts, mode=["train"] * 2)


def test_other_tags_and_an_opening_tag_written_by_the_model(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "rewards: [{name: format, args: {think_open: <a>, think_close: </a>, thinking_modes: [deep]}}]\n"
        "modes: {plain: {}, deep: {thinks: true, think_open: <a>, think_close: </a>}}\n"
    )
    call = {"prompts": ["p"], "completions": [" <a>why</a> 7"], "mode": ["deep"]}
    assert trl_reward_funcs(path)[0](**call) == [0.0]
    assert trl_reward_funcs(path, prefilled=False)[0](**call) == [1.0]


def test_truncated_needs_the_end_of_turn(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [t.py:cut]")
    (tmp_path / "t.py").write_text("def cut(truncated):\n    return float(truncated)\n")
    call = {"prompts": ["p"] * 3, "completions": ["a"] * 3, "completion_ids": [[5, 2], [5], []]}
    assert trl_reward_funcs(tmp_path / "r.yaml", eos_token_id=[2, 3])[0](**call) == [0.0, 1.0, 1.0]
    with pytest.raises(RewardError, match=r"'cut' needs `truncated`.*eos_token_id=tokenizer"):
        trl_reward_funcs(tmp_path / "r.yaml")[0](**call)


def test_groups_that_are_not_whole(tmp_path):
    path = write_rewards(tmp_path, group=True)
    half = {key: value[2:] if isinstance(value, list) else value for key, value in batch().items()}
    with pytest.raises(RewardError, match="'length' needs all 4 responses to a prompt at once, and this process has 2"):
        trl_reward_funcs(path, reference="solution", num_generations=4)[0](**half)


def test_a_prompt_that_stands_twice_in_a_row(tmp_path):
    (tmp_path / "r.yaml").write_text("rewards: [g.py:size]")
    (tmp_path / "g.py").write_text(
        "from rewards import group_reward\n@group_reward('size_of_group')\n"
        "def size(response):\n    return [len(response)] * len(response)\n"
    )
    call = {"prompts": ["p"] * 4 + ["q"] * 2, "completions": ["a"] * 6}
    assert trl_reward_funcs(tmp_path / "r.yaml")[0](**call) == [4, 4, 4, 4, 2, 2]
    assert trl_reward_funcs(tmp_path / "r.yaml", num_generations=2)[0](**call) == [2] * 6


@pytest.mark.parametrize(
    ("rewards", "columns", "message"),
    [
        ("[accuracy]", None, "'accuracy' needs the right answer, and the dataset has no column 'reference'.*solution"),
        ("[mine.py:concise]", None, "'concise' needs 'hint', which this sample lacks"),
        ("[mine.py:concise]", ["solution"], "'hint' that nothing fills"),
        ("[lenght]", None, "Did you mean 'length'"),
    ],
)
def test_refused(tmp_path, rewards, columns, message):
    path = write_rewards(tmp_path, group=False)
    path.write_text(f"rewards: {rewards}")
    with pytest.raises(RewardError, match=message):
        trl_reward_funcs(path, columns=columns)[0](prompts=["p"], completions=["7"], solution=["7"])


def test_a_sample_is_split_as_in_training():
    tokenizer = make_tiny_tokenizer()
    assert tokenizer.eos_token_id is not None
    for group in tandem_groups():
        for sample in group:
            made = make_sample(sample["response"], mode=sample["mode"])
            assert made == {key: sample[key] for key in made}
