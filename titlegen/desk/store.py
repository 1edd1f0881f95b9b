"""What was made and what was chosen: one SQLite file that survives a crash."""

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from titlegen.errors import DataError, TitlegenError
from titlegen.files import writable

_BUSY_MS = 10_000
# From each version of the file to the next one.
_UPGRADES = (
    """
CREATE TABLE generation (
    id TEXT PRIMARY KEY, time TEXT NOT NULL, article_digest TEXT NOT NULL, content TEXT,
    candidates TEXT NOT NULL, model TEXT NOT NULL, model_digest TEXT NOT NULL
) STRICT;
CREATE TABLE choice (
    id INTEGER PRIMARY KEY, generation TEXT NOT NULL REFERENCES generation, time TEXT NOT NULL,
    place INTEGER NOT NULL, title TEXT NOT NULL, slot TEXT NOT NULL, UNIQUE (generation, place, title, slot)
) STRICT;
""",
    # A choice that was taken back stays, and the same one can be made again.
    """
CREATE TABLE choice_2 (
    id INTEGER PRIMARY KEY, generation TEXT NOT NULL REFERENCES generation, time TEXT NOT NULL,
    place INTEGER NOT NULL, title TEXT NOT NULL, slot TEXT NOT NULL, withdrawn TEXT
) STRICT;
INSERT INTO choice_2 SELECT id, generation, time, place, title, slot, NULL FROM choice;
DROP TABLE choice;
ALTER TABLE choice_2 RENAME TO choice;
CREATE UNIQUE INDEX kept ON choice (generation, place, title, slot) WHERE withdrawn IS NULL;
""",
)


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
    """A title that an editor kept, and may have taken back."""

    time: str
    made: Made
    place: int
    """Of the candidate that was taken, from 0."""
    title: str
    slot: str
    number: int
    """Under which it is taken back."""
    withdrawn: str | None = None
    """When it was taken back; None where it counts."""

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
            if _version(connection) < len(_UPGRADES):
                connection.execute("BEGIN IMMEDIATE")
                # Another process may have done some of it since.
                version = _version(connection)
                if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise DataError(f"{path} is another program's database; name another file with desk.store")
                for upgrade in _UPGRADES[version:]:
                    for statement in filter(str.strip, upgrade.split(";")):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {max(version, len(_UPGRADES))}")
                connection.execute("COMMIT")
            if (version := _version(connection)) > len(_UPGRADES):
                raise DataError(f"{path} was made by a later release (version {version}); update titlegen")
            # Stays with the file, which is known to be ours by now.
            connection.execute("PRAGMA journal_mode = WAL")

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

    def add_choice(self, generation: str, place: int, title: str, slot: str = "") -> int:
        """Keep a choice, and return its number; the same choice again changes nothing. On the disk when this returns.

        Raises:
            DataError: nothing of that id was made, or it has no such candidate.
        """
        with self._connect() as connection:
            row = connection.execute("SELECT candidates FROM generation WHERE id = ?", (generation,)).fetchone()
            if row is None or not 0 <= place < len(json.loads(row[0])):
                raise DataError(f"there is no candidate {place + 1} of {generation[:40]!r}; ask for titles again")
            choice = {"generation": generation, "time": _now(), "place": place, "title": title, "slot": slot}
            connection.execute(
                "INSERT OR IGNORE INTO choice (generation, time, place, title, slot) "
                "VALUES (:generation, :time, :place, :title, :slot)",
                choice,
            )
            # The newest is the one that counts.
            found = connection.execute(
                "SELECT max(id) FROM choice WHERE (generation, place, title, slot) = "
                "(:generation, :place, :title, :slot)",
                choice,
            )
            return int(found.fetchone()[0])

    def withdraw_choice(self, number: int) -> None:
        """Take a choice back: it stays in the file with the time, and counts no longer; once more changes nothing.

        Raises:
            DataError: there is no choice of that number.
        """
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM choice WHERE id = ?", (number,)).fetchone():
                raise DataError(f"there is no choice {number} to take back")
            connection.execute("UPDATE choice SET withdrawn = ? WHERE id = ? AND withdrawn IS NULL", (_now(), number))

    def choices(self) -> list[Choice]:
        """Return every choice, the first one first, those that were taken back as well."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT c.time, g.article_digest, g.candidates, g.model, g.model_digest, g.content, c.place, c.title, "
                "c.slot, c.id, c.withdrawn FROM choice c JOIN generation g ON g.id = c.generation ORDER BY c.id"
            ).fetchall()
        return [Choice(row[0], Made(row[1], _shown(row[2]), row[3], row[4], row[5]), *row[6:]) for row in rows]

    def count_made(self) -> int:
        """Return for how many articles candidates were made, each time counted."""
        with self._connect() as connection:
            return int(connection.execute("SELECT count(*) FROM generation").fetchone()[0])

    @contextlib.contextmanager
    def _connect(self, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_BUSY_MS / 1000, isolation_level=None)
        try:
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


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _shown(text: str) -> tuple[Shown, ...]:
    return tuple(Shown(title, tuple(wrong)) for title, wrong in json.loads(text))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
