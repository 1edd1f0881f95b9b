"""Tokens for comparing titles: one Han character, one Latin word, one number."""

import logging
import unicodedata
from functools import cache
from typing import Any

import regex

_TOKEN = regex.compile(r"\p{Han}|[A-Za-z]+|\d+(?:\.\d+)?|[^\s\p{P}\p{S}]")
# jieba takes time in the square of a run of unknown characters; no title is as long as this.
_RUN_CHARS = 200


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
    plain = normalise(text)
    words = []
    for start in range(0, len(plain), _RUN_CHARS):
        run = plain[start : start + _RUN_CHARS]
        end = 0
        for simplified in load_jieba().cut(simplify(run)):
            words.append(run[end : end + len(simplified)])
            end += len(simplified)
    return [word for word in words if _TOKEN.search(word)]


def simplify(text: str) -> str:
    """Return the text in Simplified characters, position by position: jieba's dictionary knows no others."""
    simplified = str(_converter().convert(text))
    return simplified if len(simplified) == len(text) else text


@cache
def load_jieba() -> Any:
    """Return the module ``jieba``, with its tagger and without its messages."""
    import jieba
    import jieba.posseg

    # It announces its dictionary cache at DEBUG level, on stderr, in every process.
    jieba.setLogLevel(logging.WARNING)
    return jieba


@cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
