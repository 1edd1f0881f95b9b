"""The loss curve as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_loss_curve(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write training and validation loss by optimizer step as an SVG file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for key, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(record["step"], record[key]) for record in records if key in record]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o" if key == "eval_loss" else None, label=label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("cross-entropy of title tokens (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(path)
