"""Degenerate text, and text that repeats for good reason."""

import random
import time

import pytest

from rewards.repetition import inspect, loops, repetition

WORDS = [
    "river", "stone", "window", "garden", "letter", "copper", "winter", "engine", "market", "bridge", "silver",
    "candle", "forest", "doctor", "painter", "harbour", "mirror", "saddle", "village", "thunder", "pocket", "lantern",
    "orchard", "captain", "meadow", "whistle", "ladder", "basket", "feather", "anchor",
]  # fmt: skip


def prose(count: int, seed: int = 0) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(count))


DEGENERATE = {
    "word": "so " * 200,
    "sentence": prose(100) + " Let me check this again. " * 40,
    "long sentence": prose(60) + " I think that the number of apples in the basket must be computed from the sum." * 12,
    "characters": "ha" * 200,
    "emoji": "🙂" * 100,
    "chinese": "我们再检查一遍这个答案。" * 30,
    "japanese": "もう一度考えてみましょう。" * 30,
    "thai": "ลองตรวจสอบอีกครั้ง" * 30,
    "korean": "다시 한번 확인해 보겠습니다. " * 30,
    "arabic": "دعنا نتحقق مرة أخرى. " * 30,
    "russian": "Давайте проверим ещё раз. " * 30,
    "code": "def f():\n" + "    total = total + 1\n" * 60,
    "table": "| a | b |\n|---|---|\n" + "| 1 | red |\n" * 60,
    "latex": "x = " + "\\frac{a}{b} + " * 80,
    "counter": "".join(
        f"Step {k}: we look at the problem once more and find the same value as before.\n" for k in range(40)
    ),
    "divisors": "".join(
        f"We get {k}. But this is not one of the options that were given above, so we must divide the result by {k}. "
        for k in range(30)
    ),
    "newlines": "Hm.\n\n" * 100,
    "loop at the end": prose(400) + " and then we wait" * 40,
}

FINE = {
    "empty": "",
    "prose": prose(500),
    "long prose": prose(5000),
    "ruler": "Title\n" + "=" * 120 + "\n" + prose(50) + "\n" + "-" * 120,
    "digits": "1/7 = 0." + "142857" * 20,
    "zeros": "10^100 = 1" + "0" * 100,
    "matrix": " \\\\ ".join(" & ".join("1" if i == j else "0" for j in range(8)) for i in range(8)),
    "multiplication table": "\n".join(" ".join(f"{i}x{j}={i * j}" for j in range(1, 11)) for i in range(1, 11)),
    "markdown table": "| n | n^2 | prime |\n|---|---|---|\n" + "".join(
        f"| {n} | {n * n} | {'yes' if n in (2, 3, 5, 7, 11, 13) else 'no'} |\n" for n in range(1, 30)
    ),
    "cases": "".join(
        f"For k = {k} the value of k^2 + 1 is {k * k + 1}, and its last digit is {(k * k + 1) % 10}.\n"
        for k in range(30)
    ),
    "code": "".join(f"    def test_{k}(self):\n        self.assertEqual(square({k}), {k * k})\n\n" for k in range(25)),
    "sum": " + ".join(f"\\frac{{1}}{{{k}}}" for k in range(1, 60)),
    "primes": ", ".join(str(n) for n in range(2, 400) if all(n % d for d in range(2, n))),
    "refrain": "".join(prose(30, seed) + "\nRow, row, row your boat, gently down the stream.\n" for seed in range(6)),
    "checked twice": prose(80) + " Let me check: 3 + 4 = 7. Yes. Let me check: 7 + 5 = 12. Yes. So it is 12.",
    "json": ", ".join(f'{{"id": {k}, "name": "{WORDS[k % 30]}", "price": {k * 7 % 13}}}' for k in range(30)),
    "chinese": "首先计算第一个数，得到十二；然后计算第二个数，得到二十。两数之和为三十二，因此答案是三十二。",
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate(name):
    assert inspect(DEGENERATE[name]).degenerate
    assert repetition(response=DEGENERATE[name], penalty=0.5) == -0.5


@pytest.mark.parametrize("name", FINE)
def test_legitimate(name):
    assert inspect(FINE[name]).reason == ""
    assert repetition(response=FINE[name]) == 0.0


def test_a_few_repeats_are_not_a_loop():
    assert repetition(response=prose(60) + " No. " * 5 + prose(60, 1)) == 0.0


def test_loops_are_found_with_their_period():
    assert (3, 43, 10) in set(loops("xyz" + "0123456789" * 4))


def fibonacci(size: int) -> str:
    one, two = "a", "ab"
    while len(two) < size:
        one, two = two, two + one
    return two[:size]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "ab " * 33_333,
        prose(16_000),
        "".join(random.Random(1).choice("ab") for _ in range(100_000)),
        "".join(random.Random(1).choice("ab ") for _ in range(100_000)),
        fibonacci(100_000),
        "".join(f"{k} " for k in range(20_000)),
        "今天" * 50_000,
    ],
)
def test_linear_time(text):
    start = time.process_time()
    inspect(text)
    assert time.process_time() - start < 1.0
