"""The title scores as a local metric of the ``evaluate`` library: ``evaluate.load("titlegen/metrics/headline.py")``.

``evaluate`` reads a metric's file line by line for its imports, so each stands on a line of its own.
"""

# ruff: noqa: I001

import datasets
import evaluate

from titlegen.metrics.records import METRICS
from titlegen.metrics.records import Text
from titlegen.metrics.records import Title
from titlegen.metrics.scores import score_overlap

_DESCRIPTION = """ROUGE-1/2/L and BLEU-1 of Chinese titles over characters, Latin words and numbers, and the shares of
raw outputs that are a title and nothing else, that have 8 to 30 characters, and that are clean."""
_INPUTS = """predictions: raw outputs, one string each; references: the articles' own titles, one string each."""


class Headline(evaluate.Metric):  # type: ignore[misc]
    """Scores without intervals; ``titlegen evaluate`` adds those, the baselines and the gates."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        titles = [Title(raw, Text(reference)) for raw, reference in zip(predictions, references, strict=True)]
        rates = {
            metric.name: sum(metric.columns[0].measure(title) for title in titles) / len(titles)
            for metric in METRICS
            if metric.is_rate
        }
        return {**score_overlap(predictions, references), **rates}
