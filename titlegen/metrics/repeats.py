"""Repetitions in a title as a broken model writes them: 災情無災情, 公車增班公車增班, 哈哈哈哈.

Headlines repeat words on purpose (一棒接一棒, 高齡及中高齡), so a word that comes twice is no sign.
"""

import re
from itertools import combinations
from typing import NamedTuple

from rapidfuzz.distance import LCSseq

_MAX_CHARS = 200
_WORD = "[\u4e00-\u9fff]{2,}"
_DENIED = "(?:[無不沒未非][\u4e00-\u9fff]{0,2}|沒有[\u4e00-\u9fff]?)"
_PATTERNS = (
    # The same word twice on end: 災情災情. With a mark between only phrases: 代書≠地政士，地政士….
    re.compile(rf"(?P<first>{_WORD}?)(?P<again>(?P=first))|(?P<phrase>{_WORD}{_WORD})[\s，、](?P<same>(?P=phrase))"),
    # Denied by itself: 災情無災情, 災情 未傳災情.
    re.compile(rf"(?P<first>{_WORD}?)[\s，、]?(?P<again>{_DENIED}(?P=first))"),
    # As many characters as are a clause, anywhere again.
    re.compile(r"(?P<first>\w{6}).*?(?P<again>(?P=first))"),
    # A character four times on end; digits make numbers.
    re.compile(r"(?P<first>[^\W\d_])(?P<again>(?P=first){3,})"),
    # Latin words three times on end.
    re.compile(r"\b(?P<first>[a-z]{2,})(?P<again>(?:\W+(?P=first)\b){2,})", re.IGNORECASE),
)
_CLAUSE = re.compile(r"[^\s，。！？!?、：:；;,.「」『』《》｜|]+")
_LEAST_CLAUSE, _ALIKE = 5, 0.8
_LEAST_PAIRS, _REPEATED_PAIRS = 8, 0.2


class Repeat(NamedTuple):
    """What a title says again, from ``start`` to ``end`` (exclusive)."""

    start: int
    end: int


def find_repeat(title: str) -> Repeat | None:
    """Return the first place where a title repeats itself, None when it does not."""
    title = title[:_MAX_CHARS]
    for pattern in _PATTERNS:
        if match := pattern.search(title):
            return Repeat(*match.span(match.lastgroup or 0))
    return _find_like_clauses(title) or _find_repeated_pairs(title)


def _find_like_clauses(title: str) -> Repeat | None:
    clauses = [match for match in _CLAUSE.finditer(title) if len(match[0]) >= _LEAST_CLAUSE]
    for first, second in combinations(clauses, 2):
        shorter = min(len(first[0]), len(second[0]))
        if LCSseq.similarity(first[0], second[0]) >= _ALIKE * shorter:
            return Repeat(*second.span())
    return None


def _find_repeated_pairs(title: str) -> Repeat | None:
    """Return the last pair of characters that came before, where more than a fifth of all pairs did."""
    seen: dict[str, int] = {}
    pairs = [(match.start(), match[1]) for match in re.finditer(r"(?=([\u4e00-\u9fff]{2}))", title)]
    again = [start for start, pair in pairs if pair in seen or seen.setdefault(pair, start) != start]
    if len(pairs) < _LEAST_PAIRS or len(again) <= _REPEATED_PAIRS * len(pairs):
        return None
    return Repeat(again[0], again[-1] + 2)
