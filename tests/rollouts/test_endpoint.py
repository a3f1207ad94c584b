"""The endpoint's client against a server that fails, hangs, drips, lies and disappears."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.endpoint import ChatAnswer, ChatRequest, EndpointConfig
from rollouts.endpoint_client import Endpoint, read_answer
from tests.rollouts.fake_endpoint import FakeEndpoint, completion, fake_endpoint


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_endpoint() as server:
        yield server


def make(fake: FakeEndpoint, **changes: Any) -> Endpoint:
    return Endpoint(EndpointConfig(**{"url": fake.url, "model": "m", "wait_s": 0.001, "timeout_s": 10.0, **changes}))


def ask(endpoint: Endpoint, *texts: str) -> list[ChatAnswer]:
    return endpoint.ask([ChatRequest(messages=[{"role": "user", "content": text}]) for text in texts])


def test_answers_come_in_order_and_are_counted(fake: FakeEndpoint) -> None:
    endpoint = make(fake, prompt_price=2.0, completion_price=10.0)
    answers = ask(endpoint, "a", "slow", "b")
    assert [answer.text for answer in answers] == ["answer to a", "slow", "answer to b"]
    assert all(answer.attempts == 1 and answer.problem is None and not answer.truncated for answer in answers)
    usage = endpoint.usage
    assert (usage.requests, usage.attempts, usage.failed) == (3, 3, 0)
    assert (usage.prompt_tokens, usage.completion_tokens) == (21, 9)
    assert usage.cost(endpoint.config) == pytest.approx((21 * 2 + 9 * 10) / 1e6)
    assert endpoint.ask([]) == []


@pytest.mark.parametrize(
    "text", ["status 500 x2", "status 429 x1", "drop x2", "raw <html> x1", 'json {"choices": []} x1']
)
def test_passing_trouble_is_tried_again(fake: FakeEndpoint, text: str) -> None:
    endpoint = make(fake)
    (answer,) = ask(endpoint, text)
    assert answer.text == f"answer to {text}"
    assert answer.attempts == int(text[-1]) + 1 == fake.seen[text]
    assert sum(endpoint.usage.problems.values()) == int(text[-1])
    assert endpoint.usage.failed == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not_tried_again(fake: FakeEndpoint, status: int) -> None:
    endpoint = make(fake)
    (answer,) = ask(endpoint, f"status {status}")
    assert answer.text is None
    assert answer.problem == f"status {status}: <html>some trouble</html> (attempt 1)"
    assert fake.seen[f"status {status}"] == 1
    assert endpoint.usage.problems == {f"status {status}": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("status 503", "status 503"),
        ("drop", "cannot be reached"),
        ("raw not json", "cannot be read"),
        ("raw " + "[" * 100_000, "cannot be read"),
        ("json []", "no choice with a message"),
        ('json {"choices": [{"message": {"content": null}}]}', "has no text"),
        ("huge 200000", "larger than 0.1 MiB"),
    ],
)
def test_lasting_trouble_is_a_recorded_failure_and_the_rest_goes_on(
    fake: FakeEndpoint, text: str, problem: str
) -> None:
    endpoint = make(fake, retries=1, max_answer_mib=0.1)
    bad, good = ask(endpoint, text, "a")
    assert bad.text is None
    assert problem in str(bad.problem)
    assert "\n" not in str(bad.problem)
    assert len(str(bad.problem)) < 400
    assert bad.attempts == 2
    assert good.text == "answer to a"
    assert endpoint.usage.failed == 1


@pytest.mark.parametrize("text", ["hang", "drip"])
def test_a_server_that_never_finishes_is_left_in_time(fake: FakeEndpoint, text: str) -> None:
    endpoint = make(fake, timeout_s=0.5, retries=1)
    started = time.monotonic()
    (answer,) = ask(endpoint, text)
    assert time.monotonic() - started < 8.0
    assert "no whole answer in 0.5 s" in str(answer.problem)
    assert endpoint.usage.problems == {"time-out": 2}


def test_a_dead_endpoint_is_given_up(fake: FakeEndpoint) -> None:
    endpoint = make(fake, retries=0, give_up_after=3, concurrency=1)
    endpoint.config = endpoint.config.model_copy(update={"url": "http://127.0.0.1:9"})  # nothing listens there
    answers = ask(endpoint, *map(str, range(8)))
    assert [answer.attempts for answer in answers] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert "cannot be reached" in str(answers[0].problem)
    assert "not sent: 3 requests" in str(answers[-1].problem)
    assert endpoint.usage.failed == 8


def test_failures_between_successes_do_not_end_it(fake: FakeEndpoint) -> None:
    endpoint = make(fake, retries=0, give_up_after=2, concurrency=1)
    answers = ask(endpoint, "status 404", "a", "status 404", "b", "status 404", "status 404", "c")
    assert [answer.text for answer in answers] == [None, "answer to a", None, "answer to b", None, None, None]
    assert answers[-1].attempts == 0


def test_no_more_than_the_limit_at_once(fake: FakeEndpoint) -> None:
    answers = ask(make(fake, concurrency=3), *(f"slow {n}" for n in range(9)))
    assert len(answers) == 9
    assert fake.most_at_once <= 3


def test_what_is_sent(fake: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ENDPOINT_KEY", " secret ")
    schema = {"type": "object"}
    request = ChatRequest(
        messages=[{"role": "user", "content": "a"}],
        temperature=0.2,
        top_p=0.9,
        max_tokens=5,
        seed=3,
        top_logprobs=20,
        json_schema=schema,
    )
    make(fake, api_key_env="TEST_ENDPOINT_KEY").ask([request])
    assert fake.headers[0]["Authorization"] == "Bearer secret"
    assert fake.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.2,
        "top_p": 0.9,
        "max_tokens": 5,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}},
    }


def test_a_missing_key_and_a_wrong_url_are_refused() -> None:
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        Endpoint(EndpointConfig(url="http://x/v1", model="m", api_key_env="NO_SUCH_KEY"))
    with pytest.raises(ValueError, match="must begin with http"):
        EndpointConfig(url="file:///etc/passwd", model="m")


def test_waits_double_stay_below_the_limit_and_follow_the_server(fake: FakeEndpoint) -> None:
    endpoint = make(fake, wait_s=1.0, max_wait_s=6.0)
    waits = [endpoint._wait_s(5, attempt, None) for attempt in (1, 2, 3, 4, 99)]
    for wait, most in zip(waits, (1, 2, 4, 6, 6), strict=True):
        assert most / 2 <= wait <= most
    assert waits == [endpoint._wait_s(5, attempt, None) for attempt in (1, 2, 3, 4, 99)]
    assert endpoint._wait_s(0, 1, 5.0) == 5.0
    assert endpoint._wait_s(0, 1, 500.0) == 6.0


def test_every_answer_is_told_as_soon_as_it_is_there(fake: FakeEndpoint) -> None:
    told: list[int] = []
    requests = [ChatRequest(messages=[{"role": "user", "content": text}]) for text in ("slow", "a", "status 404")]
    answers = make(fake, concurrency=3).ask(requests, lambda number, _answer: told.append(number))
    assert sorted(told) == [0, 1, 2]
    assert len(answers) == 3

    def fail(_number: int, _answer: ChatAnswer) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make(fake).ask(requests, fail)


def test_log_probs_and_cut_answers_are_read() -> None:
    top = [
        {"token": "Yes", "logprob": -0.1},
        {"token": "No", "logprob": -3},
        {"token": 5},
        {"token": "x", "logprob": "y"},
    ]
    data = completion("Yes", "length", logprobs={"content": [{"token": "Yes", "top_logprobs": top}]})
    answer = read_answer(data, 2)
    assert answer.truncated
    assert answer.first_logprobs == {"Yes": -0.1, "No": -3.0}
    assert answer.attempts == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "prompt_tokens", "logprobs", "top_logprobs", "token"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_an_answer_or_a_refusal(data: Any) -> None:
    try:
        answer = read_answer(json.loads(json.dumps(data)))
    except ValueError:
        return
    assert answer.text is None or isinstance(answer.text, str)
    assert answer.prompt_tokens >= 0
