"""What was made and what was chosen: one SQLite file that survives a crash, and its exports.

Export of choices, one JSON object a line, schema ``titlegen.desk.choices/1``::

    {"schema", "time", "article_digest", "content" (only where articles are kept), "candidates": [title, ...],
     "place" (of the candidate that was taken, from 1), "candidate", "title" (as it was kept), "edited", "slot",
     "model", "model_digest"}

Export of preference pairs for training, one JSON object a line, schema ``titlegen.desk.preferences/1``::

    {"schema", "article_digest", "content" (only where articles are kept), "chosen", "rejected",
     "kind": "chosen" | "edited", "model", "time"}

``chosen``: the candidate that was taken, against each of those that were shown beside it; ``edited``: the title as it
was kept, against the candidate that it was made of. ``article_digest`` is the SHA-256 of the cleaned article in UTF-8,
``time`` is UTC in ISO 8601. A row gets no new key and no key another meaning without another number behind the name.
"""

import contextlib
import csv
import io
import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from titlegen.errors import DataError, TitlegenError
from titlegen.files import writable

CHOICES_SCHEMA, PREFERENCES_SCHEMA = "titlegen.desk.choices/1", "titlegen.desk.preferences/1"
_VERSION = 1
_BUSY_MS = 10_000
_CREATE = """
CREATE TABLE generation (
    id TEXT PRIMARY KEY, time TEXT NOT NULL, article_digest TEXT NOT NULL, content TEXT,
    candidates TEXT NOT NULL, model TEXT NOT NULL, model_digest TEXT NOT NULL
) STRICT;
CREATE TABLE choice (
    id INTEGER PRIMARY KEY, generation TEXT NOT NULL REFERENCES generation, time TEXT NOT NULL,
    place INTEGER NOT NULL, title TEXT NOT NULL, slot TEXT NOT NULL, UNIQUE (generation, place, title, slot)
) STRICT;
"""
_COLUMNS = (
    *("schema", "time", "article_digest", "content", "candidates", "place", "candidate", "title", "edited", "slot"),
    *("model", "model_digest"),
)
# What a spreadsheet takes for a formula when it opens a CSV file.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate as it was shown."""

    title: str
    wrong: tuple[str, ...] = ()
    """Kinds of its claims that the article does not back."""


@dataclass(frozen=True, slots=True)
class Made:
    """Candidates for an article."""

    article_digest: str
    candidates: tuple[Shown, ...]
    """The best first."""
    model: str
    model_digest: str
    content: str | None = None
    """The cleaned article, where it is kept."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A title that an editor kept."""

    time: str
    made: Made
    place: int
    """Of the candidate that was taken, from 0."""
    title: str
    slot: str

    @property
    def candidate(self) -> str:
        """The candidate as the model wrote it."""
        return self.made.candidates[self.place].title

    @property
    def edited(self) -> bool:
        """Whether the editor changed it."""
        return self.title != self.candidate


class Store:
    """The file; safe to use from threads, and by several processes."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it where there is none.

        Raises:
            DataError: it is no file of a desk, or of a later release.
            TitlegenError: it cannot be written.
        """
        self.path = path
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Titles before they are printed are nobody else's business.
            path.touch(mode=0o600)
        with self._connect() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > _VERSION:
                raise DataError(f"{path} was made by a later release (version {version}); update titlegen")
            if version == 0:
                # Another process may have made the tables since; then there is nothing to do.
                connection.execute("BEGIN IMMEDIATE")
                if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in filter(str.strip, _CREATE.split(";")):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                connection.execute("COMMIT")

    def add_candidates(self, made: Made, name: str = "") -> str:
        """Keep what was made, and return its id, which nobody can guess; on the disk with the first choice of it.

        Args:
            made: the candidates.
            name: an id of :func:`new_name`; without one it gets one.
        """
        name = name or new_name()
        shown = json.dumps([[c.title, list(c.wrong)] for c in made.candidates], ensure_ascii=False)
        # The choice's own commit writes what stands before it in the log, too.
        with self._connect(synchronous="NORMAL") as connection:
            connection.execute(
                "INSERT INTO generation VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, _now(), made.article_digest, made.content, shown, made.model, made.model_digest),
            )
        return name

    def add_choice(self, generation: str, place: int, title: str, slot: str = "") -> None:
        """Keep a choice; the same choice again changes nothing. On the disk when this returns.

        Raises:
            DataError: nothing of that id was made, or it has no such candidate.
        """
        with self._connect() as connection:
            row = connection.execute("SELECT candidates FROM generation WHERE id = ?", (generation,)).fetchone()
            if row is None or not 0 <= place < len(json.loads(row[0])):
                raise DataError(f"there is no candidate {place + 1} of {generation[:40]!r}; ask for titles again")
            connection.execute(
                "INSERT OR IGNORE INTO choice (generation, time, place, title, slot) VALUES (?, ?, ?, ?, ?)",
                (generation, _now(), place, title, slot),
            )

    def choices(self) -> list[Choice]:
        """Return every choice, the first one first."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT c.time, g.article_digest, g.candidates, g.model, g.model_digest, g.content, c.place, c.title, "
                "c.slot FROM choice c JOIN generation g ON g.id = c.generation ORDER BY c.id"
            ).fetchall()
        return [
            Choice(row[0], Made(row[1], _shown(row[2]), row[3], row[4], row[5]), row[6], row[7], row[8]) for row in rows
        ]

    def count_made(self) -> int:
        """Return for how many articles candidates were made, each time counted."""
        with self._connect() as connection:
            return int(connection.execute("SELECT count(*) FROM generation").fetchone()[0])

    @contextlib.contextmanager
    def _connect(self, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A choice is on the disk when the editor is told so, also where the power fails.
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise TitlegenError(f"{self.path} cannot be written: {error}; see its disk and its owner") from error
            raise DataError(f"{self.path} is no file of the desk: {error}; name another with desk.store") from error
        finally:
            connection.close()


def new_name() -> str:
    """Return an id that nobody can guess."""
    return uuid.uuid4().hex


def choice_rows(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Return the rows of the export of choices."""
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
        }
        for choice in choices
    ]


def preference_rows(choices: Sequence[Choice]) -> list[dict[str, object]]:
    """Return the rows of the export of preference pairs."""
    rows: list[dict[str, object]] = []
    for choice in choices:
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


def _shown(text: str) -> tuple[Shown, ...]:
    return tuple(Shown(title, tuple(wrong)) for title, wrong in json.loads(text))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
