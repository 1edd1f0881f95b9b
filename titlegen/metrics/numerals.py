"""Values of written numbers: 31,000, 3萬1千, 三萬一, 一一二, ３．５億."""

import re
import unicodedata
from decimal import Decimal

_DIGITS = {
    **{char: value for value, char in enumerate("零一二三四五六七八九")},
    **{char: value for value, char in enumerate("〇壹貳參肆伍陸柒捌玖")},
    "○": 0,
    "兩": 2,
    "两": 2,
    "贰": 2,
    "叁": 3,
    "陆": 6,
}
_SMALL = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_LARGE = {"萬": 10**4, "万": 10**4, "億": 10**8, "亿": 10**8, "兆": 10**12}

_ZEROS = "0零〇○"
HAN_DIGITS = "".join(_DIGITS)
HAN_UNITS = "".join(_SMALL) + "".join(_LARGE)
LARGE_UNITS = "".join(_LARGE)
# No real figure is longer; what is longer comes from a broken output, and is no number.
_MAX_DIGITS = 18
_LARGEST = Decimal(10) ** 18
ARABIC = rf"(?:\d{{1,3}}(?:,\d{{3}}){{1,5}}(?!\d)|\d{{1,{_MAX_DIGITS}}})(?:\.\d{{1,9}}(?!\d))?"
_PART = re.compile(rf"(?P<arabic>{ARABIC})|(?P<digits>[{HAN_DIGITS}]+)|(?P<unit>[{HAN_UNITS}])")
_FULL_WIDTH_COMMA = re.compile(r"(?<=[０-９])，(?=[０-９]{3}(?![０-９]))")


def fold_width(text: str) -> str:
    """Return the text with full-width letters, digits and marks made plain and in lower case, position by position.

    A character whose plain form is longer stays (㎡ is no 2), so that a match's place is its place in the original.
    A full-width comma becomes a thousands separator only between full-width digits, 12，500 being two numbers.
    """
    text = _FULL_WIDTH_COMMA.sub(",", text)
    return text.translate(_FOLDED)


class _Folded(dict[int, str]):
    """A translation table that fills itself: articles use few of all characters."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = unicodedata.normalize("NFKC", char).lower()
        self[code] = plain if len(plain) == 1 and char not in "，〇○" else char
        return self[code]


_FOLDED = _Folded()


def parse_numeral(text: str) -> Decimal | None:
    """Return the value of a numeral in Arabic digits, Han numerals or both; None when it is none.

    Han digits without a unit are read one by one (二〇二三 = 2023); a last digit after 百, 千, 萬 or 億 counts in the
    next lower unit (三萬五 = 35000, 兩百五 = 250), unless 零 stands before it.
    """
    text = text.replace(" ", "")
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        return None
    total = section = Decimal(0)
    number: Decimal | None = None
    unit, literal = 1, True
    for part in parts:
        char = part["unit"]
        if char is None:
            if number is not None:
                return None
            number = _read_digits(part["digits"]) if part["digits"] else Decimal(part["arabic"].replace(",", ""))
            literal = part[0][0] in _ZEROS or not 0 < number < 10 or "." in part[0]  # noqa: PLR2004 - one digit
            continue
        if char in _SMALL:
            unit = _SMALL[char]
            section += (1 if number is None else number) * unit
        else:
            unit = _LARGE[char]
            section += number or 0
            # 一萬億: the second unit multiplies what the first one made.
            total = total * unit if total and not section else total + (section or 1) * unit
            section = Decimal(0)
        number = None
    if number is not None:
        section += number if literal or unit < _SMALL["百"] else number * unit / 10
    return total + section if total + section < _LARGEST else None


def _read_digits(text: str) -> Decimal:
    return Decimal("".join(str(_DIGITS[char]) for char in text[:_MAX_DIGITS]))
