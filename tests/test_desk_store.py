"""What the desk remembers: through a crash, in its exports, and in the figures made of it."""

import csv
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from titlegen.desk.exports import (
    CHOICES_SCHEMA,
    PREFERENCES_SCHEMA,
    as_csv,
    as_jsonl,
    choice_rows,
    preference_rows,
)
from titlegen.desk.statistics import summarise
from titlegen.desk.store import Made, Shown, Store
from titlegen.errors import DataError, TitlegenError

MADE = Made("d" * 64, (Shown("甲乙丙丁", ("number",)), Shown("戊己庚辛"), Shown("壬癸子丑")), "zh-titlegen", "abc")

# Keeps one choice after another, and says so after each: what was said must be there whenever the process ends.
_KEEP_ON = """
import sys
from pathlib import Path
from titlegen.desk.store import Made, Shown, Store
store = Store(Path(sys.argv[1]))
made = Made("d" * 64, (Shown("甲"),), "m", "x", "內文" * 5000)
for number in range(100_000):
    store.add_choice(store.add_candidates(made), 0, f"標題{number}")
    print(number, flush=True)
"""


def test_a_choice_comes_back_as_it_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "desk.sqlite3")
    store.add_choice(store.add_candidates(MADE), 1, "戊己庚辛改", "push")
    (choice,) = Store(store.path).choices()
    assert (choice.made, choice.place, choice.title, choice.slot) == (MADE, 1, "戊己庚辛改", "push")
    assert (choice.candidate, choice.edited) == ("戊己庚辛", True)


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite3")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_the_same_choice_again_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite3")
    generation = store.add_candidates(MADE)
    for _ in range(3):
        store.add_choice(generation, 0, "甲乙丙丁")
    assert len(store.choices()) == 1
    assert store.count_made() == 1


def test_a_choice_is_taken_back_and_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite3")
    generation = store.add_candidates(MADE)
    number = store.add_choice(generation, 0, "甲乙丙丁")
    other = store.add_choice(generation, 1, "戊己庚辛")
    store.withdraw_choice(number)
    (first, _) = store.choices()
    assert first.withdrawn is not None
    store.withdraw_choice(number)
    assert store.choices()[0] == first
    again = store.add_choice(generation, 0, "甲乙丙丁")
    assert len({number, other, again}) == 3
    assert store.add_choice(generation, 0, "甲乙丙丁") == again
    assert [choice.withdrawn is None for choice in store.choices()] == [False, True, True]
    with pytest.raises(DataError, match="no choice 99"):
        store.withdraw_choice(99)


# What the first release wrote.
_FIRST = """
CREATE TABLE generation (
    id TEXT PRIMARY KEY, time TEXT NOT NULL, article_digest TEXT NOT NULL, content TEXT,
    candidates TEXT NOT NULL, model TEXT NOT NULL, model_digest TEXT NOT NULL
) STRICT;
CREATE TABLE choice (
    id INTEGER PRIMARY KEY, generation TEXT NOT NULL REFERENCES generation, time TEXT NOT NULL,
    place INTEGER NOT NULL, title TEXT NOT NULL, slot TEXT NOT NULL, UNIQUE (generation, place, title, slot)
) STRICT;
INSERT INTO generation VALUES ('a', '2026-01-01', 'd', NULL, '[["甲", []], ["乙", ["number"]]]', 'm', 'x');
INSERT INTO choice VALUES (1, 'a', '2026-01-02', 1, '乙', 'push'), (7, 'a', '2026-01-03', 0, '丙', '');
PRAGMA user_version = 1;
"""


def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "desk.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript(_FIRST)
    connection.close()
    stores = [Store(path), Store(path)]
    first, second = stores[1].choices()
    assert (first.number, first.title, first.slot, first.withdrawn) == (1, "乙", "push", None)
    assert (second.number, second.title, second.edited) == (7, "丙", True)
    stores[0].withdraw_choice(7)
    assert stores[1].add_choice("a", 0, "丙") == 8


@pytest.mark.fault
@pytest.mark.parametrize(("generation", "place"), [("unknown", 0), (None, 3), (None, -1)])
def test_what_was_never_shown_cannot_be_chosen(tmp_path: Path, generation: str | None, place: int) -> None:
    store = Store(tmp_path / "desk.sqlite3")
    made = store.add_candidates(MADE)
    with pytest.raises(DataError, match="no candidate"):
        store.add_choice(generation or made, place, "甲")
    assert store.choices() == []


@pytest.mark.fault
def test_what_was_said_to_be_kept_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "desk.sqlite3"
    for _ in range(3):
        with subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-c", _KEEP_ON, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(15)]
            os.kill(process.pid, signal.SIGKILL)
            said += process.stdout.read().splitlines()
        last = int([line for line in said if line.strip()][-1])
        titles = [choice.title for choice in Store(path).choices()]
        assert set(titles) >= {f"標題{number}" for number in range(last + 1)}
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_many_write_at_once(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "desk.sqlite3") for _ in range(4)]

    def keep(number: int) -> None:
        for turn in range(5):
            store = stores[(number + turn) % 4]
            store.add_choice(store.add_candidates(MADE), 0, f"{number}-{turn}")

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {choice.title for choice in stores[0].choices()} == {f"{n}-{t}" for n in range(8) for t in range(5)}


@pytest.mark.fault
def test_another_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("this is no database, and somebody needs it" * 50, encoding="utf-8")
    before = other.read_bytes()
    with pytest.raises(DataError, match="no file of the desk"):
        Store(other)
    assert other.read_bytes() == before
    strange = tmp_path / "bookmarks.sqlite3"
    with sqlite3.connect(strange) as connection:
        connection.execute("CREATE TABLE bookmark (url TEXT)")
    connection.close()
    before = strange.read_bytes()
    with pytest.raises(DataError, match="another program"):
        Store(strange)
    assert strange.read_bytes() == before
    later = Store(tmp_path / "later.sqlite3").path
    with sqlite3.connect(later) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataError, match="later release"):
        Store(later)
    with pytest.raises(TitlegenError, match="nowhere"):
        Store(other / "nowhere" / "desk.sqlite3")


# Exports


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    store = Store(tmp_path / "desk.sqlite3")
    store.add_choice(store.add_candidates(MADE), 0, "甲乙丙丁")
    store.add_choice(store.add_candidates(MADE), 1, "=HYPERLINK(1)", "web")
    return store


def test_choices_are_exported(kept: Store) -> None:
    rows = [json.loads(line) for line in as_jsonl(choice_rows(kept.choices())).splitlines()]
    assert [row["title"] for row in rows] == ["甲乙丙丁", "=HYPERLINK(1)"]
    assert rows[0] == {
        "schema": CHOICES_SCHEMA,
        "time": kept.choices()[0].time,
        "article_digest": "d" * 64,
        "candidates": ["甲乙丙丁", "戊己庚辛", "壬癸子丑"],
        "place": 1,
        "candidate": "甲乙丙丁",
        "title": "甲乙丙丁",
        "edited": False,
        "slot": "",
        "model": "zh-titlegen",
        "model_digest": "abc",
        "withdrawn": None,
    }


def test_what_was_taken_back_stays_in_the_log_and_counts_no_longer(kept: Store) -> None:
    taken = kept.choices()[0].number
    kept.withdraw_choice(taken)
    rows = choice_rows(kept.choices())
    assert [row["title"] for row in rows] == ["甲乙丙丁", "=HYPERLINK(1)"]
    assert rows[0]["withdrawn"] == kept.choices()[0].withdrawn is not None
    assert {row["rejected"] for row in preference_rows(kept.choices()) if row["kind"] == "chosen"} == {
        "甲乙丙丁",
        "壬癸子丑",
    }
    found = summarise(kept.choices(), kept.count_made())
    assert (found.made, found.chosen, found.first_taken, found.edited) == (2, 1, 0, 1)
    assert found.wrong == {}
    assert [(line.title, line.withdrawn is None) for line in found.log] == [
        ("=HYPERLINK(1)", True),
        ("甲乙丙丁", False),
    ]
    assert csv.DictReader(io.StringIO(as_csv(rows))).fieldnames[-1] == "withdrawn"  # type: ignore[index]


@pytest.mark.fault
def test_no_cell_of_a_spreadsheet_is_a_formula(kept: Store) -> None:
    first, second = csv.DictReader(io.StringIO(as_csv(choice_rows(kept.choices()))))
    assert second["title"] == "'=HYPERLINK(1)"
    assert first["candidates"] == "甲乙丙丁 | 戊己庚辛 | 壬癸子丑"
    assert "content" not in first


def test_choices_become_preference_pairs(kept: Store) -> None:
    pairs = [(row["kind"], row["chosen"], row["rejected"]) for row in preference_rows(kept.choices())]
    assert pairs == [
        ("chosen", "甲乙丙丁", "戊己庚辛"),
        ("chosen", "甲乙丙丁", "壬癸子丑"),
        ("chosen", "戊己庚辛", "甲乙丙丁"),
        ("chosen", "戊己庚辛", "壬癸子丑"),
        ("edited", "=HYPERLINK(1)", "戊己庚辛"),
    ]
    row = preference_rows(kept.choices())[0]
    assert set(row) == {"schema", "article_digest", "chosen", "rejected", "kind", "model", "time"}
    assert row["schema"] == PREFERENCES_SCHEMA


def test_articles_stand_in_exports_where_they_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "desk.sqlite3")
    made = Made(MADE.article_digest, MADE.candidates, MADE.model, MADE.model_digest, "內文")
    store.add_choice(store.add_candidates(made), 0, "甲乙丙丁")
    assert preference_rows(store.choices())[0]["content"] == "內文"
    assert next(csv.DictReader(io.StringIO(as_csv(choice_rows(store.choices())))))["content"] == "內文"


# Figures


def test_figures_say_what_was_done(kept: Store) -> None:
    found = summarise(kept.choices(), kept.count_made())
    assert (found.made, found.chosen, found.first_taken, found.edited) == (2, 2, 0.5, 0.5)
    assert found.characters_changed == 1
    assert found.wrong == found.wrong_kept == {"number": 1}
    assert [line.title for line in found.log] == ["=HYPERLINK(1)", "甲乙丙丁"]
    assert summarise([], 0).first_taken == 0
