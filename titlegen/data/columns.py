"""The columns of a source, by what they hold."""

import difflib
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from titlegen.errors import DataError
from titlegen.plural import shortened
from titlegen.settings import DataSettings

# Names of a conversation's column at OpenAI, ShareGPT and Gemini; the last may hold plain articles, too.
_CHATS = ("messages", "conversations", "conversation", "turns", "dialogue", "dialog", "contents")
# Columns with an order to a model, in which the article stands; with the column of its answer.
_PROMPTS = (
    *(("prompt", "completion"), ("prompt", "response"), ("prompt", "chosen"), ("prompt", "label")),
    *(("input", "output"), ("input_text", "output_text"), ("query", "response"), ("context", "response")),
)
# Other names that published title and headline sets and newsrooms use; only where the settings have their defaults.
_CONTENT_NAMES = (
    "content",
    "article",
    "body",
    "text",
    "contents",
    "內文",
    "內容",
    "新聞內容",
    "新聞內文",
    "本文",
    "全文",
    "内容",
    "正文",
    "文章內容",
    "報導內容",
    # As WordPress and other systems export a page.
    "post_content",
    "article_content",
    "article_body",
    "articleBody",
    "content:encoded",
)
_TITLE_NAMES = (
    *("title", "headline", "標題", "新聞標題", "标题", "新闻标题", "文章標題", "主標題", "主標", "post_title"),
    *("article_title", "news_title"),
)
_DATE_NAMES = (
    *("date", "timestamp", "日期", "發布日期", "發佈日期", "发布日期", "發布時間", "發佈時間", "发布时间", "刊登日期"),
    *(
        "刊出日期",
        "出版日期",
        "發布日",
        "發佈日",
        "上稿時間",
        "建立時間",
        "post_date",
        "publish_date",
        "published_date",
    ),
    *("publish_time", "published_at", "published", "pub_date", "pubDate", "datePublished", "created_at", "datetime"),
)
_ID_NAMES = ("id", "_id", "article_id", "news_id", "post_id", "編號", "新聞編號", "文章編號", "编号")
_AROUND_NAMES = " \t\r\n\ufeff\u200b\\\"'`‘’“”「」『』[]"
_SHOWN_NAMES = 20
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are read, by what they hold."""

    content: str
    title: str | None
    """None where titles are not asked for and there are none."""
    date: str | None = None
    source: str | None = None
    id: str | None = None
    instruction: str | None = None
    """Where an Alpaca row has its order, and the article when its input is empty."""
    is_prompt: bool = False
    """The content is what somebody said to a model, with an order around it."""
    chat: str | None = None
    """The column that holds conversations and nothing else."""

    @property
    def roles(self) -> dict[str, str]:
        """Column by role, for the data card."""
        names = {role: getattr(self, role) for role in ("content", "title", "date", "source", "id", "instruction")}
        return {role: name for role, name in names.items() if name is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns to read, each once."""
        return tuple(dict.fromkeys(self.roles.values()))


def find_columns(name: str, available: Sequence[str], settings: DataSettings, *, titled: bool = True) -> Columns:
    """Return which column holds content, title and, where there are such, date, source and id.

    A column is found under its exact name, else under one that differs in case and white space alone.

    Args:
        name: the source, for the message.
        available: its columns.
        settings: the names that the user gave.
        titled: whether there must be a title.

    Raises:
        DataError: a column that the settings name is not there, or there twice; the message suggests a like one.
    """
    defaults = DataSettings()
    lookup = _Lookup(name, available)
    untouched = (settings.content_column, settings.title_column) == (defaults.content_column, defaults.title_column)
    content = lookup.first(_CONTENT_NAMES if untouched else (settings.content_column,))
    title = lookup.first(_TITLE_NAMES if untouched else (settings.title_column,))
    chat = lookup.first(_CHATS) if untouched or content in _CHATS else None
    instruction = None
    plain = content
    if chat is not None and (content is None or title is None):
        content, title = content or chat, title or chat
    elif untouched and title is None and (titled or content is None):
        content, title, instruction = _find_prompt(lookup, titled=titled) or (content, title, None)
    holds_articles = content == plain == chat and title not in {None, chat} and _plain(chat or "") == _CHATS[-1]
    if content is None:
        raise lookup.missing(settings.content_column, "content")
    if title is None and titled:
        raise lookup.missing(settings.title_column, "title")
    if settings.date_column != defaults.date_column and lookup.first((settings.date_column,)) is None:
        raise lookup.missing(settings.date_column, "date")
    return Columns(
        content=content,
        title=title,
        date=lookup.first((settings.date_column,)) or lookup.first(_DATE_NAMES, alone=True),
        source=lookup.first(("source",), alone=True),
        id=lookup.first(_ID_NAMES, alone=True),
        instruction=instruction,
        is_prompt=content != plain or (content == chat and not holds_articles),
        chat=None if holds_articles else chat,
    )


def is_article(record: Mapping[str, Any]) -> bool:
    """Return whether a record has an article and its title under usual names, whatever lists it holds besides."""
    titles = {_plain(name) for name in record if isinstance(record[name], str)} & set(map(_plain, _TITLE_NAMES))
    return bool(titles) and not {_plain(name) for name in record}.isdisjoint(map(_plain, _CONTENT_NAMES))


def _find_prompt(lookup: "_Lookup", *, titled: bool) -> tuple[str, str | None, str | None] | None:
    """Return the columns of article, title and order in a set for instruction tuning."""
    instruction = lookup.first(("instruction",))
    for asked, answered in _PROMPTS:
        content, title = lookup.first((asked,)), lookup.first((answered,))
        if content and (title or not titled):
            return content, title, instruction
    output = lookup.first(("output",))
    return (instruction, output, None) if instruction and (output or not titled) else None


class _Lookup:
    """The columns of one source."""

    def __init__(self, source: str, available: Sequence[str]) -> None:
        self._source, self._available = source, list(available)
        self._alike: dict[str, list[str]] = {}
        for column in available:
            self._alike.setdefault(_plain(column), []).append(column)

    def first(self, wanted: Sequence[str], *, alone: bool = False) -> str | None:
        """Return the first of the wanted columns that is there; with ``alone`` one that is there twice is passed over.

        Raises:
            DataError: it is there twice.
        """
        for column in wanted:
            count = self._available.count(column)
            alike = [column] * count or self._alike.get(_plain(column), [])
            if len(alike) > 1 and alone:
                continue
            if len(alike) > 1:
                raise DataError(
                    f"data source {self._source!r} has {len(alike)} columns named {column!r}; rename or remove all but "
                    "one"
                )
            if alike:
                return alike[0]
        return None

    def missing(self, column: str, role: str) -> DataError:
        """Return the error for a column that is not there."""
        like = difflib.get_close_matches(column, self._available, n=1)
        guess = _shown(like[0]) if like else "NAME"
        if len(self._available) == 1 and not _plain(self._available[0]).isidentifier():
            # A table with an unknown delimiter, or a header further down, appears to have one column.
            return DataError(
                f"data source {self._source!r} has no column {column!r} for the {role}: its first line is read as the "
                f"one column {_shown(self._available[0])!r}; separate the columns by commas, tabs, semicolons or bars, "
                "and remove what stands above their names"
            )
        there = ", ".join(sorted(map(_shown, self._available))[:_SHOWN_NAMES])
        return DataError(
            f"data source {self._source!r} has no column {column!r} for the {role}; it has {there}; "
            f"name the right one with --data.{role}-column {_for_a_shell(guess)}"
        )


def _plain(name: str) -> str:
    # Some programs write quotation marks of their own around names, or a hash before the first.
    return unicodedata.normalize("NFKC", name).strip(_AROUND_NAMES).lstrip("#").strip(_AROUND_NAMES).casefold()


def _for_a_shell(name: str) -> str:
    # Han needs no quotation marks.
    return name if re.fullmatch(r"[\w.:-]+", name) else shlex.quote(name)


def _shown(name: str) -> str:
    # A first row that is no header is an article.
    return "".join(character if character.isprintable() else "�" for character in shortened(name, _SHOWN_CHARS))
