"""Titles marked by a reader who does not know which model wrote them.

    python benchmarks/reading.py sheet SHEET ARTICLES... --titles NAME=PREDICTIONS... [--rows 20 …] [--seed 1]
    python benchmarks/reading.py count OUT SHEET MARKS MARKS

``sheet`` draws articles from prepared splits (JSONL) that every model has a title for (JSONL with id and prediction)
and writes two files: SHEET, one line an article with its text and the titles in random order, for reading; and
SHEET.key.json, which model wrote which. A reader writes MARKS without looking at the key: a JSONL line
``{"id": …, "marks": [MARK, …]}`` an article, MARK one of the four below. ``count`` joins two such passes: OUT becomes
the marks by article and model, without any text, the counts of each pass, and how often both passes agree.

- taken: could be printed as it is.
- edits: right in fact, and printable after a few characters are changed.
- wrong: says something that the article does not: another number, name, doer, direction, place or time.
- nonsense: no headline, broken language, or about nothing in particular.
"""

import argparse
import json
import random
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from titlegen.data import load_split
from titlegen.data.example import read_jsonl

MARKS = ("taken", "edits", "wrong", "nonsense")


def main() -> None:
    """Write a sheet, or count its marks."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    sheet = verbs.add_parser("sheet")
    sheet.add_argument("sheet", type=Path)
    sheet.add_argument("articles", type=Path, nargs="+")
    sheet.add_argument("--titles", nargs="+", required=True, help="NAME=PREDICTIONS; files of one name are joined")
    sheet.add_argument("--rows", type=int, nargs="+", default=[20], help="articles of each file, or of all alike")
    sheet.add_argument("--seed", type=int, default=1)
    count = verbs.add_parser("count")
    count.add_argument("out", type=Path)
    count.add_argument("sheet", type=Path)
    count.add_argument("marks", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.verb == "sheet":
        _write_sheet(arguments)
        return
    key = json.loads(_key(arguments.sheet).read_text(encoding="utf-8"))
    found = count_marks(key, [read_marks(path, key) for path in arguments.marks])
    arguments.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found["counts"], indent=1) + "\n")


def _write_sheet(arguments: argparse.Namespace) -> None:
    titles: dict[str, dict[str, str]] = {}
    for item in arguments.titles:
        name, _, path = item.partition("=")
        rows = {row["id"]: row["prediction"] for _, row in read_jsonl(Path(path))}
        titles[name] = titles.get(name, {}) | rows
    chance = random.Random(arguments.seed)
    models = sorted(titles)
    numbers = arguments.rows * len(arguments.articles) if len(arguments.rows) == 1 else arguments.rows
    key, lines = {}, []
    for path, number in zip(arguments.articles, numbers, strict=True):
        examples = sorted(load_split(path.parent, path.stem), key=lambda example: example.id)
        examples = [example for example in examples if all(example.id in rows for rows in titles.values())]
        for example in chance.sample(examples, min(number, len(examples))):
            # A title that several models wrote is read once.
            written = sorted({titles[name][example.id] for name in models})
            chance.shuffle(written)
            key[example.id] = {
                "from": path.stem,
                "models": {name: written.index(titles[name][example.id]) for name in models},
                "titles": len(written),
            }
            row = {"id": example.id, "content": example.content, "titles": written}
            lines.append(json.dumps(row, ensure_ascii=False))
    arguments.sheet.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _key(arguments.sheet).write_text(json.dumps(key, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{arguments.sheet}: {len(lines)} articles\n")


def read_marks(path: Path, key: dict[str, Any]) -> dict[str, list[str]]:
    """Return the marks of one pass by the article's id.

    Raises:
        SystemExit: an article is missing or unknown, a mark is none of the four, or their number is not that of the
            titles.
    """
    marks = {row["id"]: row["marks"] for _, row in read_jsonl(path)}
    if marks.keys() != key.keys():
        raise SystemExit(f"{path}: articles missing or unknown: {sorted(marks.keys() ^ key.keys())}")
    for name, given in marks.items():
        if len(given) != key[name]["titles"] or set(given) - set(MARKS):
            raise SystemExit(f"{path}: {name}: {given}; it needs {key[name]['titles']} marks of {', '.join(MARKS)}")
    return marks


def count_marks(key: dict[str, Any], passes: list[dict[str, list[str]]]) -> dict[str, Any]:
    """Return the marks by article and model, their counts by source, model and pass, and how often the passes agree."""
    counts: dict[str, dict[str, list[dict[str, int]]]] = {}
    articles = {}
    agreed = []
    for name, entry in key.items():
        articles[name] = {model: [marks[name][place] for marks in passes] for model, place in entry["models"].items()}
        agreed += [len(set(given)) == 1 for given in articles[name].values()]
    for source in sorted({entry["from"] for entry in key.values()}):
        members = [name for name, entry in key.items() if entry["from"] == source]
        for model in sorted(articles[members[0]]):
            counts.setdefault(source, {})[model] = [
                {mark: Counter(articles[name][model][number] for name in members)[mark] for mark in MARKS}
                for number in range(len(passes))
            ]
    return {
        "name": "reading",
        "date": datetime.now(UTC).date().isoformat(),
        "counts": counts,
        "agreement": round(sum(agreed) / len(agreed), 4),
        "articles": articles,
    }


def _key(sheet: Path) -> Path:
    return sheet.with_name(f"{sheet.name}.key.json")


if __name__ == "__main__":
    main()
