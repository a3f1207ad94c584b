"""Atomic claims out of simple declarative English, without a model.

It is meant for captions as a small model writes them ("There is a red circle and 2 blue squares. The circle is left of
the square."), where no language model is at hand that could divide responses. It serves simple sentences only and knows
nothing about the world: a sentence whose verb it does not know is kept whole and asked about as "Is it true that ...?".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rl.claims import Claim, ClaimKind, Division, Dropped
from rl.clauses import Clause, is_determiner, is_plural, lower_first, plain, read_clause, split_lead, verb_place
from rl.english import COLOURS, PRONOUNS, words
from rl.listed_claims import listed_claims

MAX_CHARACTERS = 20_000
MAX_SENTENCE = 1_000
"""Characters; what is longer is no simple sentence."""
MAX_CLAIMS = 200
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_ANSWER = re.compile(
    r"^(?:(?:yes|no)\s*(?:[,.!:]|$)|(?:sure|certainly|indeed|also|however|additionally)\b[,.!:]*)\s*", re.I
)
_JOINT = re.compile(r"(?:\s*,\s*(?:and|but)\s+|\s*[,;]\s+|\s+(?:and|but|while|whereas)\s+)", re.IGNORECASE)
_SEEN = re.compile(r"^(?:i|we|you|one)\s+(?:can\s+|could\s+)?(?:also\s+)?see\s+", re.IGNORECASE)
_OPINION = re.compile(
    r"\b(?:i (?:think|believe|feel|guess|hope|like|love)|in my (?:opinion|view)|beautiful|lovely|nice|pretty|charming"
    r"|cute|amazing|wonderful|interesting|pleasant|impressive|stunning|great|boring|ugly|perhaps|maybe|probably|possibly"
    r"|likely|might|may|could|seems?|seemed|suggest\w*|appears? (?:to|as)|looks? (?:like|as if)|as if|atmosphere|mood"
    r"|overall|vibe|sense of|feeling)\b",
    re.IGNORECASE,
)


_TOTAL = re.compile(r"^(the \w+ (?:shows?|contains?|depicts?)) (\d+ \w+): (.+)$", re.IGNORECASE)
_OBJECT = re.compile(r"\b(?:it|them|him)\b", re.IGNORECASE)
_GOES_ON = frozenset(
    words(
        "left right up down above below next near behind under over in on at to from with inside outside "
        "beside between before after then not very"
    )
)


def split_claims(response: str, place: str = "") -> Division:
    """The claims of a response, in its order, each once.

    Args:
        response: Plain text.
        place: Added to questions whether something is there, such as `in the picture`.

    Returns:
        Claims with their questions; opinions, questions and the like among `dropped`; a `problem` instead where the
        text is beyond all measure.

    Example::

        division = split_claims("There is a red circle and 2 blue squares.")
        [claim.question for claim in division.claims]  # ["Is there a red circle?", "Are there 2 blue squares?"]
    """
    if len(response) > MAX_CHARACTERS:
        return Division(problem=f"the response has {len(response)} characters, more than {MAX_CHARACTERS}")
    claims: dict[str, Claim] = {}
    dropped: list[Dropped] = []
    subject = ""
    for sentence in _sentences(response):
        for found in _parts(sentence, subject):
            if isinstance(found, Claim):
                claims.setdefault(found.text.lower(), found)
                continue
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            claim = _claim(found, place)
            claims.setdefault(claim.text.lower(), claim)
            subject = _antecedent(found) if isinstance(found, Clause) else ""
    if len(claims) > MAX_CLAIMS:
        return Division(problem=f"the response has {len(claims)} claims, more than {MAX_CLAIMS}")
    return Division(claims=tuple(claims.values()), dropped=tuple(dropped))


def _sentences(text: str) -> list[str]:
    pieces = [_BULLET.sub("", piece).strip() for piece in _SENTENCE.split(text)]
    return [part for piece in pieces if any(map(str.isalnum, piece)) for part in _with_total(piece)]


def _with_total(sentence: str) -> list[str]:
    """`The picture shows 2 objects: a star and a ring` as two sentences, of their number and of what they are."""
    found = _TOTAL.match(sentence)
    return [f"{found[1]} {found[2]}.", f"{found[1]} {found[3]}"] if found else [sentence]


def _parts(sentence: str, subject: str) -> Iterator[Clause | Claim | str | Dropped]:
    """Clauses of a sentence, or the sentence itself where it is not understood; what is no claim as `Dropped`."""
    if sentence.rstrip("\"')]").endswith("?"):
        yield Dropped(text=sentence, reason="question")
        return
    if len(sentence) > MAX_SENTENCE:
        yield Dropped(text=sentence[:MAX_SENTENCE], reason=f"sentence of {len(sentence)} characters")
        return
    listed = listed_claims(plain(sentence))
    if listed is not None:
        yield from listed
        return
    body = plain(_ANSWER.sub("", sentence)).rstrip(".!;:, ")
    if not body:
        yield Dropped(text=sentence, reason="answer without a fact of its own")
        return
    for clause in _clauses(_SEEN.sub("there is ", body)):
        written = clause.text() if isinstance(clause, Clause) else clause
        if _OPINION.search(written):
            yield Dropped(text=written, reason="opinion")
            continue
        resolved = _resolved(clause, subject) if isinstance(clause, Clause) else clause
        if resolved is None:
            yield Dropped(text=written, reason="it is not clear what the pronoun stands for")
            continue
        subject = _antecedent(resolved) if isinstance(resolved, Clause) else ""
        yield resolved


def _clauses(body: str) -> list[Clause | str]:
    """The clauses of a sentence, subject, verb and lead carried on; the sentence itself where no clause is found."""
    lead, body = split_lead(body)
    heads: list[str] = []  # subjects that stand before their common verb
    found: list[Clause] = []
    current: Clause | None = None
    for segment in _segments(body):
        at = verb_place(segment, plural=bool(heads) and current is None)
        if at is None and current is None:
            heads.append(segment)
        elif at is None and current is not None:
            if not _continues(current, segment):
                return [f"{lead} {body}".strip()]
            current = _continued(current, segment)
            found.append(current)
        elif at == 0 and current is not None:
            verb, _, rest = segment.partition(" ")
            found.append(replace(current, verb=verb.lower(), rest=rest))
            current = found[-1]
        else:
            clause = read_clause(segment, plural=bool(heads) and current is None)
            if clause is None:
                return [f"{lead} {body}".strip()]
            clause = replace(clause, lead=clause.lead or lead)
            if current is None and heads:
                made = _with_heads(clause, heads)
            else:
                made = [_agreeing(clause)]
            found.extend(made)
            current = made[-1]
    if found:
        return list(found)
    return [_noted(lead, segment) for segment in heads] if all(map(_is_noun_phrase, heads)) else [body]


def _segments(body: str) -> list[str]:
    """The sentence cut at commas and conjunctions, except between the two ends of `between`."""
    segments: list[str] = []
    for piece in filter(None, _JOINT.split(body)):
        if segments and re.search(r"\bbetween\b(?!.*\band\b)", segments[-1]):
            segments[-1] = f"{segments[-1]} and {piece}"
        else:
            segments.append(piece)
    return segments


def _with_heads(clause: Clause, heads: Sequence[str]) -> list[Clause]:
    """One clause for each of several subjects; one for all where it holds of them together."""
    subjects = [lower_first(head) for head in (*heads, clause.subject)]
    joined = f"{', '.join(subjects[:-1])} and {subjects[-1]}"
    if clause.together or not all(map(_is_noun_phrase, subjects)):
        return [replace(clause, subject=joined)]
    return [clause.of(subject) for subject in subjects]


def _continues(clause: Clause, segment: str) -> bool:
    """Whether a part without a known verb is sure to be more of what the clause tells, and not a clause of its own."""
    first = segment.lower().split(" ", 1)[0]
    if _is_noun_phrase(segment) or first in _GOES_ON or first in COLOURS:
        return True
    return clause.base is None and (" " not in segment or first.endswith(("ed", "ing")))


def _continued(clause: Clause, segment: str) -> Clause:
    """The clause with another object, adjective or place: `is left of the square` + `the star`."""
    first = clause.rest.split(" ", 1)[0] if clause.rest else ""
    if not _is_noun_phrase(segment) or is_determiner(first) or not first:
        return _agreeing(replace(clause, rest=segment))
    told = clause.rest.split(" ")
    places = [at for at, word in enumerate(told) if is_determiner(word)]
    kept = told[: places[-1]] if places else told
    return replace(clause, rest=" ".join([*kept, segment]))


def _agreeing(clause: Clause) -> Clause:
    """`There is 2 circles` with the verb that fits what is there."""
    if not clause.existential:
        return clause
    told = clause.rest.split(" ", 2)
    counted = told[0] == "no" and clause.rest.endswith("s") and not clause.rest.endswith("cross")
    plural = counted if told[0] in ("no", "a", "an", "one", "1") else is_plural(told[0])
    if told[0] not in ("no", "a", "an", "one", "1") and not is_determiner(told[0]):
        plural = clause.verb in ("are", "were")
    past = clause.verb in ("was", "were")
    return replace(clause, verb=("were" if plural else "was") if past else ("are" if plural else "is"))


def _noted(lead: str, segment: str) -> Clause:
    """A note without a verb (`a red circle`) as a clause."""
    return _agreeing(Clause(lead=lead, subject="there", verb="is", rest=lower_first(segment)))


def _is_noun_phrase(segment: str) -> bool:
    return " " in segment and is_determiner(segment.split(" ", 1)[0])


def _resolved(clause: Clause, subject: str) -> Clause | None:
    """With a pronoun's meaning in its place; None where there is none."""
    if _OBJECT.search(clause.rest):
        return None
    if clause.subject.lower() not in PRONOUNS:
        return clause
    return replace(clause, subject=subject) if subject else None


def _antecedent(clause: Clause) -> str:
    """What a pronoun in the next clause stands for."""
    phrase = clause.rest if clause.existential else clause.subject
    told = phrase.split(" ", 1)
    if not clause.existential and told[0] not in ("a", "an"):
        return phrase
    return f"the {told[1]}" if len(told) > 1 and is_determiner(told[0]) and told[0] != "no" else ""


def _claim(found: Clause | str, place: str) -> Claim:
    if isinstance(found, Clause):
        return Claim(text=found.text(), question=found.question(place), kind=found.kind())
    text = found[:1].upper() + found[1:] + "."
    return Claim(text=text, question=f"Is it true that {lower_first(found)}?", kind=ClaimKind.OTHER)
