"""The texts of the renderer: a small vocabulary and grammar, numbers, dates, prices, codes and facts.

English sentences are grammatical; the other scripts get random sentences of common words, which is what a reading task
needs. Made-up names and codes keep a model from guessing what it cannot read.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words("January February March April May June July August September October November December")
NAMES = _words(
    "Ada Boris Chen Dana Emil Farah Goran Hana Ivan Jonas Kira Lena Mateo Nora Omar Petra Quinn Rosa Sven Tara Uma "
    "Viktor Wanda Xenia Yusuf Zoë Renée Jürgen Łukasz Søren Niño François"
)
PLACES = _words(
    "Oslo Lima Paris Cairo Delhi Kyoto Quito Turin Basel Perth Accra Sofia Riga Dakar Hanoi Bogotá Zürich Malmö "
    "Kraków Reykjavík Montréal Nairobi Tallinn Valencia"
)
ADJECTIVES = _words(
    "old new small large quiet busy green narrow famous modern bright wooden distant empty simple early heavy clean "
    "broken common"
)
BUILDINGS = _words("museum library bridge station market theatre garden harbour factory school tower hotel")
THINGS = _words(
    "book lamp chair ticket bottle basket clock pencil mirror blanket camera wheel piano letter table jacket window "
    "engine"
)
PEOPLE = _words("teacher driver painter doctor farmer singer student engineer captain baker")
VERBS = _words("found sold painted repaired carried counted washed opened measured borrowed moved described")
GOODS = _words(
    "Coffee Tea Bread Milk Rice Soup Cheese Apples Honey Pasta Juice Butter Salad Cake Eggs Olives Soap Candles Paper "
    "Sugar Crème Jalapeño Müsli Pâté"
)
ADVERBS = ("yesterday", "in the morning", "after lunch", "near the river", "without help", "for the first time")
SYLLABLES = _words("ba ce di fo gu ha ji ko lu ma ne pi ro sa ti vu wa xe yo zu bran dor fel kin mor tal ven")

OTHER_WORDS = {
    "greek": "και θάλασσα ήλιος σπίτι δρόμος βιβλίο νερό μέρα νύχτα άνθρωπος πόλη χρόνος γλώσσα φως ψωμί χέρι παιδί "
    "δέντρο ουρανός φίλος μεγάλος μικρός καλός όμορφη γράφει διαβάζει τρέχει βλέπει ακούει ξέρει πάντα σήμερα αύριο "
    "εδώ εκεί πολύ λίγο πρωί βράδυ ζωή",
    "cyrillic": "и море солнце дом дорога книга вода день ночь человек город время язык свет хлеб рука ребёнок дерево "
    "небо друг большой маленький хороший красивая пишет читает бежит видит слышит знает всегда сегодня завтра здесь "
    "там очень мало утро вечер жизнь",
    "georgian": "და ზღვა მზე სახლი გზა წიგნი წყალი დღე ღამე კაცი ქალაქი დრო ენა შუქი პური ხელი ბავშვი ხე ცა მეგობარი "
    "დიდი პატარა კარგი ლამაზი წერს კითხულობს ხედავს იცის ყოველთვის დღეს ხვალ აქ იქ ძალიან დილა საღამო",
    "armenian": "և ծով արև տուն ճանապարհ գիրք ջուր օր գիշեր մարդ քաղաք ժամանակ լեզու լույս հաց ձեռք երեխա ծառ երկինք "
    "ընկեր մեծ փոքր լավ գեղեցիկ գրում կարդում տեսնում գիտի միշտ այսօր վաղը այստեղ այնտեղ շատ առավոտ երեկո",
}
SCRIPTS = ("latin", *OTHER_WORDS)
_LISTS = {script: _words(words) for script, words in OTHER_WORDS.items()}


class Fact(NamedTuple):
    """A sentence that answers a question; two facts with different subjects do not answer each other's."""

    subject: str
    sentence: str
    question: str
    answer: str


def sentence(rng: Random, script: str) -> str:
    """One sentence with its full stop."""
    if script != "latin":
        return capital(" ".join(rng.choices(_LISTS[script], k=rng.randint(4, 8)))) + "."
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    forms = (
        f"The {rng.choice(PEOPLE)} {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {thing} {rng.choice(ADVERBS)}.",
        f"In {place} there {_is_are(count := rng.randint(1, 40))} {count} {plural(thing, count)}.",
        f"{made_up(rng)} {rng.choice(VERBS)} {indefinite(rng.choice(ADJECTIVES))} {thing} in {place}.",
        f"{capital(indefinite(rng.choice(ADJECTIVES)))} {thing} is not {indefinite(rng.choice(ADJECTIVES))} one.",
        f"Number {code(rng)} was {rng.choice(VERBS)} {rng.choice(ADVERBS)}.",
    )
    return rng.choice(forms)


def heading(rng: Random, script: str) -> str:
    """Two or three words."""
    if script != "latin":
        return capital(" ".join(rng.sample(_LISTS[script], rng.randint(1, 3))))
    adjective, building = rng.choice(ADJECTIVES), rng.choice(BUILDINGS)
    forms = (
        f"The {adjective} {building}",
        f"{capital(adjective)} {plural(rng.choice(THINGS), 2)}",
        f"{made_up(rng)} in {rng.choice(PLACES)}",
        f"Report {code(rng)}",
    )
    return rng.choice(forms)


def fact(rng: Random) -> Fact:
    """An English sentence with a fact that can be asked for."""
    name, place, building, thing = made_up(rng), rng.choice(PLACES), rng.choice(BUILDINGS), rng.choice(THINGS)
    kind = rng.randrange(4)
    if kind == 0:
        when, subject = date(rng), f"the {building} in {place}"
        return Fact(subject, f"{capital(subject)} opened on {when}.", f"When did {subject} open?", when)
    if kind == 1:
        paid, many = price(rng), rng.randint(2, 30)
        said = f"{name} paid {paid} for {many} {plural(thing, many)}."
        return Fact(name, said, f"How much did {name} pay?", paid)
    if kind == 2:
        tag, subject = code(rng), f"the {rng.choice(ADJECTIVES)} {thing}"
        return Fact(subject, f"The code of {subject} is {tag}.", f"What is the code of {subject}?", tag)
    many, month = rng.randint(20, 9999), rng.choice(MONTHS)
    said = f"{many} people visited {place} in {month}."
    return Fact(f"{place} {month}", said, f"How many people visited {place} in {month}?", str(many))


def made_up(rng: Random) -> str:
    """A name, half of the time one that nobody has."""
    return rng.choice(NAMES) if rng.random() < 0.5 else capital("".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))))


def code(rng: Random) -> str:
    """Such as KX-4821."""
    return "".join(rng.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=2)) + f"-{rng.randint(10, 9999)}"


def date(rng: Random) -> str:
    """Such as 12 May 1984 or 1984-05-12."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2030)
    return f"{day} {MONTHS[month - 1]} {year}" if rng.random() < 0.6 else f"{year}-{month:02d}-{day:02d}"


def price(rng: Random) -> str:
    """Such as $12.50."""
    return rng.choice("$€£") + cents(rng.randint(50, 20000))


def cents(amount: int) -> str:
    """1250 -> 12.50"""
    return f"{amount // 100}.{amount % 100:02d}"


def plural(noun: str, count: int) -> str:
    """The noun as it stands after a count."""
    if count == 1:
        return noun
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def indefinite(words: str) -> str:
    """With `a` or `an`."""
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


def listing(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def capital(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def _is_are(count: int) -> str:
    return "is" if count == 1 else "are"
