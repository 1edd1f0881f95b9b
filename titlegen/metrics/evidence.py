"""The claims of a title and the sentences of its article that back them: numbers, dates, names, places, quotations.

A mark is for a reader. What is said in other words, by whom to whom, and what is left out cannot be seen here:
docs/titles.md says how much of it is.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal

from titlegen.metrics.figures import Number, Reading
from titlegen.metrics.names import find_names, is_place, locate_name, unsupported_names
from titlegen.metrics.numbers import find_numbers, supporting_numbers
from titlegen.metrics.numerals import fold_width
from titlegen.metrics.title_warnings import Evidence, Facts, closest_sentence

Kind = Literal["number", "date", "name", "place", "quotation"]
KINDS: tuple[Kind, ...] = ("number", "date", "name", "place", "quotation")

# As in the warnings, text that a broken model wrote after a title is not read.
_MAX_TITLE = 200
_CALENDAR = frozenset({"year", "month", "day", "weekday", "relative day", "relative year"})
# What may stand between the parts of one date: 5月 20日, 12月20日(週六).
_BETWEEN = re.compile(r"[ (（]?")
_QUOTED = re.compile(r"「([^「」]{2,60})」|『([^『』]{2,60})』|“([^“”]{2,60})”|《([^《》]{2,60})》")
_UNSPOKEN = re.compile(r"[\W_]+")
# Further words that a title may leave out of what it quotes, characters for each one that it has.
_LONGEST_GAP = 4
# Articles are untrusted: one may have a number thousands of times, and no full stop.
_MAX_PLACES, _MAX_STARTS, _MAX_SENTENCE = 200, 2000, 5000
_CLAUSE = re.compile(r"[^\s，。！？!?、：:；;]+")
_CLAUSE_WEIGHT, _BESIDE_WEIGHT = 3, 4

_MESSAGES: dict[Kind, tuple[str, str, str, str]] = {
    "number": ("the number {}", "數字「{}」", "the article does not have the number {}", "內文沒有「{}」這個數字"),
    "date": ("the date {}", "日期「{}」", "the article does not have the date {}", "內文沒有「{}」這個日期"),
    "name": ("the name {}", "名稱「{}」", "the article does not have the name {}", "內文沒有「{}」這個名稱"),
    "place": ("the place {}", "地名「{}」", "the article does not have the place {}", "內文沒有「{}」這個地名"),
    "quotation": (
        "the quoted words {}",
        "引號內的「{}」",
        "the article does not have the quoted words {}",
        "內文沒有引號內的「{}」",
    ),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of a title, from ``start`` to ``end`` (exclusive), and what its article says of it."""

    kind: Kind
    text: str
    start: int
    end: int
    supported: bool
    message: str
    message_zh: str
    place: tuple[int, int] | None = None
    """Start and end (exclusive) of the words of the article that back it."""
    sentence: Evidence | None = None
    """The sentence around them; for an unsupported claim, the sentence most like the title there."""


def find_evidence(title: str, facts: Facts) -> tuple[Claim, ...]:
    """Return what a title claims, in the order of the title; of two claims that overlap the first kind stays.

    Args:
        title: one line, as it is shown.
        facts: of its article.
    """
    title = title[:_MAX_TITLE]
    claims: list[Claim] = []
    for claim in (*_quotations(title, facts), *_numbers(title, facts), *_names(title, facts)):
        # A name within a quotation is a claim of its own, a number within a name is none.
        if claim.kind == "quotation" or not any(
            other.kind != "quotation" and claim.start < other.end and other.start < claim.end for other in claims
        ):
            claims.append(claim)
    return tuple(sorted(claims, key=lambda claim: (claim.start, -claim.end)))


def _quotations(title: str, facts: Facts) -> Iterator[Claim]:
    spoken, places = _spoken(facts.article)
    for match in _QUOTED.finditer(title):
        start, end = match.span(match.lastindex or 0)
        words, _ = _spoken(title[start:end])
        if len(words) > 1:
            found = [(places[at], places[last - 1] + 1) for at, last in _find_words(words, spoken)]
            yield _claim("quotation", title, (start, end), found, facts)


def _spoken(text: str) -> tuple[str, list[int]]:
    """Return a text without white space and punctuation, and where each of its characters stood."""
    kept = [(char, place) for place, char in enumerate(fold_width(text)) if not _UNSPOKEN.match(char)]
    return "".join(char for char, _ in kept).replace("台", "臺"), [place for _, place in kept]


def _find_words(words: str, spoken: str) -> list[tuple[int, int]]:
    """Return where a text has these words, else the first place where it has them with a few others in between."""
    if found := [match.span() for match in islice(re.finditer(re.escape(words), spoken), _MAX_PLACES)]:
        return found
    # Each word at its first place within reach: a pattern would try every other place, too, of an article that was made
    # to have many.
    for start in islice((match.start() for match in re.finditer(re.escape(words[0]), spoken)), _MAX_STARTS):
        end = start + 1
        for char in words[1:]:
            place = spoken.find(char, end, end + _LONGEST_GAP + 1)
            if place < 0:
                break
            end = place + 1
        else:
            return [(start, end)]
    return []


def _numbers(title: str, facts: Facts) -> Iterator[Claim]:
    for group in _group_dates(title, find_numbers(title, facts.date)):
        start, end = group[0].start, group[-1].end
        # 民安7號 is the seventh of its name, and no day.
        is_date = any(_is_date(number) for number in group) and not (len(group) == 1 and group[0].text.endswith("號"))
        kind: Kind = "date" if is_date else "number"
        yield _claim(kind, title, (start, end), _places_of(group, facts), facts)


def _is_date(number: Number) -> bool:
    """Return whether a number is a part of a date, or a whole one: 5/20 may be a fraction, and rarely is."""
    kinds = {kind for kind, _ in number.readings}
    return bool(kinds) and (kinds <= _CALENDAR or {"month", "day"} <= kinds)


def _group_dates(title: str, numbers: Sequence[Number]) -> list[list[Number]]:
    """Return the numbers, those that are parts of one date together: 5月 and 20日."""
    groups: list[list[Number]] = []
    for number in numbers:
        last = groups[-1][-1] if groups else None
        if last is None or not _is_date(last) or not _BETWEEN.fullmatch(title, last.end, number.start):
            groups.append([number])
        elif _is_date(number):
            groups[-1].append(number)
        elif last.end == number.start and any(kind == "month" for kind, _ in last.readings):
            # The 3 of 6月3日前, which alone would be three days.
            days: set[Reading] = {("day", value) for kind, value in number.readings if kind == "number"}
            groups[-1].append(replace(number, readings=number.readings | days))
        else:
            groups.append([number])
    return groups


def _places_of(group: Sequence[Number], facts: Facts) -> list[tuple[int, int]]:
    """Return where an article backs all of these numbers; a day counts with its month alone."""
    backing = [supporting_numbers(number, facts.numbers) for number in group]
    months = {reading for number in group for reading in _months(number)}
    days = {reading for number in group for reading in number.readings if reading[0] == "day"}
    if not all(backing):
        return []
    if not months or not days:
        return _as_written(group[-1], backing[-1])
    # A number that may be a fraction, too, is backed by the same one.
    same = [fact for fact in backing[-1] if _fractions(group[-1]) & _fractions(fact)]
    with_months = [fact for fact in facts.numbers if _months(fact)]
    found = [
        (fact, month)
        for fact in facts.numbers
        if not days.isdisjoint(_days(fact)) and (not (month := _month_of(fact, with_months, facts)) or month & months)
    ]
    # 今(20)日 says no month: it counts where no day with its month does.
    joint = [fact for fact, month in found if month]
    return [(fact.start, fact.end) for fact in same or joint or [fact for fact, _ in found]]


def _fractions(number: Number) -> set[Reading]:
    return {reading for reading in number.readings if reading[0] == "fraction"}


def _days(fact: Number) -> set[Reading]:
    """Return the days that a number of an article may be; in 6月3日前 and in 3月12（週日） a bare number is one."""
    return {("day", value) for kind, value in fact.readings if kind in {"day", "number"}}


def _months(number: Number) -> set[Reading]:
    return {reading for reading in number.readings if reading[0] == "month"}


def _month_of(day: Number, with_months: Sequence[Number], facts: Facts) -> set[Reading]:
    """Return the months that a day may belong to: its own, else those of the last one before it in its sentence."""
    if own := _months(day):
        return own
    index = bisect_left(with_months, day.start, key=lambda number: number.start) - 1
    sentence = facts.sentence_at(day.start)
    if index < 0 or sentence is None or with_months[index].start < sentence.start:
        return set()
    return _months(with_months[index])


def _as_written(number: Number, backing: Sequence[Number]) -> list[tuple[int, int]]:
    """Return where the numbers stand, those that are written out alone where there are any: 110年 before 今日."""
    written = [fact for fact in backing if any(char.isdigit() for char in fact.text)]
    found = written if any(char.isdigit() for char in number.text) and written else backing
    return [(fact.start, fact.end) for fact in found]


def _names(title: str, facts: Facts) -> Iterator[Claim]:
    missing = set(unsupported_names(title, facts.article))
    for name in find_names(title):
        # The 國 of 新嘉國小 ends no country, and 台 alone stands in 平台.
        if len(name.text) == 1 or (name.text.endswith("國") and title[name.end : name.end + 1] in {"小", "中"}):
            continue
        kind: Kind = "place" if is_place(name.text) else "name"
        places = [] if name in missing else locate_name(name.text, facts.article)
        # A press release often leaves out whose it is: there is nothing to show, and nothing is wrong.
        if places or name in missing:
            yield _claim(kind, title, (name.start, name.end), places, facts)


def _claim(kind: Kind, title: str, span: tuple[int, int], places: Iterable[tuple[int, int]], facts: Facts) -> Claim:
    text = title[slice(*span)]
    backed, backed_zh, missing, missing_zh = (message.format(text) for message in _MESSAGES[kind])
    best, sentence = _best_place(title, span, list(places), facts)
    if best is None:
        return Claim(kind, text, *span, False, missing, missing_zh, None, closest_sentence(title, *span, facts))  # noqa: FBT003
    return Claim(kind, text, *span, True, backed, backed_zh, best, sentence)  # noqa: FBT003


def _best_place(
    title: str, span: tuple[int, int], places: Sequence[tuple[int, int]], facts: Facts
) -> tuple[tuple[int, int] | None, Evidence | None]:
    """Return the first of the places whose sentence has most of the title's pairs of characters.

    Those of the claim's own clause count threefold, and those right around it more: 認養三年 is not 三年前.
    """
    weights = dict.fromkeys(_pairs(title), 1)
    for clause in _CLAUSE.finditer(title):
        if clause.start() <= span[0] < clause.end():
            weights |= dict.fromkeys(_pairs(clause[0]), _CLAUSE_WEIGHT)
    before, after = title[max(span[0] - 1, 0) : span[0]], title[span[1] : span[1] + 1]
    best: tuple[int, tuple[int, int] | None, Evidence | None] = (-1, None, None)
    scores: dict[Evidence | None, int] = {}
    for start, end in islice(places, _MAX_PLACES):
        sentence = facts.sentence_at(start)
        if sentence not in scores:
            text = sentence.text[:_MAX_SENTENCE] if sentence else ""
            scores[sentence] = sum(weight for pair, weight in weights.items() if pair in text)
        score = scores[sentence]
        beside = (facts.article[max(start - 1, 0) : start], before), (facts.article[end : end + 1], after)
        score += sum(_BESIDE_WEIGHT for there, here in beside if here.isalnum() and there == here)
        if score > best[0]:
            best = (score, (start, end), sentence)
    return best[1], best[2]


def _pairs(text: str) -> set[str]:
    return {first + second for first, second in pairwise(text) if (first + second).isalnum()}
