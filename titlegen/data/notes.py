"""Notices about how a source was read."""

import json
from collections.abc import Iterator

from titlegen.data.collect import Collected
from titlegen.data.counts import Counts
from titlegen.data.dedup import Rows
from titlegen.data.sources import Source
from titlegen.plural import count, listed, shortened

# The share of rows above which a finding is not an accident.
_WARNING_SHARE = 0.03
_SHOWN_CHARS = 60
_SHOWN_FILES = 3


def describe_findings(source: Source, pool: Collected, repeated: int, ambiguous: Rows) -> list[str]:
    """Return a line for each thing that was changed, left out or looks wrong.

    Args:
        source: read to its end.
        pool: all clean rows.
        repeated: rows that were left out for their id.
        ambiguous: rows whose id other articles have, too.
    """
    return [
        *_readings(source),
        *_omissions(source, pool),
        *_identities(pool, repeated, ambiguous),
        *_conversions(pool.counts),
    ]


def _readings(source: Source) -> Iterator[str]:
    findings = source.findings
    plain = {"JSON lines", "CSV, commas", "Parquet"}
    odd = [f"{name} as {form}" for name, form in findings.files.items() if form not in plain and "Hub" not in form]
    if odd:
        yield f"read {listed(odd, _SHOWN_FILES)}"
    if findings.passed_over:
        number = count(len(findings.passed_over), "file")
        yield f"passed over what is no table, {number}: {listed(findings.passed_over, _SHOWN_FILES)}"
    for what, rows in findings.flattened.most_common():
        yield f"{count(rows, 'row')}: {what.replace(', ', ' taken out of ', 1)}"
    for text, articles in findings.instructions.most_common(_SHOWN_FILES):
        yield f"{count(articles, 'article')}: the instruction {shortened(text, _SHOWN_CHARS)!r} was taken off"


def _omissions(source: Source, pool: Collected) -> Iterator[str]:
    files = list(source.findings.files)
    for reason, rows in pool.counts.unread_rows.most_common():
        part, number = pool.counts.unread[reason][0]
        yield f"{count(rows, 'row')} left out: {reason}, first {files[part]}, number {number}"


def _identities(pool: Collected, repeated: int, ambiguous: Rows) -> Iterator[str]:
    rows = max(pool.counts.rows, 1)
    if repeated > _WARNING_SHARE * rows:
        of_rows = f"{repeated} of {count(rows, 'row')}"
        yield f"warning: duplicate_id left out {of_rows}; see whether the id column names articles"
    if len(ambiguous):
        sample = json.loads(pool.lines[int(ambiguous[0])])["id"]
        articles = count(len(ambiguous), "article")
        shown = shortened(sample, _SHOWN_CHARS)
        yield f"warning: {articles} with an id that others have, such as {shown!r}; all are kept"


def _conversions(counts: Counts) -> Iterator[str]:
    for what, found in sorted(counts.scripts.items()):
        sample = shortened(found.examples[0][1], _SHOWN_CHARS)
        part, _, kind = what.partition(" ")
        does = "is converted from Simplified Chinese" if kind == "converted" else "has lines in both scripts"
        yield f"{count(found.articles, 'article')}: the {part} {does}, such as {sample!r}"
