"""What a title claims and where its article says so: each kind, found, missing, moved; rules, places, slots, style."""

import random
import time
from pathlib import Path

import pytest
from corpus import corpus_rows
from hypothesis import given
from hypothesis import strategies as st

from titlegen.errors import ConfigError
from titlegen.metrics.contract import style_violations, title_violations
from titlegen.metrics.evidence import KINDS, Claim, find_evidence
from titlegen.metrics.house_style import HouseStyle, check_style, load_style, parse_style
from titlegen.metrics.numbers import article_numbers, article_readings
from titlegen.metrics.ranking import judge_titles, rank_titles
from titlegen.metrics.reasons import explain_place
from titlegen.metrics.rule_checks import RULES, check_rules
from titlegen.metrics.title_warnings import Facts

ARTICLE = (
    "臺南市政府今天宣布，5月20日起增開3班公車，延長夜間服務到23時。\n市長黃偉哲表示：「票價不會調漲，請市民放心搭乘。」"
    "交通局說，安南區與永康區的站牌將在6月3日前更新。"
)


def claims(title: str, article: str = ARTICLE) -> list[tuple[str, str, bool]]:
    return [(claim.kind, claim.text, claim.supported) for claim in find_evidence(title, Facts(article))]


def only(title: str, article: str = ARTICLE) -> Claim:
    (claim,) = find_evidence(title, Facts(article))
    return claim


@pytest.mark.parametrize(
    ("title", "kind", "text", "says"),
    [
        ("公車增開3班", "number", "3", "增開3班公車"),
        ("公車增開三班", "number", "三", "增開3班公車"),
        ("公車5月20日增班", "date", "5月20日", "5月20日起"),
        ("公車5/20增班", "date", "5/20", "5月20日起"),
        ("站牌6月3日前更新", "date", "6月3", "6月3日前更新"),
        ("黃偉哲：公車增班", "name", "黃偉哲", "市長黃偉哲表示"),
        ("安南區站牌更新", "place", "安南區", "安南區與永康區"),
        ("南市增開公車", "place", "南市", "臺南市政府今天"),
        ("市長：「請市民放心搭乘」", "quotation", "請市民放心搭乘", "請市民放心搭乘"),
        ("市長：「票價不會調漲 請市民放心」", "quotation", "票價不會調漲 請市民放心", "票價不會調漲"),
    ],
)
def test_what_the_article_says_is_shown_with_its_sentence(title: str, kind: str, text: str, says: str) -> None:
    claim = only(title)
    assert (claim.kind, claim.text, claim.supported) == (kind, text, True)
    assert title[claim.start : claim.end] == text
    assert claim.sentence is not None
    assert claim.place is not None
    assert says in claim.sentence.text
    assert claim.sentence.start <= claim.place[0] < claim.place[1]
    assert ARTICLE[claim.sentence.start : claim.sentence.end] == claim.sentence.text


@pytest.mark.fault
@pytest.mark.parametrize(
    ("title", "kind", "text"),
    [
        ("公車增開8班", "number", "8"),
        ("公車5月21日增班", "date", "5月21日"),
        # Each part stands in the article, but not together: the fault that a set of numbers cannot see.
        ("公車5月3日增班", "date", "5月3日"),
        ("公車6月20日增班", "date", "6月20日"),
        ("市長陳其邁：公車增班", "name", "陳其邁"),
        ("左營區站牌更新", "place", "左營區"),
        ("市長：「票價一定調降」", "quotation", "票價一定調降"),
    ],
)
def test_what_the_article_does_not_say_is_marked(title: str, kind: str, text: str) -> None:
    claim = only(title)
    assert (claim.kind, claim.text, claim.supported, claim.place) == (kind, text, False, None)
    assert claim.text in claim.message
    assert claim.text in claim.message_zh
    # What it says there instead is shown.
    assert claim.sentence is not None


def test_a_date_without_its_month_is_backed_by_the_day() -> None:
    assert claims("5月20日增班", "市府今(20)日宣布公車增班，5月起上路。") == [("date", "5月20日", True)]


def test_the_sentence_is_the_one_that_the_title_is_about() -> None:
    article = "會議有3人缺席。\n市府宣布公車增開3班，下月上路。"
    claim = only("公車增開3班", article)
    assert claim.sentence is not None
    assert claim.sentence.text.startswith("市府")


def test_names_within_a_quotation_are_claims_of_their_own() -> None:
    assert claims("市府：「安南區站牌更新」") == [("quotation", "安南區站牌更新", False), ("place", "安南區", True)]


def test_a_region_that_goes_without_saying_is_no_claim() -> None:
    assert claims("臺南公車增班", "市府宣布公車增班。") == []


@given(st.text(max_size=60), st.text(max_size=300))
def test_any_text_gives_places_in_it(title: str, article: str) -> None:
    for claim in find_evidence(title, Facts(article)):
        assert title[claim.start : claim.end] == claim.text
        assert claim.kind in KINDS
        assert claim.supported == (claim.place is not None)
        if claim.sentence:
            assert article[claim.sentence.start : claim.sentence.end] == claim.sentence.text


def test_numbers_with_places_mean_what_readings_mean() -> None:
    for row in corpus_rows()[:60]:
        readings = {reading for number in article_numbers(row["content"]) for reading in number.readings}
        assert readings == article_readings(row["content"])


@pytest.mark.fault
def test_titles_of_other_articles_are_marked_and_their_own_are_not() -> None:
    rows = random.Random(3).sample(corpus_rows(), 120)
    own = sum(any(not c.supported for c in find_evidence(r["title"], Facts(r["content"]))) for r in rows)
    others = sum(
        any(not c.supported for c in find_evidence(row["title"], Facts(rows[i - 40]["content"])))
        for i, row in enumerate(rows)
    )
    assert own < 0.08 * len(rows)
    assert others > 0.4 * len(rows)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("title", "piece"),
    [
        ("1月2日開跑", "1月2日"),
        ("1月2日開跑", "1月2日。"),
        ("3月5日開跑", "1月2、5日，"),
        ("他說「哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈哈嘿」", "哈哈，"),
        ("臺南黃偉哲增3班", "臺南黃偉哲3"),
        ("高雄陳其邁增7班", "臺黃偉高3，"),
    ],
)
def test_an_article_that_was_made_to_take_long_takes_time_in_proportion(title: str, piece: str) -> None:
    def seconds(pieces: int) -> float:
        facts = Facts(piece * pieces)
        started = time.process_time()
        find_evidence(title, facts)
        return time.process_time() - started

    seconds(100)
    least = max(seconds(1000), 0.01)
    # Time in the square of the length would be 256 times as much.
    assert seconds(16_000) < 80 * least


# Reasons


def test_reasons_are_those_of_the_order() -> None:
    outputs = ["公車增開8班 夜間延長服務", "公車增開3班 夜間延長服務", "標題：公車增班"]
    facts = Facts(ARTICLE)
    standings = judge_titles(outputs, facts)
    assert sorted(range(3), key=lambda index: standings[index].key) == rank_titles(outputs, Facts(ARTICLE)) == [1, 0, 2]
    bad, good, no_title = (
        explain_place(title, standing, find_evidence(title, facts), 3)
        for title, standing in zip(outputs, standings, strict=True)
    )
    assert {reason.subject: reason.good for reason in good} == dict.fromkeys(
        ("facts", "agreement", "length", "clean"), True
    )
    assert [reason.subject for reason in bad if not reason.good] == ["facts"]
    assert [reason.subject for reason in no_title if not reason.good] == ["length", "clean"] or not no_title[-1].good
    assert "內文有 1 處" in good[0].message_zh


@pytest.mark.fault
def test_a_title_whose_claims_stand_says_why_it_is_behind() -> None:
    facts = Facts(ARTICLE)
    title = "票價調漲 請市民放心搭乘"
    (standing,) = judge_titles([title], facts)
    assert standing.grave
    reason = explain_place(title, standing, find_evidence(title, facts), 1)[0]
    assert (reason.good, reason.message_zh) == (False, "內文可能不是這樣說")


def test_a_single_title_agrees_with_none() -> None:
    (standing,) = judge_titles(["公車增開3班 夜間延長服務"], Facts(ARTICLE))
    reasons = explain_place("公車增開3班 夜間延長服務", standing, (), 1)
    assert "agreement" not in {reason.subject for reason in reasons}


# Rules


@pytest.mark.fault
@pytest.mark.parametrize(
    ("title", "broken"),
    [
        ("公車增開3班 夜間延長服務", set()),
        ("標題：公車增開3班 夜間延長", {"title only"}),
        ("公車增班", {"length"}),
        ("公車增開3班!!! 夜間延長", {"punctuation"}),
        ("公車增開「3班 夜間延長", {"punctuation"}),
        ("公車增開3班🚌 夜間延長", {"emoji"}),
        ("公车增开3班 夜间延长服务", {"script"}),
        ("", {"title only", "length", "punctuation"}),
    ],
)
def test_each_rule_is_checked(title: str, broken: set[str]) -> None:
    checks = check_rules(title)
    assert tuple(check.rule for check in checks) == RULES
    assert {check.rule for check in checks if not check.passed} == broken
    assert all(check.message and check.message_zh for check in checks)


@given(st.text(max_size=80))
def test_rules_say_what_the_contract_says(title: str) -> None:
    checks = {check.rule: check.passed for check in check_rules(title)}
    assert checks["title only"] == (not title_violations(title))
    assert (checks["punctuation"] and checks["emoji"]) == (not style_violations(title))


def test_a_slot_sets_the_length() -> None:
    push = check_rules("公車增開3班 夜間延長服務", min_chars=1, max_chars=13)[1]
    longer = check_rules("公車增開3班 夜間延長服務到晚上", min_chars=1, max_chars=13)[1]
    assert (push.passed, longer.passed) == (True, False)
    assert check_rules("甲" * 99, max_chars=None)[1].passed


# House style


def correct_style(title: str, style: HouseStyle) -> str:
    """Take every correction, as the page does with a click each."""
    for finding in reversed(check_style(title, style)):
        if finding.replacement is not None:
            title = title[: finding.start] + finding.replacement + title[finding.end :]
    return title


@pytest.mark.parametrize(
    ("title", "style", "corrected"),
    [
        ("三百人看視頻", {"numerals": "arabic", "usage": {"視頻": "影片"}}, "300人看影片"),
        ("統一三重一起看", {"numerals": "arabic"}, "統一三重一起看"),
        ("3人奪5面獎牌", {"numerals": "han"}, "三人奪5面獎牌"),
        ("第１２屆“科展”登場", {}, "第12屆「科展」登場"),
        ('市長說"不漲"', {}, "市長說「不漲」"),
        ('市長說"不漲', {}, '市長說"不漲'),
        ('市長說"不漲"', {"quotation_marks": "any"}, '市長說"不漲"'),
        ("網友驚呆", {"banned": ["驚呆"]}, "網友驚呆"),
    ],
)
def test_a_style_corrects_what_it_can(title: str, style: dict[str, object], corrected: str) -> None:
    rules = HouseStyle.model_validate(style)
    assert correct_style(title, rules) == corrected
    for finding in check_style(title, rules):
        assert title[finding.start : finding.end] == finding.text


def test_a_banned_word_is_found_and_not_replaced() -> None:
    (finding,) = check_style("網友驚呆", HouseStyle(banned=("驚呆",)))
    assert (finding.kind, finding.replacement) == ("banned", None)


@given(st.text(max_size=60))
def test_the_shipped_style_settles(title: str) -> None:
    style = load_style()
    once = correct_style(title, style)
    assert correct_style(once, style) == once


def test_the_shipped_style_leaves_titles_of_the_corpus() -> None:
    style = load_style()
    assert len(style.usage) > 30
    assert all(word != right for word, right in style.usage.items())
    found = [row["title"] for row in corpus_rows() if check_style(row["title"], style)]
    assert len(found) < 0.02 * len(corpus_rows())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"numerals = 'roman'", "numerals"),
        (b"unknown = 1", "unknown"),
        (b"banned = [''", "TOML"),
        (b"\xff\xfe", "UTF-8"),
        (b"a = " + b"[" * 5000, "TOML"),
        (b"banned = ['" + b"a" * 300_000 + b"']", "bytes"),
        (b"banned = ['" + b"a" * 100 + b"']", "banned"),
        (b"banned = [" + b"'a'," * 3000 + b"]", "banned"),
    ],
)
def test_a_style_that_cannot_be_used_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_style(raw, "the style")


def test_a_style_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "style.toml"
    path.write_text('banned = ["驚呆"]\n', encoding="utf-8-sig")
    assert load_style(path).banned == ("驚呆",)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_style(tmp_path / "none.toml")
