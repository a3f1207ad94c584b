"""One reward file, the same responses: TRL's trainer for two steps, Tandem's rewards, verl's reward function."""

import pytest

from rewards.adapters.trl import trl_reward_funcs, trl_reward_weights
from rewards.adapters.verl import compute_score_batched
from rewards.reward_file import read_reward_file
from rewards.samples import make_sample
from tests.rewards.adapters.batches import write_rewards
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow
STEPS, PROMPTS, GROUP = 2, 2, 4
QUESTIONS = ["What is 3 + 4?", "What is 2 + 2?", "What is 1 + 9?", "What is 5 + 5?"]


def train(folder, functions, **options):
    """Train a tiny random model for two steps; return TRL's log."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = make_tiny_model(folder / "model", hidden_size=32, intermediate_size=64)
    rows = [
        {
            "prompt": [{"role": "user", "content": text}],
            "solution": str(i),
            "hint": "e",
            "mode": ["short", "long"][i % 2],
        }
        for i, text in enumerate(QUESTIONS)
    ]
    arguments = GRPOConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=PROMPTS * GROUP,
        num_generations=GROUP,
        max_completion_length=8,
        max_steps=STEPS,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        seed=0,
        **options,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        processing_class=AutoTokenizer.from_pretrained(model),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        reward_funcs=functions,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


def recorded(function, calls):
    """Return the function, with its arguments and results kept; TRL shows it under the same name."""

    def wrapped(**call):
        result = function(**call)
        calls.append((call, result))
        return result

    wrapped.__name__ = function.__name__
    return wrapped


def samples_of(call) -> list[dict]:
    """Return what Tandem makes of the responses of a TRL batch."""
    return [
        make_sample(
            call["completions"][i][0]["content"],
            mode=call["mode"][i],
            columns={"hint": call["hint"][i]},
            prompt=call["prompts"][i][-1]["content"],
            reference=call["solution"][i],
            response_ids=call["completion_ids"][i],
        )
        for i in range(len(call["completions"]))
    ]


def test_two_steps_of_trl(tmp_path):
    pytest.importorskip("trl")
    path = write_rewards(tmp_path, group=True)
    calls: list = []
    [total] = trl_reward_funcs(path, reference="solution", num_generations=GROUP)
    log = train(tmp_path, [recorded(total, calls)])
    assert len(log) == len(calls) == STEPS

    rewards = read_reward_file(path).build(["hint"])
    for (call, result), entry in zip(calls, log, strict=True):
        samples = samples_of(call)
        expected = rewards.score([samples[:GROUP], samples[GROUP:]])
        scores = [score for group in expected for score in group]
        assert result == [score.total for score in scores]
        assert len(set(result)) > 1
        assert entry["rewards/total/mean"] == pytest.approx(sum(result) / len(result), abs=1e-6)
        for name in rewards.names:
            values = [score.value(name) for score in scores if score.value(name) is not None]
            assert entry[f"reward/{name}"] == pytest.approx(sum(values) / len(values))
        of_verl = compute_score_batched(
            data_sources=["trl"] * len(samples),
            solution_strs=[item[0]["content"] for item in call["completions"]],
            ground_truths=call["solution"],
            extra_infos=[
                {
                    "index": i // GROUP,
                    "mode": sample["mode"],
                    "hint": sample["hint"],
                    "prompt": sample["prompt"],
                    "response_ids": sample["response_ids"],
                }
                for i, sample in enumerate(samples)
            ],
            rewards=str(path),
        )
        assert [item["score"] for item in of_verl] == result
        assert [{key: item[key] for key in rewards.names} for item in of_verl] == [
            {name: score.value(name) for name in rewards.names} for score in scores
        ]


def test_one_function_per_reward(tmp_path):
    pytest.importorskip("trl")
    path = write_rewards(tmp_path, group=True)
    calls: list = []
    functions = trl_reward_funcs(path, separate=True, reference="solution")
    log = train(tmp_path, [recorded(item, calls) for item in functions], reward_weights=trl_reward_weights(path))
    rewards = read_reward_file(path).build(["hint"])
    for step, entry in enumerate(log):
        samples = samples_of(calls[step * len(functions)][0])
        scores = [s for group in rewards.score([samples[:GROUP], samples[GROUP:]]) for s in group]
        assert entry["reward"] == pytest.approx(sum(score.total for score in scores) / len(scores), abs=1e-5)
        for name in rewards.names:
            values = [score.value(name) for score in scores if score.value(name) is not None]
            assert entry[f"rewards/{name}/mean"] == pytest.approx(sum(values) / len(values), abs=1e-6)
