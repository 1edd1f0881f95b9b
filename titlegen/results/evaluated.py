"""The result of an evaluation: the scores in its report."""

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AliasPath, Field, model_validator

from titlegen.results.base import Name, Part, Result


class SavedScore(Part):
    """A score with its 95% interval."""

    value: float
    low: float
    high: float


class Gate(Part):
    """A limit, and whether the score's interval is above it."""

    name: Name
    limit: float
    value: float
    verdict: Literal["pass", "fail", "undecided"]


class Dataset(Part):
    """The data set behind the scores."""

    kind: Literal["fictional", "news", "own", "unknown"] = "unknown"


class EvaluationReport(Part):
    """The part of report.json that other code reads."""

    split: Name = "test"
    rows: Annotated[int, Field(ge=0)] = 0
    scores: dict[Name, SavedScore]
    baselines: dict[Name, dict[Name, float]] = Field(default_factory=dict)
    gates: list[Gate]
    specification: Sequence[Gate] = ()
    """The same scores against the specification's limits, whatever the profile's are; older reports have none."""
    dataset: Dataset = Dataset()
    candidates: Annotated[int, Field(ge=1, validation_alias=AliasPath("generation", "decoding", "candidates"))] = 1
    """Titles for each article of which the best is scored."""

    redraws: Annotated[int, Field(ge=0, validation_alias=AliasPath("generation", "decoding", "redraws"))] = 0

    @property
    def failed(self) -> list[Gate]:
        """The gates that failed; an undecided one did not."""
        return [gate for gate in self.gates if gate.verdict == "fail"]


class Evaluated(Result):
    """Scores of a target's titles."""

    target: str
    content: Annotated[dict[str, Any], Field(alias="report")]
    """All of report.json."""

    @cached_property
    def report(self) -> EvaluationReport:
        """The part of it that other code reads."""
        return EvaluationReport.model_validate(self.content)

    @model_validator(mode="after")
    def _check(self) -> Self:
        EvaluationReport.model_validate(self.content)
        return self
