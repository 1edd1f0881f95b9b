"""Cleaning rules: a name, the texts it concerns, and what it removes."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

Note = Callable[[str, Sequence[str]], None]
Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyRule:
    """The base of all rules: a rule never makes a text longer and takes time linear in it."""

    name: str
    triggers: tuple[str, ...] = ()
    """The rule is skipped unless one of these stands in the text."""
    odd_only: bool = False
    """The rule concerns only texts with characters outside the plain set (see ``is_plain``)."""

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
    """The text itself, without references to groups, or a function of the match."""

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule."""
        replacement = self.replacement
        pieces: list[str] = []

        def replace(match: re.Match[str]) -> str:
            after = replacement if isinstance(replacement, str) else replacement(match)
            if after != match[0]:
                pieces.append(match[0])
            return after

        cleaned = self.pattern.sub(replace, text)
        if not pieces:
            return text
        if note is not None:
            note(self.name, pieces)
        return cleaned


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRule(AnyRule):
    """Does what another rule does, unless that takes the text's last letter or digit."""

    rule: AnyRule

    def apply(self, text: str, note: Note | None) -> str:
        """Return the text after the rule."""
        after = self.rule.apply(text, None)
        if after is text or (_LETTER.search(text) and not _LETTER.search(after)):
            return text
        return self.rule.apply(text, note)


def keeping(rule: AnyRule) -> KeptRule:
    """Return a rule that does the same, but leaves at least one letter or digit."""
    return KeptRule(name=rule.name, triggers=rule.triggers, odd_only=rule.odd_only, rule=rule)


_LETTER = re.compile(r"[^\W_]")

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


class TriggerIndex:
    """Finds in one walk over a text which of many rules concern it.

    Searching the triggers of each rule on its own takes most of the time of cleaning an article that needs none.
    """

    def __init__(self, rules: Sequence[AnyRule]) -> None:
        """Compile the triggers of all rules into one pattern."""
        owners: dict[str, frozenset[str]] = {}
        for rule in rules:
            for trigger in rule.triggers:
                owners[trigger] = owners.get(trigger, frozenset()) | {rule.name}
        self._always = frozenset(rule.name for rule in rules if not rule.triggers)
        beginnings: dict[str, set[str]] = {}
        for trigger, names in owners.items():
            for end in range(1, len(trigger) + 1):
                beginnings.setdefault(trigger[:end], set()).update(names)
        # A match hides every trigger that begins within it: it stands for their rules, too.
        self._concerned = {match: frozenset(_hidden_rules(match, owners, beginnings)) for match in owners}
        starts: dict[str, list[str]] = {}
        for trigger in sorted(owners, key=len, reverse=True):
            starts.setdefault(trigger[0], []).append(re.escape(trigger[1:]))
        # One branch for each first character: the longer triggers are tried before their own beginnings.
        self._pattern = re.compile("|".join(f"{re.escape(start)}{any_of(*rests)}" for start, rests in starts.items()))

    def concerned(self, text: str) -> AbstractSet[str]:
        """Return the names of the rules that may change a text; never fewer than do."""
        found = set(self._pattern.findall(text))
        return self._always.union(*(self._concerned[match] for match in found)) if found else self._always


def _hidden_rules(
    match: str, owners: Mapping[str, AbstractSet[str]], beginnings: Mapping[str, AbstractSet[str]]
) -> set[str]:
    """Return the rules of all triggers that stand in a match, or begin in it behind its first character."""
    found: set[str] = set()
    for start, end in itertools.combinations(range(len(match) + 1), 2):
        found |= owners.get(match[start:end], frozenset())
    for start in range(1, len(match)):
        found |= beginnings.get(match[start:], frozenset())
    return found
