"""Coordinates for the report's three charts, in the units of their SVG view boxes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from titlegen.metrics.contract import MAX_CHARS, MIN_CHARS
from titlegen.results import Gate, Score

# One size for all: at 360 units a phone shows the text at its own size, and a desktop enlarges it.
WIDTH = 360
_LEFT, _RIGHT, _TOP = 34, 10, 10
_PLOT = WIDTH - _LEFT - _RIGHT
_CALIBRATED = ("rougeL", "bleu1", "rouge1", "rouge2")
_ROW, _LANE = 54, 24
_HEIGHT = 170
_LONGEST_BAR = 45
_MAX_POINTS = 1000
_TREND_BINS = 6


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place and what it says."""

    place: float
    label: str


@dataclass(frozen=True)
class CalibrationRow:
    """One score: where the model, its interval, the baselines and the gate stand."""

    name: str
    y: float
    value: float
    low: float
    high: float
    limit: float | None
    """The specification's."""
    own_limit: float | None
    """The profile's, where it is another."""
    baselines: dict[str, float]


@dataclass(frozen=True)
class Calibration:
    """Scores as rows over one axis from 0."""

    height: float
    left: float
    right: float
    rows: list[CalibrationRow]
    ticks: list[Tick]

    @property
    def has_own_limits(self) -> bool:
        """Whether the profile has another limit than the specification for any score."""
        return any(row.own_limit is not None for row in self.rows)


@dataclass(frozen=True)
class Bar:
    """Titles of one length: shares of the predictions (filled) and of the references (outlined)."""

    x: float
    width: float
    y: float
    height: float
    reference_y: float
    length: str
    ours: int
    theirs: int


@dataclass(frozen=True)
class Histogram:
    """Title lengths; the band is the length that a title should have."""

    height: float
    bottom: float
    left: float
    right: float
    bars: list[Bar]
    band: tuple[float, float]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True)
class Scatter:
    """ROUGE-L over article length; the trend is the mean of groups of equal size."""

    height: float
    bottom: float
    left: float
    right: float
    points: list[tuple[float, float]]
    trend: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    left_out: int


def place_calibration(
    scores: Mapping[str, Score],
    baselines: Mapping[str, Mapping[str, float]],
    specification: Sequence[Gate],
    gates: Sequence[Gate],
) -> Calibration:
    """Place model, baselines, and the limits of specification and profile, of the overlap scores."""
    limits = {gate.name: gate.limit for gate in specification}
    own = {gate.name: gate.limit for gate in gates if gate.limit != limits.get(gate.name)}
    most = max(
        [scores[name].high for name in _CALIBRATED]
        + [row[name] for row in baselines.values() for name in _CALIBRATED]
        + [limit[name] for limit in (limits, own) for name in _CALIBRATED if name in limit]
    )
    top = min(1.0, math.ceil(10 * most + 0.5) / 10)
    left, width = 12, WIDTH - 24

    def x(value: float) -> float:
        return round(left + width * value / top, 1)

    rows = [
        CalibrationRow(
            name=name,
            y=index * _ROW + _LANE,
            value=x(scores[name].value),
            low=x(scores[name].low),
            high=x(scores[name].high),
            limit=x(limits[name]) if name in limits else None,
            own_limit=x(own[name]) if name in own else None,
            baselines={baseline: x(row[name]) for baseline, row in baselines.items()},
        )
        for index, name in enumerate(_CALIBRATED)
    ]
    step = 0.1 if top <= 0.6 else 0.2  # noqa: PLR2004 - room for the labels
    ticks = [Tick(x(step * count), f"{step * count:.1f}") for count in range(round(top / step) + 1)]
    return Calibration(len(rows) * _ROW + 18, left, left + width, rows, ticks)


def place_histogram(predictions: Sequence[str], references: Sequence[str]) -> Histogram:
    """Place the shares of title lengths, characters; what is longer than the last bar is counted in it."""
    ours = Counter(min(len(title.strip()), _LONGEST_BAR) for title in predictions)
    theirs = Counter(min(len(title.strip()), _LONGEST_BAR) for title in references)
    total = len(predictions)
    most = max([*ours.values(), *theirs.values()]) / total
    bottom = _HEIGHT - 28
    step = _PLOT / (_LONGEST_BAR + 1)

    def y(share: float) -> float:
        return round(bottom - (bottom - _TOP) * share / most, 1)

    bars = [
        Bar(
            x=round(_LEFT + length * step, 2),
            width=round(step, 2),
            y=y(ours[length] / total),
            height=round(bottom - y(ours[length] / total), 1),
            reference_y=y(theirs[length] / total),
            length=f"{length}{'+' if length == _LONGEST_BAR else ''}",
            ours=ours[length],
            theirs=theirs[length],
        )
        for length in range(_LONGEST_BAR + 1)
    ]
    x_ticks = [
        Tick(round(_LEFT + (length + 0.5) * step, 1), f"{length}{'+' if length == _LONGEST_BAR else ''}")
        for length in (0, MIN_CHARS, 15, 22, MAX_CHARS, 38, _LONGEST_BAR)
    ]
    return Histogram(
        height=_HEIGHT,
        bottom=bottom,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        bars=bars,
        band=(round(_LEFT + MIN_CHARS * step, 1), round((MAX_CHARS - MIN_CHARS + 1) * step, 1)),
        x_ticks=x_ticks,
        y_ticks=[Tick(y(share), f"{share:.0%}") for share in (0, most / 2, most)],
    )


def place_scatter(lengths: Sequence[int], scores: Sequence[float]) -> Scatter:
    """Place up to a thousand articles, evenly taken, by their length in characters and ROUGE-L."""
    longest = max(float(np.quantile(lengths, 0.99)), 1.0)
    unit = 10 ** math.floor(math.log10(longest))
    longest = float(math.ceil(longest / unit * 2) / 2 * unit)
    bottom = _HEIGHT - 28

    def x(length: float) -> float:
        return round(_LEFT + _PLOT * min(length, longest) / longest, 1)

    def y(score: float) -> float:
        return round(bottom - (bottom - _TOP) * score, 1)

    order = np.argsort(lengths, kind="stable")
    groups = [group for group in np.array_split(order, _TREND_BINS) if len(group)]
    trend = [
        (x(float(np.mean([lengths[i] for i in group]))), y(float(np.mean([scores[i] for i in group]))))
        for group in groups
    ]
    step = math.ceil(len(lengths) / _MAX_POINTS)
    points = [(x(lengths[i]), y(scores[i])) for i in range(0, len(lengths), step)]
    return Scatter(
        height=_HEIGHT,
        bottom=bottom,
        left=_LEFT,
        right=WIDTH - _RIGHT,
        points=points,
        trend=" ".join(f"{a},{b}" for a, b in trend),
        x_ticks=[Tick(x(longest * part), f"{longest * part:.0f}") for part in (0, 0.5, 1)],
        y_ticks=[Tick(y(score), f"{score:.1f}") for score in (0, 0.5, 1)],
        left_out=len(lengths) - len(points),
    )
