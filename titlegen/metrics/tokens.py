"""What counts as a token when titles are compared: one Han character, one Latin word, one number."""

import logging
import unicodedata
from functools import cache
from typing import Any

import regex

_TOKEN = regex.compile(r"\p{Han}|[A-Za-z]+|\d+(?:\.\d+)?|[^\s\p{P}\p{S}]")


def normalise(text: str) -> str:
    """Return the text in NFKC and lower case; nothing else is repaired before scoring."""
    return unicodedata.normalize("NFKC", text).lower()


def tokenize(text: str) -> list[str]:
    """Return the tokens that every gate counts: Han characters, Latin words, numbers; no punctuation, no symbols."""
    found: list[str] = _TOKEN.findall(normalise(text))
    return found


def segment(text: str) -> list[str]:
    """Return jieba's words without punctuation, for the column beside the gates.

    Segmentation errors differ between a title and its reference, so these scores never decide a gate.
    """
    return [word for word in _jieba().cut(normalise(text)) if _TOKEN.search(word)]


@cache
def _jieba() -> Any:
    import jieba

    # It announces its dictionary cache at DEBUG level, on stderr, in every process.
    jieba.setLogLevel(logging.WARNING)
    return jieba
