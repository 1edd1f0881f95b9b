"""Whether the numbers of a title stand in its article, however either of them writes them.

Every number becomes a set of readings, such as ("year", 2023) for 112年; a title's number is supported when the article
has one of its readings. Where a number can mean two things both are kept: a false alarm costs an editor more than a
slip that other metrics see.
"""

import re
from collections.abc import Iterable
from decimal import Decimal

from titlegen.metrics.figures import Bound, Number, Reading, scan_figures
from titlegen.metrics.numerals import fold_width
from titlegen.metrics.relative_dates import find_relative

# Facts that an article may state in words where its title has a figure.
_IN_WORDS: tuple[tuple[re.Pattern[str], Reading], ...] = (
    (re.compile(r"首(?=[度次屆座個場例位批家條輛梯波部名])|冠軍|奪冠|奪金|金牌"), ("number", Decimal(1))),
    (re.compile("亞軍|銀牌|雙[人方雙胞料]"), ("number", Decimal(2))),
    (re.compile("季軍|銅牌"), ("number", Decimal(3))),
    (re.compile("半年"), ("number", Decimal(6))),
    (re.compile("一年|全年|整年"), ("number", Decimal(12))),
)


def find_numbers(text: str, date: str | None = None) -> list[Number]:
    """Return the numbers of a title in order; ``date`` (YYYY-MM-DD) resolves 明日, 去年 and 週六."""
    plain = fold_width(text)
    found = [
        *scan_figures(plain),
        *(Number(plain[s:e], s, e, r) for s, e, r in find_relative(plain, date, is_article=False)),
    ]
    return [
        Number(text[number.start : number.end], number.start, number.end, number.readings, number.bound)
        for number in sorted(found, key=lambda number: number.start)
    ]


def article_numbers(article: str, date: str | None = None) -> tuple[Number, ...]:
    """Return everything that an article states as a number, and where: the facts that support a title's."""
    plain = fold_width(article)
    found = [
        *scan_figures(plain),
        *(Number(plain[s:e], s, e, r) for s, e, r in find_relative(plain, date, is_article=True)),
        *(
            Number(match[0], match.start(), match.end(), frozenset({reading}))
            for pattern, reading in _IN_WORDS
            for match in pattern.finditer(plain)
        ),
    ]
    return tuple(sorted(found, key=lambda number: number.start))


def article_readings(article: str, date: str | None = None) -> frozenset[Reading]:
    """Return everything that the numbers of an article may mean."""
    return frozenset(reading for number in article_numbers(article, date) for reading in number.readings)


def is_supported(number: Number, facts: frozenset[Reading]) -> bool:
    """Return whether an article with these readings backs a title's number.

    逾, 近, 約, 多 and the like, and figures rounded in 萬 or 億, are taken at their word: 逾3萬 is backed by 31,245.
    """
    if not number.readings.isdisjoint(facts):
        return True
    if number.bound == "exact":
        return False
    return any(
        kind == fact_kind
        and isinstance(value, Decimal)
        and isinstance(fact, Decimal)
        and _within(value, fact, number.bound)
        for kind, value in number.readings
        if kind in {"number", "percent"}
        for fact_kind, fact in facts
    )


def supporting_numbers(number: Number, facts: Iterable[Number]) -> list[Number]:
    """Return the numbers of an article that back a title's, in order."""
    return [fact for fact in facts if is_supported(number, fact.readings)]


def _within(stated: Decimal, fact: Decimal, bound: Bound) -> bool:
    """Return whether a stated figure describes a fact, to the place of its own last non-zero digit."""
    exponent = stated.normalize().as_tuple().exponent
    place = Decimal(10) ** (exponent if isinstance(exponent, int) else 0)
    if bound == "at_least":
        return stated <= fact < stated + place
    if bound == "at_most":
        return max(stated - place, stated * Decimal("0.9")) <= fact <= stated
    if bound == "about":
        return abs(fact - stated) <= max(place / 2, stated / 10)
    # Rounded, or cut off: newspapers do both.
    return -place / 2 <= fact - stated < place
