"""What titles contribute to the scores, what baselines score, and what tampering does to all of it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus import corpus_rows
from hypothesis import given
from hypothesis import strategies as st

from titlegen.metrics import baselines
from titlegen.metrics.contract import MAX_CHARS
from titlegen.metrics.novelty import measure_copying, repetition, script_purity, searchable, simplified_only
from titlegen.metrics.records import RATES, SCORES, Text
from titlegen.metrics.scores import compare_scores, estimate_scores, measure_titles, score_overlap, score_titles
from titlegen.metrics.tokens import segment, tokenize
from titlegen.results import Score

ROWS = corpus_rows()
TEXTS = [Text(row["title"], row["content"]) for row in ROWS]
TITLES = [row["title"] for row in ROWS]
ARTICLE = "臺南市政府今日宣布，臺南燈會湧入12萬人次。市府加開接駁車，並呼籲民眾搭乘。市長感謝志工。"
TEXT = Text("臺南燈會湧入12萬人次 市府加開接駁車", ARTICLE)


def scores_of(*titles: str) -> dict[str, float]:
    return score_titles(measure_titles(titles, [TEXT] * len(titles)))


def test_a_reference_scores_itself() -> None:
    scores = scores_of(TEXT.reference)
    assert list(scores) == list(SCORES)
    for name in ("rouge1", "rouge2", "rougeL", "bleu1", *RATES, "number_support", "script_purity"):
        assert scores[name] == 1, name


def test_an_empty_title_scores_0_and_is_never_skipped() -> None:
    assert set(scores_of("").values()) == {0.0}
    half = scores_of(TEXT.reference, "")
    assert half["rougeL"] == half["title_only_rate"] == half["number_support"] == 0.5
    assert half["bleu1_precision"] == 1
    assert half["bleu1"] == pytest.approx(np.exp(-1)), "the missing half costs the brevity penalty"


@pytest.mark.parametrize(
    ("title", "lower", "same"),
    [
        ("12", ["rouge1", "rougeL", "bleu1", "length_rate", "number_support", "script_purity"], ["title_only_rate"]),
        (ARTICLE, ["rouge1", "bleu1", "length_rate"], ["number_support", "script_purity"]),
        (f"標題：{TEXT.reference}", ["rouge1", "rougeL", "bleu1", "title_only_rate"], ["number_support"]),
        ("臺南燈會湧入12萬人次。市府加開接駁車。", ["clean_rate"], ["rouge1", "rougeL", "bleu1", "title_only_rate"]),
        ("臺南燈會涌入12万人次 市府加开接驳车", ["rouge1", "bleu1", "script_purity", "copy_coverage"], ["length_rate"]),
        ("車駁接開加府市 次人萬12入湧會燈南臺", ["rouge2", "rougeL", "copy_coverage"], ["rouge1", "bleu1"]),
        ("臺南燈會湧入15萬人次 市府加開接駁車", ["number_support", "rouge1"], ["title_only_rate", "length_rate"]),
        ("臺南燈會爆紅！交通大打結", ["copy_coverage", "rougeL"], ["title_only_rate", "clean_rate", "number_support"]),
    ],
    ids=["digits", "article", "prefix", "punctuation", "simplified", "reversed", "number", "novel"],
)
def test_tampering_lowers_the_scores_that_watch_for_it(title: str, lower: list[str], same: list[str]) -> None:
    tampered, untouched = scores_of(title), scores_of(TEXT.reference)
    for name in lower:
        assert tampered[name] < untouched[name], name
    for name in same:
        assert tampered[name] == untouched[name], name


def test_repetition_and_novelty_rise() -> None:
    untouched = scores_of(TEXT.reference)
    assert scores_of("臺南臺南臺南臺南臺南")["repetition"] > 0.5 > untouched["repetition"] == 0
    assert scores_of("爆紅景點交通大打結")["novel_bigram_rate"] == 1
    assert untouched["novel_bigram_rate"] < 0.1


def test_copying_counts_runs_of_two() -> None:
    article = searchable(tokenize("臺南燈會湧入人潮"))
    assert measure_copying(tokenize("臺南燈會"), article) == (1, 0)
    # 南 and 潮 stand in the article, but not side by side.
    assert measure_copying(tokenize("臺南潮"), article) == pytest.approx((2 / 3, 1 / 2))
    assert measure_copying(["臺"], article) == (0, 0)
    assert measure_copying(tokenize("5G"), searchable(tokenize("15GB"))) == (0, 1), "parts of tokens are no copies"


@pytest.mark.parametrize(
    ("title", "purity"),
    [("臺灣后里台北皇后", 1), ("台湾", 0.5), ("灯会开幕", 0.25), ("", 0), ("ABC", 0), ("為了里長乾杯", 1)],
)
def test_script_purity(title: str, purity: float) -> None:
    assert script_purity(title) == purity


def test_no_character_of_big5_counts_as_simplified() -> None:
    assert simplified_only().isdisjoint("后里台云只干松面")
    assert {"国", "们", "灯", "车"} <= simplified_only()
    assert all(script_purity(row["title"]) == 1 for row in ROWS)


@given(st.lists(st.sampled_from("甲乙"), max_size=12))
def test_repetition_is_a_share(tokens: list[str]) -> None:
    assert 0 <= repetition(tokens) < 1


def test_baselines_are_ordered_as_they_should_be() -> None:
    systems = {
        "random": [baselines.random_sentence(row["content"], row["title"]) for row in ROWS],
        "lead1": [baselines.lead(row["content"]) for row in ROWS],
        "textrank": [baselines.textrank(row["content"]) for row in ROWS],
        "oracle": [baselines.oracle(row["content"], row["title"]) for row in ROWS],
    }
    for titles in systems.values():
        assert all(0 < len(title) <= MAX_CHARS for title in titles)
    scores = {name: score_titles(measure_titles(titles, TEXTS))["rougeL"] for name, titles in systems.items()}
    assert scores["random"] < scores["lead1"] < scores["oracle"]
    assert scores["textrank"] < scores["oracle"]


def test_the_oracle_beats_every_other_sentence() -> None:
    row = ROWS[0]
    best = score_overlap([baselines.oracle(row["content"], row["title"])], [row["title"]])["rougeL"]
    for seed in range(30):
        other = score_overlap([baselines.random_sentence(row["content"], str(seed))], [row["title"]])["rougeL"]
        assert other <= best


def test_textrank_takes_the_most_central_sentence() -> None:
    article = "今天天氣晴朗。登革熱疫情升溫，市府加強登革熱防治。登革熱防治由市府主導。市府說明登革熱疫情。"
    assert "登革熱" in baselines.textrank(article)


@pytest.mark.parametrize("article", ["", "\n", "。。。", "，"])
def test_baselines_of_an_article_without_a_sentence(article: str) -> None:
    titles = [
        baselines.lead(article),
        baselines.textrank(article),
        baselines.oracle(article, "臺南"),
        baselines.random_sentence(article, "1"),
    ]
    assert not any(tokenize(title) for title in titles)


def test_the_random_sentence_depends_on_its_seed_alone() -> None:
    article = "。".join(f"第{number}句話" for number in range(50))
    assert baselines.random_sentence(article, "a") == baselines.random_sentence(article, "a")
    assert len({baselines.random_sentence(article, str(seed)) for seed in range(20)}) > 5


def test_intervals_hold_the_value_and_shrink() -> None:
    leads = [baselines.lead(row["content"]) for row in ROWS]
    few = estimate_scores(measure_titles(leads[:15], TEXTS[:15]), 500, 1)
    many = estimate_scores(measure_titles(leads, TEXTS), 500, 1)
    for name in SCORES:
        assert few[name].low <= few[name].value <= few[name].high
        assert many[name].low <= many[name].value <= many[name].high
    assert many["rougeL"].high - many["rougeL"].low < few["rougeL"].high - few["rougeL"].low
    assert many == estimate_scores(measure_titles(leads, TEXTS), 500, 1), "equal seeds give equal intervals"


def test_vectorised_resamples_equal_a_loop_over_the_titles() -> None:
    """The interval of BLEU-1 comes from summed counts; scoring each resample's titles anew gives the same."""
    titles = [baselines.lead(row["content"]) for row in ROWS[:25]]
    found = estimate_scores(measure_titles(titles, TEXTS[:25]), 200, 4)
    drawn = np.random.default_rng(4).integers(0, 25, size=(200, 25))
    loop = [
        score_titles(measure_titles([titles[i] for i in rows], [TEXTS[i] for i in rows])) for rows in drawn.tolist()
    ]
    for name in ("bleu1", "rougeL", "number_support"):
        # Expanded percentiles of 25 rows lie outside the plain ones, and within the extremes.
        values = np.array([scores[name] for scores in loop])
        assert values.min() <= found[name].low <= np.quantile(values, 0.025)
        assert np.quantile(values, 0.975) <= found[name].high <= values.max()


def test_paired_differences_are_surer_than_two_intervals() -> None:
    leads = [baselines.lead(row["content"]) for row in ROWS]
    shorter = [title[:-4] for title in leads]
    first, second = measure_titles(leads, TEXTS), measure_titles(shorter, TEXTS)
    difference = compare_scores(first, second, 500, 1)["rougeL"]
    alone = estimate_scores(first, 500, 1)["rougeL"]
    assert difference.value == pytest.approx(score_titles(first)["rougeL"] - score_titles(second)["rougeL"])
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    assert set(compare_scores(first, first, 200, 1).values()) == {Score(0.0, 0.0, 0.0)}


def test_words_score_lower_than_characters() -> None:
    leads = [baselines.lead(row["content"]) for row in ROWS]
    words, characters = score_overlap(leads, TITLES, segment), score_overlap(leads, TITLES)
    assert all(0 < words[name] < characters[name] for name in words)


def test_the_metric_loads_into_evaluate(tmp_path: Path) -> None:
    """As a user calls it: by path, offline, with the library's own checks; in a process with caches of its own."""
    leads = [baselines.lead(row["content"]) for row in ROWS]
    path = Path(baselines.__file__).with_name("headline.py")
    given = json.dumps({"predictions": leads, "references": TITLES})
    code = f"import evaluate, json, sys; print(evaluate.load({str(path)!r}).compute(**json.load(sys.stdin)))"
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    root = str(Path(baselines.__file__).parents[2])
    run = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    scores = ast.literal_eval(run.stdout)
    ours = score_titles(measure_titles(leads, TEXTS))
    assert scores == pytest.approx({name: ours[name] for name in scores}, abs=1e-12)
    assert {"rougeL", "bleu1", "title_only_rate", "length_rate", "clean_rate"} <= set(scores)


def test_contract_numbers_are_zeros_and_ones() -> None:
    statistics = measure_titles(["標題：甲", "臺南燈會今晚閃亮登場"], [TEXT] * 2)
    assert [statistics.column(name).tolist() for name in ("title_only", "length", "clean")] == [[0, 1], [0, 1], [1, 1]]


def test_few_rows_decide_no_score() -> None:
    # Resampled, one good title is always as good.
    for count, is_open in ((1, True), (7, True), (8, False)):
        statistics = measure_titles([TEXT.reference] * count, [TEXT] * count)
        scores = estimate_scores(statistics, 100, 0)
        assert ((scores["rougeL"].low, scores["rougeL"].high) == (0.0, 1.0)) == is_open
        difference = compare_scores(statistics, statistics, 100, 0)["rougeL"]
        assert ((difference.low, difference.high) == (-1.0, 1.0)) == is_open
