"""What a desk remembers, for other programs: every choice, and pairs of titles for training on preferences.

Export of choices, one JSON object a line, schema ``titlegen.desk.choices/2``::

    {"schema", "time", "article_digest", "content" (only where articles are kept), "candidates": [title, ...],
     "place" (of the candidate that was taken, from 1), "candidate", "title" (as it was kept), "edited", "slot",
     "model", "model_digest", "withdrawn" (when it was taken back; null where it counts)}

Export of preference pairs for training, one JSON object a line, schema ``titlegen.desk.preferences/1``::

    {"schema", "article_digest", "content" (only where articles are kept), "chosen", "rejected",
     "kind": "chosen" | "edited", "model", "time"}

A choice that was taken back makes no pairs. ``chosen``: the candidate that was taken, against each of those that were
shown beside it; ``edited``: the title as it was kept, against the candidate that it was made of. ``article_digest`` is
the SHA-256 of the cleaned article in UTF-8, ``time`` is UTC in ISO 8601. A row gets no new key and no key another
meaning without another number behind the name.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from titlegen.desk.store import Choice, Made

CHOICES_SCHEMA, PREFERENCES_SCHEMA = "titlegen.desk.choices/2", "titlegen.desk.preferences/1"
_COLUMNS = (
    *("schema", "time", "article_digest", "content", "candidates", "place", "candidate", "title", "edited", "slot"),
    *("model", "model_digest", "withdrawn"),
)
# What a spreadsheet takes for a formula when it opens a CSV file.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def choice_rows(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Return the rows of the export of choices, those that were taken back as well."""
    return [
        {
            "schema": CHOICES_SCHEMA,
            "time": choice.time,
            "article_digest": choice.made.article_digest,
            **_content(choice.made),
            "candidates": [shown.title for shown in choice.made.candidates],
            "place": choice.place + 1,
            "candidate": choice.candidate,
            "title": choice.title,
            "edited": choice.edited,
            "slot": choice.slot,
            "model": choice.made.model,
            "model_digest": choice.made.model_digest,
            "withdrawn": choice.withdrawn,
        }
        for choice in choices
    ]


def preference_rows(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Return the rows of the export of preference pairs; what was taken back is no preference."""
    rows: list[dict[str, object]] = []
    for choice in choices:
        if choice.withdrawn is not None:
            continue
        pairs = [
            ("chosen", choice.candidate, shown.title)
            for place, shown in enumerate(choice.made.candidates)
            if place != choice.place and shown.title != choice.candidate
        ]
        if choice.edited:
            pairs.append(("edited", choice.title, choice.candidate))
        rows += [
            {
                "schema": PREFERENCES_SCHEMA,
                "article_digest": choice.made.article_digest,
                **_content(choice.made),
                "chosen": chosen,
                "rejected": rejected,
                "kind": kind,
                "model": choice.made.model,
                "time": choice.time,
            }
            for kind, chosen, rejected in pairs
        ]
    return rows


def as_jsonl(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of choices as CSV for a spreadsheet, in which no cell is a formula."""
    target = io.StringIO()
    names = [name for name in _COLUMNS if name != "content" or any("content" in row for row in rows)]
    writer = csv.DictWriter(target, names, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        cells = {name: row.get(name, "") for name in names} | {"candidates": " | ".join(row["candidates"])}
        writer.writerow({name: _plain_cell(cell) for name, cell in cells.items()})
    return target.getvalue()


def _plain_cell(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _content(made: Made) -> dict[str, str]:
    return {} if made.content is None else {"content": made.content}
