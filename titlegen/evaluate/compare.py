"""Two evaluations of the same articles side by side: paired differences, and which titles got better or worse."""

from pathlib import Path

import numpy as np

from titlegen.data.example import read_jsonl
from titlegen.errors import DataError
from titlegen.evaluate.report import Report
from titlegen.metrics.records import Text
from titlegen.metrics.scores import Contributions, compare_scores, measure_titles
from titlegen.results import Comparison, TitleChange

SHOWN = 10


def compare(report: Report, other: Path) -> Comparison:
    """Compare a report with an earlier one, given by its report.json or its folder.

    The other titles are scored again from the predictions.jsonl beside it, so that both went through the same code.

    Raises:
        DataError: the file is missing, the two have no article in common, or an article has another reference there.
    """
    path = (other if other.is_dir() else other.parent) / "predictions.jsonl"
    theirs = _read_titles(path)
    shared = [index for index, example in enumerate(report.examples) if example.id in theirs]
    if not shared:
        raise DataError(f"{path} has no article in common with this evaluation; compare reports of the same split")
    for index in shared:
        example = report.examples[index]
        if theirs[example.id][1] != example.title:
            raise DataError(
                f"{path} has another reference title for {example.id!r}; evaluate the other model on this data first"
            )
    texts = [Text(e.title, e.content, e.date) for e in (report.examples[index] for index in shared)]
    ours = Contributions(report.statistics.values[shared])
    others = measure_titles([theirs[report.examples[index].id][0] for index in shared], texts)
    gains = ours.column("rougeL") - others.column("rougeL")
    changes = [
        TitleChange(
            report.examples[index].id,
            report.examples[index].title,
            report.titles[index].prediction,
            theirs[report.examples[index].id][0],
            round(float(gain), 6),
        )
        for index, gain in zip(shared, gains, strict=True)
    ]
    order = [changes[place] for place in np.argsort(-gains, kind="stable")]
    return Comparison(
        other=str(other),
        rows=len(shared),
        only_ours=len(report.examples) - len(shared),
        only_theirs=len(theirs) - len(shared),
        differences=compare_scores(ours, others, report.settings.resamples, report.settings.seed),
        better=tuple(change for change in order[:SHOWN] if change.difference > 0),
        worse=tuple(change for change in order[::-1][:SHOWN] if change.difference < 0),
    )


def _read_titles(path: Path) -> dict[str, tuple[str, str]]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; --against needs the report.json of an evaluation, with its folder")
    titles = {}
    for number, record in read_jsonl(path):
        values = [record.get(key) for key in ("id", "prediction", "reference")]
        if not all(isinstance(value, str) for value in values):
            raise DataError(f"{path}, line {number}: id, prediction or reference is missing; evaluate that model again")
        titles[str(values[0])] = (str(values[1]), str(values[2]))
    return titles
