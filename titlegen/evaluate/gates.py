"""Whether a score is good enough to release a model, and whether the split can say so at all."""

from collections.abc import Mapping
from typing import Any, Literal

from titlegen.metrics.bootstrap import rows_to_decide_mean, rows_to_decide_rate
from titlegen.metrics.scores import RATES, Score
from titlegen.settings import GateSettings

Verdict = Literal["pass", "fail", "undecided"]
_OFF = -1


def judge(score: Score, limit: float) -> Verdict:
    """Return pass or fail when the whole 95% interval is on one side of the limit, else undecided."""
    if score.low >= limit:
        return "pass"
    return "fail" if score.high < limit else "undecided"


def check_gates(scores: Mapping[str, Score], gates: GateSettings) -> list[dict[str, Any]]:
    """Return name, limit, value and verdict of every gate that is not off."""
    limits: dict[str, float] = gates.model_dump()
    return [
        {"name": name, "limit": limit, "value": scores[name].value, "verdict": judge(scores[name], limit)}
        for name, limit in limits.items()
        if limit != _OFF
    ]


def rows_to_decide(name: str, score: Score, limit: float, rows: int) -> int | None:
    """Return about how many test rows would decide an undecided gate, were the score to stay as it is.

    None when no number of rows would: the score is the limit.
    """
    if name in RATES:
        needed = rows_to_decide_rate(score.value, limit)
        return needed if needed is None else max(needed, rows + 1)
    return rows_to_decide_mean(score.value, score.low, score.high, limit, rows)
