"""Shares of a title that are copied from its article, repeated, or written in the wrong script."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import regex

from titlegen.metrics.tokens import normalise, segment

_HAN = regex.compile(r"\p{Han}")
_HAN_WORD = regex.compile(r"\p{Han}{2,}")
# Between tokens in the searchable form of an article; no token contains it.
_GAP = "\x1f"


class Copying(NamedTuple):
    """Shares, 0 to 1, of one title."""

    copy_coverage: float
    """Tokens that stand in a run of two or more tokens copied from the article."""
    novel_bigram_rate: float
    """Pairs of neighbouring tokens that the article does not have."""


def searchable(tokens: Sequence[str]) -> str:
    """Return an article's tokens as one string, in which a run of tokens is found as a substring."""
    return _GAP + _GAP.join(tokens) + _GAP


def measure_copying(title: Sequence[str], article: str) -> Copying:
    """Compare a title's tokens with an article that ``searchable`` made; a title without a pair of tokens gives 0, 0.

    Runs of one token are not counted as copied: nearly every single character of any title stands in the article.
    Source: coverage of extractive fragments, Grusky et al., Newsroom, 2018.
    """
    copied = [f"{_GAP}{a}{_GAP}{b}{_GAP}" in article for a, b in pairwise(title)]
    if not copied:
        return Copying(0.0, 0.0)
    covered = sum(before or after for before, after in zip([False, *copied], [*copied, False], strict=True))
    return Copying(covered / len(title), copied.count(False) / len(copied))


def unknown_words(title: str, article: str) -> list[str]:
    """Return the Han words of a title, of two characters or more, that its article does not have.

    People put things in words of their own, so that such a word is no fault. A small model that does so is often wrong.

    Args:
        title: one line.
        article: what :func:`plain_words` made of it.
    """
    words = [word for word in segment(plain_words(title)) if _HAN_WORD.fullmatch(word)]
    return [word for word in words if word not in article]


def plain_words(text: str) -> str:
    """Return a text in which :func:`unknown_words` finds a word, however its place is written: 台中, 臺中."""
    return normalise(text).replace("台", "臺")


def repetition(title: Sequence[str]) -> float:
    """Return the share of neighbouring token pairs that already occurred in the same title, 0 to 1."""
    pairs = list(pairwise(title))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def script_purity(title: str) -> float:
    """Return the share of Han characters that Traditional text may hold; 0 for a title without any."""
    characters: list[str] = _HAN.findall(normalise(title))
    if not characters:
        return 0.0
    return 1 - sum(char in simplified_only() for char in characters) / len(characters)


@cache
def simplified_only() -> frozenset[str]:
    """Return the characters that only Simplified text has: OpenCC changes them, and Big5 lacks them.

    Big5 decides because 后, 里 and 台 are also Traditional characters in their own right.
    """
    import opencc

    every = [chr(code) for code in range(0x4E00, 0xA000)]
    traditional = opencc.OpenCC("s2tw").convert("\n".join(every)).split("\n")
    return frozenset(
        char for char, other in zip(every, traditional, strict=True) if char != other and not _in_big5(char)
    )


def _in_big5(char: str) -> bool:
    try:
        char.encode("big5")
    except UnicodeEncodeError:
        return False
    return True
