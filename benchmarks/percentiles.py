"""Percentiles of latencies with their intervals, and gates that pass or fail on an exact binomial test alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from titlegen.metrics.bootstrap import CONFIDENCE
from titlegen.results import Verdict

PERCENTILES = (50, 95, 99)
_WHOLE = 100
_SIGNIFICANCE = 1 - CONFIDENCE
# Where even this many requests decide nothing, the latency is the limit.
_MOST_REQUESTS = 100_000


@dataclass(frozen=True)
class Percentile:
    """A percentile of measured latencies, and the 95% interval of the one that the server has."""

    value_ms: float
    low_ms: float | None
    high_ms: float | None
    """None: with so few requests, the interval has no such end."""


@dataclass(frozen=True)
class LatencyGate:
    """The verdict on one percentile."""

    name: str
    percentile: int
    limit_ms: float
    value_ms: float
    over: int
    """Requests that took longer than the limit."""
    requests: int
    verdict: Verdict
    requests_to_decide: int | None
    """About how many requests would decide, were the share over the limit to stay; None when it is decided."""


def estimate_percentile(latencies_ms: Sequence[float], percentile: int) -> Percentile:
    """Return a percentile of latencies in milliseconds with its 95% interval, whatever their distribution.

    The ends of the interval are measured latencies, chosen by the binomial distribution of how many requests are below
    the true percentile.
    """
    import numpy as np
    from scipy.stats import quantile_test

    # A measured latency, not a mean of two: with few requests, that mean lies outside the interval.
    value = float(np.percentile(latencies_ms, percentile, method="inverted_cdf"))
    interval = quantile_test(latencies_ms, q=value, p=percentile / _WHOLE).confidence_interval(CONFIDENCE)
    low, high = (None if math.isnan(end) else float(end) for end in interval)
    return Percentile(value, low, high)


def judge_percentile(over: int, requests: int, percentile: int) -> Verdict:
    """Return whether a percentile is within its limit, from how many of the requests took longer than that limit.

    ``pass``: were the true percentile over the limit, so few slow requests would come in less than 5% of all
    measurements. ``fail``: were it within, so many would. Else ``undecided``: there are too few requests to say.
    The test is exact, and asks nothing of the shape of the latencies but that requests do not depend on each other.
    """
    from scipy.stats import binomtest

    allowed = (_WHOLE - percentile) / _WHOLE
    if binomtest(over, requests, allowed, alternative="less").pvalue < _SIGNIFICANCE:
        return "pass"
    if binomtest(over, requests, allowed, alternative="greater").pvalue < _SIGNIFICANCE:
        return "fail"
    return "undecided"


def check_latency(latencies_ms: Sequence[float], limits_ms: Mapping[int, float]) -> list[LatencyGate]:
    """Return the verdict on each percentile, named ``p50_ms``, that has a limit."""
    gates = []
    for percentile, limit in limits_ms.items():
        over, requests = sum(latency > limit for latency in latencies_ms), len(latencies_ms)
        verdict = judge_percentile(over, requests, percentile)
        gates.append(
            LatencyGate(
                name=f"p{percentile}_ms",
                percentile=percentile,
                limit_ms=limit,
                value_ms=estimate_percentile(latencies_ms, percentile).value_ms,
                over=over,
                requests=requests,
                verdict=verdict,
                requests_to_decide=requests_to_decide(over, requests, percentile) if verdict == "undecided" else None,
            )
        )
    return gates


def requests_to_decide(over: int, requests: int, percentile: int) -> int | None:
    """Return about how many requests would decide a gate, were the share over the limit to stay as it is.

    None when no number would: that share is the one which the percentile allows.
    """
    wanted = requests
    while wanted < _MOST_REQUESTS:
        wanted += 1 + wanted // 50
        if judge_percentile(round(over / requests * wanted), wanted, percentile) != "undecided":
            return wanted
    return None
