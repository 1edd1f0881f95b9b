import pytest

from titlegen.metrics import ranking
from titlegen.metrics.contract import title_violations
from titlegen.metrics.novelty import plain_words, unknown_words
from titlegen.metrics.overlap import rouge_l
from titlegen.metrics.ranking import agreement, choose_title, is_doubtful, rank_titles
from titlegen.metrics.title_warnings import Facts
from titlegen.metrics.tokens import tokenize

ARTICLE = "台南市政府今日宣布，市區公車即日起增開3班次，並延長夜間服務到23時，方便市民搭乘。"
FACTS = Facts(ARTICLE)
USUAL = "台南公車增開3班次 夜間服務延長"
ALIKE = "台南市區公車增開3班次 延長夜間服務"
ODD = "市長出席新書發表會 盼市民多閱讀"


def test_the_title_that_the_others_agree_with_comes_first() -> None:
    titles = [ODD, USUAL, ALIKE, USUAL]
    assert rank_titles(titles, FACTS) == [1, 3, 2, 0]
    expected = [sum(rouge_l(tokenize(a), tokenize(b)).f1 for b in titles) - 1 for a in titles]
    assert agreement(titles) == pytest.approx([total / 3 for total in expected])


@pytest.mark.parametrize("worse", ["標題：" + USUAL, USUAL.replace("3", "8"), "台南公車", USUAL + "！！"])
def test_agreement_decides_last(worse: str) -> None:
    assert rank_titles([worse, worse, worse, ODD], FACTS)[0] == 3
    # What is wrong is what the title adds: without it the majority would win.
    assert rank_titles([USUAL, USUAL, USUAL, ODD], FACTS)[0] == 0


def test_what_follows_a_title_counts_against_it_once() -> None:
    # Only the first line is shown: its number is right, and the one behind it is nobody's claim.
    right, wrong = USUAL + "\n17", USUAL.replace("3", "8") + "\n甲"
    assert title_violations(right) == title_violations(wrong) == ("lines",)
    assert rank_titles([wrong, right], FACTS) == [1, 0]


def test_a_huge_output_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(ranking, "find_warnings", lambda title, _: read.append(len(title)) or ())
    monkeypatch.setattr(ranking, "tokenize", lambda title: read.append(len(title)) or [])
    assert rank_titles(["逾10001人" * 100_000, USUAL], FACTS) == [1, 0]
    assert max(read) == 200


def test_one_title_and_none() -> None:
    assert rank_titles([USUAL], FACTS) == [0]
    assert agreement([USUAL]) == [0.0]
    assert rank_titles([], FACTS) == []
    assert agreement(["", ""]) == [0.0, 0.0]


def test_words_that_the_article_does_not_have() -> None:
    article = plain_words("曾任臺北市議員的Mori於20日辭世，享壽88歲。")
    assert unknown_words("台北市議員Mori辭世 享壽88歲", article) == []
    assert unknown_words("北市議員辭世 榮幸88歲", article) == ["榮幸"]
    # Numbers and names have checks of their own, and a character alone says little.
    assert unknown_words("Kenji辭世 享壽99歲 惜", article) == []
    assert unknown_words("", article) == []


@pytest.mark.fault
@pytest.mark.parametrize(
    "doubtful",
    [
        *("", "標題：" + USUAL, USUAL + "\n說明：增開班次", USUAL.replace("3", "8"), "台南公車", USUAL + "！！"),
        *(USUAL + "延長延長延長", "臺南公车增開3班次", "台南公車 黃偉哲增開3班次", "台南公車增開3班次 方便乘客搭乘"),
    ],
)
def test_a_doubtful_title_gives_way_to_a_better_one_alone(doubtful: str) -> None:
    assert [is_doubtful(title, FACTS) for title in (USUAL, doubtful, ALIKE)] == [False, True, False]
    assert choose_title(doubtful, [doubtful, USUAL, ALIKE], FACTS) == 2
    # Neither the same fault nor what most others say is a reason to take another.
    assert choose_title(doubtful, [doubtful] * 3, FACTS) == 0
    assert choose_title(USUAL, [ALIKE] * 4, FACTS) == 0
    assert choose_title(USUAL, [doubtful] * 4, FACTS) == 0
    assert choose_title(doubtful, [], FACTS) == 0


def test_facts_come_before_form() -> None:
    long, invented = "台南市政府宣布市區公車即日起增開3班次 並延長夜間服務到23時", "台南公車增開3班次 方便乘客搭乘"
    assert len(long) > 30
    assert choose_title(invented, [long], FACTS) == 1
    assert choose_title(long, [invented], FACTS) == 0
    assert choose_title(long, [invented, USUAL], FACTS) == 2
