"""What a cleaning rule is: a name, the texts it concerns, and what it takes away."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Note = Callable[[str, Sequence[str]], None]
Replacement = str | Callable[[re.Match[str]], str]

# Up to this many triggers, one substring search each is faster than one pattern for all.
_FEW_TRIGGERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyRule:
    """What rules have in common: a rule never makes a text longer and takes time linear in it."""

    name: str
    triggers: tuple[str, ...] = ()
    """The rule is skipped unless one of these stands in the text."""
    odd_only: bool = False
    """The rule concerns only texts with characters outside the plain set."""
    _gate: re.Pattern[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compile many triggers into one pattern, which ``re`` searches by their first characters."""
        many = "|".join(map(re.escape, self.triggers)) if len(self.triggers) > _FEW_TRIGGERS else ""
        object.__setattr__(self, "_gate", re.compile(many) if many else None)

    def concerns(self, text: str) -> bool:
        """Return whether the rule may change a text."""
        if self._gate is not None:
            return self._gate.search(text) is not None
        return not self.triggers or any(map(text.__contains__, self.triggers))

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule, the very same object when nothing changed; note what was taken away."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(AnyRule):
    """Replaces what a pattern matches.

    The pattern has no nested repetition, and every repetition is bounded or ends at the first character that may not
    repeat.
    """

    pattern: re.Pattern[str]
    replacement: Replacement = ""

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule."""
        cleaned, count = self.pattern.subn(self.replacement, text)
        if not count or cleaned == text:
            return text
        if note is not None:
            note(self.name, [match[0] for match in self.pattern.finditer(text) if match[0] != self._replaced(match)])
        return cleaned

    def _replaced(self, match: re.Match[str]) -> str:
        return match.expand(self.replacement) if isinstance(self.replacement, str) else self.replacement(match)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRule(AnyRule):
    """Does what a pattern cannot do in linear time.

    ``function`` returns the new text and the pieces that it took away.
    """

    function: Callable[[str], tuple[str, list[str]]]

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule."""
        cleaned, pieces = self.function(text)
        if cleaned == text:
            return text
        if note is not None:
            note(self.name, pieces)
        return cleaned


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRule(AnyRule):
    """Rewrites the text line by line; an emptied line goes, with its line break.

    ``function`` returns the line after the rule.
    """

    function: Callable[[str], str]

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule."""
        lines = text.split("\n")
        cleaned = [self.function(line) for line in lines]
        if cleaned == lines:
            return text
        if note is not None:
            note(self.name, [line for line, after in zip(lines, cleaned, strict=True) if line != after])
        return "\n".join(after for line, after in zip(lines, cleaned, strict=True) if after or not line)


# Building blocks of the patterns.
HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
OPEN, CLOSE = r"（(〔［\[【〈", r"）)〕］\]】〉"
INSIDE = rf"[^{OPEN}{CLOSE}\n。！？]"
"""One character inside brackets."""


def any_of(*alternatives: str) -> str:
    """Return a group that matches any of the alternatives."""
    return f"(?:{'|'.join(alternatives)})"


def words(text: str) -> str:
    """Return a group that matches any of the words, which spaces separate."""
    return any_of(*text.split())


def listed(text: str) -> tuple[str, ...]:
    """Return the words, which spaces separate."""
    return tuple(text.split())


def bracketed(*insides: str) -> str:
    """Return a pattern for a pair of brackets, of any kind, around any of the alternatives."""
    return rf"[{OPEN}] ?{any_of(*insides)} ?[{CLOSE}]"
