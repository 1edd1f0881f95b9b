"""The results of training, and of preference training after it."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from titlegen.results.base import Name, Part, Result
from titlegen.results.evaluated import Score


class Trained(Result):
    """Losses, speed and memory of a training."""

    steps: int
    resumed_from_step: int = 0
    first_loss: float | None
    """Training loss over the first quarter of the steps; that over the last is ``last_loss``."""
    last_loss: float | None
    val_loss_at_start: float | None = None
    """That of the adapter that training goes on from."""
    val_loss: float | None
    train_rows: int = 0
    train_tokens: int = 0
    shortened_rows: int = 0
    left_out_share: float = 0.0
    left_out_by: tuple[str, int] = ("", 0)
    train_s: float = 0.0
    parts_s: dict[Name, float] = Field(default_factory=dict)
    """Of each part in turn: ``before`` counts from the beginning of the process, ``prepare`` makes the trainer."""
    tokens_per_s: float | None = None
    load_peak_gib: float = 0.0
    peak_gib: float = 0.0
    devices: int = 1
    device: str = ""
    plan: dict[str, Any] = Field(default_factory=dict)
    init_adapter: str | None = None
    completion_trim: bool = False
    loss_at_start: float | None = None
    """By the trimmed computation, and by the full model."""
    full_loss_at_start: float | None = None
    frozen_weights: str | None = None
    fp8_error: float | None = None
    """Relative error of the final hidden states, where large weights are in FP8, and what rounding explains of it."""
    fp8_explained: float | None = None
    compiled: bool = False


class Learned(Result):
    """One round of preference training."""

    steps: int
    resumed_from_step: int = 0
    pairs: int = 0
    train_s: float = 0.0
    tokens_per_s: float | None = None
    peak_gib: float = 0.0
    compiled: bool = False
    last: dict[str, float] = Field(default_factory=dict)
    """The last record of the log."""
    completion_trim: bool = False
    loss_at_start: float | None = None
    full_loss_at_start: float | None = None
    frozen_weights: str | None = None


class Decision(Part):
    """The decision about a preferred model on the validation articles."""

    accepted: bool
    reasons: tuple[str, ...] = ()
    """Why not, one for each; empty when accepted."""
    rows: Annotated[int, Field(ge=0)]
    sft: dict[Name, float]
    preferred: dict[Name, float]
    differences: dict[Name, Score]


class Preferred(Result):
    """Preference training: articles, pairs, rounds, and the decision."""

    articles: int = 0
    pairs: Annotated[int, Field(ge=0)]
    choices: Annotated[int, Field(ge=0)] = 0
    rounds: Sequence[Learned] = ()
    decision: Decision
