"""The report: scores with intervals, gates, baselines on the same rows, and what is wrong with which title."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from titlegen import specification
from titlegen.data import Example
from titlegen.errors import DataError
from titlegen.evaluate.gates import check_gates, rows_to_decide
from titlegen.evaluate.variants import Variant, score_variant
from titlegen.files import digest_json
from titlegen.manifest import package_versions
from titlegen.metrics import baselines
from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.names import unsupported_names
from titlegen.metrics.numbers import find_numbers, is_supported
from titlegen.metrics.records import COLUMNS, METRICS, Floats, Text
from titlegen.metrics.scores import Contributions, estimate_scores, measure_titles, score_overlap, score_titles
from titlegen.metrics.tokens import segment
from titlegen.results import Dataset, EvaluationReport
from titlegen.settings import EMBEDDED, DataSettings, EvaluateSettings

# A reference scored against itself has every overlap by definition.
REFERENCE_SCORES = tuple(metric.name for metric in METRICS if not metric.needs_reference)
# Names stand in the title; what a broken model wrote after it is not read for them.
_READ_CHARS = 200


class Mark(NamedTuple):
    """A number or a name in a title, from ``start`` to ``end`` (exclusive)."""

    kind: Literal["number", "name"]
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class ScoredTitle:
    """A title with its scores and what is wrong with it: a line of predictions.jsonl."""

    id: str
    prediction: str
    first: str
    """What came first; where it is not the prediction, that was drawn in its place."""
    reference: str
    scores: dict[str, float]
    """ROUGE-1, ROUGE-2 and ROUGE-L."""
    title_violations: Sequence[str]
    style_violations: Sequence[str]
    marks: Sequence[Mark]
    """What the article does not back, and where it stands in the title."""

    def as_json(self) -> dict[str, Any]:
        """Return the line of predictions.jsonl."""
        return {
            "id": self.id,
            "prediction": self.prediction,
            **({} if self.first == self.prediction else {"first": self.first}),
            "reference": self.reference,
            **self.scores,
            "title_violations": list(self.title_violations),
            "style_violations": list(self.style_violations),
            "unsupported_numbers": [mark.text for mark in self.marks if mark.kind == "number"],
            "unsupported_names": [mark.text for mark in self.marks if mark.kind == "name"],
        }


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation found out; ``content`` is what report.json holds."""

    examples: Sequence[Example]
    titles: Sequence[ScoredTitle]
    """One for each example."""
    statistics: Contributions
    settings: EvaluateSettings
    content: EvaluationReport


def evaluate(
    examples: Sequence[Example],
    predictions: Sequence[str],
    settings: EvaluateSettings,
    *,
    base_predictions: Sequence[str] | None = None,
    generation: Mapping[str, object] | None = None,
    dataset: str | None = None,
    firsts: Sequence[str] | None = None,
    variants: Sequence[Variant] = (),
) -> Report:
    """Score raw outputs against the titles of the examples, beside baselines on the same articles.

    Args:
        examples: articles with their titles.
        predictions: raw outputs, one for each example, in their order.
        settings: gates, resamples and seed.
        base_predictions: raw outputs of the untuned base model, likewise.
        generation: how the predictions came to be, for the report.
        dataset: ``data.source`` of the examples, for the report.
        firsts: what came first for each example; where it is not the prediction, that was drawn in its place.
        variants: other titles for the same articles, to stand beside.

    Raises:
        DataError: there is nothing to score, or not one prediction for each example.
    """
    _check(examples, predictions, base_predictions)
    texts = [Text(example.title, example.content, example.date) for example in examples]
    statistics = measure_titles(predictions, texts)
    if firsts is not None and list(firsts) != list(predictions):
        variants = [Variant("first", firsts), *variants]
    scores = estimate_scores(statistics, settings.resamples, settings.seed)
    gates = check_gates(scores, settings.gates.model_dump())
    references = score_titles(measure_titles([example.title for example in examples], texts))
    content = EvaluationReport(
        split=settings.split,
        rows=len(examples),
        dataset=_describe_dataset(dataset),
        scores=scores,
        baselines=_score_baselines(examples, texts, settings, base_predictions),
        references={name: references[name] for name in REFERENCE_SCORES},
        variants=[score_variant(variant, texts, statistics, settings.resamples, settings.seed) for variant in variants],
        words=score_overlap(predictions, [example.title for example in examples], segment),
        gates=gates,
        # Also of gates that the profile relaxes or turns off.
        specification=check_gates(scores, specification.SCORES),
        rows_to_decide={
            gate.name: rows_to_decide(gate.name, scores[gate.name], gate.limit, len(examples))
            for gate in gates
            if gate.verdict == "undecided"
        },
        generation=dict(generation or {}),
        settings=settings.model_dump(mode="json"),
        digests={
            "examples": digest_json([[e.id, e.content, e.title, e.date] for e in examples]),
            "predictions": digest_json(list(predictions)),
        },
        versions=package_versions(),
    )
    titles = [
        _score_title(*row)
        for row in zip(examples, texts, predictions, firsts or predictions, statistics.values, strict=True)
    ]
    return Report(examples, titles, statistics, settings, content)


def _describe_dataset(source: str | None) -> Dataset:
    """Return name and kind of what the scores are measured on; of a user's own file, its name without the folder."""
    if source is None:
        return Dataset(name="", kind="unknown")
    if source == EMBEDDED:
        return Dataset(name=source, kind="fictional")
    if source == DataSettings().source:
        return Dataset(name=source, kind="news")
    return Dataset(name=Path(source).name if Path(source).exists() else source, kind="own")


def _check(examples: Sequence[Example], predictions: Sequence[str], base_predictions: Sequence[str] | None) -> None:
    if not examples:
        raise DataError("the split is empty, so there is nothing to score; raise data.test_share or evaluate.limit")
    for what, given in (("predictions", predictions), ("predictions of the base model", base_predictions)):
        if given is not None and len(given) != len(examples):
            raise DataError(f"{len(given)} {what} for {len(examples)} examples; there must be one each, in their order")
    if len({example.id for example in examples}) < len(examples):
        raise DataError("the split has an id twice; run `titlegen prepare` again")


def _score_baselines(
    examples: Sequence[Example],
    texts: Sequence[Text],
    settings: EvaluateSettings,
    base_predictions: Sequence[str] | None,
) -> dict[str, dict[str, float]]:
    rules: dict[str, Callable[[Example], str]] = {
        "random": lambda e: baselines.random_sentence(e.content, f"{settings.seed} {e.id}"),
        "lead1": lambda e: baselines.lead(e.content),
        "textrank": lambda e: baselines.textrank(e.content),
        "oracle": lambda e: baselines.oracle(e.content, e.title),
    }
    titles = {name: [rule(example) for example in examples] for name, rule in rules.items()}
    if base_predictions is not None:
        titles["base_model"] = list(base_predictions)
    return {name: score_titles(measure_titles(outputs, texts)) for name, outputs in titles.items()}


def _find_unsupported(prediction: str, text: Text) -> list[Mark]:
    numbers = [number for number in find_numbers(prediction, text.date) if not is_supported(number, text.facts)]
    names = unsupported_names(prediction[:_READ_CHARS], text.article)
    return [
        *(Mark("number", number.text, number.start, number.end) for number in numbers),
        *(Mark("name", *name) for name in names),
    ]


def _score_title(example: Example, text: Text, prediction: str, first: str, values: Floats) -> ScoredTitle:
    columns = dict(zip(COLUMNS, values.tolist(), strict=True))
    return ScoredTitle(
        id=example.id,
        prediction=prediction,
        first=first,
        reference=example.title,
        scores={name: round(columns[name], 6) for name in ("rouge1", "rouge2", "rougeL")},
        title_violations=title_violations(prediction),
        style_violations=style_violations(prediction),
        marks=_find_unsupported(prediction, text),
    )
