"""From titles to scores: each row's contribution, the sums over rows, and their intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from titlegen.metrics.bootstrap import LEAST_ROWS, bootstrap_interval, resample_sums, wilson_interval
from titlegen.metrics.records import COLUMNS, METRICS, RATES, SCORES, Floats, Metric, Text, Title, Tokenizer, measure
from titlegen.metrics.tokens import tokenize
from titlegen.results import Score


@dataclass(frozen=True)
class Contributions:
    """Contributions of every title, (rows, columns), in the order of ``COLUMNS``."""

    values: Floats

    def column(self, name: str) -> Floats:
        """Return one column, (rows,)."""
        return self.values[:, COLUMNS.index(name)]


def measure_titles(titles: Iterable[str], texts: Iterable[Text]) -> Contributions:
    """Measure raw outputs, one for each text."""
    rows = [measure(Title(title, text)) for title, text in zip(titles, texts, strict=True)]
    return Contributions(np.array(rows, dtype=np.float64).reshape(len(rows), len(COLUMNS)))


def combine(sums: Floats, rows: int) -> dict[str, Floats]:
    """Return every score from column sums: (resamples, columns) -> name to (resamples,)."""
    of = dict(zip(COLUMNS, sums.T, strict=True))
    return {metric.name: metric.combine([of[column.name] for column in metric.columns], rows) for metric in METRICS}


def score_titles(statistics: Contributions) -> dict[str, float]:
    """Return every score as a plain number."""
    scores = combine(statistics.values.sum(axis=0, keepdims=True), len(statistics.values))
    return {name: float(values[0]) for name, values in scores.items()}


def estimate_scores(statistics: Contributions, resamples: int, seed: int) -> dict[str, Score]:
    """Return every score with its 95% interval: Wilson's for rates, the bootstrap's for all others."""
    rows = len(statistics.values)
    values = score_titles(statistics)
    samples = combine(resample_sums(statistics.values, resamples, seed), rows)
    return {
        name: Score(value, *(wilson_interval(value, rows) if name in RATES else _interval(samples[name], rows, 0.0)))
        for name, value in values.items()
    }


def _interval(samples: Floats, rows: int, lowest: float) -> tuple[float, float]:
    """Return the bootstrap's interval, or all of ``lowest`` to 1 where there are too few rows."""
    return bootstrap_interval(samples, rows) if rows >= LEAST_ROWS else (lowest, 1.0)


def compare_scores(first: Contributions, second: Contributions, resamples: int, seed: int) -> dict[str, Score]:
    """Return first minus second, for every score, with the 95% interval of the difference on the same rows.

    Each resample draws the same rows for both, so that an article's difficulty for both cancels.
    """
    rows = len(first.values)
    width = first.values.shape[1]
    sums = resample_sums(np.hstack([first.values, second.values]), resamples, seed)
    ours, theirs = combine(sums[:, :width], rows), combine(sums[:, width:], rows)
    a, b = score_titles(first), score_titles(second)
    return {name: Score(a[name] - b[name], *_interval(ours[name] - theirs[name], rows, -1.0)) for name in SCORES}


def score_overlap(titles: Sequence[str], references: Sequence[str], tokens: Tokenizer = tokenize) -> dict[str, float]:
    """Return ROUGE and BLEU-1 as plain numbers, over characters or over the words of another tokenizer."""
    pairs = [Title(title, Text(reference), tokens) for title, reference in zip(titles, references, strict=True)]

    def score(metric: Metric) -> float:
        sums = [np.array([sum(map(column.measure, pairs))], dtype=np.float64) for column in metric.columns]
        return float(metric.combine(sums, len(pairs))[0])

    return {metric.name: score(metric) for metric in METRICS if metric.needs_reference and metric.hub_type}
