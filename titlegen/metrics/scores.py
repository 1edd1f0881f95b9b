"""From titles to scores: what each row contributes, what the rows add up to, and how sure that is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from titlegen.metrics.bootstrap import LEAST_ROWS, bootstrap_interval, resample_sums, wilson_interval
from titlegen.metrics.contract import has_title_length, style_violations, title_violations
from titlegen.metrics.figures import Reading
from titlegen.metrics.novelty import measure_copying, repetition, script_purity, searchable
from titlegen.metrics.numbers import article_readings, find_numbers, is_supported
from titlegen.metrics.overlap import bleu1, matched_unigrams, rouge_l, rouge_n
from titlegen.metrics.tokens import tokenize

Floats = npt.NDArray[np.float64]
Tokenizer = Callable[[str], list[str]]


class Overlap(NamedTuple):
    """What one title contributes to the scores that need a reference."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the metric's name
    matched: float
    predicted: float
    expected: float


class Contract(NamedTuple):
    """What one raw output contributes to the rates: 1 or 0 each."""

    title_only: float
    length: float
    clean: float


class Grounding(NamedTuple):
    """What one title contributes to the scores that compare it with its article."""

    supported_numbers: float
    numbers: float
    copy_coverage: float
    novel_bigrams: float
    script_purity: float
    repetition: float


@dataclass(frozen=True)
class Text:
    """What titles are measured against: a reference, its article, and the day the article was published."""

    reference: str
    article: str
    date: str | None = None

    @cached_property
    def article_tokens(self) -> str:
        """The article's tokens in searchable form."""
        return searchable(tokenize(self.article))

    @cached_property
    def facts(self) -> frozenset[Reading]:
        """What the article's numbers may mean; reading them is the slowest step, and most titles have none."""
        return article_readings(self.article, self.date)


class Score(NamedTuple):
    """A score and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Statistics:
    """Contributions of every title, (rows, columns), in the order of ``COLUMNS``."""

    values: Floats

    def column(self, name: str) -> Floats:
        """Return one column, (rows,)."""
        return self.values[:, COLUMNS.index(name)]


COLUMNS = (*Overlap._fields, *Contract._fields, *Grounding._fields)
# Every row is 0 or 1, so the interval is Wilson's.
RATES = {"title_only_rate": "title_only", "length_rate": "length", "clean_rate": "clean"}
_MEANS = {
    "rouge1": "rouge1",
    "rouge2": "rouge2",
    "rougeL": "rougeL",
    **RATES,
    "copy_coverage": "copy_coverage",
    "novel_bigram_rate": "novel_bigrams",
    "script_purity": "script_purity",
    "repetition": "repetition",
}
SCORES = (
    *("rouge1", "rouge2", "rougeL", "bleu1", "bleu1_precision", "bleu1_brevity_penalty"),
    *RATES,
    *("number_support", "copy_coverage", "novel_bigram_rate", "script_purity", "repetition"),
)
"""Names of the scores, in the order in which reports show them."""


def measure_overlap(title: str, reference: str, tokens: Tokenizer = tokenize) -> Overlap:
    """Compare a title with its reference, by characters or by the words of another tokenizer."""
    predicted, expected = tokens(title), tokens(reference)
    return Overlap(
        rouge_n(predicted, expected, 1).f1,
        rouge_n(predicted, expected, 2).f1,
        rouge_l(predicted, expected).f1,
        matched_unigrams(predicted, expected),
        len(predicted),
        len(expected),
    )


def measure_contract(raw: str) -> Contract:
    """Check a raw output: a title and nothing else, 8 to 30 characters, clean."""
    return Contract(not title_violations(raw), has_title_length(raw), not style_violations(raw))


def measure_grounding(title: str, text: Text) -> Grounding:
    """Compare a title with its article; an empty title counts as one number that the article does not have."""
    tokens = tokenize(title)
    numbers = find_numbers(title, text.date)
    copying = measure_copying(tokens, text.article_tokens)
    return Grounding(
        sum(is_supported(number, text.facts) for number in numbers),
        len(numbers) or not title.strip(),
        copying.copy_coverage,
        copying.novel_bigram_rate,
        script_purity(title),
        repetition(tokens),
    )


def measure_titles(titles: Iterable[str], texts: Iterable[Text]) -> Statistics:
    """Measure raw outputs, one for each text."""
    rows = [
        (*measure_overlap(title, text.reference), *measure_contract(title), *measure_grounding(title, text))
        for title, text in zip(titles, texts, strict=True)
    ]
    return Statistics(np.array(rows, dtype=np.float64).reshape(len(rows), len(COLUMNS)))


def combine(sums: Floats, rows: int) -> dict[str, Floats]:
    """Return every score from column sums: (resamples, columns) -> name to (resamples,)."""
    column = dict(zip(COLUMNS, sums.T, strict=True))
    scores = {name: column[source] / rows for name, source in _MEANS.items()}
    bleu = bleu1(column["matched"], column["predicted"], column["expected"])
    scores |= {
        "bleu1": bleu.score,
        "bleu1_precision": bleu.precision,
        "bleu1_brevity_penalty": bleu.brevity_penalty,
        # Titles without any number hold none that is wrong.
        "number_support": np.where(
            column["numbers"] > 0, column["supported_numbers"] / np.maximum(column["numbers"], 1), 1.0
        ),
    }
    return {name: scores[name] for name in SCORES}


def score_titles(statistics: Statistics) -> dict[str, float]:
    """Return every score as a plain number."""
    scores = combine(statistics.values.sum(axis=0, keepdims=True), len(statistics.values))
    return {name: float(values[0]) for name, values in scores.items()}


def estimate_scores(statistics: Statistics, resamples: int, seed: int) -> dict[str, Score]:
    """Return every score with its 95% interval: Wilson's for rates, the bootstrap's for all others."""
    rows = len(statistics.values)
    values = score_titles(statistics)
    samples = combine(resample_sums(statistics.values, resamples, seed), rows)
    return {
        name: Score(value, *(wilson_interval(value, rows) if name in RATES else _interval(samples[name], rows, 0.0)))
        for name, value in values.items()
    }


def _interval(samples: Floats, rows: int, lowest: float) -> tuple[float, float]:
    """Return the bootstrap's interval, or all of ``lowest`` to 1 where too few rows were drawn from."""
    return bootstrap_interval(samples, rows) if rows >= LEAST_ROWS else (lowest, 1.0)


def compare_scores(first: Statistics, second: Statistics, resamples: int, seed: int) -> dict[str, Score]:
    """Return first minus second, for every score, with the 95% interval of the difference on the same rows.

    Each resample draws the same rows for both, so what makes an article hard for both falls out.
    """
    rows = len(first.values)
    width = first.values.shape[1]
    sums = resample_sums(np.hstack([first.values, second.values]), resamples, seed)
    ours, theirs = combine(sums[:, :width], rows), combine(sums[:, width:], rows)
    a, b = score_titles(first), score_titles(second)
    return {name: Score(a[name] - b[name], *_interval(ours[name] - theirs[name], rows, -1.0)) for name in SCORES}


def score_overlap(titles: Sequence[str], references: Sequence[str], tokens: Tokenizer = tokenize) -> dict[str, float]:
    """Return ROUGE and BLEU-1 as plain numbers, over characters or over the words of another tokenizer."""
    rows = [measure_overlap(title, reference, tokens) for title, reference in zip(titles, references, strict=True)]
    sums = np.array(rows, dtype=np.float64).reshape(len(rows), len(Overlap._fields)).sum(axis=0)
    column = dict(zip(Overlap._fields, sums[:, None], strict=True))
    return {
        **{name: float(column[name][0]) / len(rows) for name in ("rouge1", "rouge2", "rougeL")},
        "bleu1": float(bleu1(column["matched"], column["predicted"], column["expected"]).score[0]),
    }
