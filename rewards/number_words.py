"""Numbers written as words: English up to the trillions, the small ones of some other languages."""

import re

_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * k for k, word in enumerate(_TENS, start=2)}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_OTHER = {
    "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce",
    "it": "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici",
    "pt": "zero um dois três quatro cinco seis sete oito nove dez onze doze",
    "ru": "ноль один два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать",
}
_AMBIGUOUS = {"un", "um", "once", "sei", "six"}
"""Words that mean another thing in another of these languages (`once`, an article)."""
_CHINESE = {word: value for value, word in enumerate("零一二三四五六七八九十")} | {"两": 2, "〇": 0}
_FOREIGN = {
    word: value
    for words in _OTHER.values()
    for value, word in enumerate(words.split())
    if word not in _SMALL and word not in _AMBIGUOUS
} | _CHINESE
NUMBER_WORDS = {*_SMALL, *SCALES, *_FOREIGN, "dozen"}
_WORD = re.compile(r"[^\W\d_]+")


def number_of_words(text: str) -> int | None:
    """Return the number that a text of number words writes; None for anything else.

    Example:
        >>> number_of_words("two thousand and twenty-five")
        2025
    """
    plain = text.strip().casefold()
    words = _WORD.findall(plain[:200])
    if len(plain) > 200 or not words or re.sub(r"[-\s,]", "", plain) != "".join(words):
        return None
    if len(words) == 1 and words[0] in _FOREIGN:
        return _FOREIGN[words[0]]
    if words[-1] == "dozen":
        count = 1 if words[:-1] in ([], ["a"], ["one"]) else _english(words[:-1])
        return None if count is None else 12 * count
    return _english(words)


def _english(words: list[str]) -> int | None:
    """Read `[a] hundred [and] twenty-three thousand ...`: each scale multiplies what stands before it."""
    total = group = 0
    last = None
    if words[0] == "a" and len(words) > 1 and words[1] in SCALES:
        words = ["one", *words[1:]]
    for index, word in enumerate(words):
        if word == "and":
            if last not in SCALES or index == len(words) - 1:
                return None
        elif word in _SMALL:
            tens_before = last in _TENS and 0 < _SMALL[word] < 10
            if last is not None and not tens_before and last not in SCALES and last != "and":
                return None
            group += _SMALL[word]
        elif word == "hundred":
            if not 0 < group < 100:
                return None
            group *= 100
        elif word in SCALES:
            if group == 0 or (total and total % (SCALES[word] * 1000) != 0):
                return None
            total, group = total + group * SCALES[word], 0
        else:
            return None
        last = word
    return total + group
