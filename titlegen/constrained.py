"""Constrained decoding: the likeliest titles of a length and with words, whatever the model would write by itself.

A search asks for what a model writes behind the beginning of a title, greedily, and for the likeliest tokens at every
place of it: that much every engine tells. Where a title may end, there is one to choose; where another token is likely,
or a missing word fits, there is another beginning. The likeliest beginning is tried next.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from titlegen.control import Control
from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.repeats import find_repeat

LIKELIEST = 20
"""How many tokens an engine tells of each place; as many as Ollama's API gives."""
# Beginnings that are tried, at most: so many, and so many more for each title.
_MOST, _MORE = 10, 2
# Log-probabilities of what an engine does not tell: a word where nothing speaks for it, the signs between two clauses.
_WORD = -10.0
# A title is no title where the model ends it so seldom: at one place of 150.
_HARDLY = -5.0
_SEPARATORS = ((" ", -3.0), ("，", -4.0))
_ASCII = re.compile("[0-9A-Za-z]+")
# Stands for a part of a character; a title with one is not followed further.
_PART = "\ufffd"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a title: the token that the model put there, and the likeliest for it; an empty one ends the title."""

    token: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...]


Search = Generator[str, Sequence[Place], list[str]]
"""Yields the beginning of a title, takes what is written behind it, and returns titles, the likeliest first."""


class _Beginning(NamedTuple):
    """The beginning of a title; the likeliest is the least."""

    cost: float
    """Of the whole title, estimated."""
    order: int
    text: str
    logprob: float
    left: int
    """Characters that it lacks, at least."""


@dataclass
class _Found:
    """What a search knows."""

    control: Control
    article: str
    avoid: Sequence[str]
    titles: dict[str, float] = field(default_factory=dict)
    """Log-probability of each title that is as asked for."""
    flawed: dict[str, float] = field(default_factory=dict)
    """The same of those that the model would hardly end there, or that an editor would have to mend."""
    per_char: float = 0.0
    """What a further character costs, about: the mean of the model's own title."""
    _open: list[_Beginning] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def add_title(self, text: str, logprob: float, end: float) -> None:
        """Keep a title where it is as asked for; ``end`` is the log-probability of its end."""
        if self.control.unmet(text) or not self._allows(text):
            return
        title = text.strip()
        flawed = end < _HARDLY or title_violations(title) or style_violations(title) or find_repeat(title)
        titles = self.flawed if flawed else self.titles
        titles[title] = max(logprob + end, titles.get(title, -math.inf))

    def add_beginning(self, text: str, logprob: float) -> None:
        """Keep a beginning for later, unless no title that is as asked for can begin so."""
        missing = sum(map(len, self.missing(text)))
        length, chars = self.control.length, len(text.strip())
        fits = length is None or chars + missing <= length.max_chars
        if text not in self._seen and fits and self._allows(text):
            self._seen.add(text)
            left = missing if length is None else max(missing, length.min_chars - chars, 0)
            # An estimate of the whole title, so that a longer beginning counts for as much as a shorter one.
            heapq.heappush(self._open, _Beginning(left * self.per_char - logprob, len(self._seen), text, logprob, left))

    def take(self, number: int, *, nearest: bool) -> _Beginning | None:
        """Return the likeliest beginning; None where none can lead to a title likelier than the ``number`` best.

        Args:
            number: titles that are wanted.
            nearest: where there is no title yet, return the beginning that lacks the fewest characters.
        """
        if not self._open:
            return None
        if nearest and not self.titles:
            begun = min(self._open, key=lambda one: (one.left, one.cost))
            self._open.remove(begun)
            heapq.heapify(self._open)
            return begun
        begun = heapq.heappop(self._open)
        best = sorted(self.titles.values(), reverse=True)[:number]
        return None if len(best) == number and -begun.cost <= best[-1] else begun

    def missing(self, text: str) -> list[str]:
        """Return the words that a text has not."""
        return [word.strip() for word in self.control.include if word.strip() not in text]

    def best(self, own: str, number: int) -> list[str]:
        """Return the likeliest titles, the model's own in front; they differ in more than signs."""
        titles = self.titles
        if not titles and self.control.length is not None:
            # A place that a title is written for has to be filled.
            titles = self.flawed
        different: dict[str, str] = {}
        for title in sorted(titles, key=lambda title: (title != own, -titles[title])):
            different.setdefault("".join(filter(str.isalnum, title)), title)
        return list(different.values())[:number]

    def _allows(self, text: str) -> bool:
        if "\n" in text or _PART in text or any(word in text for word in self.avoid):
            return False
        # A model that is led away from its own title readily falls into English, or invents a number.
        return all(run in self.article for run in _ASCII.findall(text))


def search_titles(control: Control, article: str, number: int = 1, avoid: Sequence[str] = ()) -> Search:
    """Search for the likeliest titles of a model that are as asked for.

    The model's own greedy title stays the first where it is as asked for.

    Args:
        control: what is asked for.
        article: where the Latin letters and the digits of a title have to stand.
        number: titles, at most.
        avoid: words that a title must not have.
    """
    most = _MOST + _MORE * number
    found, own = _Found(control, "\n".join((article, *control.include)), avoid), ""
    found.add_beginning("", 0.0)
    for tried in range(most):
        if (begun := found.take(number, nearest=2 * tried >= most)) is None:
            break
        path = yield begun.text
        if not begun.text and path:
            greedy = "".join(place.token for place in path).strip()
            found.per_char = -sum(place.logprob for place in path) / max(1, len(greedy))
            own = "" if path[-1].token else greedy
        _follow(found, begun.text, begun.logprob, path)
        if number == 1 and own in found.titles:
            break
    return found.best(own, number)


def _follow(found: _Found, text: str, logprob: float, path: Sequence[Place]) -> None:
    """Keep the titles and the other beginnings along what was written behind one."""
    length = found.control.length
    for place in path:
        if length is not None and len(text.strip()) > length.max_chars:
            return
        _turn_off(found, text, logprob, place)
        if not place.token:
            for sign, unlikely in _SEPARATORS:
                found.add_beginning(text + sign, logprob + unlikely)
        if not place.token or _PART in place.token:
            return
        text, logprob = text + place.token, logprob + place.logprob


def _turn_off(found: _Found, text: str, logprob: float, place: Place) -> None:
    """Keep what a title can be that is the same up to a place."""
    likely: dict[str, float] = {}
    for token, value in (*place.likeliest, (place.token, place.logprob)):
        # Several tokens end a title.
        likely[token] = max(value, likely.get(token, -math.inf))
    found.add_title(text, logprob, likely.get("", -math.inf))
    for word in found.missing(text):
        rest = word[_overlap(text, word) :]
        begins = [value for token, value in likely.items() if token and _goes_with(token, rest)]
        if begins:
            found.add_beginning(text + rest, logprob + max(begins))
        elif not text or not text[-1].isalnum():
            found.add_beginning(text + rest, logprob + _WORD)
        elif not place.token:
            found.add_beginning(f"{text} {rest}", logprob + _WORD)
    for token, value in likely.items():
        if token and token != place.token:
            found.add_beginning(text + token, logprob + value)


def _goes_with(token: str, word: str) -> bool:
    return word.startswith(token) or token.startswith(word)


def _overlap(text: str, word: str) -> int:
    """Return how many characters of a word a text ends with already."""
    return next((size for size in range(len(word) - 1, 0, -1) if text.endswith(word[:size])), 0)


def run_searches(
    searches: Sequence[Search], write: Callable[[Sequence[tuple[int, str]]], Sequence[Sequence[Place]]]
) -> list[list[str]]:
    """Return what several searches find, each round's beginnings written together.

    Args:
        searches: one for each article.
        write: returns what is written behind beginnings, each with the index of its article.
    """
    found: list[list[str]] = [[] for _ in searches]
    waiting: dict[int, str] = {}

    def go_on(index: int, path: Sequence[Place] | None) -> None:
        try:
            # None begins a search.
            waiting[index] = searches[index].send(path)  # type: ignore[arg-type]
        except StopIteration as end:
            waiting.pop(index, None)
            found[index] = end.value

    for index in range(len(searches)):
        go_on(index, None)
    while waiting:
        asked = list(waiting.items())
        for (index, _), path in zip(asked, write(asked), strict=True):
            go_on(index, path)
    return found
