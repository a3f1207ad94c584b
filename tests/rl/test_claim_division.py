"""Division by a model: retries until an answer can be read, and a record of what never could."""

import json
from collections.abc import Callable, Sequence

import pytest

from rl.claim_division import DivisionConfig, divide_responses
from rl.claims import Division
from rollouts.endpoint import ChatAnswer, ChatRequest, EndpointConfig
from rollouts.endpoint_client import Endpoint
from tests.rollouts.fake_endpoint import completion, fake_endpoint

LINE = '{"claim": "It rains.", "question": "Does it rain?"}'


class Model:
    """Answers by a script: for each response the texts of its attempts."""

    def __init__(self, script: dict[str, list[ChatAnswer]]) -> None:
        self.script = {response: list(answers) for response, answers in script.items()}
        self.requests: list[ChatRequest] = []

    def ask(
        self, requests: Sequence[ChatRequest], on_answer: Callable[[int, ChatAnswer], None] | None = None
    ) -> list[ChatAnswer]:
        self.requests += requests
        answers = [self.script[request.messages[0]["content"].rsplit("Text: ", 1)[1]].pop(0) for request in requests]
        for number in reversed(range(len(answers))):  # any order
            if on_answer:
                on_answer(number, answers[number])
        return answers


def text(content: str, truncated: bool = False) -> ChatAnswer:
    return ChatAnswer(text=content, truncated=truncated)


def test_attempts_and_records() -> None:
    script = {
        "good": [text(LINE)],
        "late": [text("I will."), text(LINE, truncated=True), text("[]")],
        "never": [text("no"), text("no"), text(LINE[:9])],
        "dead": [ChatAnswer(text=None, problem="status 500")] * 3,
    }
    model, told = Model(script), dict[int, Division]()
    responses = ["good", "late", " ", "never", "dead"]
    found = divide_responses(responses, model, DivisionConfig(), on_division=told.__setitem__)
    assert [division.problem for division in found[:2]] == [None, None]
    assert [claim.text for claim in found[0].claims] == ["It rains."]
    assert (found[1].claims, found[1].attempts) == ((), 3)
    assert found[2].problem == "the response is empty"
    assert "not JSON" in str(found[3].problem)
    assert (found[4].problem, found[4].attempts) == ("status 500", 3)
    assert [told[number] for number in range(5)] == found
    assert len(model.requests) == 1 + 3 * 3
    seeds = [request.seed for request in model.requests]
    assert len(set(seeds)) == len(seeds)
    assert {request.temperature for request in model.requests} == {0.2}


def test_the_seeds_follow_from_seed_and_text_alone() -> None:
    def seeds(responses: list[str], seed: int) -> dict[str, int | None]:
        model = Model({response: [text("[]")] for response in responses})
        divide_responses(responses, model, DivisionConfig(), seed=seed)
        return {request.messages[0]["content"][-1]: request.seed for request in model.requests}

    first = seeds(["a", "b"], 0)
    assert seeds(["b"], 0)["b"] == first["b"]
    assert seeds(["b"], 1)["b"] != first["b"]


def test_over_a_real_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_endpoint() as fake:
        endpoint = Endpoint(EndpointConfig(url=fake.url, model="m", retries=0))
        monkeypatch.setattr("rl.claim_division.division_messages", lambda r: [{"role": "user", "content": r}])
        responses = [f"json {json.dumps(completion(LINE))}", "status 404", "fine"]
        found = divide_responses(responses, endpoint, DivisionConfig(attempts=2))
    assert [claim.question for claim in found[0].claims] == ["Does it rain?"]
    assert "status 404" in str(found[1].problem)
    assert "not JSON" in str(found[2].problem)
    assert endpoint.usage.attempts == 5
