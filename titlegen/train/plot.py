"""The training loss without its noise, and the curve as a picture."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from titlegen.train.progress import LogRecord

# Share of the steps over which the loss is averaged: batches differ more than a training changes in a few steps.
_WINDOW = 0.25


def smooth_loss(records: Sequence[LogRecord]) -> list[tuple[float, float]]:
    """Return the training loss averaged over a quarter of the steps at a time, as (step, loss) at their middle.

    A record holds the mean over the steps since the one before it, and counts for as many. The first point is the mean
    of the first quarter, the last that of the last one, as near as records allow.
    """
    logged = _points(records, "loss")
    ends = [step for step, _ in logged]
    starts = [0, *ends][: len(ends)]
    sums = list(accumulate((end - start) * loss for start, (end, loss) in zip(starts, logged, strict=True)))
    points = []
    for first, start in enumerate(starts):
        last = bisect_left(ends, start + _WINDOW * ends[-1])
        if last == len(ends):
            break
        total = sums[last] - (sums[first - 1] if first else 0.0)
        points.append(((start + ends[last]) / 2, total / (ends[last] - start)))
    return points


def write_loss_curve(records: Sequence[LogRecord], path: Path) -> None:
    """Write training loss, as it was and smoothed, and validation loss by optimizer step as an SVG file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    curves: list[tuple[str, list[tuple[float, float]], dict[str, Any]]] = [
        ("training, each log line", _points(records, "loss"), {"color": "C0", "alpha": 0.35, "marker": "."}),
        ("training, mean of a quarter of the steps", smooth_loss(records), {"color": "C0", "linewidth": 2}),
        ("validation", _points(records, "eval_loss"), {"color": "C1", "marker": "o"}),
    ]
    for label, points, style in curves:
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    # There is no step between two steps.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("cross-entropy of title tokens (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(path)


def _points(records: Sequence[LogRecord], key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in records if key in record]
