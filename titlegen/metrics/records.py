"""Every metric once: its measure of a title, its sum over titles, its interval, and its name for people.

A new metric is a function in a file of this folder and a record in ``METRICS``; a gated one is also a setting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from titlegen import specification
from titlegen.metrics.contract import has_title_length, style_violations, title_violations
from titlegen.metrics.novelty import Copying, measure_copying, repetition, script_purity, searchable
from titlegen.metrics.numbers import article_readings, find_numbers, is_supported
from titlegen.metrics.overlap import bleu1, matched_unigrams, rouge_l, rouge_n
from titlegen.metrics.tokens import tokenize

if TYPE_CHECKING:
    from titlegen.metrics.figures import Number, Reading

Floats = npt.NDArray[np.float64]
Tokenizer = Callable[[str], list[str]]


@dataclass(frozen=True)
class Text:
    """What titles are measured against: a reference, its article, and the day the article was published."""

    reference: str
    article: str = ""
    date: str | None = None

    @cached_property
    def article_tokens(self) -> str:
        """The article's tokens in searchable form."""
        return searchable(tokenize(self.article))

    @cached_property
    def facts(self) -> "frozenset[Reading]":
        """What the article's numbers may mean; reading them is the slowest step, and most titles have none."""
        return article_readings(self.article, self.date)


@dataclass(frozen=True)
class Title:
    """A raw output beside its text, with what several metrics need of it."""

    raw: str
    text: Text
    tokenizer: Tokenizer = tokenize
    """Characters, Latin words and numbers, or the words of another tokenizer."""

    @cached_property
    def tokens(self) -> list[str]:
        """The output's tokens."""
        return self.tokenizer(self.raw)

    @cached_property
    def reference_tokens(self) -> list[str]:
        """The reference's tokens."""
        return self.tokenizer(self.text.reference)

    @cached_property
    def numbers(self) -> "list[Number]":
        """The numbers in the output."""
        return find_numbers(self.raw, self.text.date)

    @cached_property
    def copying(self) -> Copying:
        """What is copied of the article."""
        return measure_copying(self.tokens, self.text.article_tokens)


@dataclass(frozen=True)
class Column:
    """What one title contributes to a metric; several metrics may share one."""

    name: str
    measure: Callable[[Title], float]


def mean(sums: Sequence[Floats], rows: int) -> Floats:
    """Return the mean of the only column from its sums, (resamples,)."""
    return sums[0] / rows


@dataclass(frozen=True)
class Metric:
    """One score of many titles, from 0 to 1."""

    name: str
    english: str
    chinese: str
    columns: tuple[Column, ...]
    combine: Callable[[Sequence[Floats], int], Floats] = mean
    """From the sums of its columns, each (resamples,), and the number of titles to the score, (resamples,)."""
    is_rate: bool = False
    """Every title counts 0 or 1, so that the interval is Wilson's; else the bootstrap's."""
    needs_reference: bool = False
    """Compares with a reference, which scored against itself has all of it by definition."""
    hub_type: str | None = None
    """The Hub's name of the metric, for those that the model card shows."""

    @property
    def limit(self) -> float | None:
        """Smallest value with which a model may be released, of a metric with a gate."""
        return specification.SCORES.get(self.name)


_MATCHED = Column("matched", lambda title: matched_unigrams(title.tokens, title.reference_tokens))
_PREDICTED = Column("predicted", lambda title: len(title.tokens))
_EXPECTED = Column("expected", lambda title: len(title.reference_tokens))
_BLEU = (_MATCHED, _PREDICTED, _EXPECTED)
_NUMBERS = (
    Column("supported_numbers", lambda title: sum(is_supported(n, title.text.facts) for n in title.numbers)),
    # An empty title counts as one number that the article does not have.
    Column("numbers", lambda title: len(title.numbers) or not title.raw.strip()),
)


def _rouge(n: int) -> Column:
    return Column(f"rouge{n}", lambda title: rouge_n(title.tokens, title.reference_tokens, n).f1)


def _number_support(sums: Sequence[Floats], _: int) -> Floats:
    supported, numbers = sums
    # Titles without any number hold none that is wrong.
    return np.where(numbers > 0, supported / np.maximum(numbers, 1), 1.0)


METRICS = (
    Metric("rouge1", "ROUGE-1", "ROUGE-1", (_rouge(1),), needs_reference=True, hub_type="rouge"),
    Metric("rouge2", "ROUGE-2", "ROUGE-2", (_rouge(2),), needs_reference=True, hub_type="rouge"),
    Metric(
        "rougeL",
        "ROUGE-L",
        "ROUGE-L",
        (Column("rougeL", lambda title: rouge_l(title.tokens, title.reference_tokens).f1),),
        needs_reference=True,
        hub_type="rouge",
    ),
    Metric(
        "bleu1", "BLEU-1", "BLEU-1", _BLEU, lambda sums, _: bleu1(*sums).score, needs_reference=True, hub_type="bleu"
    ),
    Metric(
        "bleu1_precision",
        "BLEU-1 precision",
        "BLEU-1 精確率",
        _BLEU,
        lambda sums, _: bleu1(*sums).precision,
        needs_reference=True,
    ),
    Metric(
        "bleu1_brevity_penalty",
        "BLEU-1 brevity penalty",
        "BLEU-1 過短懲罰",
        _BLEU,
        lambda sums, _: bleu1(*sums).brevity_penalty,
        needs_reference=True,
    ),
    Metric(
        "title_only_rate",
        "Title only",
        "只輸出標題",
        (Column("title_only", lambda title: not title_violations(title.raw)),),
        is_rate=True,
        hub_type="title_only_rate",
    ),
    Metric(
        "length_rate",
        "8 to 30 characters",
        "長度 8 至 30 字",
        (Column("length", lambda title: has_title_length(title.raw)),),
        is_rate=True,
        hub_type="length_rate",
    ),
    Metric(
        "clean_rate",
        "Clean",
        "標點乾淨",
        (Column("clean", lambda title: not style_violations(title.raw)),),
        is_rate=True,
    ),
    Metric("number_support", "Numbers supported", "數字有依據", _NUMBERS, _number_support),
    Metric(
        "copy_coverage",
        "Copied",
        "照抄內文",
        (Column("copy_coverage", lambda title: title.copying.copy_coverage),),
    ),
    Metric(
        "novel_bigram_rate",
        "Novel 2-grams",
        "新的二字組",
        (Column("novel_bigrams", lambda title: title.copying.novel_bigram_rate),),
    ),
    Metric(
        "script_purity",
        "Traditional script",
        "正體字",
        (Column("script_purity", lambda title: script_purity(title.raw)),),
    ),
    Metric("repetition", "Repetition", "重複", (Column("repetition", lambda title: repetition(title.tokens)),)),
)
"""In the order in which reports show them."""

SCORES = tuple(metric.name for metric in METRICS)
RATES = tuple(metric.name for metric in METRICS if metric.is_rate)
GATED = tuple(metric.name for metric in METRICS if metric.limit is not None)
_BY_NAME = {column.name: column for metric in METRICS for column in metric.columns}
COLUMNS = tuple(_BY_NAME)
"""Names of all that a title contributes."""


def measure(title: Title) -> tuple[float, ...]:
    """Return what a title contributes, in the order of ``COLUMNS``."""
    return tuple(column.measure(title) for column in _BY_NAME.values())
