"""A report as files: report.json for programs, report.md for a review, report.html for people, predictions.jsonl."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from titlegen.evaluate.charts import place_calibration, place_histogram, place_scatter
from titlegen.evaluate.compare import compare
from titlegen.evaluate.gates import rows_to_decide, stand
from titlegen.evaluate.highlight import mark_title, visible
from titlegen.evaluate.report import Report, ScoredTitle
from titlegen.evaluate.words import Phrase, Words
from titlegen.files import write_atomically
from titlegen.metrics.records import SCORES
from titlegen.results import EvaluationReport, Gate, TitleChange
from titlegen.settings import Language

_SHOWN_EXAMPLES = 8
_SHOWN_FLAGGED = 100
_SHOWN_VALUE_CHARS = 300
_GLOSSARY = (
    *("rouge", "bleu", "reference", "interval", "undecided", "relaxed"),
    *("lead1", "textrank", "oracle", "base_model"),
)
_BASELINES = ("random", "lead1", "textrank", "oracle", "base_model")


def write_report(
    report: Report, directory: Path, against: Path | None = None, language: Language = "en"
) -> EvaluationReport:
    """Write report.json, predictions.jsonl, report.md and report.html, the last in one file that needs no network.

    Args:
        report: what was found out.
        directory: where to write.
        against: another report.json, or its folder; the paired differences are added to all three reports.
        language: of report.md and report.html; report.json is for programs.

    Returns:
        What report.json holds.

    Raises:
        DataError: the other report cannot be compared with this one.
    """
    content = report.content
    if against is not None:
        content = content.model_copy(update={"comparison": compare(report, against)})
    context = _context(report, content)
    lines = [json.dumps(title.as_json(), ensure_ascii=False) + "\n" for title in report.titles]
    write_atomically(directory / "predictions.jsonl", "".join(lines))
    for name, escape in (("report.md", _escape_markdown), ("report.html", str)):
        words = Words(language, escape)
        write_atomically(directory / name, _render(f"{name}.j2", context | _words(words, content)))
    # Last: who finds it finds the others, too.
    text = json.dumps(content.as_json(), ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(directory / "report.json", text + "\n")
    return content


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


def _context(report: Report, content: EvaluationReport) -> dict[str, object]:
    ranked = sorted(report.titles, key=lambda title: (title.scores["rougeL"], title.scores["rouge1"], title.id))
    count = min(_SHOWN_EXAMPLES, len(ranked) // 2)
    flagged = [title for title in report.titles if title.marks]
    comparison = content.comparison
    return {
        "content": content,
        "score_names": SCORES,
        "baseline_names": [name for name in _BASELINES if name in content.baselines],
        "gates": [_gate(specified, content) for specified in content.specification],
        "calibration": place_calibration(content.scores, content.baselines, content.specification, content.gates),
        "histogram": place_histogram(
            [title.prediction for title in report.titles], [title.reference for title in report.titles]
        ),
        "scatter": place_scatter(
            [len(example.content) for example in report.examples], [title.scores["rougeL"] for title in report.titles]
        ),
        "best": [_shown(title) for title in reversed(ranked[len(ranked) - count :])],
        "worst": [_shown(title) for title in ranked[:count]],
        "flagged": [_shown(title) for title in flagged[:_SHOWN_FLAGGED]],
        "flagged_count": len(flagged),
        "violations": _count_violations(report.titles),
        "generation": _flatten(content.generation),
        "settings": _flatten(content.settings),
        "digests": _flatten({**content.digests, **content.versions}),
        "comparison": comparison,
        "better": [_changed(change) for change in comparison.better] if comparison else [],
        "worse": [_changed(change) for change in comparison.worse] if comparison else [],
    }


def _words(words: Words, content: EvaluationReport) -> dict[str, object]:
    """Return what the templates say in the reader's language: the look-up, and on what the scores were measured."""
    dataset, rows = content.dataset, content.rows
    split = words(f"split.{content.split}")
    return {
        "t": words,
        "measured": words(f"measured.{dataset.kind}", rows=rows, name=visible(dataset.name), split=split),
        "measured_short": words(f"measured.short_{dataset.kind}", rows=rows),
        "glossary": _GLOSSARY,
    }


def _gate(specified: Gate, content: EvaluationReport) -> dict[str, object]:
    """Return one of the specification's gates: the score, both limits with their verdicts, and what they make of it."""
    score = content.scores[specified.name]
    own = next((gate for gate in content.gates if gate.name == specified.name), None)
    open_limits = [gate.limit for gate in (own, specified) if gate and gate.verdict == "undecided"]
    return {
        **specified.as_json(),
        "low": score.low,
        "high": score.high,
        "own": own,
        "standing": stand(own.verdict if own else None, specified.verdict),
        "lead1": content.baselines["lead1"][specified.name],
        "is_open": bool(open_limits),
        "rows": rows_to_decide(specified.name, score, open_limits[0], content.rows) if open_limits else None,
    }


def _shown(title: ScoredTitle) -> dict[str, object]:
    return {
        "id": visible(title.id),
        "pieces": mark_title(title.prediction, title.reference, title.marks),
        "prediction": visible(title.prediction),
        "reference": visible(title.reference),
        "rougeL": title.scores["rougeL"],
        "faults": [*title.title_violations, *title.style_violations],
        "unsupported": [visible(mark.text) for mark in title.marks],
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


def _count_violations(titles: Sequence[ScoredTitle]) -> list[tuple[str, int]]:
    counts = Counter(name for title in titles for name in {*title.title_violations, *title.style_violations})
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
