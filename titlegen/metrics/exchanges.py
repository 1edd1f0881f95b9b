"""Whether a title has exchanged two names: 黃偉哲農特產品創佳績 臺南：加強行銷, over 臺南農特產品 and 黃偉哲市長.

Only plain cases are found: what stands right beside a name in the title stands in the article beside the other name of
the title, and nowhere beside its own. One of the two is a person: of two places an article often says the same. What is
said in other words is not seen.
"""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from titlegen.metrics.names import Name, find_names, is_person
from titlegen.metrics.numerals import fold_width

# Characters beside a name that are compared; one alone is chance, three are seldom said again.
_BESIDE = 2
# Words between two names belong to both: 臺南市長黃偉哲, 王美花陪同黃偉哲.
_SHARED, _LONGEST_BETWEEN = 2, 4
_MOST_NAMES, _SHORT_NAME = 8, 2
_WORDS = re.compile(r"[^\W\d_]+")


class Exchange(NamedTuple):
    """A name with its neighbours in a title, and the other name with the same neighbours in the article."""

    start: int
    end: int
    """In the title, exclusive."""
    article_start: int
    article_end: int
    """In the article, exclusive."""


class _Pattern(NamedTuple):
    """What stands in a title around a name, and what stands in the article in its place."""

    own: str
    other: str
    start: int
    """Of ``own`` in the title."""


def find_exchanges(title: str, article: str) -> Iterator[Exchange]:
    """Yield a place of a title for each two of its names that seem to be exchanged.

    Args:
        title: one line, as it is shown.
        article: any text.
    """
    folded, text = _fold(title), _fold(article)
    names = [name for name in find_names(title) if len(name.text) >= _SHORT_NAME]
    names = [name for name in names if folded[name.start : name.end] in text][:_MOST_NAMES]
    marked: set[int] = set()
    for first, second in combinations(names, 2):
        if first.end > second.start or not (is_person(first.text) or is_person(second.text)):
            continue
        if folded[slice(*first[1:])] == folded[slice(*second[1:])]:
            continue
        patterns = list(_patterns(folded, first, second))
        if any(pattern.own in text for pattern in patterns):
            continue
        for pattern in patterns:
            if pattern.start not in marked and (place := text.find(pattern.other)) >= 0:
                marked.add(pattern.start)
                end = pattern.start + len(pattern.own)
                yield Exchange(pattern.start, end, place, place + len(pattern.other))
                break


def _patterns(title: str, first: Name, second: Name) -> Iterator[_Pattern]:
    """Yield each name with the words before and behind it, and what has the other name there."""
    one, two = title[first.start : first.end], title[second.start : second.end]
    between = title[first.end : second.start]
    if between and len(between) <= _LONGEST_BETWEEN and _WORDS.fullmatch(between):
        yield _Pattern(one + between + two, two + between + one, first.start)
    shared = len(between) <= _SHARED
    for name, own, other in ((first, one, two), (second, two, one)):
        before = title[max(name.start - _BESIDE, 0) : name.start]
        behind = title[name.end : name.end + _BESIDE]
        if _is_whole(before) and not (shared and name is second):
            yield _Pattern(before + own, before + other, name.start - _BESIDE)
        if _is_whole(behind) and not (shared and name is first):
            yield _Pattern(own + behind, other + behind, name.start)


def _is_whole(words: str) -> bool:
    return len(words) == _BESIDE and _WORDS.fullmatch(words) is not None


def _fold(text: str) -> str:
    return fold_width(text).replace("台", "臺")
