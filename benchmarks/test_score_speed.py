"""Time to score 10,000 predictions with their intervals, beside a loop that scores every resample anew."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from machine import write_result

from titlegen.metrics import baselines
from titlegen.metrics.records import Text
from titlegen.metrics.scores import estimate_scores, measure_titles, score_titles

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT.parent / "shared" / "data").glob("tainan_gov_news-*.jsonl"))
ROWS, RESAMPLES, SEED = 10_000, 1000, 7
LOOP_RESAMPLES = 2
NOTES = (
    f"{ROWS} predictions (Lead-1 and halves of references) for press releases of 700 characters on average, all "
    f"scores, {RESAMPLES} resamples, one process. seconds_10k: from raw outputs to scores with intervals. "
    "ratio_vs_loop: against a loop that scores each resample's titles anew, timed over "
    f"{LOOP_RESAMPLES} resamples and extrapolated to {RESAMPLES}; the loop finds the articles already tokenised. "
    "ratio_vs_cached_loop: the intervals alone, against a numpy loop over stored row scores, one resample at a time, "
    "not extrapolated. Baselines and the search for names are not in it. load_1min: the machine had other "
    "work at the time."
)


def rows() -> tuple[list[str], list[Text]]:
    """Return predictions and what they are measured against; no two share an article's cached tokens."""
    records = [json.loads(line) for path in SOURCES for line in path.read_text(encoding="utf-8").splitlines()]
    records = (records * (ROWS // len(records) + 1))[:ROWS]
    titles = [
        baselines.lead(record["content"]) if number % 2 else record["title"][: len(record["title"]) // 2] + "再升級"
        for number, record in enumerate(records)
    ]
    return titles, [Text(record["title"], record["content"], record["date"]) for record in records]


@pytest.mark.slow
@pytest.mark.skipif(not SOURCES, reason="the press releases that the articles come from are not here")
def test_scoring_ten_thousand_predictions() -> None:
    titles, texts = rows()
    started, cpu_started = time.perf_counter(), time.process_time()
    statistics = measure_titles(titles, texts)
    measured = time.perf_counter()
    scores = estimate_scores(statistics, RESAMPLES, SEED)
    cpu_s = time.process_time() - cpu_started
    seconds, bootstrap_s = time.perf_counter() - started, time.perf_counter() - measured

    draw = np.random.default_rng(SEED)
    started = time.perf_counter()
    for _ in range(LOOP_RESAMPLES):
        drawn = draw.integers(0, ROWS, ROWS).tolist()
        loop = score_titles(measure_titles([titles[i] for i in drawn], [texts[i] for i in drawn]))
        assert loop["rougeL"] == pytest.approx(scores["rougeL"].value, abs=0.02)
    loop_s = (time.perf_counter() - started) * RESAMPLES / LOOP_RESAMPLES

    started = time.perf_counter()
    for _ in range(RESAMPLES):
        statistics.values[draw.integers(0, ROWS, ROWS)].sum(axis=0)
    cached_loop_s = time.perf_counter() - started

    metrics = {
        "seconds_10k": round(seconds, 2),
        "cpu_seconds_10k": round(cpu_s, 2),
        "bootstrap_s": round(bootstrap_s, 3),
        "ratio_vs_loop": round((loop_s + seconds - bootstrap_s) / seconds, 1),
        "ratio_vs_cached_loop": round(cached_loop_s / bootstrap_s, 2),
        "loop_s_extrapolated": round(loop_s, 1),
        "loop_resamples_timed": LOOP_RESAMPLES,
        "load_1min": round(os.getloadavg()[0], 2),
    }
    write_result("score_speed", metrics, NOTES, "numpy", "regex", "opencc", "scipy")
    assert metrics["ratio_vs_loop"] >= 10
