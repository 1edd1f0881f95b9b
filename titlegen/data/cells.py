"""The text of a cell: of conversations, paragraphs, wrapped texts and bytes, where their meaning is clear."""

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import NoneType
from typing import Literal

from titlegen.data.rich_text import document_text, is_picture

Role = Literal["content", "title"]
# A text may be wrapped so deeply and no deeper: anything beyond is not an article.
_MAX_DEPTH = 6
_SPEAKER_KEYS = ("role", "from", "speaker", "author", "sender")
_SPEECH_KEYS = ("content", "value", "text", "parts", "message", "utterance")
_READERS = frozenset(("user", "human", "prompter", "q", "用戶", "用户", "使用者", "人類", "人类"))
_WRITERS = frozenset(
    (
        *("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "ai", "bard", "claude", "gemini", "a"),
        *("助手", "助理", "模型", "機器人", "机器人"),
    )
)
# Channels on which a model writes before its answer.
_ASIDE = frozenset({"analysis", "commentary"})
# One object a round, as XTuner and others write it.
_ROUNDS = (("human", "assistant"), ("input", "output"), ("user", "assistant"))
_TEXT_KEYS = ("text", "content", "value", "body", "rendered", "paragraph", "#text")
_LITERAL = re.compile(r"""\s*(?:\[\s*\{?|\{)\s*["']|b["']""")
# JSON in JSON. A headline may be one quotation; JSON's has escapes inside.
_QUOTED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MAX_LITERAL_CHARS = 200_000
# A model's thoughts before its answer.
_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>\s*", re.DOTALL)
_ASIDE_TYPES = frozenset(
    (
        *("thinking", "reasoning", "redacted_thinking", "tool_use", "tool_result", "server_tool_use"),
        *("function_call", "function_call_output"),
    )
)
_CALL = re.compile(r"function_?(?:call|response)|executable_?code|code_?execution_?result", re.IGNORECASE)
_NAMES: tuple[tuple[type, str], ...] = (
    (NoneType, "missing"),
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (bytes, "bytes"),
    (list, "a list"),
    (dict, "a struct"),
)


def describe(value: object) -> str:
    """Return a description of a value that is no text."""
    return next((name for kind, name in _NAMES if isinstance(value, kind)), type(value).__name__)


def flatten(value: object, role: Role) -> tuple[object, str]:
    """Return the text in a cell and what it was taken out of, empty for a plain text.

    A value whose meaning is not clear comes back as it is, and nothing at all as None.
    """
    if isinstance(value, str):
        is_quoted = value.startswith('"') and (role == "content" or "\\" in value) and _QUOTED.fullmatch(value)
        if not (is_quoted or _LITERAL.match(value)):
            return value, ""
        # A table holds lists and structs as text: as JSON, or as Python prints them.
        held = _parsed(value) if len(value) <= _MAX_LITERAL_CHARS else None
        if isinstance(held, str):
            return held, "a quoted text"
        text, origin = flatten(held, role) if isinstance(held, list | dict | bytes) else (value, "")
        return (text, origin) if isinstance(text, str) or not isinstance(held, bytes) else (value, "")
    if _is_missing(value):
        return None, ""
    is_conversation = _is_conversation(value)
    text = _spoken(value, role) if is_conversation else _text(value, role, _MAX_DEPTH)
    return (value, "") if text is None else (text, "conversation" if is_conversation else describe(value))


def take_turn(value: object, role: Role) -> tuple[object, str]:
    """Return the article or the title of a conversation, and what it was taken out of; anything else as it is.

    A table may hold the turns as JSON text, and older sets hold them as a list of texts in turn.
    """
    turns = _parsed(value) if isinstance(value, str) else value
    turns = _parsed(turns) if isinstance(turns, str) else turns  # JSON in JSON
    if isinstance(turns, list) and len(turns) > 1 and all(isinstance(turn, str) for turn in turns):
        turns = [{"role": "assistant" if place % 2 else "user", "content": turn} for place, turn in enumerate(turns)]
    text = _spoken(turns, role) if _is_conversation(turns) else None
    if text is not None:
        return text, "conversation"
    # A text that is no conversation would be its own title.
    return (None, "") if _is_missing(value) else (turns if isinstance(turns, list | dict) else {}, "")


def _parsed(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        with (
            suppress(ValueError, RecursionError, SyntaxError, MemoryError, TypeError),
            warnings.catch_warnings(action="ignore"),
        ):
            return parse(text)
    return None


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_conversation(value: object) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("messages"), list) or _speaker(value) is not None
    turns = [turn for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []
    return any(_speaker(turn) is not None or _round(turn) is not None for turn in turns)


def _spoken(value: object, role: Role) -> str | None:
    """Return the article, which is the longest that a person said, or the title, which answers it."""
    turns: list[tuple[bool, str]] = []
    turn_list = value.get("messages", [value]) if isinstance(value, dict) else value
    for turn in turn_list if isinstance(turn_list, list) else ():
        if not isinstance(turn, dict) or turn.get("channel") in _ASIDE:
            continue
        if (pair := _round(turn)) is not None:
            turns += [(True, pair[0]), (False, pair[1])]
            continue
        speaker = _speaker(turn)
        said = next((turn[key] for key in _SPEECH_KEYS if turn.get(key) is not None), None)
        text = said if isinstance(said, str) else _text(said, "content", _MAX_DEPTH)
        if speaker in _READERS | _WRITERS and text is not None:
            turns.append((speaker in _READERS, text))
    asked = [place for place, (is_reader, _) in enumerate(turns) if is_reader]
    article = max(asked, key=lambda place: len(turns[place][1]), default=None)
    if role == "content":
        return None if article is None else turns[article][1]
    # A completion may come without its prompt.
    answers = turns if article is None else turns[article + 1 :]
    said = (_THOUGHT.sub("", text, count=1) for is_reader, text in answers if not is_reader)
    return next((text for text in said if text.strip()), None)


def _speaker(turn: Mapping[str, object]) -> str | None:
    speaker = next((turn[key] for key in _SPEAKER_KEYS if key in turn), None)
    return speaker.strip().casefold() if isinstance(speaker, str) else None


def _round(turn: Mapping[str, object]) -> tuple[str, str] | None:
    for asked, answered in _ROUNDS:
        question, answer = turn.get(asked), turn.get(answered)
        if isinstance(question, str) and isinstance(answer, str):
            return question, answer
    return None


def _text(value: object, role: Role, depth: int) -> str | None:
    if not depth:
        return None
    if isinstance(value, str | bytes):
        return value if isinstance(value, str) else _decoded(value)
    if isinstance(value, dict):
        return document_text(value) or _wrapped(value, role, depth)
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, tuple) and len(item) == 2 for item in value):  # noqa: PLR2004 - an Arrow map
        return _wrapped(dict(value), role, depth)
    return document_text(value) or _paragraphs(value, role, depth)


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _wrapped(value: Mapping[str, object], role: Role, depth: int) -> str | None:
    """Return the one text of a struct: under a usual name, or under the only name it has."""
    filled = [key for key in value if value[key] is not None]
    named = [key for key in _TEXT_KEYS if key in filled]
    key = named[0] if len(named) == 1 else filled[0] if len(filled) == 1 else None
    return None if key is None else _text(value[key], role, depth - 1)


def _paragraphs(items: Sequence[object], role: Role, depth: int) -> str | None:
    # Pictures and thoughts between the paragraphs are no part of the text.
    wanted = [item for item in items if item is not None and not _is_no_text(item)]
    texts = [_text(item, role, depth - 1) for item in wanted]
    if not texts or any(text is None for text in texts):
        return None
    if role == "title" and len(texts) > 1:
        return None  # several titles: nothing says which
    return "\n".join(text for text in texts if text)


def _is_no_text(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    kind = str(item.get("type", ""))
    if kind in _ASIDE_TYPES or item.get("thought") is True or is_picture(kind):
        return True
    # Gemini's parts have no type: the one key that has a value tells.
    filled = [key for key in item if item[key] is not None]
    is_part = len(filled) == 1 and isinstance(item[filled[0]], dict)
    return is_part and (is_picture(filled[0]) or _CALL.fullmatch(filled[0]) is not None)
