"""Recall and precision of the evidence marks by kind of fault: titles that people wrote, with one fault each.

    python benchmarks/evidence.py [ARTICLES.jsonl ...]

The embedded corpus, and files with ``content``, ``title`` and ``date`` where given. What is changed is found by plain
patterns of this file, not by what is measured; the new value is drawn at random, also where the article happens to
have it. A fault counts as seen when a mark that the true title does not get lies on the changed words. ``precision``
is over as many true as changed titles: marks on the latter's faults, of all marks that say something is wrong.
``--sample N`` prints N true titles with all of their marks, for reading by hand.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from machine import write_result

from titlegen.data.sources import embedded_files
from titlegen.metrics.evidence import find_evidence
from titlegen.metrics.gazetteer import REGIONS, TOWNS
from titlegen.metrics.title_warnings import GRAVE, Facts, find_warnings

_DATE = re.compile(r"\d{1,2}月\d{1,2}日|\d{1,2}/\d{1,2}(?!\d)|\d{1,2}月|(?<!\d)\d{1,2}日|(?<!\d)\d{3,4}年")
_NUMBER = re.compile(
    r"(?<![\d/:.第A-Za-z-])\d[\d,]*(?:\.\d+)?(?![\d/:.月日年])|[二三四五六七八九十百]+(?=[人名位個件場戶次歲天項家座條])"
)
_ROLE = "市長|縣長|區長|局長|處長|校長|主任|院長|部長|議員|董事長|總經理|教授|教練"
_PERSON = re.compile(
    rf"(?:{_ROLE})([陳林黃張李王吳劉蔡楊許鄭謝洪郭邱曾廖賴徐周葉蘇莊呂江何羅高蕭潘朱簡鍾][\u4e00-\u9fff]{{2}})"
)
_PERSON_BEFORE = re.compile(
    rf"([陳林黃張李王吳劉蔡楊許鄭謝洪郭邱曾廖賴徐周葉蘇莊呂江何羅高蕭潘朱簡鍾][\u4e00-\u9fff]{{2}})(?:{_ROLE})"
)
_PLACE = re.compile("|".join([*sorted(REGIONS), *(f"{town}區" for town in sorted(TOWNS)), "台北|台中|台南|台東"]))
_QUOTED = re.compile(r"「([^「」]{4,30})」")
_DENIED = re.compile(r"(?<=[\u4e00-\u9fff])(不|未)(?=[\u4e00-\u9fff])")
_VERB = re.compile(r"調漲|通過|完工|開放|參選|合格|停課|起訴|受傷|延期|取消|增加|啟用|開工|補助|獲獎|達標")


class Row(NamedTuple):
    """One article with its true title."""

    title: str
    content: str
    date: str | None


class Fault(NamedTuple):
    """A title with one fault, and where it is."""

    title: str
    start: int
    end: int


Corrupt = Callable[[Row, "Pool", random.Random], Fault | None]


class Pool(NamedTuple):
    """Replacements of a name, from other articles."""

    persons: list[str]
    places: list[str]
    quotes: list[str]


def replaced(title: str, match: re.Match[str], group: int, text: str) -> Fault | None:
    if text == match[group]:
        return None
    start, end = match.span(group)
    return Fault(title[:start] + text + title[end:], start, start + len(text))


def another_number(row: Row, _: Pool, draw: random.Random) -> Fault | None:
    matches = list(_NUMBER.finditer(row.title))
    if not matches:
        return None
    match = draw.choice(matches)
    if match[0][0].isdigit():
        new = "".join(draw.choice("123456789") if char.isdigit() else char for char in match[0])
    else:
        new = draw.choice(["二", "三", "四", "五", "六", "七", "八", "九", "十二", "十五", "二十", "三百"])
    return replaced(row.title, match, 0, new)


def moved_date(row: Row, _: Pool, draw: random.Random) -> Fault | None:
    matches = list(_DATE.finditer(row.title))
    if not matches:
        return None
    match = draw.choice(matches)
    figures = re.findall(r"\d+", match[0])
    largest = 12 if match[0].endswith("月") else 28
    last = int(figures[-1])
    new = last + draw.choice([-2, -1, 1, 2, 3]) if last > 28 else draw.randint(1, largest)
    if new == last:
        return None
    at = match[0].rindex(figures[-1])
    return replaced(row.title, match, 0, match[0][:at] + str(new) + match[0][at + len(figures[-1]) :])


def another_name(row: Row, pool: Pool, draw: random.Random) -> Fault | None:
    names = set(_PERSON.findall(row.content) + _PERSON_BEFORE.findall(row.content))
    matches = [match for name in sorted(names) for match in re.finditer(re.escape(name), row.title)]
    return replaced(row.title, draw.choice(matches), 0, draw.choice(pool.persons)) if matches else None


def another_place(row: Row, pool: Pool, draw: random.Random) -> Fault | None:
    matches = list(_PLACE.finditer(row.title))
    if not matches:
        return None
    match = draw.choice(matches)
    alike = [place for place in pool.places if place.endswith("區") == match[0].endswith("區")]
    return replaced(row.title, match, 0, draw.choice(alike)) if alike else None


def another_quotation(row: Row, pool: Pool, draw: random.Random) -> Fault | None:
    matches = list(_QUOTED.finditer(row.title))
    return replaced(row.title, draw.choice(matches), 1, draw.choice(pool.quotes)) if matches else None


def swapped_roles(row: Row, _: Pool, draw: random.Random) -> Fault | None:
    names = set(_PERSON.findall(row.content) + _PERSON_BEFORE.findall(row.content)) | set(REGIONS)
    found = sorted({m.span() for name in names for m in re.finditer(re.escape(name), row.title)})
    if len(found) < 2 or row.title[slice(*found[0])] == row.title[slice(*found[-1])]:
        return None
    del draw
    (a, b), (c, d) = found[0], found[-1]
    title = row.title
    return Fault(title[:a] + title[c:d] + title[b:c] + title[a:b] + title[d:], a, d) if b <= c else None


def negated(row: Row, _: Pool, draw: random.Random) -> Fault | None:
    if match := _DENIED.search(row.title):
        return Fault(row.title[: match.start()] + row.title[match.end() :], match.start() - 1, match.end() + 2)
    matches = list(_VERB.finditer(row.title))
    if not matches:
        return None
    match = draw.choice(matches)
    return Fault(f"{row.title[: match.start()]}不{row.title[match.start() :]}", match.start(), match.end() + 1)


FAULTS: dict[str, Corrupt] = {
    "number": another_number,
    "date": moved_date,
    "name": another_name,
    "place": another_place,
    "quotation": another_quotation,
    "roles": swapped_roles,
    "negation": negated,
}


def marks(title: str, facts: Facts) -> list[tuple[int, int, str]]:
    """Return what an editor sees marked as wrong in fact."""
    found = [(claim.start, claim.end, claim.text) for claim in find_evidence(title, facts) if not claim.supported]
    grave = [warning for warning in find_warnings(title, facts) if warning.kind in GRAVE - {"language"}]
    return found + [(warning.start, warning.end, warning.text) for warning in grave]


def measure(rows: Iterable[Row], seed: int) -> Counter[str]:
    """Return how many titles were changed in each way, and in how many of them that was seen."""
    rows = list(rows)
    draw = random.Random(seed)
    persons = sorted({name for row in rows for name in _PERSON.findall(row.content)})
    places = sorted({match for row in rows for match in _PLACE.findall(row.title)})
    quotes = sorted({match for row in rows for match in _QUOTED.findall(row.title)})
    pool = Pool(persons, places, quotes)
    facts = [Facts(row.content, row.date) for row in rows]
    true_marks = [{text for *_, text in marks(row.title, fact)} for row, fact in zip(rows, facts, strict=True)]
    counts: Counter[str] = Counter(titles=len(rows), titles_marked=sum(map(bool, true_marks)))
    for kind, corrupt in FAULTS.items():
        for row, fact, before in zip(rows, facts, true_marks, strict=True):
            fault = corrupt(row, pool, draw)
            if fault is None:
                continue
            found = marks(fault.title, fact)
            seen = any(m[0] < fault.end and fault.start < m[1] and m[2] not in before for m in found)
            counts.update({f"{kind}_changed": 1, f"{kind}_seen": seen, f"{kind}_wrong": len(before)})
    return counts


def rates(counts: Counter[str], suffix: str = "") -> dict[str, float]:
    """Return the figures that counts add up to."""
    figures: dict[str, float] = {
        f"titles{suffix}": counts["titles"],
        f"marked_true_titles{suffix}": counts["titles_marked"] / counts["titles"],
    }
    for kind in FAULTS:
        changed, seen = counts[f"{kind}_changed"], counts[f"{kind}_seen"]
        figures[f"{kind}_changed{suffix}"] = changed
        figures[f"{kind}_recall{suffix}"] = seen / max(changed, 1)
        figures[f"{kind}_precision{suffix}"] = seen / max(seen + counts[f"{kind}_wrong"], 1)
    return figures


def read(path: Path) -> list[Row]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Row(line["title"], line["content"], line.get("date")) for line in lines if line.get("title")]


def show(rows: list[Row], number: int, seed: int) -> None:
    """Print titles with their marks, for reading."""
    for row in random.Random(seed).sample(rows, number):
        print(row.title)
        for claim in find_evidence(row.title, Facts(row.content, row.date)):
            sentence = claim.sentence.text if claim.sentence else "-"
            print(f"    {'ok ' if claim.supported else 'RED'} {claim.kind} {claim.text} <- {sentence[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=600, help="titles of each set, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=0, help="print so many true titles with their marks instead")
    arguments = parser.parse_args()
    sets = {"corpus": [row for file in embedded_files() for row in read(Path(file))]}
    for path in arguments.articles:
        sets[re.sub(r"\W", "_", path.stem)] = read(path)
    sets = {
        name: random.Random(arguments.seed).sample(rows, min(arguments.rows, len(rows))) for name, rows in sets.items()
    }
    if arguments.sample:
        show([row for rows in sets.values() for row in rows], arguments.sample, arguments.seed)
        return
    figures: dict[str, float] = {}
    pooled: Counter[str] = Counter()
    for name, rows in sets.items():
        counts = measure(rows, arguments.seed)
        pooled += counts
        figures |= rates(counts, f"_{name}")
    figures = rates(pooled) | figures
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    write_result("evidence", figures, "true titles with one fault each; see the head of benchmarks/evidence.py")


if __name__ == "__main__":
    main()
