"""95% intervals: every score of every resample in a few matrix products, and the rows that a verdict still lacks."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
# Resampling fewer says next to nothing: of 3 rows the interval holds the true mean 75 times in 100. All scores lie
# between 0 and 1, and that is then their interval.
LEAST_ROWS = 8
# Half a MiB of weights at a time, whatever the number of rows: more would leave the processor's cache.
_CELLS = 1 << 16


def resample_sums(columns: Floats, resamples: int, seed: int) -> Floats:
    """Return the column sums of bootstrap resamples: (rows, columns) -> (resamples, columns).

    The draws depend on the number of rows and the seed alone, so scores of one call, and of two systems on the same
    rows, are paired.
    """
    rows = len(columns)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples, columns.shape[1]))
    step = max(1, _CELLS // rows)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        sums[start : start + count] = weights.astype(np.float64) @ columns
    return sums


def bootstrap_interval(samples: Floats, rows: int) -> tuple[float, float]:
    """Return the 95% interval of a score from its values on resamples (resamples,) of that many rows.

    Percentiles, moved outwards for few rows: the plain ones cover too seldom there.
    Source: Hesterberg, What Teachers Should Know About the Bootstrap, 2015, expanded percentile interval.
    """
    from scipy.special import ndtr, stdtrit

    quantile = math.sqrt(rows / (rows - 1)) * float(stdtrit(rows - 1, (1 - CONFIDENCE) / 2)) if rows > 1 else -math.inf
    tail = float(ndtr(quantile))
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(share: float, rows: int) -> tuple[float, float]:
    """Return the 95% interval of a rate, of which each row is 0 or 1.

    A bootstrap of rows that are all 1 has width zero, and would call 40 good rows out of 40 proof of 98%.
    Source: Wilson, Probable Inference, 1927.
    """
    from scipy.stats import binomtest

    interval = binomtest(round(share * rows), rows).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def rows_to_decide_mean(value: float, low: float, high: float, limit: float, rows: int) -> int | None:
    """Return about how many rows would move a bootstrap interval off the limit, were the score to stay as it is.

    None when the score is the limit: no number of rows decides that.
    """
    if value == limit:
        return None
    half = value - low if value > limit else high - value
    return max(rows + 1, math.ceil(rows * (half / (value - limit)) ** 2))


def rows_to_decide_rate(share: float, limit: float) -> int | None:
    """Return how many rows would move the Wilson interval off the limit, were the rate to stay as it is.

    None when the rate is the limit, or the limit is 0 or 1, which no sample proves.
    """
    if share == limit or limit in {0.0, 1.0}:
        return None
    return math.floor(_Z**2 * limit * (1 - limit) / (share - limit) ** 2) + 1


# Normal quantile of 97.5%.
_Z = 1.959963984540054
