"""The plan of a run: files, memory and minutes of each stage, estimated without touching anything."""

from collections.abc import Sequence
from typing import Any

from titlegen.plan.estimate import StageEstimate
from titlegen.plan.sizes import count_articles, find_model
from titlegen.plan.stages import Estimator
from titlegen.settings import Settings

__all__ = ["StageEstimate", "as_record", "make_plan", "table", "total"]

_HEADER = ("stage", "reads", "writes", "disk GiB", "host GiB", "GPU least", "GPU used", "minutes")
_FIGURES = ("disk_gib", "host_gib", "gpu_least_gib", "gpu_gib", "minutes")


def make_plan(settings: Settings, rows: int | None = None) -> list[StageEstimate]:
    """Return the stages of `nox -s train push deploy` with these settings, in their order.

    Nothing is downloaded or written, the network is not used, and torch is not loaded.

    Args:
        settings: all settings.
        rows: articles in the source, when it is a Hub data set whose size is not known here.

    Raises:
        ConfigError: the base model or the size of the data set is not known.
        DataError: a local source cannot be read.
    """
    return Estimator(settings, find_model(settings.model), count_articles(settings.data, rows)).stages()


def total(stages: Sequence[StageEstimate]) -> StageEstimate:
    """Return the sums of disk and time, and the highest memory."""
    return StageEstimate(
        "total",
        "",
        "",
        disk_gib=sum(stage.disk_gib for stage in stages),
        host_gib=max(stage.host_gib for stage in stages),
        gpu_gib=max(stage.gpu_gib for stage in stages),
        minutes=sum(stage.minutes for stage in stages),
        gpu_least_gib=max(stage.gpu_needs_gib for stage in stages),
    )


def as_record(settings: Settings, stages: Sequence[StageEstimate]) -> dict[str, object]:
    """Return the plan for a program: sizes in GiB, times in minutes."""
    summed = _record(total(stages))
    return {
        "profile": settings.profile,
        "machine": _machine(settings),
        "stages": [{**_record(stage), "sources": list(stage.sources)} for stage in stages],
        "total": {name: summed[name] for name in _FIGURES},
    }


def table(settings: Settings, stages: Sequence[StageEstimate]) -> str:
    """Return the plan for a person: the stages, then where each figure comes from."""
    rows: list[tuple[str, ...]] = [_HEADER]
    for stage in (*stages, total(stages)):
        record = _record(stage)
        rows.append((stage.stage, stage.reads, stage.writes, *(_figure(record[name]) for name in _FIGURES)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    words = len(_HEADER) - len(_FIGURES)
    lines = []
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:words], widths[:words], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[words:], widths[words:], strict=True)]
        lines.append("  ".join([*left, *right]))
    gpu = find_model(settings.model).on_gpu
    more = " A card needs the GiB of GPU least; with more, up to GPU used, training is faster." if gpu else ""
    lines += ["", f"Memory is the peak in GiB; times are for {_machine(settings)}.{more}"]
    lines += ["Nothing was downloaded or changed.", ""]
    return "\n".join([*lines, *(f"{stage.stage}: {'; '.join(stage.sources)}." for stage in stages)])


def _record(stage: StageEstimate) -> dict[str, Any]:
    return {**stage._asdict(), "gpu_least_gib": stage.gpu_needs_gib}


def _machine(settings: Settings) -> str:
    return "one NVIDIA H100 80GB" if find_model(settings.model).on_gpu else "two CPU cores"


def _figure(value: float) -> str:
    if value == 0:
        return "-"
    shown = f"{value:.1f}"
    return "<0.1" if shown == "0.0" else shown
