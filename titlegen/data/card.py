"""The data card: the rows of the source, what each step removed and why, and what is left."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from titlegen.data.collect import Collected
from titlegen.data.counts import RuleCount
from titlegen.data.dedup import Rows
from titlegen.data.filters import printable
from titlegen.files import write_atomically
from titlegen.plural import count
from titlegen.results import Dates, Part, Prepared, SourceReading

PICTURE = "lengths.png"
_BINS = 40
_EXAMPLE_CHARS = 120
_MARKDOWN = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*_{}[]#|~!"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})


class RuleUse(Part):
    """What one rule did."""

    articles: int
    pieces: int
    chars: int
    examples: list[str]


class DataCard(Prepared):
    """The data card, with pieces of the articles."""

    scripts: dict[str, RuleUse]
    """What was in Simplified characters."""
    rules: dict[Literal["content", "title"], dict[str, RuleUse]]
    """What cleaning removed."""
    length_chars: dict[str, dict[str, int | float]]


def write_card(directory: Path, results: Prepared, pool: Collected, rows: Rows) -> None:
    """Write ``data.json``, ``data.md`` and the picture of the lengths before and after."""
    counts = pool.counts
    lengths = {
        "content_before": counts.raw_content_chars,
        "content_after": Counter(pool.content_chars[rows].tolist()),
        "title_before": counts.raw_title_chars,
        "title_after": Counter(pool.title_chars[rows].tolist()),
    }
    card = DataCard(
        **results.model_dump(exclude_unset=True),
        scripts=_rules(counts.scripts),
        rules={"content": _rules(counts.content_rules), "title": _rules(counts.title_rules)},
        length_chars={name: summarise(histogram) for name, histogram in lengths.items()},
    )
    write_atomically(directory / "data.json", json.dumps(card.as_json(), ensure_ascii=False, indent=2) + "\n")
    write_atomically(directory / "data.md", render_card(card))
    draw_lengths(directory / PICTURE, lengths)


def _rules(rules: Mapping[str, RuleCount]) -> dict[str, RuleUse]:
    return {
        name: RuleUse(
            articles=count.articles,
            pieces=count.pieces,
            chars=count.chars,
            examples=[printable(text) for _, text in sorted(count.examples)],
        )
        for name, count in sorted(rules.items(), key=lambda item: (-item[1].articles, item[0]))
    }


def summarise(histogram: Mapping[int, int]) -> dict[str, int | float]:
    """Return count, mean and quantiles of lengths given as ``{length: how often}``."""
    total = sum(histogram.values())
    if not total:
        return {"count": 0}
    summary: dict[str, int | float] = {
        "count": total,
        "mean": round(sum(length * often for length, often in histogram.items()) / total, 1),
    }
    wanted = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    for name, share in wanted.items():
        seen = 0
        for length in sorted(histogram):
            seen += histogram[length]
            if seen >= max(share * total, 1):
                summary[name] = length
                break
    return summary


def render_card(card: DataCard) -> str:
    """Return the card as Markdown; nothing out of an article can become markup."""
    splits = ", ".join(f"{name} {count}" for name, count in card.splits.items())
    columns = ", ".join(f"{role} from {_escape(column)}" for role, column in card.columns.items())
    paragraphs = {
        "source": f"Source: {_escape(card.source)}; columns: {columns}.",
        "counts": f"{count(card.rows, 'row')} in, {count(card.kept, 'article')} kept; {splits}. "
        f"{card.converted_from_simplified} converted from Simplified Chinese, {card.shortened} shortened to the "
        f"token budget, {card.undated} without a date.",
        "leaks": "No two articles of the output are near-duplicates, so none can leak from train to test. A plain "
        "random split of the rows before deduplication would have had "
        f"{card.naive_leak_rate:.2%} of its test articles in train.",
        "left_out": f"{card.left_out_share:.0%} of the text of all cleaned articles was left out to fit the token "
        f"budget, {card.left_out_by[0]} {card.left_out_by[1]}.",
        "shortening": "Share of the title's distinct letters that stand in the article, mean over "
        f"{count(card.coverage.articles, 'article')} above the token budget.",
    }
    parts = [
        "# Data card",
        paragraphs["source"],
        paragraphs["counts"],
        *(f"- {_escape(note)}" for note in card.notes),
        *_reading(card.read),
        "## Steps",
        _table(("step", "in", "dropped", "out"), [(s.step, s.before, s.dropped, s.out) for s in card.steps]),
        "## Dates",
        _dates(card.dates),
        *_scripts(card.scripts),
        "## Leaks",
        paragraphs["leaks"],
        "## Lengths, characters",
        f"![Lengths before and after]({PICTURE})",
        _table(
            ("", "count", "mean", "min", "p5", "median", "p95", "max"),
            [(name.replace("_", " "), *summary.values()) for name, summary in card.length_chars.items()],
        ),
        "## Shortening",
        paragraphs["left_out"],
        paragraphs["shortening"],
        _table(
            ("strategy", "title coverage"),
            [(k, "-" if v is None else f"{v:.3f}") for k, v in card.coverage.title_coverage.items()],
        ),
    ]
    for name, rules in card.rules.items():
        parts += [f"## What cleaning removed from the {name}", _rule_table(rules)]
    return "\n\n".join(parts) + "\n"


def _dates(dates: Dates) -> str:
    """Return how the dates were written and read."""
    rows = [(form.form, form.articles, " · ".join(_escape(text) for text in form.examples)) for form in dates.forms]
    return _table(("written", "articles", "examples"), rows)


def _reading(read: SourceReading) -> list[str]:
    """Return how the source's files and cells were read; empty when there is nothing to report."""
    rows = [
        *((f"{what}: flattened to text", count) for what, count in read.flattened.items()),
        *((f"instruction taken off: {what}", count) for what, count in read.instructions.items()),
        *((f"left out: {what}", count) for what, count in read.left_out.items()),
        *((("articles that share an id with others", read.ambiguous_ids),) if read.ambiguous_ids else ()),
    ]
    forms = Counter(read.files.values())
    files = ", ".join(f"{count} as {_escape(form)}" for form, count in forms.most_common())
    passed = f"; {len(read.passed_over)} passed over, which are no tables" if read.passed_over else ""
    table = _table(("what", "rows"), [(_escape(what[:_EXAMPLE_CHARS]), count) for what, count in rows])
    return ["## Reading", f"Files or splits: {files}{passed}.", *([table] if rows else [])]


def _scripts(scripts: Mapping[str, RuleUse]) -> list[str]:
    """Return what was in Simplified characters; empty when nothing was."""
    rows = [
        (what, rule.articles, " · ".join(_escape(text) for text in rule.examples)) for what, rule in scripts.items()
    ]
    return ["## Simplified Chinese", _table(("what", "articles", "examples"), rows)] if rows else []


def _rule_table(rules: Mapping[str, RuleUse]) -> str:
    rows = [
        (name, rule.articles, rule.pieces, rule.chars, " · ".join(_escape(text) for text in rule.examples))
        for name, rule in rules.items()
    ]
    return _table(("rule", "articles", "pieces", "characters", "examples"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _escape(text: str) -> str:
    return printable(text).translate(_MARKDOWN)


def bin_edges(longest: int) -> list[float]:
    """Return the edges of bins for lengths from 0 to ``longest``; each holds the same number of lengths, 1 or more."""
    width = max(1, math.ceil((longest + 1) / _BINS))
    return [width * number - 0.5 for number in range(math.ceil((longest + 1) / width) + 1)]


def draw_lengths(path: Path, lengths: Mapping[str, Mapping[int, int]]) -> None:
    """Draw four histograms: content and title, before and after; equal lengths give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for row, part in enumerate(("content", "title")):
        longest = max((summarise(lengths[f"{part}_{when}"]).get("p95", 1) for when in ("before", "after")), default=1)
        edges = bin_edges(round(1.3 * longest))
        for column, when in enumerate(("before", "after")):
            histogram = lengths[f"{part}_{when}"]
            axis = axes[row][column]
            axis.hist(list(histogram), bins=edges, weights=list(histogram.values()), color="#3b6ea5")
            axis.set_title(f"{part}, {when}")
            axis.set_xlabel("characters")
            axis.set_ylabel("articles")
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    # matplotlib would write its version into the file.
    figure.savefig(path, metadata={"Software": None})
