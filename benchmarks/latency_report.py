"""A latency measurement for people: a table, a picture, and the files beside the profile's other outputs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percentiles import LatencyGate, Percentile

from titlegen.files import new_directory

_LABELS = {
    "wall_ms": "client: wall clock",
    "total_ms": "server: total",
    "load_ms": "server: load",
    "prompt_eval_ms": "server: read the prompt",
    "eval_ms": "server: write the title",
}


@dataclass(frozen=True)
class Timing:
    """One request: the client's clock, and the server's own timings (milliseconds, tokens)."""

    id: str
    wall_ms: float
    """From sending the request to having read the answer."""
    total_ms: float
    load_ms: float
    prompt_eval_ms: float
    eval_ms: float
    prompt_tokens: int
    eval_tokens: int
    done_reason: str


@dataclass(frozen=True)
class LatencyReport:
    """Percentiles with intervals, gates, and every request: what latency.json holds."""

    profile: str
    host: str
    server_version: str | None
    model: str
    requests: int
    percentiles: dict[str, dict[str, Percentile]]
    """Of each clock, by name, such as ``p95``."""
    gates: list[LatencyGate]
    specification: list[LatencyGate]
    first_load_ms: float
    """Of the first request, which loads the model when it is not in memory."""
    prompt_tokens: int
    eval_tokens: int
    eval_tokens_per_s: float | None
    done_reasons: dict[str, int]
    timings: list[Timing]


def write_latency_report(report: LatencyReport, directory: Path) -> None:
    """Write ``latency.json``, ``latency.md`` and ``latency.png`` in place of those that are there."""
    with new_directory(directory) as temporary:
        text = json.dumps(asdict(report), indent=1, ensure_ascii=False)
        (temporary / "latency.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "latency.md").write_text(render_latency(report) + "\n", encoding="utf-8")
        draw_latency(report, temporary / "latency.png")


def render_latency(report: LatencyReport) -> str:
    """Return the table of percentiles and the verdicts as Markdown, which a terminal shows as well."""
    names = list(next(iter(report.percentiles.values())))
    rows = [["ms", *names], ["---", *("---:" for _ in names)]]
    rows += [[_LABELS[key], *map(_cell, values.values())] for key, values in report.percentiles.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    requests = report.requests
    heading = f"Latency of {report.model} at {report.host}, profile {report.profile}: {requests} different "
    read, written = report.prompt_tokens / requests, report.eval_tokens / requests
    lines = [
        heading + "articles, one client; 95% intervals in brackets",
        "",
        *("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows),
        "",
        *(f"- {describe_gate(gate)}" for gate in report.gates),
        *(f"- specification: {describe_gate(gate)}" for gate in report.specification if gate not in report.gates),
        f"- before measuring, the first request loaded for {report.first_load_ms:.0f} ms",
        f"- for a title, {read:.0f} tokens were read and {written:.1f} written, on average",
    ]
    return "\n".join(lines)


def describe_gate(gate: LatencyGate) -> str:
    """Return a gate's verdict with what it rests on, in one line."""
    text = (
        f"{gate.name}: {gate.verdict} ({gate.value_ms:.0f} ms, limit {gate.limit_ms:g} ms; {gate.over} "
        f"of {gate.requests} requests over it)"
    )
    if gate.verdict != "undecided":
        return text
    wanted = gate.requests_to_decide
    return text + (f": about {wanted} requests would decide" if wanted else ": the latency is the limit")


def failed_latency_gates(report: LatencyReport) -> list[str]:
    """Return a line for every gate that was not passed; too few requests to decide are no pass."""
    return [describe_gate(gate) for gate in report.gates if gate.verdict != "pass"]


def _cell(percentile: Percentile) -> str:
    low, high = ("-" if end is None else f"{end:.0f}" for end in (percentile.low_ms, percentile.high_ms))
    return f"{percentile.value_ms:.0f} [{low}, {high}]"


def draw_latency(report: LatencyReport, path: Path) -> None:
    """Draw how many requests took how long, with the limits, and each request in its order, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timings = report.timings
    wall = [timing.wall_ms for timing in timings]
    figure = Figure(figsize=(10, 4), layout="constrained")
    shares, order = figure.subplots(1, 2)
    shares.ecdf(wall, label="client: wall clock")
    shares.ecdf([timing.total_ms for timing in timings], label="server: total", linestyle=":")
    for gate in report.gates:
        place = gate.percentile / 100
        shares.plot(gate.limit_ms, place, "rv", label=f"limit p{gate.percentile}: {gate.limit_ms:g} ms")
        shares.axhline(place, color="grey", linewidth=0.5)
    shares.set_xlabel("latency (ms)")
    shares.set_ylabel("share of requests answered")
    shares.legend()
    bottom = [0.0] * len(timings)
    for key in ("load_ms", "prompt_eval_ms", "eval_ms"):
        values = [getattr(timing, key) for timing in timings]
        order.bar(range(len(timings)), values, width=1.0, bottom=bottom, label=_LABELS[key])
        bottom = [below + value for below, value in zip(bottom, values, strict=True)]
    order.plot(wall, "k.", markersize=3, label=_LABELS["wall_ms"])
    order.set_xlabel("request")
    order.set_ylabel("latency (ms)")
    order.legend(loc="lower right")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(path)
