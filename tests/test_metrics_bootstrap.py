"""Intervals that hold what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.metrics.bootstrap import (
    bootstrap_interval,
    resample_sums,
    rows_to_decide_mean,
    rows_to_decide_rate,
    wilson_interval,
)

TRIALS = 1000


def bootstrap_coverage(rows: int, seed: int) -> float:
    """Share of trials whose interval of a mean holds the true one; scores are skewed like ROUGE-L."""
    generator = np.random.default_rng(seed)
    truth = 2 / (2 + 5)
    hits = 0
    for trial in range(TRIALS):
        scores = generator.beta(2, 5, size=(rows, 1))
        low, high = bootstrap_interval(resample_sums(scores, 1000, trial)[:, 0] / rows, rows)
        hits += low <= truth <= high
    return hits / TRIALS


@pytest.mark.parametrize("rows", [20, 60, 200])
def test_bootstrap_intervals_of_means_cover(rows: int) -> None:
    assert 0.93 <= bootstrap_coverage(rows, seed=rows) <= 0.97


def test_bootstrap_intervals_of_ratios_cover() -> None:
    """Corpus scores are ratios of sums, like BLEU's precision: 3 matches expected of 10 tokens each."""
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(TRIALS):
        tokens = generator.integers(5, 40, size=80)
        columns = np.stack([generator.binomial(tokens, 0.3), tokens], axis=1).astype(float)
        sums = resample_sums(columns, 1000, trial)
        low, high = bootstrap_interval(sums[:, 0] / sums[:, 1], len(tokens))
        hits += low <= 0.3 <= high
    assert 0.93 <= hits / TRIALS <= 0.97


@pytest.mark.parametrize(("share", "rows"), [(0.98, 100), (0.95, 60), (0.5, 40)])
def test_wilson_intervals_cover(share: float, rows: int) -> None:
    successes = np.random.default_rng(5).binomial(rows, share, size=TRIALS)
    hits = sum(low <= share <= high for low, high in (wilson_interval(count / rows, rows) for count in successes))
    assert 0.93 <= hits / TRIALS <= 0.97


def test_a_bootstrap_of_perfect_rows_proves_nothing() -> None:
    """Why rates have Wilson's interval: of 40 good rows the bootstrap is certain, and 98% is far from certain."""
    assert bootstrap_interval(resample_sums(np.ones((40, 1)), 1000, 0)[:, 0] / 40, 40) == (1, 1)
    low, high = wilson_interval(1.0, 40)
    assert low < 0.92
    assert high == 1


@given(st.integers(1, 2000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_wilson_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    successes, rows = counts
    low, high = wilson_interval(successes / rows, rows)
    assert 0 <= low <= successes / rows <= high <= 1


def test_resamples_are_those_of_a_plain_loop() -> None:
    """Every resample draws as many rows as there are, with replacement, the same for every column."""
    columns = np.arange(7, dtype=float)[:, None] ** np.array([0, 1, 2])
    sums = resample_sums(columns, 500, 9)
    assert (sums[:, 0] == 7).all()
    generator = np.random.default_rng(9)
    drawn = generator.integers(0, 7, size=(500, 7))
    assert np.array_equal(sums, columns[drawn].sum(axis=1))


def test_resamples_do_not_depend_on_the_memory_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.random.default_rng(0).random((50, 2))
    whole = resample_sums(columns, 100, 1)
    monkeypatch.setattr("titlegen.metrics.bootstrap._CELLS", 350)
    assert np.allclose(resample_sums(columns, 100, 1), whole)


def test_one_row_gives_the_widest_interval() -> None:
    assert bootstrap_interval(np.array([0.1, 0.5, 0.9]), 1) == pytest.approx((0.1, 0.9))


@pytest.mark.parametrize(("share", "limit"), [(1.0, 0.98), (0.99, 0.98), (0.96, 0.98), (0.93, 0.95)])
def test_the_stated_number_of_rows_decides_a_rate(share: float, limit: float) -> None:
    needed = rows_to_decide_rate(share, limit)
    assert needed is not None
    # Successes are whole: those that decide are rounded away from the limit, those that do not towards it.
    away, towards = (math.ceil, math.floor) if share > limit else (math.floor, math.ceil)
    low, high = wilson_interval(away(share * needed) / needed, needed)
    assert low > limit or high < limit
    fewer = int(needed * 0.98) - 1
    low, high = wilson_interval(towards(share * fewer) / fewer, fewer)
    assert low <= limit <= high


def test_the_stated_number_of_rows_decides_a_mean() -> None:
    generator = np.random.default_rng(4)
    population = generator.beta(2, 4, size=200_000)
    limit = float(population.mean()) - 0.02
    few = population[:60] - population[:60].mean() + population.mean()
    low, high = bootstrap_interval(resample_sums(few[:, None], 2000, 0)[:, 0] / 60, 60)
    assert low < limit < high
    needed = rows_to_decide_mean(float(few.mean()), low, high, limit, 60)
    assert needed is not None
    many = generator.choice(population, size=int(needed * 1.1))
    many += few.mean() - many.mean()
    low, _ = bootstrap_interval(resample_sums(many[:, None], 2000, 0)[:, 0] / len(many), len(many))
    assert low > limit


def test_no_number_of_rows_decides_a_score_that_is_the_limit() -> None:
    assert rows_to_decide_rate(0.98, 0.98) is None
    assert rows_to_decide_mean(0.3, 0.2, 0.4, 0.3, 50) is None
