"""A report as files: report.json for programs, report.md for a review, report.html for people, predictions.jsonl."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from titlegen.evaluate.charts import place_calibration, place_histogram, place_scatter
from titlegen.evaluate.compare import Comparison, TitleChange, compare
from titlegen.evaluate.gates import rows_to_decide, stand
from titlegen.evaluate.highlight import mark_title, visible
from titlegen.evaluate.report import Report
from titlegen.evaluate.words import Phrase, Words
from titlegen.files import write_atomically
from titlegen.metrics.records import SCORES
from titlegen.metrics.scores import Score
from titlegen.settings import Language

_SHOWN_EXAMPLES = 8
_SHOWN_FLAGGED = 100
_SHOWN_VALUE_CHARS = 300
_GLOSSARY = (
    *("rouge", "bleu", "reference", "interval", "undecided", "relaxed"),
    *("lead1", "textrank", "oracle", "base_model"),
)
_BASELINES = ("random", "lead1", "textrank", "oracle", "base_model")


def write_report(report: Report, directory: Path, against: Path | None = None, language: Language = "en") -> None:
    """Write report.json, predictions.jsonl, report.md and report.html, the last in one file that needs no network.

    Args:
        report: what was found out.
        directory: where to write.
        against: another report.json, or its folder; the paired differences are added to all three reports.
        language: of report.md and report.html; report.json is for programs.

    Raises:
        DataError: the other report cannot be compared with this one.
    """
    comparison = compare(report, against) if against is not None else None
    content = report.content | ({"comparison": comparison.as_json()} if comparison else {})
    context = _context(report, comparison)
    write_atomically(
        directory / "predictions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in report.rows)
    )
    for name, escape in (("report.md", _escape_markdown), ("report.html", str)):
        words = Words(language, escape)
        write_atomically(directory / name, _render(f"{name}.j2", context | _words(words, content)))
    # Last: who finds it finds the others, too.
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(directory / "report.json", text + "\n")


def _render(template: str, context: Mapping[str, object]) -> str:
    import jinja2

    is_html = template == "report.html.j2"
    environment = jinja2.Environment(
        autoescape=jinja2.select_autoescape(default_for_string=is_html),
        # Markdown has no autoescape of its own; finalize sees every value that a template prints.
        finalize=None if is_html else _escape_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    source = (resources.files("titlegen") / template).read_text(encoding="utf-8")
    return environment.from_string(source).render(context)


def _escape_markdown(value: object) -> str:
    if isinstance(value, Phrase):
        return value
    text = re.sub(r"([\\`*_{}\[\]#|~!()])", r"\\\1", visible(str(value)))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _context(report: Report, comparison: Comparison | None) -> dict[str, object]:
    content = report.content
    predictions = [row["prediction"] for row in report.rows]
    ranked = sorted(
        range(len(report.rows)),
        key=lambda i: (report.rows[i]["rougeL"], report.rows[i]["rouge1"], report.rows[i]["id"]),
    )
    count = min(_SHOWN_EXAMPLES, len(ranked) // 2)
    flagged = [index for index, marks in enumerate(report.marks) if marks]
    baselines = [name for name in _BASELINES if name in content["baselines"]]
    return {
        "content": content,
        "score_names": SCORES,
        "baseline_names": baselines,
        "gates": [_gate(specified, content) for specified in content["specification"]],
        "calibration": place_calibration(
            content["scores"], content["baselines"], content["specification"], content["gates"]
        ),
        "histogram": place_histogram(predictions, [row["reference"] for row in report.rows]),
        "scatter": place_scatter(
            [len(example.content) for example in report.examples], [row["rougeL"] for row in report.rows]
        ),
        "best": [_shown(report, index) for index in reversed(ranked[len(ranked) - count :])],
        "worst": [_shown(report, index) for index in ranked[:count]],
        "flagged": [_shown(report, index) for index in flagged[:_SHOWN_FLAGGED]],
        "flagged_count": len(flagged),
        "violations": _count_violations(report.rows),
        "generation": _flatten(content["generation"]),
        "settings": _flatten(content["settings"]),
        "digests": _flatten({**content["digests"], **content["versions"]}),
        "comparison": comparison,
        "better": [_changed(change) for change in comparison.better] if comparison else [],
        "worse": [_changed(change) for change in comparison.worse] if comparison else [],
    }


def _words(words: Words, content: Mapping[str, Any]) -> dict[str, object]:
    """Return what the templates say in the reader's language: the look-up, and on what the scores were measured."""
    dataset, rows = content["dataset"], content["rows"]
    split = words(f"split.{content['split']}")
    return {
        "t": words,
        "measured": words(f"measured.{dataset['kind']}", rows=rows, name=visible(dataset["name"]), split=split),
        "measured_short": words(f"measured.short_{dataset['kind']}", rows=rows),
        "glossary": _GLOSSARY,
    }


def _gate(specified: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, object]:
    """Return one of the specification's gates: the score, both limits with their verdicts, and what they make of it."""
    name = specified["name"]
    score = content["scores"][name]
    own = next((gate for gate in content["gates"] if gate["name"] == name), None)
    open_limits = [gate["limit"] for gate in (own, specified) if gate and gate["verdict"] == "undecided"]
    return {
        **specified,
        "low": score["low"],
        "high": score["high"],
        "own": own,
        "standing": stand(own["verdict"] if own else None, specified["verdict"]),
        "lead1": content["baselines"]["lead1"][name],
        "is_open": bool(open_limits),
        "rows": rows_to_decide(name, Score(**score), open_limits[0], content["rows"]) if open_limits else None,
    }


def _shown(report: Report, index: int) -> dict[str, object]:
    row = report.rows[index]
    return {
        "id": visible(row["id"]),
        "pieces": mark_title(row["prediction"], row["reference"], report.marks[index]),
        "prediction": visible(row["prediction"]),
        "reference": visible(row["reference"]),
        "rougeL": row["rougeL"],
        "faults": [*row["title_violations"], *row["style_violations"]],
        "unsupported": [visible(mark.text) for mark in report.marks[index]],
    }


def _changed(change: TitleChange) -> dict[str, object]:
    return {
        "id": visible(change.id),
        "reference": visible(change.reference),
        "ours": mark_title(change.ours, change.reference),
        "theirs": mark_title(change.theirs, change.reference),
        "ours_text": visible(change.ours),
        "theirs_text": visible(change.theirs),
        "difference": change.difference,
    }


def _count_violations(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for row in rows:
        for name in dict.fromkeys([*row["title_violations"], *row["style_violations"]]):
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _flatten(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted names with their values as JSON, long ones cut."""
    flat: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat += _flatten(item, f"{prefix}{key}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, default=str)
            flat.append((f"{prefix}{key}", text[:_SHOWN_VALUE_CHARS]))
    return flat
