"""Figures of an evaluation against hand-computed values and independent references."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rewards
from recipes.evaluate import figures
from recipes.evaluation import (
    EvaluationConfig,
    accuracy_interval,
    check_breakdown,
    check_evaluation,
    evaluate_policy,
    pass_at_k,
    summarise,
    wilson_interval,
)
from recipes.tasks import Row
from rewards import Score
from rl.config import ReferenceConfig
from rollouts.modes import ModesConfig
from rollouts.records import Request, Rollout, Status
from tests.tiny import make_tiny_tokenizer


def test_wilson_interval_equals_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263 and 15 of 148."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_the_share_of_subsets_with_a_right_answer(case: tuple[int, int, int]) -> None:
    samples, right, k = case
    answers = [True] * right + [False] * (samples - right)
    subsets = list(itertools.combinations(answers, k))
    assert pass_at_k(samples, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_several_samples_of_a_row_are_no_independent_evidence() -> None:
    """The interval over rows stays as wide however often the same rows are sampled with the same outcome."""
    once = accuracy_interval([[i < 20] for i in range(40)])
    often = accuracy_interval([[i < 20] * 10 for i in range(40)])
    assert once[0] == often[0] == 0.5
    assert often[2] - often[1] == pytest.approx(once[2] - once[1], rel=0.2)


def rollout(tokens: int, status: Status = Status.FINISHED) -> Rollout:
    return Rollout(
        row=0,
        sample=0,
        mode="short",
        prompt_ids=(1,),
        response_ids=tuple(range(tokens)),
        logprobs=(0.0,) * tokens,
        response="",
        thinking=None,
        answer="",
        answer_start=0,
        status=status,
        policy_version=0,
    )


def test_summary_by_hand() -> None:
    groups = [[rollout(2), rollout(4)], [rollout(6, Status.TRUNCATED), rollout(8)]]
    values = [[1.0, 0.0], [0.0, 0.0]]
    formats = [[1.0, 1.0], [0.0, None]]
    scores = [
        [Score(total=v, breakdown={"accuracy": v, "format": f}) for v, f in zip(vs, fs, strict=True)]
        for vs, fs in zip(values, formats, strict=True)
    ]
    summary = summarise(groups, scores, EvaluationConfig(samples=2, k=2))
    assert summary["n"] == 2
    assert summary["accuracy"] == 0.25
    assert summary["pass_at_k"] == 0.5
    assert summary["response_tokens"] == 5.0
    assert summary["truncated"] == 0.25
    assert summary["format"] == 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvaluationConfig(metric="acc"), "none of the run's rewards"),
        (EvaluationConfig(k=3, samples=2), "only 2 samples"),
    ],
)
def test_impossible_evaluations_are_refused(config: EvaluationConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_evaluation(config, ["accuracy"])


class ParrotEngine:
    """Answers every row with `5`, and every third row of long mode with nothing."""

    version = 0

    def generate(self, requests: list[Request], on_progress: Any = None, on_result: Any = None) -> list[Rollout]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Rollout:
        text = "" if request.mode.thinks and request.row % 3 == 0 else "5"
        return Rollout(
            row=request.row,
            sample=request.sample,
            mode=request.mode.name,
            prompt_ids=request.prompt_ids,
            response_ids=(1,),
            logprobs=(0.0,),
            response=text,
            thinking=None,
            answer=text,
            answer_start=0,
            status=Status.FINISHED,
            policy_version=0,
        )


def test_breakdown_by_a_column_by_hand() -> None:
    """Nine rows, three of a kind; rows 0, 3, 6 are sums whose answer is 5, and row 1 is a count whose answer is 5."""
    rows = [
        Row(
            index=i,
            messages=({"role": "user", "content": "?"},),
            reference="5" if i in (0, 1, 3, 6) else "7",
            columns={"asked": ("sum", "count", 12)[i % 3]},
        )
        for i in range(9)
    ]
    with rewards.build([{"name": "accuracy"}], {"asked"}) as reward_set:
        summary, records = evaluate_policy(
            engine=ParrotEngine(),  # type: ignore[arg-type]
            tokenizer=make_tiny_tokenizer(),
            rows=rows,
            modes=ModesConfig(),
            rewards=reward_set,
            config=EvaluationConfig(by="asked"),
            reference=ReferenceConfig(),
        )
    assert len(records) == 18
    short, long = summary["short"]["by"], summary["long"]["by"]
    assert {value: part["n"] for value, part in short.items()} == {"12": 3, "count": 3, "sum": 3}
    assert [short[value]["accuracy"] for value in ("12", "count", "sum")] == pytest.approx([0, 1 / 3, 1])
    assert [long[value]["accuracy"] for value in ("12", "count", "sum")] == pytest.approx([0, 1 / 3, 0])
    assert (short["sum"]["ci_low"], short["sum"]["ci_high"]) == pytest.approx(wilson_interval(3, 3))
    assert summary["short"]["accuracy"] == pytest.approx(4 / 9)
    assert [line.split(":")[0].strip() for line in figures(summary)][:3] == ["short", "short, 12", "short, count"]


def test_a_breakdown_by_an_absent_column_is_refused() -> None:
    row = Row(index=4, messages=(), columns={"kind": "scene"})
    check_breakdown(EvaluationConfig(by="kind"), [row])
    check_breakdown(EvaluationConfig(), [row])
    with pytest.raises(ValueError, match=r"'asked'.*row 4.*\(kind\)"):
        check_breakdown(EvaluationConfig(by="asked"), [row])
