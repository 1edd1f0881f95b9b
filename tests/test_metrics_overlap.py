"""ROUGE and BLEU-1 against the libraries that others use, and the traps that make them lie about Chinese."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpus import corpus_rows
from hypothesis import given
from hypothesis import strategies as st

from titlegen.metrics.overlap import Bleu, bleu1, matched_unigrams, rouge_l, rouge_n
from titlegen.metrics.scores import score_overlap
from titlegen.metrics.tokens import normalise, segment, tokenize

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = sorted(SHARED.glob("tainan_gov_news-*.jsonl"))
TOLERANCE = 1e-9
Pair = tuple[list[str], list[str]]


def random_pairs(count: int = 2000) -> list[Pair]:
    draw = random.Random(0)
    alphabet = [*"臺南市政府今日宣布登革熱防治工作會議", "covid", "19", "3.5", "a"]
    pairs = [([], []), (["臺"], []), ([], ["臺"])]
    while len(pairs) < count:
        pairs.append(tuple(draw.choices(alphabet, k=draw.randrange(40)) for _ in range(2)))  # type: ignore[arg-type]
    return pairs


def real_pairs() -> Iterator[Pair]:
    rows = [json.loads(line) for path in REAL for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows or corpus_rows():
        yield tokenize(row["content"][:30]), tokenize(row["title"])


PAIRS = [*random_pairs(), *real_pairs()]


def as_words(pair: Pair) -> tuple[str, str]:
    """Spell tokens as ASCII words, which every library's own tokenizer leaves whole."""
    names: dict[str, str] = {}
    first, second = (" ".join(names.setdefault(token, f"w{len(names)}") for token in tokens) for tokens in pair)
    return first, second


def test_rouge_agrees_with_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for pair in PAIRS:
        prediction, reference = as_words(pair)
        expected = scorer.score(reference, prediction)
        found = {"rouge1": rouge_n(*pair, 1), "rouge2": rouge_n(*pair, 2), "rougeL": rouge_l(*pair)}
        for name, score in found.items():
            theirs = expected[name]
            assert score == pytest.approx((theirs.precision, theirs.recall, theirs.fmeasure), abs=TOLERANCE), (
                name,
                pair,
            )


def test_rouge_agrees_with_rouge_chinese() -> None:
    from rouge_chinese import rouge_score

    for prediction, reference in PAIRS:
        if not (prediction and reference):
            continue  # it refuses empty texts
        hypothesis, target = [" ".join(prediction)], [" ".join(reference)]
        for n in (1, 2):
            theirs = rouge_score.rouge_n(hypothesis, target, n=n, exclusive=False)
            ours = rouge_n(prediction, reference, n)
            assert (ours.precision, ours.recall) == pytest.approx((theirs["p"], theirs["r"]), abs=TOLERANCE)
            # Its F1 has 1e-8 in the denominator, so only precision and recall can agree to the last digit.
            assert ours.f1 == pytest.approx(theirs["f"], abs=2e-8)
        length = rouge_score._len_lcs(prediction, reference)
        ours = rouge_l(prediction, reference)
        assert ours.precision == pytest.approx(length / len(prediction), abs=TOLERANCE)
        assert ours.recall == pytest.approx(length / len(reference), abs=TOLERANCE)


def our_bleu1(rows: list[Pair]) -> Bleu:
    counts = np.array([[matched_unigrams(p, r), len(p), len(r)] for p, r in rows], dtype=float).sum(axis=0)
    return bleu1(*counts[:, None])


def samples(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """A corpus, and its rows one by one: they reach both sides of the brevity penalty."""
    yield pairs
    yield from ([pair] for pair in pairs)


@pytest.mark.parametrize("pairs", [PAIRS[:2000], PAIRS[2000:]], ids=["random", "real"])
def test_bleu1_agrees_with_sacrebleu(pairs: list[Pair]) -> None:
    from sacrebleu.metrics import BLEU

    library = BLEU(max_ngram_order=1, tokenize="none", force=True)
    for rows in samples(pairs):
        ours = our_bleu1(rows)
        theirs = library.corpus_score([" ".join(p) for p, _ in rows], [[" ".join(r) for _, r in rows]])
        assert float(ours.score[0]) == pytest.approx(theirs.score / 100, abs=TOLERANCE)
        assert float(ours.precision[0]) == pytest.approx(theirs.precisions[0] / 100, abs=TOLERANCE)
        # With nothing predicted and nothing expected it has a penalty of 1, and a score of 0 as well.
        if theirs.sys_len:
            assert float(ours.brevity_penalty[0]) == pytest.approx(theirs.bp, abs=TOLERANCE)


@pytest.mark.parametrize("pairs", [PAIRS[:2000], PAIRS[2000:]], ids=["random", "real"])
def test_bleu1_agrees_with_nltk(pairs: list[Pair]) -> None:
    from nltk.translate.bleu_score import corpus_bleu

    # It counts one predicted token in an empty prediction, and warns when nothing matches.
    for rows in samples([pair for pair in pairs if matched_unigrams(*pair)]):
        score = corpus_bleu([[r] for _, r in rows], [p for p, _ in rows], weights=(1.0,))
        assert float(our_bleu1(rows).score[0]) == pytest.approx(score, abs=TOLERANCE)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_scores_between_0_and_1(title: str, reference: str) -> None:
    overlap = score_overlap([title], [reference])
    assert all(0 <= value <= 1 for value in overlap.values())
    if tokenize(title) == tokenize(reference) != []:
        assert overlap["rougeL"] == overlap["rouge1"] == 1


def test_tokens() -> None:
    assert tokenize("COVID-19疫苗：３．５萬劑，Ａ級！") == ["covid", "19", "疫", "苗", "3.5", "萬", "劑", "a", "級"]
    assert tokenize("「臺南」 台江 😀★") == ["臺", "南", "台", "江"]
    assert tokenize("カナ한") == ["カ", "ナ", "한"]
    assert tokenize(" ，。！") == []
    assert normalise("ＡＢＣ") == "abc"


def test_words_keep_the_script_of_the_text() -> None:
    words = segment("臺南市政府表揚績優志工，共120人")
    assert "".join(words) == "臺南市政府表揚績優志工共120人"
    assert "志工" in words
    assert "120" in words


def test_the_stock_tokenizer_trap() -> None:
    """The tokenizer of rouge_score keeps only ASCII: identical Chinese scores 0, a shared number 1."""
    from rouge_score.rouge_scorer import RougeScorer

    stock = RougeScorer(["rougeL"])
    same, number = "臺南登革熱疫情趨緩", ("臺南登革熱新增12例", "高雄輕軌12月通車")
    assert stock.score(same, same)["rougeL"].fmeasure == 0
    assert stock.score(*number)["rougeL"].fmeasure == 1
    assert score_overlap([same], [same])["rougeL"] == 1
    assert score_overlap(number[:1], number[1:])["rougeL"] < 0.25


REFERENCE = "臺南燈會湧入12萬人次 市府加開接駁車"


def scores(title: str) -> dict[str, float]:
    return score_overlap([title], [REFERENCE])


def test_tampering_moves_each_score_in_the_documented_direction() -> None:
    perfect = scores(REFERENCE)
    assert perfect == dict.fromkeys(("rouge1", "rouge2", "rougeL", "bleu1"), 1.0)
    assert set(scores("").values()) == {0.0}
    # A number is one token of many.
    assert max(scores("12").values()) < 0.2
    assert scores("臺南燈會湧入12萬人次，市府加開接駁車！") == perfect, "punctuation is no token"
    assert scores("ＴＡＩＮＡＮ 臺南") == scores("tainan 臺南"), "width and case do not count"


def test_the_whole_article_as_title_loses_precision() -> None:
    article = scores(REFERENCE + "。" + "市長表示未來將持續提升服務品質並感謝工作人員的辛勞" * 10)
    assert max(article["rouge1"], article["rougeL"], article["bleu1"]) < 0.2


def test_a_prefix_lowers_every_score() -> None:
    assert all(value < 1 for value in scores("標題：" + REFERENCE).values())


def test_simplified_characters_are_other_characters() -> None:
    simplified = scores("台南灯会涌入12万人次 市府加开接驳车")
    assert all(value < 0.65 for value in simplified.values())


def test_shuffled_characters_keep_unigrams_and_lose_order() -> None:
    tokens = list(REFERENCE.replace(" ", "").replace("12", "Q"))
    random.Random(1).shuffle(tokens)
    shuffled = scores("".join(tokens).replace("Q", "12"))
    assert shuffled["rouge1"] == shuffled["bleu1"] == 1
    assert shuffled["rouge2"] < 0.3
    assert shuffled["rougeL"] < 0.6


def test_a_short_title_pays_the_brevity_penalty() -> None:
    half = scores("臺南燈會湧入")
    assert half["rouge1"] == pytest.approx(2 * 6 / (6 + 17))
    assert half["bleu1"] == pytest.approx(np.exp(1 - 17 / 6))
