"""The cleaning engine: applies the named rules until nothing changes any more."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from titlegen.text.characters import CHARACTER_RULES, REMNANT_RULES, is_plain
from titlegen.text.markup import MARKUP_RULES
from titlegen.text.newsroom import NEWSROOM_RULES
from titlegen.text.press import PRESS_RULES
from titlegen.text.rule import AnyRule, TriggerIndex
from titlegen.text.titles import TITLE_RULES

# Three passes settle any real article. Text that still changes after this many is markup nested on purpose, and every
# further pass would cost time for nothing.
_MAX_PASSES = 12
UNSETTLED = "unsettled"

_CONTENT: tuple[AnyRule, ...] = (*MARKUP_RULES, *CHARACTER_RULES, *PRESS_RULES, *NEWSROOM_RULES, *REMNANT_RULES)
_TITLE: tuple[AnyRule, ...] = (*MARKUP_RULES, *CHARACTER_RULES, *TITLE_RULES)
_CONTENT_INDEX, _TITLE_INDEX = TriggerIndex(_CONTENT), TriggerIndex(_TITLE)


@dataclass(slots=True)
class Removals:
    """What cleaning removed: for each rule its removed or replaced pieces, in order of removal."""

    pieces: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, pieces: Sequence[str]) -> None:
        """Note pieces that a rule removed."""
        self.pieces.setdefault(rule, []).extend(pieces)


def clean_content(text: str, removals: Removals | None = None) -> str:
    """Return the article without markup, bylines, captions, contact blocks and other boilerplate.

    The result is never longer than the input, ``clean_content`` leaves it as it is, it can be encoded as UTF-8,
    and holds no chat control token. Paragraphs are separated by one newline. The time is linear in the length.

    Args:
        text: any string, lone surrogates included.
        removals: filled with what each rule took away, when given.
    """
    return _clean(text, _CONTENT, _CONTENT_INDEX, removals)


def clean_title(text: str, removals: Removals | None = None) -> str:
    """Return the title on one line, without site name, labels such as 【快訊】, emoji and closing punctuation.

    The space that joins two clauses of a Chinese headline stays. The guarantees of ``clean_content`` hold.
    """
    return _clean(text, _TITLE, _TITLE_INDEX, removals)


def rule_names() -> list[str]:
    """Return the names of all cleaning rules in the order in which they first apply."""
    return list(dict.fromkeys([*(rule.name for rule in (*_CONTENT, *_TITLE)), UNSETTLED]))


def _clean(text: str, rules: Sequence[AnyRule], index: TriggerIndex, removals: Removals | None) -> str:
    note = removals.add if removals is not None else None
    # The text that each rule saw last and did not change: it need not see that again.
    left_alone: dict[int, str] = {}
    for _ in range(_MAX_PASSES):
        before, plain, concerned = text, is_plain(text), index.concerned(text)
        for place, rule in enumerate(rules):
            # What a rule of this pass lays bare for an earlier one is seen in the next.
            if rule.name not in concerned or (plain and rule.odd_only) or left_alone.get(place) is text:
                continue
            after = rule.apply(text, note)
            if after is text:
                left_alone[place] = text
            text = after
        if text == before:
            return text
    if removals is not None:
        removals.add(UNSETTLED, [text])
    return ""
