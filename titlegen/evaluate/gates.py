"""Gates: whether a score is good enough for a release, and whether the split is large enough to decide."""

from collections.abc import Mapping
from typing import Literal

from titlegen.metrics.bootstrap import rows_to_decide_mean, rows_to_decide_rate
from titlegen.metrics.records import RATES
from titlegen.results import Gate, Score, Verdict

Standing = Literal["passed", "relaxed", "undecided", "failed"]
_OFF = -1


def judge(score: Score, limit: float) -> Verdict:
    """Return pass or fail when the whole 95% interval is on one side of the limit, else undecided."""
    if score.low >= limit:
        return "pass"
    return "fail" if score.high < limit else "undecided"


def check_gates(scores: Mapping[str, Score], limits: Mapping[str, float]) -> list[Gate]:
    """Return name, limit, value and verdict of every gate that is not off."""
    return [
        Gate(name=name, limit=limit, value=scores[name].value, verdict=judge(scores[name], limit))
        for name, limit in limits.items()
        if limit != _OFF
    ]


def stand(profile: Verdict | None, specified: Verdict) -> Standing:
    """Return a score's standing from two verdicts: only a pass of the specification's own limit counts as passed.

    Args:
        profile: the verdict on the profile's limit, None when the profile has turned the gate off.
        specified: the verdict on the specification's limit.

    Returns:
        ``passed``; ``relaxed``: it holds under the profile's limit and is not proven under the specification's;
        ``undecided``: the split is too small to say even under the profile's; or ``failed`` under the profile's.
    """
    if profile == "fail":
        return "failed"
    if profile == "undecided":
        return "undecided"
    return "passed" if specified == "pass" else "relaxed"


def rows_to_decide(name: str, score: Score, limit: float, rows: int) -> int | None:
    """Return about how many test rows would decide an undecided gate, were the score to stay as it is.

    None when no number of rows would: the score is the limit.
    """
    if name in RATES:
        needed = rows_to_decide_rate(score.value, limit)
        return needed if needed is None else max(needed, rows + 1)
    return rows_to_decide_mean(score.value, score.low, score.high, limit, rows)
