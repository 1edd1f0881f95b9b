"""How the dates were read: a table for the data card, and lines for the terminal."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from titlegen.data.collect import Collected
from titlegen.data.date_order import SHAPES, OrderDecision
from titlegen.data.date_reading import ABSENT, AMBIGUOUS, CONTRADICTED, FORMS, UNKNOWN
from titlegen.data.dedup import Rows
from titlegen.plural import count
from titlegen.results import DateForm, DateOrder, Dates

_REASONS = {
    "setting": "as --data.date-order says",
    "proof": "as other values of the column prove",
    "spread": "because only so the days change and the months hardly do; if that is wrong, say --data.date-order",
}


def count_dates(pool: Collected, rows: Rows, decisions: Mapping[str, OrderDecision]) -> Dates:
    """Return how the dates of the kept rows are written, with examples, and in which order numbers were read."""
    kept = np.bincount(pool.date_forms[rows], minlength=len(FORMS)).tolist()
    return Dates(
        forms=[
            DateForm(form=form, articles=count, examples=_examples(pool, form, decisions))
            for form, count in zip(FORMS, kept, strict=True)
            if count
        ],
        orders=[
            DateOrder(order=decision.order, reason=decision.reason, examples=_ambiguous(pool, [shape]))
            for shape, decision in sorted(decisions.items())
            if _ambiguous(pool, [shape])
        ],
    )


def _examples(pool: Collected, form: str, decisions: Mapping[str, OrderDecision]) -> list[str]:
    """Return a few values of a form; those that the column's order decided stand with that order."""
    shapes = {shape: decisions[shape].order if shape in decisions else AMBIGUOUS for shape in SHAPES}
    examples = [text for _, text in pool.counts.date_examples.get(form, ())]
    return examples or _ambiguous(pool, [shape for shape, order in shapes.items() if order == form])


def _ambiguous(pool: Collected, shapes: Sequence[str]) -> list[str]:
    return [text for shape in shapes for _, text in pool.counts.date_examples.get(f"{AMBIGUOUS} {shape}", ())]


def describe_dates(dates: Dates) -> Iterator[str]:
    """Yield a line for each thing about the dates that a person should know."""
    counts = {form.form: form for form in dates.forms}
    for order in dates.orders:
        yield f"dates such as {_sample(order.examples)} are read {order.order}, {_REASONS[order.reason]}"
    if unknown := counts.get(UNKNOWN):
        sample = _sample(unknown.examples)
        yield f"{count(unknown.articles, 'date')} not understood, counted as none, such as {sample}"
    if ambiguous := counts.get(AMBIGUOUS):
        yield (
            f"{count(ambiguous.articles, 'date')} with two readings, counted as none, such as "
            f"{_sample(ambiguous.examples)}; say --data.date-order month-first, day-first, year-first or roc"
        )
    if contradicted := counts.get(CONTRADICTED):
        sample = _sample(contradicted.examples)
        number = count(contradicted.articles, "date")
        yield f"{number} with {CONTRADICTED}, taken as the numbers say, such as {sample}"
    if (absent := counts.get(ABSENT)) and len(counts) > 1:
        yield f"{count(absent.articles, 'article')} without a date"


def _sample(examples: Sequence[str]) -> str:
    # Of a form that was counted there is an example.
    return repr(examples[0])
