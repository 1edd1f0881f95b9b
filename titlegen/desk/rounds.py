"""One round of titles: what was written, which of it is kept, and in which order it is shown."""

import queue
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from titlegen.desk.schema import MAX_TITLE_CHARS, Notice, TextEvent, TitleRequest
from titlegen.desk.store import new_name
from titlegen.desk.wanted import Wanted
from titlegen.errors import TitlegenError
from titlegen.metrics.evidence import Claim, find_evidence
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.ranking import Standing, choose_title, is_doubtful, judge_titles
from titlegen.metrics.title_warnings import Facts
from titlegen.metrics.tokens import tokenize
from titlegen.serve import Answer

# Tries for each title that is wanted: a sure model writes the same one again and again.
_TRIES, _TRIES_WHEN_ASKED = 3, 6


@dataclass(frozen=True)
class Accepted:
    """A title that was accepted."""

    answer: Answer
    title: str
    facts: Facts

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What it claims; found when it is asked for, while the next title is written."""
        return find_evidence(self.title, self.facts)


@dataclass
class Round:
    """One request while it is carried out."""

    request: TitleRequest
    wanted: Wanted
    redraws: int = 0
    """``serve.redraws``: titles that are drawn where a single one is doubtful."""
    name: str = field(default_factory=new_name)
    events: "queue.SimpleQueue[TextEvent | tuple[int, Answer | Exception] | None]" = field(
        default_factory=queue.SimpleQueue
    )
    """What happens; None once the titles so far are enough."""
    stopped: threading.Event = field(default_factory=threading.Event)
    kept: list[Accepted] = field(default_factory=list)
    others: list[Accepted] = field(default_factory=list)
    """Titles that are not as they were asked for."""
    ended: bool = False
    """Whether the titles so far were enough."""
    failure: TitlegenError | None = None
    """What ended it before there were enough."""
    tries: int = 0
    redraws_until: int = 0
    """Where the title is doubtful, how many tries there are in all."""
    refused: int = 0
    """Titles with words that they must not have."""

    @property
    def most_tries(self) -> int:
        """How often the model is asked, at most."""
        return self.request.number * (_TRIES_WHEN_ASKED if self.wanted else _TRIES)

    @property
    def is_single(self) -> bool:
        """Whether one title is asked for and nothing else, so that a better one may take its place."""
        return self.request.number == 1 and not self.wanted and not self.request.like

    def wants_another(self, running: int) -> bool:
        """Return whether one more try is to be made beside those that are running."""
        if self.redraws_until:
            return self.tries < self.redraws_until
        return self.tries < self.most_tries and len(self.kept) + running < self.request.number

    def describe_shortfall(self, given: int) -> Notice | None:
        """Return what is said of titles that are missing, or are not as they were asked for; None for nothing.

        Args:
            given: titles that are shown.
        """
        if self.failure is not None:
            number = self.request.number
            return Notice(
                message=f"{given} of {number} titles, then: {self.failure}; ask again for more",
                message_zh=f"只有 {given} 則（要 {number} 則）：模型伺服器中途停止回應；需要更多請再產生一次",
            )
        if self.ended:
            return None
        return self.wanted.describe_shortfall(
            given=given, fitting=len(self.kept), refused=self.refused, tries=self.tries
        )

    def accept(self, answer: Answer, facts: Facts) -> Accepted | None:
        """Return a title unless it is none, is known, or is not as it was asked for."""
        title = printable(answer.title)
        known = {written.title for written in (*self.kept, *self.others)} | set(self.request.seen)
        if not title or answer.done_reason == "aborted" or title in known:
            return None
        if not self.wanted.allows(title):
            self.refused += 1
            return None
        written = Accepted(answer, title, facts)
        if self.wanted.unmet(title):
            self.others.append(written)
            return None
        if not self.kept and self.is_single and is_doubtful(answer.raw, facts):
            self.redraws_until = self.tries + self.redraws
        self.kept.append(written)
        return written

    def rank(self, facts: Facts) -> list[tuple[Accepted, Standing]]:
        """Return the titles that are shown, the best first; where some are missing, the nearest others follow."""
        if self.redraws_until:
            whole = [written for written in self.kept[1:] if written.answer.done_reason == "stop"]
            found = [self.kept[0], *whole]
            best = found[choose_title(found[0].answer.raw, [written.answer.raw for written in whole], facts)]
            return [(best, judge_titles([best.answer.raw], facts)[0])]
        fitting, room = len(self.kept), max(self.request.number - len(self.kept), 0)
        nearest = sorted(self.others, key=lambda written: self.wanted.distance(written.title))
        found = [*self.kept, *nearest[:room]]
        standings = judge_titles([written.answer.raw for written in found], facts)
        like = tokenize(self.request.like)

        def place_of(index: int) -> tuple[Any, ...]:
            if index >= fitting:
                return (True, index)
            if like:
                return (False, -rouge_l(tokenize(found[index].title), like).f1)
            # A title that was cut off comes after every whole one.
            return (False, found[index].answer.done_reason != "stop", standings[index].key)

        return [(found[index], standings[index]) for index in sorted(range(len(found)), key=place_of)]


def printable(text: str) -> str:
    """Return a title on one line of bounded length, without what would steer a page or a terminal."""
    return "".join(char for char in text[:MAX_TITLE_CHARS] if char.isprintable() or char == "\u3000").strip()
