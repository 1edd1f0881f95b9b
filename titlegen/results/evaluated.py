"""The result of an evaluation: report.json, as it is written and read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AliasPath, Field

from titlegen.results.base import Name, Part, Result

Verdict: TypeAlias = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True)
class Score:
    """A score, or a paired difference of scores, with its 95% interval."""

    value: float
    low: float
    high: float


class Gate(Part):
    """A limit, and whether the score's interval is above it."""

    name: Name
    limit: float
    value: float
    verdict: Verdict


class Dataset(Part):
    """The data set behind the scores."""

    name: str = ""
    kind: Literal["fictional", "news", "own", "unknown"] = "unknown"


class ScoredVariant(Part):
    """Other titles for the same articles: their scores, and the paired differences from the report's own titles."""

    kind: Literal["first", "sft", "best_of", "controlled"]
    candidates: int = 1
    scores: dict[Name, float]
    differences: dict[Name, Score]
    in_slot_share: float | None = None
    """Of the titles that were asked for a length, those that have it; None where none was asked for."""
    with_word_share: float | None = None


@dataclass(frozen=True)
class TitleChange:
    """One article whose title got better or worse."""

    id: str
    reference: str
    ours: str
    theirs: str
    difference: float
    """ROUGE-L of ours minus theirs."""


@dataclass(frozen=True)
class Comparison:
    """Ours minus theirs, over the articles that both evaluations have."""

    other: str
    rows: int
    only_ours: int
    only_theirs: int
    differences: dict[str, Score]
    better: tuple[TitleChange, ...]
    worse: tuple[TitleChange, ...]


class EvaluationReport(Part):
    """All of report.json; what has a default may be missing in the report of an earlier release."""

    split: Name = "test"
    rows: Annotated[int, Field(ge=0)] = 0
    dataset: Dataset = Dataset()
    scores: dict[Name, Score]
    baselines: dict[Name, dict[Name, float]] = Field(default_factory=dict)
    references: dict[Name, float] = Field(default_factory=dict)
    """Scores of the references that need none themselves."""
    variants: Sequence[ScoredVariant] = ()
    words: dict[Name, float] = Field(default_factory=dict)
    """Overlap by words, where ``scores`` counts characters."""
    gates: Sequence[Gate]
    """The profile's, without those that it turns off."""
    specification: Sequence[Gate] = ()
    """The same scores against the specification's limits, whatever the profile's are."""
    rows_to_decide: dict[Name, int | None] = Field(default_factory=dict)
    """About how many rows would decide each undecided gate; None: no number of rows would."""
    generation: dict[str, Any] = Field(default_factory=dict)
    """How the titles came to be, in the generator's own words."""
    settings: dict[str, Any] = Field(default_factory=dict)
    digests: dict[Name, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    comparison: Comparison | None = None
    candidates: Annotated[
        int, Field(ge=1, exclude=True, validation_alias=AliasPath("generation", "decoding", "candidates"))
    ] = 1
    """Titles for each article of which the best is scored."""
    redraws: Annotated[
        int, Field(ge=0, exclude=True, validation_alias=AliasPath("generation", "decoding", "redraws"))
    ] = 0

    @property
    def failed(self) -> list[Gate]:
        """The gates that failed; an undecided one did not."""
        return [gate for gate in self.gates if gate.verdict == "fail"]


class Evaluated(Result):
    """Scores of a target's titles."""

    target: str
    report: EvaluationReport
