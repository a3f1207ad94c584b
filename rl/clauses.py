"""Simple English clauses: found in a text, written as a sentence, turned into a yes/no question.

A clause is lead + subject + verb + rest ("At 2 seconds" + "the red circle" + "turns" + "blue"). Verbs are known from
closed lists, so only plain declarative sentences are understood; nothing is guessed about others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rl.claims import ClaimKind
from rl.english import (
    AUXILIARIES,
    BE,
    COLOURS,
    DETERMINERS,
    FORMS,
    MEETING,
    NOUNS_TOO,
    NUMBERS,
    PARTICIPLES,
    PAST,
    PRONOUNS,
    RELATIONS,
    SHOWING,
    THIRD,
)

_CONTRACTION = re.compile(r"\b(\w+)n['’]t\b")
_WORD = re.compile(r"[\w'’.-]*\w|\S")
_LEAD = re.compile(
    r"(?:(?:at|after|before|around|by) [\d.]+ ?(?:s|seconds?)\b|(?:first|then|next|finally|meanwhile|later)\b(?= )"
    r"|(?:in|on|at|to|behind|under|near|above|below|after|before|during|from|next) [^,]{1,80}(?=,)),? +",
    re.IGNORECASE,
)
_RELATIVE = ("that", "which", "who")
_NOT_ATOMIC = re.compile(r"\b(?:each other|one another|together|both|same|different|side by side|apart)\b")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clause:
    """One clause; `text` and `question` write it."""

    lead: str = ""
    """What stands before the subject: `At 2 seconds`."""
    subject: str
    """`the red circle`; `there` in an existential clause."""
    verb: str
    """The finite verb as it stands."""
    rest: str = ""
    """What follows it."""

    @property
    def existential(self) -> bool:
        """Whether it says that something is there."""
        return self.subject.lower() == "there" and self.verb in BE

    @property
    def base(self) -> str | None:
        """The base form of a verb that asks with do; None for an auxiliary."""
        if self.verb in ("has", "have", "had") and not self._perfect:
            return "have"
        if self.verb in AUXILIARIES:
            return None
        return THIRD.get(self.verb) or PAST.get(self.verb) or self.verb

    @property
    def _perfect(self) -> bool:
        """Whether a form of have is an auxiliary: `has been moved`, and not `has striped fur`."""
        words = [word for word in self.rest.lower().split()[:2] if word not in ("not", "never")]
        return bool(words) and (words[0] in PARTICIPLES or words[0] in PAST)

    @property
    def together(self) -> bool:
        """Whether it tells something of its subjects as a group, so that it cannot be told of each alone."""
        return self.base in MEETING or bool(_NOT_ATOMIC.search(f"{self.verb} {self.rest}"))

    def text(self) -> str:
        """The clause as a sentence."""
        words = " ".join(filter(None, (self.lead, self.subject, self.verb, self.rest)))
        return words[:1].upper() + words[1:] + "."

    def question(self, place: str = "") -> str:
        """The clause as a yes/no question; `place` (`in the picture`) ends one that asks whether something is there."""
        lead = self.lead[:1].lower() + self.lead[1:]
        if self.subject.lower().split(" ", 1)[0] in ("no", "nothing", "none", "nobody"):
            told = self.text().rstrip(".")
            return f"Is it true that {told[:1].lower()}{told[1:]}?"
        end = place if self.existential and not re.search(r"\bin the\b", f"{self.rest} {lead}") else ""
        base = self.base
        if base is None:
            verb = "can not" if self.verb == "cannot" else self.verb
            first, *more = verb.split()
            words = (first, self.subject, *more, self.rest, lead, end)
        else:
            past = self.verb in PAST or self.verb == "had"
            auxiliary = "did" if past else "do" if self.verb == base else "does"
            words = (auxiliary, self.subject, base, self.rest, lead, end)
        asked = " ".join(filter(None, words))
        return asked[:1].upper() + asked[1:] + "?"

    def kind(self) -> ClaimKind:
        """What it is about."""
        number = rf"(?:\d+|{'|'.join(NUMBERS)})\b"
        shows = self.existential or self.base in SHOWING
        if re.match(number, self.rest if shows else self.subject, re.IGNORECASE) and (
            shows or re.search(r"\b(?:visible|there|present)\b", self.rest)
        ):
            return ClaimKind.COUNT
        if shows:
            return ClaimKind.PRESENCE
        doing = self.base or (re.sub(r"^(?:not|never) ", "", self.rest).split(" ", 1)[0] if self.rest else "")
        if (doing in FORMS and doing not in ("have", "remain", "stay")) or re.match(r"(?:not )?\w+ing\b", self.rest):
            return ClaimKind.ACTION
        if RELATIONS.search(self.rest):
            return ClaimKind.RELATION
        return ClaimKind.COLOUR if set(self.rest.split()) & COLOURS and self.verb in BE else ClaimKind.OTHER

    def of(self, subject: str) -> Clause:
        """The same told of one subject: the verb becomes singular."""
        base = self.base
        plural = base is not None and self.verb == base
        verb = FORMS[base][0] if plural and base in FORMS else AUXILIARIES.get(self.verb) or self.verb
        return replace(self, subject=subject, verb=verb)


def read_clause(text: str, plural: bool = False) -> Clause | None:
    """The clause that a text begins with; None where no known verb follows a subject. `plural` as in `verb_place`.

    Example::

        read_clause("At 2 seconds the circle turns blue").question()  # "Does the circle turn blue at 2 seconds?"
    """
    lead, body = split_lead(plain(text))
    at = verb_place(body, plural)
    words = list(_WORD.finditer(body))
    if at is None or at == 0:
        return None
    verb = words[at]
    subject = lower_first(body[: verb.start()].strip())
    return Clause(lead=lead, subject=subject, verb=verb.group().lower(), rest=body[verb.end() :].strip(" .,;"))


def plain(text: str) -> str:
    """With single blanks and without contractions of `not`."""
    return _CONTRACTION.sub(lambda found: f"{'can' if found[1] == 'ca' else found[1]} not", " ".join(text.split()))


def split_lead(text: str) -> tuple[str, str]:
    """What stands before the subject, and the rest."""
    found = _LEAD.match(text)
    return (found.group().strip(" ,"), text[found.end() :]) if found else ("", text)


def verb_place(body: str, plural: bool = False) -> int | None:
    """Number of the word that is the finite verb; 0 where the text begins with it.

    Args:
        body: A clause without its lead.
        plural: Whether the subject is known to be plural, since more of it stands elsewhere.
    """
    words = [word.group().lower() for word in _WORD.finditer(body)]
    found = (at for at in range(len(words)) if _is_verb(words, at, plural))
    first = next(found, None)
    if first is not None and first > 1 and words[first - 1] in _RELATIVE:  # `the object that appears last is black`
        return next(found, first)
    return first


def _is_verb(words: Sequence[str], at: int, plural: bool) -> bool:
    """Whether word `at` can be the finite verb of what stands before it."""
    word, before = words[at], words[:at]
    if word in AUXILIARIES:
        return True
    whole = bool(before) and not (at == 1 and is_determiner(before[0])) and before[-1] not in ("of", "the", "a")
    if word in THIRD or word in PAST:
        return whole or (at == 0 and word not in NOUNS_TOO)
    return word in FORMS and word not in NOUNS_TOO and whole and (plural or is_plural(" ".join(before)))


def is_determiner(word: str) -> bool:
    """Whether a noun phrase can begin with the word."""
    word = word.lower()
    return word in DETERMINERS or word in NUMBERS or word.isdigit()


def is_plural(subject: str) -> bool:
    """Whether a subject takes a plural verb, as far as its words tell."""
    words = subject.lower().split()
    many = words[0] in (*NUMBERS[1:], "they", "these", "those", "some", "several", "many", "few", "all", "both")
    return (
        many or (words[0].isdigit() and words[0] != "1") or "two" in words or "and" in words or words[-1].endswith("s")
    )


def lower_first(text: str) -> str:
    """Without the capital of a sentence's start, where the first word is no name."""
    first = text.split(" ", 1)[0]
    known = is_determiner(first) or first.lower() in {*PRONOUNS, "there", "nothing", "everything", "people"}
    return text[:1].lower() + text[1:] if known else text


def claim_kind(text: str) -> ClaimKind:
    """What a claim is about, from its words."""
    clause = read_clause(text)
    return clause.kind() if clause else ClaimKind.OTHER
