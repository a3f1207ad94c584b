"""The final answer of a response, by one documented order. Linear in the length of the text.

1. Thinking does not count: only what follows the last `</think>`; nothing if a think block is left open. Where there
   is one `<answer>...</answer>`, only its content counts; two that differ are no answer.
2. The last `\\boxed{...}`. Boxes that follow each other with nothing but `and`, `or`, commas between them are one
   answer of several parts, so `\\boxed{41} or \\boxed{42}` is the list `41, 42`. An empty or unclosed last box is
   no answer.
3. Otherwise the last `answer is ...`, `Answer: ...`, `#### ...`, `A: ...` (and the same in some other languages).
4. Otherwise the last sentence that holds mathematics: what follows its last `is` or `=`.

A sentence that offers two values for one (`41 or 42`) is read as both. An answer taken back in what follows (`Wait, no,
13`, `Actually it is 13`) is the new one, and one that another is added to (`Or 13.`) is none.
"""

import re
from dataclasses import dataclass

from rewards.text import VAGUE, is_changed

END_TOKENS = re.compile(
    r"<\|?(?:im_end|im_start|endoftext|eot_id|end_of_text|end|user|assistant)\|?>|</s>|<｜[^｜]{1,30}｜>"
)
TAIL_CHARS = 10_000
"""Without a box, only the end of a response is searched."""
MAX_BOX_CHARS = 20_000
MAX_BOXES = 8
"""More different boxed values than this in one answer is spraying, not answering."""

MAX_PARTS = 40
"""Boxes of one answer."""
MAX_SEEN = 200
"""Boxes looked at, from the end; bounds the work on text made of boxes."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{\w\\-])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
APPROX = "\\approx"
_LINK_WORDS = {"and", "or", "y", "o", "et", "ou", "und", "oder", "e", "и", "或", "和", "与", "及"}
_BETWEEN = re.compile(r"\\(?:text|mbox|textbf|mathrm)\s*\{([^{}]*)\}|\\[a-zA-Z]+|\\.")
_TAGGED = re.compile(r"<answer>([^<]{0,2000})</answer>")
_ANSWER = re.compile(
    r"\banswers?\b\**\s*(?:(?:to|for|of)\b[^.:\n]{0,80}?)?(?:therefore|thus|is|are|was|would be|will be|must be|[:=：])"
    r"|(?:réponse|respuesta|resposta|risposta|antwort|ответ|الإجابة|الجواب|सही उत्तर|উত্তর)\w*"
    r"\s*(?:finale?\s*)?(?:est|es|é|è|ist|هي|هو|है|হল|[:=：]|—|-)"
    r"|(?:答案|答え|答|結論|정답|답)\s*(?:为|為|是|は|は、|은|는|应该是|[:=：])+"
    r"|^[ \t]*a[ \t]*:|####",
    re.IGNORECASE | re.MULTILINE,
)
_FILLERS = re.compile(
    r"^(?:[\s:=*：]|\\\\|(?:is|are|be|therefore|thus|then|simply|clearly|just|equal to|given by|option|choice|exactly|"
    r"approximately|about|now|that|hence|indeed|definitely|of course)\b)+",
    re.IGNORECASE,
)
_MATH = re.compile(r"\$\$(.{1,600}?)\$\$|\\\[(.{1,600}?)\\\]|\\\((.{1,600}?)\\\)|\$([^$]{1,600}?)\$", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[^\s\d.])\.(?=\s|$|\*)|(?<=[\d)\]}$])\.(?=\s|$|\*)|[!?](?=\s|$)|[。！？\n।]|\s\[Note")
_COPULA = re.compile(
    r"\b(?:is|are|equals?|was|be|becomes?|gives?|get|obtain|by|est|es|são|é|ist|sind|son|costs?|total of|has|have)\b"
    r"|是|为|為|等于|有|は|هو|هي|[=:：]",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-−+]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?%?")
_NOTATION = re.compile(r"[+*/^_<>=|\\{}~&#±×÷√%]|(?:^|\s)[-−](?:\s|$)")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_BRACKETED = re.compile(r"\[([^\[\]\n]{1,100})\]\s*\.?\s*$")
_OPTION = re.compile(r"\s*(?:\\text(?:bf)?\{)?\([A-J]\)(?:\s*\}|\s|~|\\[ ,;])\s*[:.]?(.*\S)", re.DOTALL)
_NEGATIVE = re.compile(r"(?<![\w+*/^-])\b(?:negative|minus) (?=[$\d])(?<![\d)}] minus )", re.IGNORECASE)
_SUBJECT = re.compile(
    r"(?:so|thus|hence|therefore)?[\s,]{0,3}([^.:\n]{1,200}?)\sis\s(?:the|our|my)"
    r"\s(?:final |correct |right ){0,2}answer\s*$",
    re.IGNORECASE,
)
_NOT_THAT = re.compile(r",\s{0,3}(?:and\s)?not\s(?:\$[^$\s]{1,40}\$|[^\s$]{1,40})$")
_HEDGE = re.compile(r"\bor\b|\beither\b|\bmaybe\b|或", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?\n])\s*(?:but\s+|oh,?\s+)?(?:wait|no(?=\s*[,:.])|actually|hmm+|hold on|correction|sorry|scratch that|"
    r"on second thoughts?)\b[^\n]{0,200}?\d",
    re.IGNORECASE,
)
_ADDED = re.compile(r"(?:^|[.!?\n])\s*(?:or|或)\b(?!\s+(?:equivalently|in other|simply))[^\n]{0,80}?\d", re.IGNORECASE)
_AFTER_BOX = re.compile(r"^[\s$.)\]\\]*(?:or|或)\b(?!\s+(?:equivalently|in other|simply))", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Final:
    """The final answer of a response."""

    kind: str
    """box | phrase | sentence | whole | none"""
    text: str
    """The answer, or the sentence that holds it."""
    readings: tuple[str, ...] = ()
    """The same statement read in several ways, widest first; any of them may match the reference."""


NONE = Final(kind="none", text="")


@dataclass(frozen=True, kw_only=True)
class _Box:
    start: int
    end: int
    content: str


def visible(text: str) -> str:
    """Return what a user sees of a response: without thinking, without what follows an end-of-turn token."""
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif "<think>" in text:
        return ""
    end = END_TOKENS.search(text)
    if end is not None and text[: end.start()].strip():
        text = text[: end.start()]
    return text


def whole_answer(text: str) -> str:
    """Return the visible text, or the content of its `<answer>` where there is one; empty where several differ."""
    text = visible(text)
    tagged = {match[1].strip() for match in _TAGGED.finditer(text[-TAIL_CHARS:])}
    if len(tagged) > 1:
        return ""
    return tagged.pop() if tagged else text


def final_answer(text: str) -> Final:
    """Return the final answer of a response by the order above."""
    text = whole_answer(text)
    found = _boxed(text)
    if found is not None:
        return found
    tail = text[-TAIL_CHARS:]
    phrases = list(_ANSWER.finditer(tail))
    for match in reversed(phrases[-5:]):
        sentence = _statement(tail[match.end() :])
        if sentence:
            rest = _after(tail[match.end() :], sentence)
            if _ADDED.match(rest):
                return NONE
            if (taken_back := _TAKEN_BACK.search(rest)) is not None:
                tail = rest[taken_back.start() :].lstrip(" .!?\n")
                break
            return Final(kind="phrase", text=sentence, readings=_readings(sentence, whole=True))
    sentences = [item.strip() for item in _SENTENCE_END.split(_join_displays(tail)) if item.strip().strip(" *.")]
    for sentence in reversed(sentences[-4:]):
        if len(sentences) == 1 or re.search(r"[\d$]|\\[(\[a-z]", sentence):
            return Final(kind="sentence", text=sentence, readings=_readings(sentence, whole=len(sentences) == 1))
    return Final(kind="whole", text=tail.strip(), readings=(tail.strip(),)) if tail.strip() else NONE


def _after(text: str, statement: str) -> str:
    """Return what follows a statement in the text that it was taken from."""
    place = text.find(statement)
    return text[place + len(statement) :] if place >= 0 else ""


def _boxed(text: str) -> Final | None:
    """Return the answer of the last box or run of boxes; None where there is no box."""
    boxes = _find_boxes(text)
    if not boxes:
        return None
    run, restated = _last_run(text, boxes)
    contents = list(dict.fromkeys(box.content for box in run))
    sprayed = len({box.content for box in boxes}) > max(MAX_BOXES, len(contents)) or len(contents) > MAX_PARTS
    if sprayed or not all(contents) or _AFTER_BOX.match(text[run[-1].end : run[-1].end + 40]):
        return NONE
    if restated and len(contents) > 1:
        answer = rf"{contents[0]} \approx {contents[1].removeprefix(APPROX)}"
    else:
        answer = ", ".join(contents)
    option = _OPTION.match(answer)
    return Final(kind="box", text=answer, readings=(answer, option[1]) if option else (answer,))


def _find_boxes(text: str) -> list[_Box]:
    """Return the outermost boxes in order, at most MAX_SEEN from the end; one that does not close is empty."""
    boxes: list[_Box] = []
    for match in list(_BOX.finditer(text))[-MAX_SEEN:]:
        if boxes and match.start() < boxes[-1].end:
            continue  # a box in a box
        content, end = _box_content(text, match.end())
        boxes.append(_Box(start=match.start(), end=end, content=(content or "").strip()))
    return boxes


def _last_run(text: str, boxes: list[_Box]) -> tuple[list[_Box], bool]:
    """Return the boxes that make up the last answer, and whether the last restates the one before."""
    run = [boxes[-1]]
    for before in reversed(boxes[:-1]):
        link = _linked(text[before.end : run[0].start])
        if link == "same" and len(run) == 1:
            return [before, *run], True
        if link != "list":
            break
        run.insert(0, before)
    return run, False


def _box_content(text: str, start: int) -> tuple[str | None, int]:
    """Return the content of a box that opens at `start` and its end; None if it does not close."""
    if text[start : start + 1] != "{":
        match = re.match(r"\\[A-Za-z]+|-?[\w.]+", text[start : start + 50])
        return (match[0], start + match.end()) if match else (None, start)
    depth = 0
    for match in _BRACE.finditer(text, start, start + MAX_BOX_CHARS):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            inner = text[start + 1 : match.start()]
            return _unbox(inner), match.end()
    return None, start


def _unbox(inner: str) -> str:
    """Return the content of boxes in a box."""
    for _ in range(4):
        match = _BOX.search(inner)
        if match is None or inner[match.end() : match.end() + 1] != "{":
            return inner
        content, end = _box_content(inner, match.end())
        if content is None:
            return inner
        inner = inner[: match.start()] + content + inner[end:]
    return inner


def _linked(between: str) -> str:
    """Return `list` if two boxes are parts of one answer, `same` if the second restates the first, else nothing."""
    if len(between) > 80:
        return ""
    if re.fullmatch(r"[\s$]*(?:\\approx|≈|=)[\s$]*", between) or re.search(
        r"(?i)^[\s$,]*(numerically|approximately)\s*[$\s]*$", between
    ):
        return "same"
    plain = _BETWEEN.sub(lambda match: f" {match[1] or ''} ", between)
    words = [word for word in re.split(r"[\s$,;.、，(){}\[\]&]+", plain) if word]
    if not words:
        return "list"
    if all(word.lower() in _LINK_WORDS for word in words):
        return "list"
    # `\boxed{1} papers and \boxed{2} bins`
    if (
        len(words) <= 3
        and words[-1].lower() in _LINK_WORDS
        and "." not in plain
        and all(word.isalpha() for word in words)
    ):
        return "list"
    labels = all(re.fullmatch(r"[a-z]|[ivx]+|\d|[A-Za-z]=|=", word) for word in words)
    return "list" if labels and len(words) <= 2 else ""


def _statement(text: str) -> str:
    """Return the sentence after an answer phrase, its display mathematics included, without `, not 6` at its end."""
    text = _FILLERS.sub("", text.lstrip(" \t*:"), count=1).lstrip()
    display = _MATH.match(text)
    if display is not None and "\n" in display[0].strip("$\n ").strip():
        return display[0]
    if display is not None and text.startswith(("$$", "\\[")):
        return display[0]
    return _NOT_THAT.sub("", _SENTENCE_END.split(text, maxsplit=1)[0].strip(" *"))


def _join_displays(text: str) -> str:
    """Put display mathematics on one line, so that its newlines do not end a sentence."""
    return _MATH.sub(lambda match: match[0].replace("\n", " "), text)


def _readings(sentence: str, *, whole: bool) -> tuple[str, ...]:
    """Return the ways to read a sentence that states an answer, without those that pick one of several values."""
    sentence = _NEGATIVE.sub("-", sentence)
    readings = [sentence] if whole and len(sentence) <= 400 else []
    subject = _SUBJECT.match(sentence)
    if subject:
        return (subject[1].strip(" *"),)
    bracketed = _BRACKETED.search(sentence)
    if bracketed:
        readings.append(bracketed[1])
    spans = list(_MATH.finditer(sentence))
    if spans:
        readings.extend(_math_reading(sentence, spans))
    bold = _BOLD.findall(sentence)
    if len(bold) == 1:
        readings.append(bold[0])
    if not _HEDGE.search(sentence) and not VAGUE.search(sentence):
        readings.extend(_value_readings(sentence))
    return tuple(dict.fromkeys(item.strip(" *") for item in readings if item.strip(" *")))


def _math_reading(sentence: str, spans: list[re.Match[str]]) -> list[str]:
    """Return the last formula, joined with those that a bare `and` or `or` ties to it."""
    last = len(spans) - 1
    first = last
    while first and _linked(sentence[spans[first - 1].end() : spans[first].start()]) == "list":
        first -= 1
    parts = [next(group for group in span.groups() if group is not None) for span in spans[first:]]
    if _HEDGE.search(sentence[spans[last].end() :]):
        return []
    return [", ".join(parts)]


def _value_readings(sentence: str) -> list[str]:
    """Return what follows the last copula, and its number where it holds exactly one."""
    after = sentence
    for match in _COPULA.finditer(sentence):
        if sentence[match.end() :].strip(" *.$"):
            after = sentence[match.end() :]
    number = _lone_number(_MATH.sub(" \\\\ ", after) if "$" in after or "\\" in after else after)
    return [after, number] if number else [after]


def _lone_number(text: str) -> str:
    """Return the only number of a text that is otherwise words; empty if it has several, or any notation."""
    text = text.replace("**", " ")
    found = list(_NUMBER.finditer(text))
    if len(found) != 1:
        return ""
    before, behind = text[: found[0].start()], text[found[0].end() :]
    if _NOTATION.search(before) or _NOTATION.search(behind):
        return ""
    if is_changed(before, behind):
        return ""
    if re.search(r"[A-Za-z0-9.,\-−'\"²³½¼¾]$", before) or re.match(r"[A-Za-z0-9²³½¼¾!'\"]", behind):
        return ""
    return found[0][0].replace("$", "").rstrip(",")
