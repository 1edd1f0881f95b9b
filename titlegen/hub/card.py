"""The model card: what the model is, how to use it, what it scores beside trivial baselines, and its limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from titlegen import prompt
from titlegen.errors import HubError
from titlegen.evaluate.words import Words
from titlegen.families import ModelFamily
from titlegen.manifest import MANIFEST, read_manifest
from titlegen.metrics.records import METRICS
from titlegen.results import DataCardSummary, EvaluationReport, Gate, Preferred
from titlegen.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

REPORT = "report.json"
DATA_CARD = "data_card.json"
# Source: the weights in the package that `embedded` stands for.
_EMBEDDED_BASE = "google/gemma-3-270m"
_EMBEDDED_DATA = "titlegen's own corpus"
_MAX_REPORT_BYTES = 2**24
_BASELINES = {
    "random": "random sentence",
    "lead1": "Lead-1",
    "textrank": "TextRank",
    "oracle": "extraction oracle",
    "base_model": "untuned base",
}
_CODE = str.maketrans({"`": "'", "|": "\\|"})


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card states."""

    repo_id: str
    settings: Settings
    family: ModelFamily
    training: Mapping[str, object]
    """Settings with which the adapter was trained; empty when they are not known."""
    report: EvaluationReport | None
    data: DataCardSummary | None
    export: Mapping[str, Any]
    """Results of the merge."""
    files: tuple[str, ...]
    preference: Preferred | None = None
    """The result of preference training, where there was one."""

    @property
    def base(self) -> str | None:
        """Name of the base model on the Hub; None when it is a directory of this machine."""
        name = self.settings.model.base
        return _EMBEDDED_BASE if name == EMBEDDED else _hub_name(name)

    @property
    def dataset(self) -> str | None:
        """Name of the data set on the Hub; None when it has none."""
        return _hub_name(self.settings.data.source)


def _hub_name(name: str) -> str | None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    is_file = Path(name).suffix in {".jsonl", ".json", ".csv", ".parquet"}
    return name if "/" in name and not is_file and not Path(name).exists() else None


def read_report(directory: Path) -> EvaluationReport | None:
    """Return the evaluation report of a directory; None when there is none.

    Raises:
        HubError: the file is not a report.
    """
    path = directory / REPORT
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_REPORT_BYTES:
        raise HubError(f"{path} is larger than {_MAX_REPORT_BYTES} bytes; run `titlegen evaluate` again")
    try:
        return EvaluationReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise HubError(f"{path} is not a report ({where}: {first['msg']}); run `titlegen evaluate` again") from error


def read_preference(directory: Path) -> Preferred | None:
    """Return what the manifest beside an adapter says of its preference training; None without a manifest.

    Raises:
        HubError: the manifest holds something else.
    """
    if not (directory / MANIFEST).is_file():
        return None
    try:
        return Preferred.model_validate(read_manifest(directory).results)
    except ValidationError as error:
        raise HubError(
            f"{directory / MANIFEST} is not of a preference training; run `titlegen prefer` again"
        ) from error


def render_card(facts: CardFacts) -> str:
    """Return the README.md of a repository; its metadata passes huggingface_hub's own parser.

    Raises:
        HubError: the metadata is not valid.
    """
    import jinja2
    from huggingface_hub import ModelCard

    # Markdown, not HTML: every value is a number, a setting, or a name that was checked to hold no markup.
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["code"] = _code
    template = (resources.files("titlegen") / "model_card.md.j2").read_text(encoding="utf-8")
    train = dict(facts.training or facts.settings.train.model_dump(mode="json"))
    if (start := train.get("init_adapter")) and Path(start).is_dir():
        # A path of this machine is not published.
        train["init_adapter"] = Path(start).resolve().name
    body = environment.from_string(template).render(
        facts=facts,
        settings=facts.settings,
        report=facts.report,
        failed=[gate.name for gate in facts.report.failed] if facts.report else [],
        scores=_shown(facts.report),
        measured=_measured(facts.report) if facts.report else "",
        gates=_gate_rows(facts.report) if facts.report else [],
        labels={metric.name: metric.english for metric in METRICS},
        baselines={
            name: label for name, label in _BASELINES.items() if facts.report and name in facts.report.baselines
        },
        train=train,
        effective_batch=train["per_device_train_batch_size"] * train["gradient_accumulation_steps"],
        ggufs=[name for name in facts.files if name.endswith(".gguf")],
        dataset=_EMBEDDED_DATA if facts.settings.data.source == EMBEDDED else facts.dataset,
        is_embedded_data=facts.settings.data.source == EMBEDDED,
        data=facts.data,
        profile=Path(facts.settings.profile).name,
        prompt=prompt,
    )
    text = f"---\n{_metadata(facts).to_yaml()}\n---\n\n{body}"
    try:
        ModelCard(text, ignore_metadata_errors=False)
    except ValueError as error:
        raise HubError(
            f"the model card's metadata is not valid: {error}; correct the settings that it shows, then push again"
        ) from error
    return text


def _shown(report: EvaluationReport | None) -> list[str]:
    """Return the names of the scores that the card shows."""
    return [metric.name for metric in METRICS if metric.hub_type and report and metric.name in report.scores]


def _measured(report: EvaluationReport) -> str:
    return Words("en")(f"measured.short_{report.dataset.kind}", rows=report.rows)


def _gate_rows(report: EvaluationReport) -> list[tuple[Gate, Gate | None]]:
    """Return the profile's gates, each with the specification's on the same score where the report has it."""
    specified = {gate.name: gate for gate in report.specification}
    return [(gate, specified.get(gate.name)) for gate in report.gates]


def _code(text: object) -> str:
    """Return text as a Markdown code span, which it cannot leave, inside of a table."""
    return "`" + " ".join(str(text).translate(_CODE).split()) + "`"


def _metadata(facts: CardFacts) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    report = facts.report
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Headline generation",
            dataset_type=facts.dataset or "titlegen-corpus",
            dataset_name=facts.dataset or _EMBEDDED_DATA,
            dataset_split=report.split,
            metric_type=metric.hub_type or metric.name,
            metric_name=metric.english,
            metric_value=round(report.scores[metric.name].value, 4),
        )
        for metric in METRICS
        if report is not None and metric.name in _shown(report)
    ]
    return ModelCardData(
        language="zh",
        license=facts.family.licence.hub_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=facts.base,
        base_model_relation="finetune" if facts.base else None,
        datasets=[facts.dataset] if facts.dataset else None,
        tags=["headline-generation", "summarization", "traditional-chinese", "taiwan", "gguf", "ollama", "titlegen"],
        model_name=facts.repo_id.rpartition("/")[2],
        eval_results=results or None,
    )
