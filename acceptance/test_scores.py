"""品質門檻."""

from pathlib import Path

import pytest
from findings import Finding, score_gate

from titlegen.data import Example
from titlegen.evaluate import evaluate, read_predictions
from titlegen.manifest import read_manifest
from titlegen.results import EvaluationReport
from titlegen.runs import Folder
from titlegen.settings import EMBEDDED, Settings

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def report(outputs: Path, settings: Settings, test_examples: list[Example]) -> EvaluationReport:
    """The scores of what was served, worked out again from the titles."""
    directory = outputs / Folder.SERVED_REPORT
    recorded = EvaluationReport.model_validate_json((directory / "report.json").read_bytes())
    assert recorded.generation["generator"] == "server", "這份報告不是經由 /api/generate 產生的"
    exported = read_manifest(outputs / Folder.EXPORT)
    assert read_manifest(directory).inputs["model"] == exported.digest, "這份報告是另一個模型的"
    examples = test_examples[: settings.evaluate.limit or None]
    predictions = read_predictions(directory / "predictions.jsonl", examples)
    scores = evaluate(examples, predictions, settings.evaluate).content
    assert scores.scores == recorded.scores, "報告裡的分數與標題算出來的不同"
    return scores


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("rougeL", marks=pytest.mark.spec("QUALITY-1")),
        pytest.param("bleu1", marks=pytest.mark.spec("QUALITY-2")),
        pytest.param("title_only_rate", marks=pytest.mark.spec("QUALITY-3")),
        pytest.param("length_rate", marks=pytest.mark.spec("QUALITY-4")),
    ],
)
def test_gate(
    report: EvaluationReport, name: str, settings: Settings, test_examples: list[Example], finding: Finding
) -> None:
    rows, source = f"{report.rows}／{len(test_examples)} 篇測試文章", settings.data.source
    kind = f"{source}，虛構語料" if source == EMBEDDED else source
    finding.judge(score_gate(report, name, f"{rows}；{kind}"))
