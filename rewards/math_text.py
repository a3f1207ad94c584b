"""Mathematical text in one spelling: LaTeX, Unicode and plain notation are brought to the same tokens.

Pure string work in linear time, so it may run on hostile text in the caller's process. Nothing is evaluated here but
integers, decimals and simple fractions.
"""

import re
import unicodedata
from fractions import Fraction

MAX_CHARS = 2000
"""Longer answers are compared as text only."""
MAX_DIGITS = 1000

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "÷": "/", "∕": "/", "⁄": "/", "·": r"\cdot ", "⋅": r"\cdot ",
    "∗": "*", "√": r"\sqrt ", "∛": r"\sqrt[3] ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ",
    "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": "°", "º": "°", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ",
    "，": ", ", "、": ", ", "；": "; ", "。": ". ", "’": "'", "′": "'", "“": '"', "”": '"', "％": "%", "…": r"\ldots ",
}  # fmt: skip
_FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8), "⅜": (3, 8)}
_TABLE = str.maketrans(_UNICODE | {key: rf"\frac{{{a}}}{{{b}}}" for key, (a, b) in _FRACTIONS.items()})
_SUPER = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ", "0123456789-n", strict=True))
_SUB = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))

_SAME = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\leq": r"\le", r"\leqslant": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge", r"\lt": "<", r"\gt": ">",
    r"\neq": r"\ne", r"\simeq": r"\approx", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]",
    r"\lparen": "(", r"\rparen": ")", r"\vert": "|", r"\mid": "|", r"\lvert": "|", r"\rvert": "|", r"\infin": r"\infty",
    r"\degree": "°", r"\varnothing": r"\emptyset", r"\ast": "*", r"\bmod": r"\mod", r"\land": " and ", r"\lor": " or ",
    r"\wedge": " and ", r"\vee": " or ", r"\dots": r"\ldots", r"\cdots": r"\ldots", r"\textdegree": "°",
    r"\bar": r"\overline", r"\widehat": r"\hat", r"\overrightarrow": r"\vec", r"\euro": "", r"\pounds": "",
    r"\Reals": r"\mathbb{R}", r"\R": r"\mathbb{R}", r"\div": "/", r"\colon": ":",
}  # fmt: skip
_DROP = {
    r"\left", r"\right", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr", r"\biggl",
    r"\biggr", r"\displaystyle", r"\textstyle", r"\limits", r"\nolimits", r"\quad", r"\qquad", r"\,", r"\;", r"\:",
    r"\(", r"\)", r"\[", r"\]", r"\ ", r"\!", r"\$", r"\/", r"\-", r"\#", r"\_", r"\&", r"\nonumber", r"\bf", r"\rm",
    r"\it", r"\hspace", r"\boldmath", r"\thinspace", r"\medspace", r"\negthinspace", r"\space", r"\centering",
    r"\middle",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)
_TEXT = re.compile(
    r"\\(?:text|mbox|hbox|textrm|textup|textnormal|textit|textsf|emph|textbf|texttt)\s?\{([^{}]{0,400})\}"
)
_FONT = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm|bold|operatorname\*?|mathcal|rm|bf|pmb|ensuremath)\s?"
    r"\{([^{}]{0,400})\}"
)
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,]\d|\d)")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?![\d ]?\d)")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})(?![\d.A-Za-z^])")
_SYSTEM = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered|split)\}((?:(?!\\begin)[^&]){1,1500}?)\\end\{\1\}")
_ALIGNED = re.compile(r"\\begin\{(aligned|align\*?|split)\}((?:(?!\\begin|\\\\).){1,1500}?)\\end\{\1\}")
_UNIT_PRODUCT = re.compile(r"\\text\{([A-Za-z]{1,4})\} ?\\cdot ?\\text\{([A-Za-z]{1,4})\}")
_RUPEES = re.compile(r"(?:₹|¥|\bRs\b\.?) ?(?=\d)|(?<=\d) ?(?:₹|¥)")
_MODULUS = re.compile(r"\\pmod ?(?:\{([^{}]{1,40})\}|(\d))")
# `]0, 1[` is the open interval (0, 1) where it stands alone.
_OPEN_INTERVAL = re.compile(r"^([\[\]])([^\[\](){}]{1,200},[^\[\](){}]{1,200})([\[\]])$")
_OPENED, _CLOSED = {"]": "(", "[": "["}, {"[": ")", "]": "]"}
_CONDITION = re.compile(r" ?\( ?([a-z]) ?\\in ?\\mathbb\{Z\} ?\)$")
_SCALE = re.compile(r"(?<=\d) ?(?:\\text\{ ?)?(hundred|thousand|million|billion|trillion)\b ?\}?")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_TEMPERATURE = re.compile(r"° ?(?:\\text\{ ?([CF]) ?\}|([CF])(?![A-Za-z\d^_({]))")
_RATIO = re.compile(r"(?<=\d) ?(?:\\text\{to\}|\bto\b) ?(?=\d)")
_UNIT_FRACTION = re.compile(r"\\frac ?\{ ?\\text\{([^{}]*)\} ?\} ?\{ ?\\text\{([^{}]*)\} ?(\^ ?\{?\d\}?)? ?\}")
_REPEATING = re.compile(r"(?<![\d.])(\d{0,30})\.(\d{0,30})\\(?:overline|bar|dot) ?\{(\d{1,30})\}")
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_PLAIN_FRACTION = re.compile(r"([+-]?)(?:(\d+)/(\d+)|\\frac\{([+-]?\d+)\}\{(\d+)\})")
_TOKEN = re.compile(
    r"\\text\{[^{}]*\}|\\begin\{[a-zA-Z]+\*?\}|\\end\{[a-zA-Z]+\*?\}|\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\.\d+|[A-Za-z]+|\S",
    re.DOTALL,
)


def clean(text: str) -> str:
    """Return the text in one spelling: LaTeX commands, no delimiters, no spacing macros, one kind of text box.

    Example:
        >>> clean(r"$\\dfrac{1}{2}\\,\\text{cm}$.")
        '\\\\frac{1}{2} \\\\text{cm}'
    """
    text = _ascii(text)
    text = re.sub(r", ?\\! ?(?=\d)", ",", text)  # a comma with a negative space groups digits
    text = text.replace("\\!", "").replace("{,}", ",").replace("{, }", ",").replace("{ , }", ",").replace("{,\\!}", ",")
    text = re.sub(r"(\d) ?\{ ?, ?\} ?\\?!?(\d)", r"\1,\2", text)
    for _ in range(3):  # boxes of text may be nested a little
        text = _FONT.sub(lambda match: _font(match[1]), text)
        text = _TEXT.sub(lambda match: _text(match[1]), text)
    text = text.replace("\x02", "\\text{").replace("\x03", "}")
    text = _COMMAND.sub(_command, text)
    text = text.replace("$", " ").replace("~", " ").replace("`", "").replace('"', "")
    text = _REPEATING.sub(_repeating, text)
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text)
    text = re.sub(r"\^ ?(?:\{ ?\\circ ?\}|\\circ)", "°", text)
    text = text.replace("**", "^").replace("!=", r"\ne ").replace("<=", r"\le ").replace(">=", r"\ge ")
    text = text.replace(r"\%", "%").replace("€", "").replace("£", "")
    text = re.sub(r"(?<=[\d\s])(?:per ?cent|pct\b\.?)", "%", text)
    text = re.sub(r"(?<=[\d\s])degrees?\b", "°", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = _ALIGNED.sub(lambda match: match[2].replace("&", " "), text)
    text = _SYSTEM.sub(lambda match: match[2].strip().removesuffix("\\\\").replace("\\\\", ", "), text)
    text = _MODULUS.sub(lambda match: f"\\mod {match[1] or match[2]} ", text)
    text = _UNIT_PRODUCT.sub(r"\\text{\1 \\cdot \2}", text)
    text = _RUPEES.sub("", text)
    text = re.sub(r", ?\.\.\. ?,", r", \\ldots ,", text)
    text = _UNIT_FRACTION.sub(r"\\text{\1/\2}\3", text)
    text = _SCALE.sub(lambda match: rf" \cdot 10^{{{_SCALES[match[1]]}}} ", text)
    text = _TEMPERATURE.sub(lambda match: rf" \text{{°{match[1] or match[2]}}} ", text)
    text = _RATIO.sub(":", text)
    text = re.sub(r"\\mathbb ?([A-Z])(?![A-Za-z])", r"\\mathbb{\1}", text)
    text = _OPEN_INTERVAL.sub(lambda match: _OPENED[match[1]] + match[2] + _CLOSED[match[3]], text)
    text = _CONDITION.sub(r", \1 \\in \\mathbb{Z}", text)
    text = re.sub(r"^(?:\\approx|=) ?", "", text)
    # A wide space sets two things apart, a narrow one may group the digits of one.
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text).replace("\x04", "")
    text = re.sub(r" +", " ", text)
    text = text.rstrip(" .;,:*").lstrip(" ;,:*")
    # A leading point is the start of `.5`, or else punctuation.
    return text if re.match(r"\.\d", text) else text.lstrip(" .")


def _ascii(text: str) -> str:
    """Spell Unicode mathematics in LaTeX and drop invisible characters."""
    text = "".join(char for char in text if char.isascii() or unicodedata.category(char) not in ("Cf", "Cs", "Co"))
    text = re.sub("[" + "".join(_SUPER) + "]+", lambda match: "^{" + "".join(_SUPER[c] for c in match[0]) + "}", text)
    text = re.sub("[" + "".join(_SUB) + "]+", lambda match: "_{" + "".join(_SUB[c] for c in match[0]) + "}", text)
    return unicodedata.normalize("NFKC", text.translate(_TABLE))


def _text(inner: str) -> str:
    inner = inner.strip()
    if inner in FUNCTION_WORDS:
        return f" \\{inner} "
    if inner.lower() in ("and", "or", "y", "et", "und", "oder", "ou", ""):
        return f" {inner.lower()} " if inner.lower() in ("and", "or") else (" and " if inner else " ")
    if inner.lower() in ("percent", "per cent"):
        return " % "
    quantity = re.fullmatch(r"([-+]?[\d.,]*\d)\s+(\D+)", inner)
    if quantity:
        return f" {quantity[1]} \x02{quantity[2]}\x03 "
    if (
        inner == "%"
        or re.fullmatch(r"[-+\d.,\s]+(?:(?:and|or)[-+\d.,\s]+)?", inner)
        or re.fullmatch(r"\(?[A-Z]\)?", inner)
    ):
        return f" {inner} "
    return f" \x02{inner}\x03 "


def _repeating(match: re.Match[str]) -> str:
    """Spell 0.1\\overline{6} as the fraction it is."""
    whole, fixed, cycle = match[1] or "0", match[2], match[3]
    bottom = 10 ** len(fixed) * (10 ** len(cycle) - 1)
    top = int(whole + fixed + cycle) - int(whole + fixed)
    return rf" \frac{{{top}}}{{{bottom}}} "


def _font(inner: str) -> str:
    # \mathrm{cm} is a unit, \mathbf{x} a symbol: two or more letters in a font of their own are a word.
    return f" \x02{inner.strip()}\x03 " if _is_word(inner.strip()) else f"{inner}"


def _is_word(inner: str) -> bool:
    unit = re.fullmatch(r"[A-Za-z][A-Za-z ]*(?:/[A-Za-z]+(?:\^\{?\d\}?)?)?", inner)
    return len(inner) > 1 and (unit is not None or inner.isalpha()) and inner.lower() not in FUNCTION_WORDS


FUNCTION_WORDS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "asin",
    "acos", "atan", "acot", "sinh", "cosh", "tanh", "coth", "sech", "csch", "arcsinh", "arccosh", "arctanh", "asinh",
    "acosh", "atanh", "arsinh", "arcosh", "artanh", "sqrt", "cbrt", "exp", "log", "ln", "lg", "abs", "gcd", "lcm",
    "tg", "ctg", "arctg", "arcctg",
    "max", "min", "floor", "ceil", "binom", "mod", "sgn", "sign", "det", "pi", "infty", "infinity",
}  # fmt: skip


def _command(match: re.Match[str]) -> str:
    word = match[0]
    if word in ("\\quad", "\\qquad"):
        return " \x04 "
    if word in _DROP:
        return " "
    if word in _SAME:
        return _SAME[word] + (" " if _SAME[word].startswith("\\") else "")
    return word


def squeeze(text: str) -> str:
    """Return the text without spaces, thousands separators and braces around single characters: for equality only.

    A space that separates two letters or digits stays, since `1 2` is not `12`.
    """
    # Before the blanks go: `0, 100` is two numbers, `1,234` is one.
    text = without_thousands(text)
    text = re.sub(r"(?<=[A-Za-z0-9]) (?=[A-Za-z0-9])", "\x00", text).replace(" ", "").replace("\x00", " ")
    return re.sub(r"(?<=[\^_])\{(\w)\}", r"\1", text)


def without_thousands(text: str) -> str:
    """Return the text with `1,234,567` written `1234567`, outside brackets (where commas separate elements)."""
    if "," not in text:
        return text
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[(\[{]|[)\]}]", text):
        if depth == 0:
            parts.append(_merge(text[start : match.start()]))
        else:
            parts.append(text[start : match.start()])
        depth = max(0, depth + (1 if match[0] in "([{" else -1))
        parts.append(match[0])
        start = match.end()
    parts.append(_merge(text[start:]) if depth == 0 else text[start:])
    return "".join(parts)


def _merge(text: str) -> str:
    return _THOUSANDS.sub(lambda match: match[1].replace(",", ""), text)


def tokenise(text: str) -> list[str]:
    """Split cleaned text into numbers, words, LaTeX commands, text boxes and single characters."""
    return _TOKEN.findall(text)


def plain_number(text: str) -> Fraction | None:
    """Return the exact value of an integer, a decimal or a fraction of integers; None for anything else.

    Example:
        >>> plain_number(r"-\\frac{3}{4}")
        Fraction(-3, 4)
    """
    if len(text) > MAX_DIGITS or re.search(r"[\d.] +[\d.]", text):
        return None
    text = text.replace(" ", "")
    if _PLAIN.fullmatch(text):
        return Fraction(text if not text.endswith(".") else text[:-1])
    match = _PLAIN_FRACTION.fullmatch(text)
    if match is None:
        return None
    top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
    return None if bottom == 0 else Fraction(-top if match[1] == "-" else top, bottom)


def significant_digits(text: str) -> int:
    """Return how many significant digits a decimal is written with; 0 if it has no decimal point.

    Zeros at its end do not count: `1000000.0` is a whole number from a program, not one rounded to eight digits.
    """
    text = text.strip().lstrip("+-")
    if not re.fullmatch(r"\d*\.\d+", text):
        return 0
    kept = text.rstrip("0")
    return 0 if kept.endswith(".") else len(kept.replace(".", "").lstrip("0"))


REFERENCE_DIGITS = 6
"""A reference rounded to so many digits cannot ask for more: the exact value behind it is accepted."""
ANSWER_DIGITS = 9
"""An answer rounded to so many digits stands for the exact value it was computed from."""


def same_number(answer: str, reference: str) -> bool | None:
    """Compare two plain numbers exactly, up to the rounding that the digits of a long decimal show.

    Returns:
        None if either is not a plain number.
    """
    value, target = plain_number(answer), plain_number(reference)
    if value is None or target is None:
        return None
    if value == target:
        return True
    return rounds_to(reference, value, REFERENCE_DIGITS, answer) or rounds_to(answer, target, ANSWER_DIGITS, reference)


def rounds_to(decimal: str, exact: Fraction, digits: int, other: str) -> bool:
    """Return whether a decimal of at least `digits` digits is the rounding of `exact`, which has more digits itself."""
    decimal = decimal.replace(" ", "")
    if significant_digits(decimal) < digits:
        return False
    if re.fullmatch(r"[-+\d. ]+", other) and significant_digits(other.replace(" ", "")) < max(
        ANSWER_DIGITS, digits + 1
    ):
        return False  # two short decimals that differ are different answers
    places = len(decimal.partition(".")[2])
    return abs(Fraction(decimal) - exact) <= Fraction(1, 2 * 10**places)
