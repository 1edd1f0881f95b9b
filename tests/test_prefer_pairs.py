"""Pairs out of candidates, and out of what editors chose."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from titlegen.control import Control
from titlegen.data import Example
from titlegen.errors import DataError
from titlegen.prefer import Task, as_pairs, make_pairs, read_choices
from titlegen.prefer.choices import SCHEMA
from titlegen.prefer.pairs import Pair, rank_candidates, read_pairs, write_pairs
from titlegen.settings import PreferSettings

ARTICLE = "臺南市政府今日宣布，將投入2億元整修安平老街的人行道，預計明年完工，市長黃偉哲前往視察。"
GOOD, AGREES, ODD = "臺南投入2億元整修安平老街", "臺南投入2億元整修老街步道", "黃偉哲視察人行道預計完工"
WRONG, MORE = "臺南投入9億元整修安平老街", "標題：臺南投入2億元整修安平老街\n說明：以上"


def task(title: str = "", control: Control | None = None) -> Task:
    example = Example("a", ARTICLE, title, "test", None)
    return Task(example) if control is None else Task(example, control)


def test_faults_count_before_agreement_and_the_reference_by_its_weight() -> None:
    candidates = [GOOD, AGREES, ODD, WRONG, MORE, GOOD]
    ranked = [one.raw for one in rank_candidates(candidates, task(), 0.5)]
    assert ranked[:3] == [GOOD, AGREES, ODD], "without a reference, agreement alone decides"
    assert ranked[3:] == [WRONG, MORE]
    assert rank_candidates(candidates, task(ODD), 1.0)[0].raw == ODD
    assert rank_candidates(candidates, task(ODD), 0.0)[0].raw == GOOD


def test_what_was_asked_for_comes_first() -> None:
    asked = task(GOOD, Control(None, ("黃偉哲",)))
    assert rank_candidates([GOOD, AGREES, ODD], asked, 1.0)[0].raw == ODD
    (pair,) = make_pairs([asked], [[GOOD, ODD]], PreferSettings(pairs=1, length_gap=30))
    assert (pair.chosen, pair.rejected) == (ODD, GOOD)
    assert pair.content == f"（包含「黃偉哲」）\n{ARTICLE}"
    assert make_pairs([asked], [[GOOD, AGREES]], PreferSettings()) == [], "no candidate is an example"


def test_pairs_lie_from_the_worst_upwards() -> None:
    drawn = [GOOD, AGREES, ODD, WRONG, MORE, GOOD]
    pairs = make_pairs([task()], [drawn], PreferSettings(pairs=2, distance=0.0, length_gap=30))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [(GOOD, MORE), (GOOD, ODD)]
    assert len(make_pairs([task()], [drawn], PreferSettings(pairs=63, distance=0.0, length_gap=30))) == 4
    assert {
        p.rejected for p in make_pairs([task()], [drawn], PreferSettings(pairs=63, distance=1.0, length_gap=30))
    } == {WRONG, MORE}


@pytest.mark.parametrize("drawn", [[GOOD, GOOD], [MORE, MORE + "。"], [WRONG, MORE], [""]])
def test_an_article_without_a_better_and_a_worse_title_gives_none(drawn: list[str]) -> None:
    assert make_pairs([task()], [drawn], PreferSettings()) == []


def test_pairs_are_kept_as_they_are(tmp_path: Path) -> None:
    pairs = [Pair("a", ARTICLE, GOOD, f"{ODD}\u2028第二行"), Pair("b", ARTICLE, GOOD, WRONG, "edited")]
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


def row(**changes: Any) -> dict[str, Any]:
    record = {"schema": SCHEMA, "article_digest": "0" * 64, "content": ARTICLE, "chosen": GOOD, "rejected": ODD}
    return record | {"kind": "chosen", "model": "sha256:1", "time": "2026-11-27T10:00:00Z"} | changes


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in rows), encoding="utf-8")
    return path


def test_editors_choices_become_pairs(tmp_path: Path) -> None:
    path = written(
        tmp_path, row(), row(kind="edited", chosen=AGREES, rejected=GOOD), row(content=None), row(rejected=GOOD)
    )
    assert [(pair.chosen, pair.rejected, pair.origin) for pair in as_pairs(read_choices(path), [], [])] == [
        (GOOD, ODD, "chosen"),
        (AGREES, GOOD, "edited"),
    ]


def test_a_choice_without_its_article_finds_it_among_the_train_articles(tmp_path: Path) -> None:
    kept = row(article_digest=hashlib.sha256(ARTICLE.encode()).hexdigest())
    del kept["content"]
    choices = read_choices(written(tmp_path, kept))
    assert as_pairs(choices, ["另一篇。"], []) == []
    assert [pair.content for pair in as_pairs(choices, ["另一篇。", ARTICLE], [])] == [ARTICLE]
    assert as_pairs(choices, [ARTICLE], [ARTICLE]) == [], "held out"


@pytest.mark.fault
def test_choices_about_articles_that_are_scored_are_left_out(tmp_path: Path) -> None:
    choices = read_choices(written(tmp_path, row(), row(content="另一篇文章的內文。")))
    assert [pair.content for pair in as_pairs(choices, [], [f" {ARTICLE}\n"])] == ["另一篇文章的內文。"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "titlegen.desk.preferences/2"}, "schema is 'titlegen.desk.preferences/2'"),
        ({"schema": None}, "schema is 'None'"),
        ({"kind": "shown"}, "kind is 'shown'"),
        ({"chosen": 3}, "'chosen' is int"),
        ({"chosen": " "}, "'chosen' is empty"),
        ({"rejected": "長" * 201}, "201 characters, 200 at most"),
        ({"content": 1}, "'content' is int"),
        ({"content": "\ud800"}, "'content' holds half a character"),
        ({"article_digest": "\udfff"}, "'article_digest' holds half a character"),
        ({"chosen": "甲\udcff"}, "'chosen' holds half a character"),
    ],
)
def test_a_file_that_is_no_desks_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_choices(written(tmp_path, row(**changes)))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name the file in it"):
        read_choices(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_choices(tmp_path / "none.jsonl")


def test_both_titles_of_a_pair_are_about_as_long() -> None:
    short, settings = "臺南整修老街", PreferSettings(pairs=63)
    drawn = [GOOD, AGREES, ODD, short, GOOD]
    (pair,) = make_pairs([task()], [drawn], settings)
    assert pair.rejected == ODD
    wide = settings.model_copy(update={"length_gap": 30})
    assert {pair.rejected for pair in make_pairs([task()], [drawn], wide)} == {ODD, short}
    asked = task("", Control(13))
    found = {pair.rejected for pair in make_pairs([asked], [[GOOD, short, ODD]], settings)}
    assert found == {short, ODD}, "the length is what was asked for"


def test_many_articles_are_ranked_in_processes_of_their_own_alike() -> None:
    drawn, settings = [GOOD, AGREES, ODD], PreferSettings(distance=0.0)
    assert make_pairs([task()] * 201, [drawn] * 201, settings) == make_pairs([task()], [drawn], settings) * 201
