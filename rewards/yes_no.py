"""`yes_no`: 1.0 if the response answers yes (true) where the reference does, or no (false) where it does, else 0.0.

- A box, `<answer>` or `answer is ...` decides. Without one, the first word of the response and its last sentence do;
  where they disagree there is no answer.
- `not true`, `isn't correct` are no; `not false` is yes. `no` before a noun (`there are no cats`) is a determiner
  and says nothing.
- Both words in the deciding statement (`yes and no`), or a hedge (`maybe`, `it depends`, `partly`), are no answer.

The words of several languages are in WORDS.
"""

import re
from typing import Any

from rewards.exact import first, references
from rewards.extract import final_answer, visible
from rewards.registry import RewardError, reward

WORDS: dict[str, tuple[str, str]] = {
    "en": ("yes yeah yep yup true correct", "no nope nah false incorrect wrong untrue"),
    "de": ("ja wahr richtig stimmt", "nein falsch unwahr"),
    "fr": ("oui vrai exact", "non faux"),
    "es": ("sí verdadero cierto correcto", "falso incorrecto"),
    "it": ("sì vero corretto", "sbagliato errato"),
    "pt": ("sim verdadeiro correto certo", "não falso errado"),
    "nl": ("waar juist klopt", "nee onwaar onjuist"),
    "pl": ("tak prawda", "nie fałsz nieprawda"),
    "tr": ("evet doğru", "hayır yanlış"),
    "ru": ("да верно правда истина", "нет неверно ложь неправда"),
    "ar": ("نعم صحيح صح", "لا خطأ"),
    "hi": ("हाँ हां सही सत्य", "नहीं गलत असत्य"),
    "zh": ("是 是的 对 对的 正确", "不是 不 否 不对 错 错误 错的 不正确 没有"),
    "ja": ("はい 正しい 真", "いいえ 違う 違います 正しくない 偽"),
    "ko": ("예 네 참 맞습니다", "아니요 아니오 거짓 틀립니다"),
}
"""Per language: the words for yes and true, the words for no and false."""
_YES = {word for yes, _ in WORDS.values() for word in yes.split()}
_NO = {word for _, no in WORDS.values() for word in no.split()}
_UNSPACED = sorted(
    (word for code in ("zh", "ja") for part in WORDS[code] for word in part.split()), key=len, reverse=True
)
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|possibly|depends?|depending|partly|partially|sometimes|unsure|unclear|uncertain|both|neither|"
    r"either|unknown|undecidable|undetermined|might|doubt|unlikely|not sure|hard to say|cannot (?:say|tell|determine)|"
    r"can't (?:say|tell)|do not know|don't know|vielleicht|peut-être|quizás|tal vez|forse|talvez|może|belki)\b"
    r"|может быть|возможно|也许|可能|不确定|不知道|是不是|还是|たぶん|かもしれ|아마",
    re.IGNORECASE,
)
_NEGATIONS = {
    "not", "isn't", "isnt", "never", "wasn't", "aren't", "nicht", "kein", "pas", "no", "non", "não", "nie",
    "niet", "ne", "не", "hardly", "without",
}  # fmt: skip
_ADJECTIVES = {
    "true", "correct", "false", "incorrect", "wrong", "untrue", "wahr", "richtig", "falsch", "vrai", "faux",
    "exact", "verdadero", "cierto", "correcto", "falso", "vero", "corretto", "verdadeiro", "correto", "certo",
    "errado", "waar", "juist", "prawda", "doğru", "yanlış", "верно", "правда",
}  # fmt: skip
_AFTER_NO = {
    "it",
    "the",
    "there",
    "this",
    "that",
    "they",
    "he",
    "she",
    "i",
    "you",
    "we",
    "because",
    "since",
    "as",
    "not",
}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|[,.;:!?—–-]|\d+|\S")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_LEAD = re.compile(r"^(?:so|therefore|thus|hence|then|and|in conclusion|overall|finally)[\s,:]+", re.IGNORECASE)
MAX_CHARS = 1000
"""Characters of a statement that are looked at."""


def gold_answer(reference: Any) -> str:
    """Return the response that states the reference itself."""
    return ("yes" if _reference(reference) else "no") if references(reference) else ""


@reward("yes_no", gold=gold_answer)
def yes_no(*, answer: str | None, reference: Any) -> float | None:
    """Return 1.0 if the answer agrees with the reference, 0.0 if not, None without a reference.

    Args:
        answer: the response without its thinking.
        reference: a truth value, or a word for yes, no, true or false.

    Raises:
        RewardError: the reference is none of these.

    Example:
        >>> yes_no(answer="No, the statement is not true.", reference="false")
        1.0
    """
    if not references(reference):
        return None
    wanted = _reference(reference)
    return float(isinstance(answer, str) and polarity(answer) is wanted)


def _reference(reference: Any) -> bool:
    text = first(reference)[:MAX_CHARS].strip().casefold().strip("\"' .!()")
    plain = {"1": True, "0": False, "y": True, "n": False, "t": True, "f": False, "no": False}.get(text)
    found = plain if plain is not None else _statement(text)
    if found is None:
        raise RewardError(f"`yes_no` needs a reference such as yes, no, true or false, got {first(reference)[:80]!r}.")
    return found


def polarity(answer: str) -> bool | None:
    """Return what a response answers: True, False, or None where it gives no answer, or several."""
    final = final_answer(answer)
    if final.kind in ("box", "phrase"):
        return _statement(re.sub(r"\\[a-z]+\s*\{([^{}]*)\}", r" \1 ", final.text[:MAX_CHARS]))
    sentences = [item.strip(" *#\"'") for item in _SENTENCE.split(visible(answer)) if item.strip(" *#.\"'")]
    if not sentences or final.kind == "none":
        return None
    lead, tail = _leading(sentences[0]), _statement(sentences[-1][-MAX_CHARS:])
    if len(sentences) == 1 or _HEDGES.search(sentences[-1][-MAX_CHARS:]):
        return tail
    if _HEDGES.search(sentences[0][:MAX_CHARS]):
        return None
    said = {item for item in (lead, tail) if item is not None}
    return said.pop() if len(said) == 1 and not _both(sentences[-1][-MAX_CHARS:]) else None


def _leading(sentence: str) -> bool | None:
    """Return what the first words of a sentence say."""
    said = _said(sentence[:MAX_CHARS])
    if not said or said[0][0] > 0:
        return None
    return None if len({value for _, value in said}) > 1 else said[0][1]


def _both(statement: str) -> bool:
    return len({value for _, value in _said(statement)}) > 1


def _statement(text: str) -> bool | None:
    """Return what a statement says, if it says one thing."""
    if _HEDGES.search(text):
        return None
    values = {value for _, value in _said(text)}
    return values.pop() if len(values) == 1 else None


def _said(text: str) -> list[tuple[int, bool]]:
    """Return each word for yes or no with its place in the text, negations applied."""
    text = _LEAD.sub("", text.strip(" *\"'.:")).replace("’", "'").casefold()
    for word in _UNSPACED:
        if text.startswith(word):
            return [(0, word in _YES)]
    tokens = _WORD.findall(text)
    found = []
    for index, token in enumerate(tokens):
        if token in ("no", "non", "nie", "ja", "não", "не") and not _stands_alone(tokens, index):
            continue
        if token not in _YES and token not in _NO:
            continue
        value = token in _YES
        if token in _ADJECTIVES:
            distance = _negation(tokens, index)
            if distance > 2:
                continue  # `it is not the case that it is true`: too far to tell what is denied
            value = value != bool(distance)
        found.append((index, value))
    return found


def _stands_alone(tokens: list[str], index: int) -> bool:
    """Return whether `no` is an answer here, and not the determiner of `no cats`."""
    following = tokens[index + 1] if index + 1 < len(tokens) else "."
    if not following[0].isalnum():
        return True
    before = tokens[index - 1] if index else "."
    return not before[0].isalnum() and following in _AFTER_NO


def _negation(tokens: list[str], index: int) -> int:
    """Return how many words before a word of its clause is denied; 0 if it is not."""
    if tokens[index + 1 : index + 2] == ["değil"]:
        return 1
    for distance, token in enumerate(reversed(tokens[max(0, index - 8) : index]), start=1):
        if not token[0].isalnum():
            return 0
        if token in _NEGATIONS or token.endswith("n't"):
            return distance
    return 0
