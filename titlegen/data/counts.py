"""Counts of the cleaning, with a few examples of each; chunks add up in any order."""

import reprlib
from collections import Counter
from dataclasses import dataclass, field

from titlegen.data.date_order import OrderCounts
from titlegen.data.date_reading import ABSENT, AMBIGUOUS, Reading
from titlegen.data.filters import Clean, describe_unreadable, digest_hex, printable
from titlegen.data.sources import Row
from titlegen.text import Removals

_EXAMPLES = 3
_EXAMPLE_CHARS = 120
_DATE_CHARS = 60
_REPR = reprlib.Repr()
_REPR.maxother = _DATE_CHARS


@dataclass(slots=True)
class RuleCount:
    """How often one cleaning rule applied, with a few of the pieces that it removed."""

    articles: int = 0
    pieces: int = 0
    chars: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Digest and text of a few pieces, sorted."""

    def add(self, other: "RuleCount") -> None:
        """Add another chunk's counts."""
        self.articles += other.articles
        self.pieces += other.pieces
        self.chars += other.chars
        self.examples = sorted({*self.examples, *other.examples})[:_EXAMPLES]


@dataclass(slots=True)
class Counts:
    """Everything that is counted while rows are cleaned."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unread: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Part and number of the first rows that hold no article, by what they hold instead."""
    unread_rows: Counter[str] = field(default_factory=Counter)
    """How many rows these are."""
    converted: int = 0
    shortened: int = 0
    whole_chars: int = 0
    """Of all cleaned articles."""
    left_out_chars: int = 0
    """Of these, what did not fit the token budget."""
    content_rules: dict[str, RuleCount] = field(default_factory=dict)
    title_rules: dict[str, RuleCount] = field(default_factory=dict)
    scripts: dict[str, RuleCount] = field(default_factory=dict)
    """Titles and contents that were converted, or hold both scripts."""
    orders: OrderCounts = field(default_factory=OrderCounts)
    date_examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """For each form, and each shape of ambiguous dates, a few values with their digests, sorted."""
    raw_content_chars: Counter[int] = field(default_factory=Counter)
    raw_title_chars: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Add another chunk's counts."""
        self.rows += other.rows
        self.converted += other.converted
        self.shortened += other.shortened
        self.whole_chars += other.whole_chars
        self.left_out_chars += other.left_out_chars
        self.dropped.update(other.dropped)
        self.orders.add(other.orders)
        for form, examples in other.date_examples.items():
            self.date_examples[form] = sorted({*self.date_examples.get(form, ()), *examples})[:_EXAMPLES]
        self.unread_rows.update(other.unread_rows)
        for reason, places in other.unread.items():
            self.unread[reason] = sorted([*self.unread.get(reason, ()), *places])[:_EXAMPLES]
        self.raw_content_chars.update(other.raw_content_chars)
        self.raw_title_chars.update(other.raw_title_chars)
        for mine, theirs in (
            (self.content_rules, other.content_rules),
            (self.title_rules, other.title_rules),
            (self.scripts, other.scripts),
        ):
            for name, count in theirs.items():
                mine.setdefault(name, RuleCount()).add(count)

    def drop(self, reason: str, row: Row) -> None:
        """Count a row that is left out, with its place when it could not even be cleaned."""
        self.dropped[reason] += 1
        if what := describe_unreadable(row):
            self.unread_rows[what] += 1
            places = self.unread.setdefault(what, [])
            if len(places) < _EXAMPLES:
                places.append((row.part, row.number))


def count_date(counts: Counts, value: object, reading: Reading) -> None:
    """Count how a date is written, with an example."""
    counts.orders.note(reading)
    if reading.form == ABSENT:
        return
    text = printable((value if isinstance(value, str) else _REPR.repr(value))[:_DATE_CHARS])
    key = f"{AMBIGUOUS} {reading.shape}" if reading.form == AMBIGUOUS else reading.form
    counts.date_examples[key] = _add_example(counts.date_examples.get(key, []), text)


def count_scripts(counts: Counts, clean: Clean) -> None:
    """Count a row that was converted, or holds both scripts."""
    counts.converted += any(script.example for script in clean.scripts.values())
    for part, script in clean.scripts.items():
        if script.example:
            _count_script(counts, f"{part} converted", script.example)
        if script.mixed:
            _count_script(counts, f"{part} in both scripts", script.mixed)


def _count_script(counts: Counts, what: str, example: str) -> None:
    count = counts.scripts.setdefault(what, RuleCount())
    count.articles += 1
    count.examples = _add_example(count.examples, printable(example))


def count_rules(rules: dict[str, RuleCount], removals: Removals) -> None:
    """Count what the cleaning rules removed from one text."""
    for name, pieces in removals.pieces.items():
        count = rules.setdefault(name, RuleCount())
        count.articles += 1
        count.pieces += len(pieces)
        count.chars += sum(map(len, pieces))
        # One piece of an article is enough.
        if pieces and pieces[0]:
            count.examples = _add_example(count.examples, pieces[0][:_EXAMPLE_CHARS])


def _add_example(examples: list[tuple[str, str]], text: str) -> list[tuple[str, str]]:
    """Return the examples with the lowest digests: they do not depend on any order."""
    example = (digest_hex(text), text)
    if len(examples) < _EXAMPLES or example < examples[-1]:
        return sorted({*examples, example})[:_EXAMPLES]
    return examples
