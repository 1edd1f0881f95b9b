"""The result of preparing a data set."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from titlegen.results.base import Name, Part, Result


class SourceReading(Part):
    """How a source was read."""

    files: dict[str, str] = Field(default_factory=dict)
    """The form in which each file or split was read."""
    passed_over: Sequence[str] = ()
    flattened: dict[str, int] = Field(default_factory=dict)
    instructions: dict[str, int] = Field(default_factory=dict)
    left_out: dict[str, int] = Field(default_factory=dict)
    ambiguous_ids: int = 0


class Step(Part):
    """How many rows went into a step, and how many came out of it."""

    step: str
    before: Annotated[int, Field(alias="in")]
    dropped: int
    out: int


class DateForm(Part):
    """A way in which dates are written."""

    form: str
    articles: int
    examples: list[str]


class DateOrder(Part):
    """In which order the numbers of dates were read, and why."""

    order: str
    reason: str
    examples: list[str]


class Dates(Part):
    """How dates were written and read."""

    forms: Sequence[DateForm] = ()
    orders: Sequence[DateOrder] = ()


class Coverage(Part):
    """How much of the title each way of shortening keeps in the article."""

    articles: int = 0
    title_coverage: dict[str, float | None] = Field(default_factory=dict)


class Prepared(Result):
    """The result of preparing a data set."""

    source: str = ""
    columns: dict[str, str] = Field(default_factory=dict)
    read: SourceReading = SourceReading()
    rows: int = 0
    kept: int = 0
    splits: dict[str, int]
    steps: Sequence[Step] = ()
    converted_from_simplified: int = 0
    shortened: int = 0
    left_out_share: float = 0.0
    left_out_by: tuple[str, int] = ("", 0)
    """The setting that decides."""
    undated: int = 0
    naive_leak_rate: float = 0.0
    dates: Dates = Dates()
    notes: Sequence[str] = ()
    """Lines for a person."""
    coverage: Coverage = Coverage()


class DataCardSummary(Part):
    """The part of the data card that the model card shows."""

    rows: Annotated[int, Field(ge=0)] = 0
    kept: Annotated[int, Field(ge=0)] = 0
    splits: dict[Name, int] = Field(default_factory=dict)
