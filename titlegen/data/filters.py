"""One raw row to one clean example, or the reason why it is dropped; every step is a small pure function."""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from titlegen.data.cells import describe
from titlegen.data.dates import Reading, read_date
from titlegen.data.sources import Row
from titlegen.settings import DataSettings
from titlegen.text import Removals, clean_content, clean_title
from titlegen.text.sentences import split_sentences

# Longer than any article; what follows is a dump of something else, and would cost time in every step.
MAX_CONTENT_CHARS = 1_000_000
_MAX_ID_CHARS = 100
# In the order in which a row meets them.
REASONS = (
    "missing",
    "not_text",
    "oversized",
    "empty_after_cleaning",
    "not_chinese",
    "simplified",
    "title_short",
    "title_long",
    "content_short",
    "title_copies_lead",
    "title_over_token_budget",
)
_MIN_HAN_SHARE = 0.4
_LETTERS = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+")
_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Clean:
    """A row after cleaning, before its content is shortened."""

    content: str
    title: str
    source: str
    date: Reading
    id: str | None
    converted: bool = False
    """Whether Simplified Chinese was converted."""


def clean_row(row: Row, settings: DataSettings, content_removals: Removals, title_removals: Removals) -> Clean | str:
    """Return the clean row, or one of ``REASONS`` when it is dropped."""
    if reason := unreadable(row):
        return reason
    title = clean_title(row.title, title_removals)
    content = drop_title_line(clean_content(row.content, content_removals), title, content_removals)
    clean = Clean(content, title, _source_name(row.source), read_date(row.date), _usable_id(row.id))
    if not (content and title):
        return "empty_after_cleaning"
    if not is_chinese(content):
        return "not_chinese"
    if settings.script != "keep" and is_simplified(title + content):
        if settings.script == "drop":
            return "simplified"
        clean = replace(clean, content=to_traditional(content), title=to_traditional(title), converted=True)
    return failed_bound(clean, settings) or clean


def unreadable(row: Row) -> str | None:
    """Return why a row cannot be cleaned at all, None when it can."""
    if row.problem:
        return "oversized"  # Any other stops the stage.
    if row.content is None or row.title is None:
        return "missing"
    if not (isinstance(row.content, str) and isinstance(row.title, str)):
        return "not_text"
    return "oversized" if len(row.content) > MAX_CONTENT_CHARS or len(row.title) > MAX_CONTENT_CHARS else None


def describe_unreadable(row: Row) -> str:
    """Return what a row that cannot be cleaned holds in place of an article; empty for one that can."""
    if row.problem:
        return row.problem
    wrong = ((role, value) for role, value in (("content", row.content), ("title", row.title)))
    return next((f"{role} is {describe(value)}" for role, value in wrong if not isinstance(value, str)), "")


def failed_bound(clean: Clean, settings: DataSettings) -> str | None:
    """Return which length or copy rule a clean row breaks, None when it breaks none."""
    if len(clean.title) < settings.min_title_chars:
        return "title_short"
    if len(clean.title) > settings.max_title_chars:
        return "title_long"
    if len(clean.content) < settings.min_content_chars:
        return "content_short"
    if copies_lead(clean.title, clean.content):
        return "title_copies_lead"
    return None


def drop_title_line(content: str, title: str, removals: Removals) -> str:
    """Return the article without a first line that only repeats the title."""
    first, separator, rest = content.partition("\n")
    if separator and title and _letters(first) == _letters(title):
        removals.add("title_line", [first])
        return rest
    return content


def copies_lead(title: str, content: str) -> bool:
    """Return whether the title is only the beginning of the article's first sentence, copied."""
    wanted = _letters(title)
    # A lead needs at most a few marks more than the title has.
    lead = next(iter(split_sentences(content[: 2 * len(title) + 20])), "")
    return bool(wanted) and _letters(lead).startswith(wanted)


def is_chinese(text: str) -> bool:
    """Return whether enough of a text's letters are Han characters."""
    head = text[:600]
    han = sum(map(len, _HAN.findall(head)))
    # Most articles pass by their length alone; telling letters from other characters is slower.
    return han >= _MIN_HAN_SHARE * len(head) or 0 < sum(map(len, _LETTERS.findall(head))) * _MIN_HAN_SHARE <= han


def is_simplified(text: str) -> bool:
    """Return whether a text is written in Simplified rather than Traditional characters."""
    simplified, traditional = _script_patterns()
    head = text[:1000]
    found = len(simplified.findall(head))
    return found > 0 and found > len(traditional.findall(head))


def to_traditional(text: str) -> str:
    """Return a Simplified text in the characters that Taiwan uses; words are not replaced."""
    return str(_converter("s2tw").convert(text))


@cache
def _converter(name: str) -> Any:
    import opencc

    return opencc.OpenCC(name)


@cache
def _script_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns of the characters that only Simplified, and only Traditional text has.

    A character of Big5 (后, 里, 台) may stand in Traditional text, whatever OpenCC would make of it.
    """
    every = [chr(code) for code in range(0x4E00, 0xA000)]
    traditional = _converter("s2t").convert("\n".join(every)).split("\n")
    simplified = _converter("t2s").convert("\n".join(every)).split("\n")
    only_simplified = [c for c, t in zip(every, traditional, strict=True) if c != t and not _in_big5(c)]
    only_traditional = [c for c, s in zip(every, simplified, strict=True) if c != s and _in_big5(c)]
    return re.compile(f"[{''.join(only_simplified)}]"), re.compile(f"[{''.join(only_traditional)}]")


def _in_big5(character: str) -> bool:
    try:
        character.encode("big5")
    except UnicodeEncodeError:
        return False
    return True


def _letters(text: str) -> str:
    return _NOT_WORD.sub("", text)


@lru_cache(maxsize=1024)
def _source_name(name: str) -> str:
    # The name is printed in reports: one short line without markup.
    return clean_title(name[:200]) or "unknown"


def _usable_id(identity: str | int | None) -> str | None:
    # The id stands in every file that follows; a long or unprintable one is replaced by its digest.
    if identity is None:
        return None
    identity = str(identity)
    if identity.isprintable() and len(identity) <= _MAX_ID_CHARS:
        return identity
    return digest_hex(identity)


def digest_hex(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text, lone surrogates included."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def printable(text: str) -> str:
    """Return a text with U+XXXX in place of what cannot be printed or written: control characters, surrogates."""
    return "".join(c if c.isprintable() else f"U+{ord(c):04X} " for c in text)
