"""Warnings about a title for an editor, each with its place and, where there is one, its evidence.

Warnings are for a reader, and a title with one may be right: on 1,030 press releases that people wrote, the titles of
one in thirty get any (docs/titles.md says which).
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from titlegen.metrics.contract import MAX_CHARS, MIN_CHARS, has_title_length
from titlegen.metrics.exchanges import Exchange, find_exchanges
from titlegen.metrics.figures import Number, Reading
from titlegen.metrics.names import unsupported_names
from titlegen.metrics.negation import Contradiction, find_contradictions
from titlegen.metrics.novelty import plain_words, simplified_only
from titlegen.metrics.numbers import article_numbers, find_numbers, is_supported
from titlegen.metrics.repeats import find_repeat
from titlegen.metrics.tokens import tokenize
from titlegen.text.sentences import sentence_spans

Kind = Literal["length", "repetition", "script", "language", "number", "name", "exchange", "negation"]
KINDS: tuple[Kind, ...] = ("number", "name", "exchange", "negation", "language", "repetition", "script", "length")
"""Every kind, the most serious first: faults in fact, in language, in form."""
GRAVE: frozenset[Kind] = frozenset({"number", "name", "exchange", "negation", "language"})
"""Kinds that may be wrong in fact, or make a title unusable."""

# Titles are short; text that a broken model wrote after one is not read.
_MAX_TITLE = 200
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_CLAUSE = re.compile(r"[^\s，。！？!?、：:；;「」『』]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence of the article, from ``start`` to ``end`` (exclusive)."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TitleWarning:
    """One warning about the title's text from ``start`` to ``end`` (exclusive)."""

    kind: Kind
    text: str
    start: int
    end: int
    message: str
    message_zh: str
    evidence: Evidence | None = None
    """What the article says there: the opposite of a denial, else the sentence most like the title around it."""


@dataclass(frozen=True)
class Facts:
    """The article that a title is checked against, and the day on which it was published (YYYY-MM-DD), when known."""

    article: str
    date: str | None = None

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """What the article states as numbers, and where."""
        return article_numbers(self.article, self.date)

    @cached_property
    def readings(self) -> frozenset[Reading]:
        """Everything that the article's numbers may mean."""
        return frozenset(reading for number in self.numbers for reading in number.readings)

    @cached_property
    def plain(self) -> str:
        """The article as :func:`titlegen.metrics.novelty.unknown_words` reads it."""
        return plain_words(self.article)

    @cached_property
    def sentences(self) -> list[Evidence]:
        """The article's sentences."""
        return [Evidence(self.article[start:end], start, end) for start, end in sentence_spans(self.article)]

    def sentence_at(self, place: int) -> Evidence | None:
        """Return the sentence around a place in the article."""
        index = bisect_right(self.sentences, place, key=lambda sentence: sentence.start) - 1
        return self.sentences[index] if index >= 0 and place < self.sentences[index].end else None

    def sentence_like(self, text: str) -> Evidence | None:
        """Return the first of the sentences with the most pairs of characters of a text, None where it has none."""
        pairs = {text[index : index + 2] for index in range(len(text) - 1)}
        pairs = {pair for pair in pairs if pair.isalnum()}
        found, most = None, 0
        for sentence in self.sentences:
            if (shared := sum(pair in sentence.text for pair in pairs)) > most:
                found, most = sentence, shared
        return found


def find_warnings(title: str, facts: Facts) -> tuple[TitleWarning, ...]:
    """Return the warnings about a title, the most serious first.

    Args:
        title: one line, as it is shown.
        facts: of its article.
    """
    read = title[:_MAX_TITLE]
    found = [
        *_check_numbers(read, facts),
        *_check_names(read, facts),
        *_check_exchange(read, facts),
        *_check_negation(read, facts),
        *_check_language(read),
        *_check_repetition(read),
        *_check_script(read),
        *_check_length(title),
    ]
    return tuple(sorted(found, key=lambda warning: (KINDS.index(warning.kind), warning.start)))


def unsupported_numbers(title: str, facts: Facts) -> list[Number]:
    """Return the numbers of a title that its article does not have; an article is read only for a title with one."""
    return [number for number in find_numbers(title, facts.date) if not is_supported(number, facts.readings)]


def _check_numbers(title: str, facts: Facts) -> Iterator[TitleWarning]:
    for number in unsupported_numbers(title, facts):
        yield TitleWarning(
            "number",
            number.text,
            number.start,
            number.end,
            f"the article does not have the number {number.text}",
            f"內文沒有「{number.text}」這個數字",
            closest_sentence(title, number.start, number.end, facts),
        )


def _check_names(title: str, facts: Facts) -> Iterator[TitleWarning]:
    foreign = any(_check_language(title))
    for name in unsupported_names(title, facts.article):
        # Every word of a title in another language would be one.
        if foreign and name.text.isascii():
            continue
        yield TitleWarning(
            "name",
            name.text,
            name.start,
            name.end,
            f"the article does not have the name {name.text}",
            f"內文沒有「{name.text}」這個名稱",
            closest_sentence(title, name.start, name.end, facts),
        )


def closest_sentence(title: str, start: int, end: int, facts: Facts) -> Evidence | None:
    """Return the sentence most like the clause around a place of a title, else like all of it, but for that place."""
    for clause in _CLAUSE.finditer(title):
        if clause.start() <= start < clause.end() and (
            found := facts.sentence_like(title[clause.start() : start] + title[end : clause.end()])
        ):
            return found
    return facts.sentence_like(title[:start] + title[end:])


def _check_exchange(title: str, facts: Facts) -> Iterator[TitleWarning]:
    told = "two names may be exchanged: the title", "人名或地名可能互換：標題"
    for found in find_exchanges(title, facts.article):
        yield _said_otherwise("exchange", title, facts, found, told)


def _check_negation(title: str, facts: Facts) -> Iterator[TitleWarning]:
    for found in find_contradictions(title, facts.article):
        yield _said_otherwise("negation", title, facts, found, ("the title", "標題"))


def _said_otherwise(
    kind: Kind, title: str, facts: Facts, found: Exchange | Contradiction, told: tuple[str, str]
) -> TitleWarning:
    """Return a warning with both texts, the title's and the article's; ``told`` are its first words, English first."""
    text, said = title[found.start : found.end], facts.article[found.article_start : found.article_end]
    return TitleWarning(
        kind,
        text,
        found.start,
        found.end,
        f"{told[0]} says {text}, the article {said}",
        f"{told[1]}寫「{text}」，內文寫「{said}」",
        facts.sentence_at(found.article_start),
    )


def _check_language(title: str) -> Iterator[TitleWarning]:
    words = [token for token in tokenize(title) if not token[0].isdigit()]
    han = sum(_HAN.match(word) is not None for word in words)
    if words and 2 * han < len(words):
        yield TitleWarning(
            "language", title, 0, len(title), "most words of the title are not Chinese", "標題多半不是中文"
        )


def _check_repetition(title: str) -> Iterator[TitleWarning]:
    if repeat := find_repeat(title):
        text = title[slice(*repeat)]
        yield TitleWarning("repetition", text, *repeat, f"the title repeats itself: {text}", f"標題重複：「{text}」")


def _check_script(title: str) -> Iterator[TitleWarning]:
    places = [place for place, char in enumerate(title) if char in simplified_only()]
    if places:
        chars = "".join(dict.fromkeys(title[place] for place in places))
        yield TitleWarning(
            "script",
            chars,
            places[0],
            places[-1] + 1,
            f"Simplified characters in the title: {chars}",
            f"標題有簡體字：「{chars}」",
        )


def _check_length(title: str) -> Iterator[TitleWarning]:
    if not has_title_length(title):
        length = len(title.strip())
        yield TitleWarning(
            "length",
            title[:_MAX_TITLE],
            0,
            len(title),
            f"the title has {length} characters, not {MIN_CHARS} to {MAX_CHARS}",
            f"標題有 {length} 字，不在 {MIN_CHARS} 到 {MAX_CHARS} 字之間",
        )
