"""From a raw row to a clean example, or the reason why it is dropped; every step is a small pure function."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from titlegen.data.cells import describe
from titlegen.data.date_reading import Reading
from titlegen.data.dates import read_date
from titlegen.data.sources import Row
from titlegen.settings import DataSettings
from titlegen.text import Converted, Removals, clean_content, clean_title, convert_article, is_simplified
from titlegen.text.sentences import split_sentences

# Longer than any article: a longer one is a dump of something else, and would cost time in every step.
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
# Rules that bring characters to light which the raw text did not have.
_DECODING = frozenset({"html_entity", "mojibake", "literal_escape"})
# What a conversion writes for a missing character, such as 堃 of a name: removing it would change the title.
_LOST = "\ufffd"
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
    scripts: Mapping[str, Converted] = field(default_factory=dict)
    """What was converted from Simplified Chinese, by title and content."""


def clean_row(row: Row, settings: DataSettings, content_removals: Removals, title_removals: Removals) -> Clean | str:
    """Return the clean row, or one of ``REASONS`` when it is dropped."""
    if reason := unreadable(row):
        return reason
    raw_title, raw_content = Converted(row.title), Converted(row.content)
    if settings.script == "convert":
        # Before cleaning, whose rules know a byline or a label by its Traditional characters.
        raw_title, raw_content = convert_article(row.title, row.content)
    title = clean_title(raw_title.text, title_removals)
    content = clean_content(raw_content.text, content_removals)
    if settings.script == "convert" and not _DECODING.isdisjoint({*title_removals.pieces, *content_removals.pieces}):
        late_title, late_content = convert_article(title, content)
        title, content = late_title.text, late_content.text
        raw_title, raw_content = raw_title.or_else(late_title), raw_content.or_else(late_content)
    content = drop_title_line(content, title, content_removals)
    if not (content and title):
        return "empty_after_cleaning"
    if not is_chinese(content):
        return "not_chinese"
    if settings.script == "drop" and (is_simplified(title) or is_simplified(content)):
        return "simplified"
    scripts = {"title": raw_title, "content": raw_content}
    clean = Clean(content, title, _source_name(row.source), read_date(row.date), _usable_id(row.id), scripts)
    return failed_bound(clean, settings) or clean


def unreadable(row: Row) -> str | None:
    """Return why a row cannot be cleaned at all, None when it can."""
    if row.problem:
        return "oversized"  # Any other stops the stage.
    if row.content is None or row.title is None:
        return "missing"
    if not (isinstance(row.content, str) and isinstance(row.title, str)):
        return "not_text"
    if _LOST in row.title:
        return "not_text"
    return "oversized" if len(row.content) > MAX_CONTENT_CHARS or len(row.title) > MAX_CONTENT_CHARS else None


def describe_unreadable(row: Row) -> str:
    """Return what a row that cannot be cleaned holds instead of an article; empty for one that can."""
    if row.problem:
        return row.problem
    wrong = ((role, value) for role, value in (("content", row.content), ("title", row.title)))
    lost = f"title has a lost character ({_LOST})" if isinstance(row.title, str) and _LOST in row.title else ""
    return next((f"{role} is {describe(value)}" for role, value in wrong if not isinstance(value, str)), lost)


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
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"U+{ord(c):04X} " for c in text)
