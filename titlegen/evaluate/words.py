"""The words of a report, in the language of who reads it: ``report_words.toml``, and the names of the metrics."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from titlegen.metrics.records import METRICS
from titlegen.settings import Language

LANGUAGE_TAGS: dict[Language, str] = {"en": "en", "zh-TW": "zh-Hant-TW"}
"""What HTML calls a language."""


class Phrase(str):
    """Text of ours, with values that are escaped already; it needs no escaping itself."""

    __slots__ = ()


class Words:
    """Looks up a text by its dotted key and fills in its values; ``words("measured.news", rows=3)``."""

    def __init__(self, language: Language, escape: Callable[[object], str] = str) -> None:
        """Take a language, and how values are escaped where the texts themselves are not."""
        self.language, self.tag = language, LANGUAGE_TAGS[language]
        self._table, self._escape = read_table(), escape

    def __call__(self, key: str, /, **values: object) -> Phrase:
        """Return a text; with English and a first value of 1, its singular where it has one.

        Raises:
            KeyError: there is no such text, or it lacks a value.
        """
        texts = self._table[key]
        is_one = next(iter(values.values()), None) == 1
        text = texts.get(f"{self.language}-one", texts[self.language]) if is_one else texts[self.language]
        return Phrase(text.format_map({name: self._escape(value) for name, value in values.items()}))

    def advise(self, gate: str) -> Phrase:
        """Return what to do about a gate that is not passed."""
        key = f"advice.{gate}"
        return self(key if key in self._table else "advice.other")


@cache
def read_table() -> Mapping[str, Mapping[str, str]]:
    """Return the texts in every language by dotted key."""
    text = (resources.files("titlegen") / "report_words.toml").read_text(encoding="utf-8")
    scores = {f"score.{metric.name}": {"en": metric.english, "zh-TW": metric.chinese} for metric in METRICS}
    return scores | dict(_flatten(tomllib.loads(text)))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, item in tree.items():
        if "en" in item:
            yield prefix + name, item
        else:
            yield from _flatten(item, f"{prefix}{name}.")
