"""What a title may be asked for beside its article: a length, words; one line in front of the article."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from titlegen.data import Example
from titlegen.errors import ConfigError
from titlegen.slots import LENGTHS, Length, length_of
from titlegen.text import is_one_line

_LENGTHS = {length.max_chars: length for length in LENGTHS}
MAX_WORDS = 3
MAX_WORD_CHARS = 12
# What a control token, or another line, is made of.
_UNSAFE = frozenset("<>[]|\r\n")
# Of training rows with a control, how many ask for a length, and how many for words; some ask for both.
_LENGTH_SHARE, _WORD_SHARE = 0.7, 0.6
_SHORTEST, _LONGEST = 2, 6
# Of the words that candidates are drawn with, how many stand in the reference; the others are anywhere in here.
_REFERENCE_SHARE, _BEGINNING = 0.5, 300
_LETTERS = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Control:
    """A length and words that a title has to have."""

    chars: int | None = None
    """Most characters, the end of one of ``LENGTHS``; at most four fewer are asked for."""
    include: tuple[str, ...] = ()
    """Words, at most three."""

    def __post_init__(self) -> None:
        """Refuse what the model was not taught.

        Raises:
            ConfigError: naming the value and what is possible.
        """
        if self.chars is not None and self.chars not in _LENGTHS:
            raise ConfigError(
                f"a title of {self.chars} characters cannot be asked for; choose {_listed(list(_LENGTHS))}"
            )
        if len(self.include) > MAX_WORDS:
            raise ConfigError(f"{len(self.include)} words cannot be asked for at a time; give {MAX_WORDS} at most")
        for word in self.include:
            if not can_ask_for(word):
                raise ConfigError(
                    f"{word[:40]!r} cannot be asked for; give a word of 1 to {MAX_WORD_CHARS} characters in one line, "
                    "without < > [ ] |"
                )

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return self.chars is not None or bool(self.include)

    @property
    def length(self) -> Length | None:
        """The length that is asked for, None for any."""
        return None if self.chars is None else _LENGTHS[self.chars]

    def line(self) -> str:
        """Return the line that asks for it; empty for nothing."""
        parts = [] if self.length is None else [f"{self.length.min_chars}到{self.length.max_chars}字"]
        if self.include:
            parts.append("包含" + "".join(f"「{word.strip()}」" for word in self.include))
        return f"（{'，'.join(parts)}）" if parts else ""

    def describe_length(self) -> str:
        """Return the length that is asked for, for a person."""
        if self.length is None:
            return "any length"
        return f"{self.length.min_chars} to {self.length.max_chars} characters"

    def unmet(self, title: str) -> list[str]:
        """Return what of it a title does not have: ``chars``, or a word."""
        missing = [word for word in self.include if word.strip() not in title]
        if self.length is not None and not self.length.fits(title):
            return ["chars", *missing]
        return missing


NO_CONTROL = Control()
"""Any title."""


def can_ask_for(word: str) -> bool:
    """Return whether a word can stand in the line that asks for it."""
    return bool(word.strip()) and len(word) <= MAX_WORD_CHARS and not _UNSAFE.intersection(word) and is_one_line(word)


def ask(content: str, control: Control) -> str:
    """Return an article with the line that asks for a control; without one it stays as it is."""
    return f"{control.line()}\n{content.strip()}" if control else content


def with_control(example: Example, control: Control) -> Example:
    """Return an example whose article asks for a control."""
    return replace(example, content=ask(example.content, control))


def describe_reference(example: Example, source: random.Random) -> Control:
    """Return a control that an example's own title meets, drawn: its length, a word that its article has, or both."""
    length = length_of(example.title)
    runs = common_runs(example.title, example.content)
    wants_length = length is not None and (not runs or source.random() < _LENGTH_SHARE)
    wants_word = bool(runs) and (not wants_length or source.random() < _WORD_SHARE)
    chars = length.max_chars if length is not None and wants_length else None
    return Control(chars, (_cut(source.choice(runs), source),) if wants_word else ())


def common_runs(title: str, content: str) -> list[str]:
    """Return the longest pieces of a title, two letters or more, that stand in the article, too."""
    runs, start = [], 0
    while start < len(title):
        end = start
        while end < len(title) and title[end].isalnum() and title[start : end + 1] in content:
            end += 1
        if end - start >= _SHORTEST:
            runs.append(title[start:end])
        start = max(end, start + 1)
    return runs


def with_controls(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Return the examples, a share of them with a control that their own title meets.

    Those whose titles have a rare length come first, so that each of ``LENGTHS`` is asked for about as often.
    """
    source = random.Random(seed)  # noqa: S311 - a choice of rows, no secret
    lengths = [length_of(example.title) for example in examples]
    frequency = Counter(lengths)
    # Drawn without replacement, each with a weight. Source: Efraimidis and Spirakis, 2006.
    keys = [source.random() ** frequency[length] for length in lengths]
    chosen = set(sorted(range(len(keys)), key=lambda row: -keys[row])[: round(share * len(examples))])
    return [
        with_control(example, describe_reference(example, source)) if row in chosen else example
        for row, example in enumerate(examples)
    ]


def draw_control(example: Example, source: random.Random) -> Control:
    """Return a control that an example's own title need not meet: any length, a word of the article, or both."""
    runs = common_runs(example.title, example.content) or [example.content[:_LONGEST]]
    wants_length = source.random() < _LENGTH_SHARE
    wants_word = not wants_length or source.random() < _WORD_SHARE
    word = _cut(source.choice(runs), source) if source.random() < _REFERENCE_SHARE else _piece(example.content, source)
    return Control(source.choice(LENGTHS).max_chars if wants_length else None, (word,) if wants_word and word else ())


def _piece(content: str, source: random.Random) -> str:
    """Return a few characters of an article's beginning that stand together."""
    runs = [run for run in _LETTERS.findall(content[:_BEGINNING]) if len(run) >= _SHORTEST]
    return _cut(source.choice(runs), source) if runs else ""


def _cut(run: str, source: random.Random) -> str:
    """Return a piece of a run, for a run can be half a sentence."""
    length = min(len(run), source.randint(_SHORTEST, _LONGEST))
    start = source.randint(0, len(run) - length)
    return run[start : start + length]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}"
