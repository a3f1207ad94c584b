"""The report: self-contained, and hostile model output stays text."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recipes.compare import write_comparison
from recipes.report import clipped, evaluation_examples, printable, training_examples, write_run_report
from recipes.run_records import load_run, load_runs
from tests.recipes.runs_factory import HOSTILE, make_demo, make_run

_DOCUMENT = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "h3",
    "header",
    "p",
    "div",
    "span",
    "pre",
    "b",
    "i",
}
ALLOWED = _DOCUMENT | {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "figure",
    "img",
    "figcaption",
    "details",
    "summary",
    "bdi",
}
VOID = {"meta", "img"}


class _Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.pre: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "pre" in self.open:
            self.pre[-1] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[str, _Page]:
    folder = tmp_path_factory.mktemp("runs")
    write_comparison(load_runs(make_demo(folder)), folder / "out", title="<b>Demo</b> & co", examples=40)
    text = (folder / "out/report.html").read_text(encoding="utf-8")
    return text, _Page(text)


def test_nothing_but_its_own_tags(page) -> None:
    _, parsed = page
    assert {tag for tag, _ in parsed.tags} <= ALLOWED
    assert parsed.open == []
    attributes = {name for _, attrs in parsed.tags for name in attrs}
    assert not any(name.startswith("on") for name in attributes), attributes
    assert attributes <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "style", "dir", "src", "alt", "open"
    }  # fmt: skip


def test_self_contained(page) -> None:
    text, parsed = page
    sources = [attrs["src"] for tag, attrs in parsed.tags if tag == "img"]
    assert len(sources) == 4
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG")
    policy = next(attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not re.search(r"url\(|@import|https?://", re.sub(r"data:image/png;base64,[\w+/=]+", "", text))


def test_hostile_text_is_shown_as_text(page) -> None:
    text, parsed = page
    shown = "\n".join(parsed.pre)
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert HOSTILE[5] in shown
    assert "[U+202E]right to left override[U+202C] שלום עולם" in shown
    assert "null [U+0000] bell [U+0007] escape [U+001B][31m surrogate [U+D800] end" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    assert "97,000 more characters" in "".join(parsed.text)
    assert max(len(part) for part in parsed.pre) < 4000


def test_samples_stand_side_by_side_with_their_rewards(page) -> None:
    text, _ = page
    pairs = re.findall(r'<div class="pair">(.*?)</details>', text, re.S)
    evaluated = [pair for pair in pairs if "advantage" not in pair]
    trained = [pair for pair in pairs if "advantage" in pair]
    assert len(evaluated) == 4 * 40
    assert all(re.findall(r'<header><span class="tag">(\w+)', pair) == ["short", "long"] for pair in evaluated)
    assert len(trained) == 1 + 1 + 2, "one group for each mode of each RL run"
    assert "<span>math <b>1</b></span><span>format <b>1</b></span>" in text
    assert "<span>user_concise <b>n/a</b></span>" in text
    assert "advantage <b>+0.9</b>" in text
    assert '<span class="tag">finished</span>' in text


def test_report_of_one_run(tmp_path: Path) -> None:
    path = make_run(tmp_path, "run", "hybrid", steps=6)
    assert write_run_report(path) == path / "report.html"
    text = (path / "report.html").read_text()
    assert "<h1>run</h1>" in text
    assert "commit: 0123abc" in text
    assert sorted(item.name for item in (path / "plots").iterdir()) == [
        "accuracy.png", "length.png", "reward.png", "rewards.png"
    ]  # fmt: skip
    assert write_run_report(path), "a second time replaces the first"


def test_bare_run_has_a_report(tmp_path: Path) -> None:
    path = tmp_path / "bare"
    path.mkdir()
    (path / "config.yaml").write_text("{}")
    text = write_run_report(path).read_text()
    assert "No responses were recorded" in text
    assert "<h2>Plots</h2>" not in text


def test_evaluation_examples_take_turns() -> None:
    def sample(row: int, mode: str, right: bool) -> dict:
        return {"row": row, "mode": mode, "sample": 0, "rewards": {"math": float(right)}, "prompt": str(row)}

    outcomes = [(True, True)] * 5 + [(False, True)] * 3 + [(False, False)]
    samples = [
        sample(row, mode, right)
        for row, pair in enumerate(outcomes)
        for mode, right in zip(("short", "long"), pair, strict=True)
    ]
    chosen = evaluation_examples(samples[::-1], "math", 9)
    assert all([response.mode for response in example.responses] == ["short", "long"] for example in chosen)
    chosen = evaluation_examples(samples, "math", 5)
    assert [example.prompt for example in chosen] == ["0", "5", "8", "1", "6"]
    assert [response.good for response in chosen[1].responses] == [False, True]
    assert evaluation_examples(samples, "math", 0) == []


def test_training_examples_show_the_widest_group() -> None:
    def rollout(row: int, mode: str, total: float | None) -> dict:
        return {"row": row, "mode": mode, "total": total, "prompt": str(row), "response": str(total)}

    # A response whose total is not known, since a reward is missing, is no worst one.
    groups = {(1, "long"): [0.5, 0.5], (2, "long"): [1.0, 0.0, 0.3], (3, "short"): [0.2, None, 0.1]}
    chosen = training_examples(
        [rollout(row, mode, total) for (row, mode), totals in groups.items() for total in totals], None
    )
    assert [(example.prompt, [r.text for r in example.responses]) for example in chosen] == [
        ("3", ["0.2", "0.1"]),
        ("2", ["1.0", "0.0"]),
    ]


def test_printable_and_clipped() -> None:
    assert printable("tab\tline\nπ 中文 שלום 👩‍👩‍👧") == "tab\tline\nπ 中文 שלום 👩‍👩‍👧"
    assert printable("\x00\x7f\u2067\ufeff") == "[U+0000][U+007F][U+2067][U+FEFF]"
    assert clipped("a" * 3001) == ("a" * 3000, 1)
    assert clipped("") == ("", 0)


def test_samples_survive_reading(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, "run", "hybrid", steps=2))
    assert [sample["response"] for sample in run.samples if sample["mode"] == "long"][: len(HOSTILE)] == list(HOSTILE)
