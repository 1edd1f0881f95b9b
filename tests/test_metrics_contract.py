"""A title and nothing else: what raw outputs get away with, and what they do not."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen.metrics.contract import has_title_length, style_violations, title_violations

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = sorted(SHARED.glob("tainan_gov_news-*.jsonl"))

TITLE = "臺南燈會湧入12萬人次 市府加開接駁車"


@pytest.mark.parametrize(
    "raw",
    [
        TITLE,
        f"  {TITLE}\n",
        f"\n\n{TITLE}\n\n",
        "「綠能」與「智慧」並進 臺南拚轉型",
        "【公告】明日停水範圍擴大 南區戶外活動暫停",
        "標題黨退散！媒體識讀課程開跑",
        "說明會今登場 居民關切都更進度",
        "好的開始！棒球隊首戰告捷",
        "以下犯上？公務員怒告長官",
        "1.5萬人響應路跑 創歷年新高",
        "A*STAR攜手成大 研發新藥",
        "答案揭曉：今年最受歡迎伴手禮是它",
        "油價連3漲 明起汽油每公升調升0.3元",
        "這是我們的海！淨灘志工破千人",
        "3:2險勝！中職開幕戰爆冷",
        "登革熱 +3例 市府啟動防治",
        "這是誰的錯？高鐵停駛釀旅客抱怨",
        "賴清德：希望對岸善意回應",
        "全球關注：台積電法說會登場",
        "聯準會決策受關注：市場觀望",
        "衛福部說明：健保費率明年不調漲",
    ],
)
def test_titles_pass(raw: str) -> None:
    # 以下犯上, 答案揭曉 and 這是 begin like a prefix.
    assert title_violations(raw) == ()


@pytest.mark.parametrize(
    ("raw", "violation"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        (f"{TITLE}\n這則標題點出人潮。", "lines"),
        (f"標題：{TITLE}", "prefix"),
        (f"標題: {TITLE}", "prefix"),
        (f"新聞標題：{TITLE}", "prefix"),
        (f"建議標題如下：{TITLE}", "prefix"),
        (f"标题：{TITLE}", "prefix"),
        (f"Title: {TITLE}", "prefix"),
        (f"以下是新聞標題 {TITLE}", "prefix"),
        (f"好的，{TITLE}", "prefix"),
        (f"根據您提供的內容，{TITLE}", "prefix"),
        (f"說明：{TITLE}", "prefix"),
        (f"這是一則新聞標題 {TITLE}", "prefix"),
        (f"新聞標題為「{TITLE}」", "prefix"),
        (f"這篇新聞的標題是：{TITLE}", "prefix"),
        (f"{TITLE} (共10字)", "explanation"),
        (f"{TITLE}（說明：凸顯人潮）", "explanation"),
        (f"{TITLE}。此標題凸顯人潮", "explanation"),
        (f"**{TITLE}**", "markdown"),
        (f"# {TITLE}", "markdown"),
        (f"- {TITLE}", "markdown"),
        (f"1. {TITLE}", "markdown"),
        (f"> {TITLE}", "markdown"),
        (f"```\n{TITLE}\n```", "markdown"),
        (f"`{TITLE}`", "markdown"),
        (f"[{TITLE}](http://example.com)", "markdown"),
        (f'{{"title": "{TITLE}"}}', "json"),
        (f'["{TITLE}"]', "json"),
        (f"{TITLE}<end_of_turn>", "chat_token"),
        (f"<start_of_turn>model {TITLE}", "chat_token"),
        (f"{TITLE}<|im_end|>", "chat_token"),
        (f"{TITLE}<turn|>", "chat_token"),
        (f"<|turn>model {TITLE}", "chat_token"),
        (f"<|channel>thought<channel|>{TITLE}", "chat_token"),
        (f'<|"|>{TITLE}', "chat_token"),
        (f"<b>{TITLE}</b>", "chat_token"),
        (f"「{TITLE}」", "quotes"),
        (f"『{TITLE}』", "quotes"),
        (f"《{TITLE}》", "quotes"),
        (f'"{TITLE}"', "quotes"),
        (f"“{TITLE}”", "quotes"),
        (f"「{TITLE}「燈」」", "quotes"),
        (TITLE * 60, "long"),
    ],
)
def test_more_than_a_title_is_named(raw: str, violation: str) -> None:
    assert violation in title_violations(raw)


@pytest.mark.parametrize(
    ("raw", "violations"),
    [
        (TITLE, ()),
        ("真的嗎？臺南下雪了！", ()),
        ("他的一生……市府追思老兵", ()),
        ("台江—─七股輕旅行", ()),
        ("「綠能」與『智慧』（上）並進", ()),
        ("It’s時代！臺南爵士週", ()),
        ("臺南®品牌™授權©", ()),
        ("", ("empty",)),
        ("臺南燈會開幕😀", ("emoji",)),
        ("臺南燈會★開幕", ("emoji",)),
        ("臺灣🇹🇼加油", ("emoji",)),
        ("臺南燈會開幕！！", ("repeated",)),
        ("臺南燈會、、開幕", ("repeated",)),
        ("臺南燈會。。。開幕", ("repeated",)),
        ("臺南燈會開幕。", ("trailing",)),
        ("臺南燈會開幕，", ("trailing",)),
        ("臺南燈會開幕……", ("trailing",)),
        ("臺南燈會開幕:", ("trailing",)),
        ("「臺南燈會開幕", ("brackets",)),
        ("臺南燈會」開幕", ("brackets",)),
        ("（臺南「燈會）」開幕", ("brackets",)),
        ('臺南"燈會開幕', ("brackets",)),
        ("臺南燈會😀！！（", ("emoji", "repeated", "brackets")),
    ],
)
def test_style(raw: str, violations: tuple[str, ...]) -> None:
    assert style_violations(raw) == violations


@pytest.mark.parametrize(
    ("raw", "fits"),
    [
        ("七個字的標題啊", False),
        ("八個字的標題好嗎", True),
        ("臺南 燈會 開幕", True),
        ("字" * 30, True),
        ("字" * 31, False),
        (f"  {'字' * 30}\n", True),
        ("字" * 20 + "\n" + "字" * 10, False),
        ("", False),
    ],
)
def test_length_counts_every_character(raw: str, *, fits: bool) -> None:
    assert has_title_length(raw) == fits


@given(st.text())
def test_any_output_is_judged(raw: str) -> None:
    assert (title_violations(raw) == ("empty",)) == (raw.strip() == "")
    style_violations(raw)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["[", "**", "(", "`", "<a ", "「", '{"', "標", "1. ", "\n"])
def test_a_huge_output_costs_no_time(unit: str) -> None:
    title_violations(unit * 500_000)
    style_violations(unit * 500_000)


@pytest.mark.skipif(not REAL, reason="the press releases are not here")
def test_real_titles_keep_the_contract() -> None:
    titles = [json.loads(line)["title"] for path in REAL for line in path.read_text(encoding="utf-8").splitlines()]
    assert sum(not title_violations(title) for title in titles) / len(titles) > 0.995
    assert sum(not style_violations(title) for title in titles) / len(titles) > 0.985
