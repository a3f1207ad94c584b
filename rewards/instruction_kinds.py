"""The kinds of constraints that `instructions` checks: one short function each, and what its value must be.

In the manner of IFEval (arXiv 2311.07911, table 1), deterministic and linear in the text. What counts:
- word: a run of letters and digits, with inner apostrophes and hyphens; each ideograph of Chinese, Japanese or Korean.
- sentence: what ends in `.`, `!`, `?` or their full-width forms (not the point of `3.5` or `e.g.`) or at a line break.
- paragraph: what a blank line, or a line `***`, separates.
- keyword: the words as they stand, in any case, with no letter or digit touching either end.
- language: by script where it decides (`zh ja ko ru ar he hi el th`); for Latin scripts a heuristic: the language whose
  commonest words (STOP_WORDS) occur most often must be the one asked for, and occur at least twice.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rewards.structured import NOTHING, parse_json

STOP_WORDS = {
    "en": "the of and to in is that it was for on are with as be at this have from or by not but you",
    "de": "der die das und ist nicht ein eine zu den von mit sich auf für dem des im auch es als sie ich wir",
    "fr": "le la les des et est un une dans que qui pour pas sur avec ce il elle nous vous du au sont",
    "es": "el la los las de y es un una en que por con para no se su del al como más pero son",
    "it": "il la le gli di e è un una che per con non si del della nel sono come più anche ma",
    "pt": "o a os as de e é um uma em que para com não se do da no na por mais como são",
    "nl": "de het een en van is dat niet in op te voor met zijn er aan ook als maar wij",
    "pl": "i w na z nie się jest do to że o jak ale po co tak za od przez dla są",
    "tr": "ve bir bu için ile da de çok daha ne gibi olarak var ama en sonra kadar",
}
_SCRIPTS = {
    "zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7af]", "ru": r"[\u0400-\u04ff]",
    "ar": r"[\u0600-\u06ff]", "he": r"[\u0590-\u05ff]", "hi": r"[\u0900-\u097f]", "el": r"[\u0370-\u03ff]",
    "th": r"[\u0e00-\u0e7f]",
}  # fmt: skip
LANGUAGES = (*_SCRIPTS, *STOP_WORDS)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’-][^\W_]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=\S)|(?<=[。！？])|\n+")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|mr|mrs|ms|dr|prof|st|no|fig|approx|[a-z]))\.$", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*|\n[ \t]*\*\*\*[ \t]*\n")
_BULLET = re.compile(r"^[ \t]*(?:[-*•+])[ \t]+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*\d{1,3}[.)][ \t]+\S", re.MULTILINE)
_TITLE = re.compile(r"<<[^<>\n]{1,300}>>")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]{1,200}\]")
_HIGHLIGHT = re.compile(r"\*\*[^*\n]{1,500}\*\*|(?<!\*)\*[^*\s][^*\n]{0,500}\*(?!\*)")
_JSON_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n([^`]*)\n?```")
MAX_COUNT = 1_000_000
MAX_PHRASE = 500
MAX_PHRASES = 100

Checker = Callable[..., bool]


# Values --------------------------------------------------------------------------------------------------------------


def _count(name: str, value: Any) -> int:
    whole = (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) <= MAX_COUNT
    )
    if not whole or int(value) != value or value < 0:
        raise ValueError(f"`{name}` must be a whole number from 0 to {MAX_COUNT}, got {value!r}")
    return int(value)


def _phrase(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PHRASE:
        raise ValueError(f"`{name}` must be a text of 1 to {MAX_PHRASE} characters, got {str(value)[:60]!r}")
    return value


def _phrases(name: str, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_PHRASES:
        raise ValueError(f"`{name}` must be a text or a list of 1 to {MAX_PHRASES} texts, got {str(value)[:60]!r}")
    return [_phrase(name, item) for item in values]


def _language(name: str, value: Any) -> str:
    if value not in LANGUAGES:
        raise ValueError(f"`{name}` must be one of {', '.join(LANGUAGES)}, got {value!r}")
    return str(value)


def _letter(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1:
        raise ValueError(f"`{name}` must be one character, got {str(value)[:60]!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of constraint: its check, and how each of its values is read. A kind's first value is called `value`."""

    check: Checker
    values: Mapping[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


# Checks --------------------------------------------------------------------------------------------------------------


def words(text: str) -> int:
    """Return how many words a text has."""
    return sum(1 for _ in _WORD.finditer(text))


def sentences(text: str) -> int:
    """Return how many sentences a text has; `e.g. this` does not end one."""
    found, start = 0, 0
    for match in _SENTENCE.finditer(text):
        before = text[max(start, match.start() - 10) : match.start()]
        if "\n" not in match[0] and _ABBREVIATION.search(before):
            continue
        found += _WORD.search(text, start, match.start()) is not None
        start = match.end()
    return found + (_WORD.search(text, start) is not None)


def paragraphs(text: str) -> int:
    """Return how many paragraphs a text has."""
    return sum(bool(part.strip(" *\n")) for part in _PARAGRAPH.split(text))


def occurrences(text: str, keyword: str) -> int:
    """Return how often a keyword occurs."""
    plain = re.escape(keyword.strip())
    start = r"(?<![^\W_])" if _needs_border(keyword.strip()[0]) else ""
    end = r"(?![^\W_])" if _needs_border(keyword.strip()[-1]) else ""
    return sum(1 for _ in re.finditer(f"{start}{plain}{end}", text, re.IGNORECASE))


def _needs_border(char: str) -> bool:
    return char.isalnum() and not _CJK.match(char)


def _within(count: int, least: int | None, most: int | None) -> bool:
    return (least is None or count >= least) and (most is None or count <= most)


def _include(text: str, value: list[str], min: int | None = None) -> bool:
    return all(occurrences(text, item) >= (1 if min is None else min) for item in value)


def _keyword_count(text: str, value: str, min: int | None = None, max: int | None = None) -> bool:
    return _within(occurrences(text, value), min, max)


def _letter_count(text: str, value: str, min: int | None = None, max: int | None = None) -> bool:
    return _within(text.casefold().count(value.casefold()), min, max)


def _capital_words(text: str, min: int | None = None, max: int | None = None) -> bool:
    return _within(sum(item[0].isupper() and len(item[0]) > 1 for item in _WORD.finditer(text)), min, max)


def _json(text: str) -> bool:
    fence = _JSON_FENCE.fullmatch(text)
    return parse_json(fence[1] if fence else text) is not NOTHING


def _items(pattern: re.Pattern[str]) -> Checker:
    return lambda text, value: sum(1 for _ in pattern.finditer(text)) == value


def _at_least(pattern: re.Pattern[str]) -> Checker:
    return lambda text, value=1: len({match.start() for match in pattern.finditer(text)}) >= value


def _sections(text: str, value: int, splitter: str = "Section") -> bool:
    found = re.findall(
        rf"^[ \t]*[#*]{{0,6}}[ \t]*{re.escape(splitter)}[ \t]*\d{{1,4}}", text, re.MULTILINE | re.IGNORECASE
    )
    return len(found) >= value


def _postscript(text: str, value: str = "P.S.") -> bool:
    return re.search(rf"^[ \t]*{re.escape(value)}[ \t]*\S", text, re.MULTILINE | re.IGNORECASE) is not None


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] + text[-1] in ('""', "“”", "«»", "„“", "「」")


def _starts(text: str, value: str) -> bool:
    return _plain(text).startswith(_plain(value))


def _ends(text: str, value: str) -> bool:
    return _plain(text).strip("\"' *").endswith(_plain(value).strip("\"' *"))


def _plain(text: str) -> str:
    return text.strip().casefold()


def _cased(text: str, changed: Callable[[str], str]) -> bool:
    return any(char.isalpha() for char in text) and changed(text) == text


def _in_language(text: str, value: str) -> bool:
    letters = sum(char.isalpha() for char in text)
    if not letters:
        return False
    if value in _SCRIPTS:
        share = len(re.findall(_SCRIPTS[value], text)) / letters
        kana = len(re.findall(_SCRIPTS["ja"], text)) / letters
        if value == "ja":
            return kana > 0.1 and kana + len(re.findall(_SCRIPTS["zh"], text)) / letters > 0.5
        return share > 0.5 and (value != "zh" or kana <= 0.1)
    found = Counter(match[0].casefold() for match in _WORD.finditer(text))
    hits = {code: sum(found[word] for word in listed.split()) for code, listed in STOP_WORDS.items()}
    return hits[value] >= 2 and all(hits[value] > count for code, count in hits.items() if code != value)


def _bound(counter: Callable[[str], int], most: bool) -> Kind:
    def check(text: str, value: int) -> bool:
        return counter(text) <= value if most else counter(text) >= value

    return Kind(check=check, values={"value": _count})


_LIMITS = {"min": _count, "max": _count}
_BOTH = frozenset(("min", "max"))

KINDS: dict[str, Kind] = {
    "min_words": _bound(words, False),
    "max_words": _bound(words, True),
    "min_sentences": _bound(sentences, False),
    "max_sentences": _bound(sentences, True),
    "min_paragraphs": _bound(paragraphs, False),
    "max_paragraphs": _bound(paragraphs, True),
    "include_keywords": Kind(check=_include, values={"value": _phrases, "min": _count}, optional=frozenset({"min"})),
    "keyword_count": Kind(check=_keyword_count, values={"value": _phrase, **_LIMITS}, optional=_BOTH),
    "forbidden_words": Kind(
        check=lambda text, value: not any(occurrences(text, item) for item in value), values={"value": _phrases}
    ),
    "letter_count": Kind(check=_letter_count, values={"value": _letter, **_LIMITS}, optional=_BOTH),
    "capital_words": Kind(check=_capital_words, values=_LIMITS, optional=_BOTH),
    "json": Kind(check=_json),
    "bullets": Kind(check=_items(_BULLET), values={"value": _count}),
    "numbered_list": Kind(check=_items(_NUMBERED), values={"value": _count}),
    "title": Kind(check=lambda text: _TITLE.search(text) is not None),
    "highlights": Kind(check=_at_least(_HIGHLIGHT), values={"value": _count}),
    "placeholders": Kind(check=_at_least(_PLACEHOLDER), values={"value": _count}),
    "sections": Kind(check=_sections, values={"value": _count, "splitter": _phrase}, optional=frozenset({"splitter"})),
    "postscript": Kind(check=_postscript, values={"value": _phrase}, optional=frozenset({"value"})),
    "lowercase": Kind(check=lambda text: _cased(text, str.lower)),
    "uppercase": Kind(check=lambda text: _cased(text, str.upper)),
    "no_commas": Kind(check=lambda text: not any(char in text for char in ",，、")),
    "starts_with": Kind(check=_starts, values={"value": _phrase}),
    "ends_with": Kind(check=_ends, values={"value": _phrase}),
    "quoted": Kind(check=_quoted),
    "language": Kind(check=_in_language, values={"value": _language}),
}
"""Every kind by name."""


def read_constraint(item: Any) -> tuple[Kind, dict[str, Any]]:
    """Return the kind of a constraint and its values.

    Args:
        item: a mapping with `kind` and the kind's values; values that are None count as left out.

    Raises:
        ValueError: an unknown kind, an unknown or bad value, or one that is missing.
    """
    if not isinstance(item, Mapping):
        raise ValueError(f"a constraint must be a mapping with a `kind`, got {str(item)[:80]!r}")
    shown = json.dumps({str(key): value for key, value in item.items() if value is not None}, default=str)[:200]
    kind = KINDS.get(str(item.get("kind")))
    if kind is None:
        raise ValueError(f"unknown kind of constraint in {shown}; kinds are {', '.join(KINDS)}")
    given = {str(key): value for key, value in item.items() if key != "kind" and value is not None}
    unknown = [key for key in given if key not in kind.values]
    missing = [key for key in kind.values if key not in given and key not in kind.optional]
    if unknown or missing:
        problem = f"has no value `{unknown[0]}`" if unknown else f"needs `{missing[0]}`"
        raise ValueError(f"the constraint {shown} {problem}")
    try:
        return kind, {key: kind.values[key](key, value) for key, value in given.items()}
    except ValueError as error:
        raise ValueError(f"the constraint {shown}: {error}") from error
