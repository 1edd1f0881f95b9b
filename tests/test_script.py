import re
from collections.abc import Callable
from pathlib import Path

import pytest
from articles import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from titlegen.text import Converted, is_simplified, to_traditional
from titlegen.text.script import converter, has_simplified
from titlegen.text.taiwan import first_words, last_forms

# Sentences of our own: as China writes them, a tab, as Taiwan's newsrooms do; [僱|雇] stands for either. Lines that are
# Traditional to begin with stand there twice.
SENTENCES = [
    line.split("\t")
    for line in (Path(__file__).parent / "taiwan_sentences.tsv").read_text(encoding="utf-8").splitlines()
]
# Only someone who knows Miss 于 can tell 在于 from 在於.
UNKNOWABLE = {"范姓男子与余姓友人在于小姐家中吃饭。"}


def is_right(text: str, wanted: str) -> bool:
    parts = re.split(r"\[(.\|.)\]", wanted)
    return re.fullmatch("".join(f"[{p}]" if n % 2 else re.escape(p) for n, p in enumerate(parts)), text) is not None


def right_share(convert: Callable[[str], str]) -> float:
    return sum(is_right(convert(before), after) for before, after in SENTENCES) / len(SENTENCES)


@pytest.mark.parametrize(("before", "after"), [pair for pair in SENTENCES if pair[0] not in UNKNOWABLE])
def test_a_sentence_gets_its_form_in_taiwan(before: str, after: str) -> None:
    assert is_right(to_traditional(before).text, after)


def test_no_configuration_of_opencc_writes_as_many_sentences_as_taiwan_does() -> None:
    import opencc

    assert len(SENTENCES) == 250
    shares = {name: right_share(opencc.OpenCC(name).convert) for name in ("s2t", "s2tw", "s2twp", "s2hk")}
    # Of OpenCC's own, s2tw is the nearest, which is why it is what ours is built on.
    assert max(shares, key=lambda name: shares[name]) == "s2tw"
    assert shares["s2tw"] < 0.65
    assert right_share(lambda text: to_traditional(text).text) >= 0.99


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("展示了如何利用", "展示了如何利用"),
        ("参与制造年代", "參與製造年代"),
        ("被发明家遗忘", "被發明家遺忘"),
        ("七十年历史", "七十年歷史"),
        ("总理发表谈话，局长发言", "總理發表談話，局長發言"),
        ("强台风来临，去年台风造成", "強颱風來臨，去年颱風造成"),
        ("相关系统", "相關系統"),
        ("于老师与于小姐", "于老師與于小姐"),
    ],
)
def test_a_phrase_does_not_reach_across_words(before: str, after: str) -> None:
    assert to_traditional(f"国家{before}").text == f"國家{after}"


@pytest.mark.parametrize(
    "text",
    [
        "余先生与范先生".replace("与", "與"),
        "公布家具，台中后里區公所的干部",
        "皇后里的干貝與台式面具，只准乘用",
        "堃、喆、犇三位代表",
        # In Big5 as Windows writes it, and in names.
        "里長林恒立說，恒春的宏碁門市與粧品店昨天開幕",
        "裏、綫、衞、爲、啓這些字，香港人也寫",
        "",
        "2024 Olympic",
    ],
)
def test_traditional_text_stays(text: str) -> None:
    assert to_traditional(text) == Converted(text)


def test_title_and_body_are_judged_apart() -> None:
    body = "鎮立圖書館將全部燈具換成節能型號。"
    assert to_traditional("图书馆换新灯具 每年省电四万度", beside=body).text == "圖書館換新燈具 每年省電四萬度"
    assert to_traditional(body, beside="图书馆换新灯具").text == body


def test_a_title_whose_characters_both_scripts_have_follows_the_body() -> None:
    assert to_traditional("后台制作", beside="镇公所宣布，图书馆换新灯具。").text == "後台製作"
    assert to_traditional("后台制作", beside="鎮公所宣布，圖書館換新燈具。").text == "后台制作"
    assert to_traditional("后台制作").text == "后台制作"


def test_each_line_is_judged_by_itself() -> None:
    text = "鎮公所公布，余姓里長說，台上的后土祠不拆。\n图书馆发布后台制作的节目。\n后台制作"
    converted = to_traditional(text)
    assert converted.text.split("\n")[:2] == [text.split("\n", maxsplit=1)[0], "圖書館發布後台製作的節目。"]
    assert converted.example.startswith("图书馆发布后台制作的节目。 → 圖書館")
    assert converted.mixed == ""


def test_in_a_rather_traditional_line_only_what_no_traditional_text_has_is_converted_and_told() -> None:
    line = "余姓館長說，圖書館換新灯具，后里的台電每年發展节能。"
    converted = to_traditional(line)
    assert converted.text == "余姓館長說，圖書館換新燈具，后里的台電每年發展節能。"
    assert converted.mixed == line


def test_japanese_is_left_and_told() -> None:
    line = "宮崎駿新片「君たちはどう生きるか」在中国上映"
    assert to_traditional(line) == Converted(line, "", line[:40])
    assert to_traditional("鲜の味开张").text == "鮮の味開張"


def test_scripts_are_told_apart() -> None:
    assert is_simplified("台湾积体电路公司宣布扩大投资")
    assert not is_simplified("臺灣積體電路公司宣佈擴大投資")
    assert not is_simplified("皇后里的干貝與台式面具，只准乘用")


def test_every_word_of_ours_keeps_its_length_and_is_what_comes_out() -> None:
    convert = converter()
    words = first_words()
    assert all(len(before) == len(after) for before, after in (words | last_forms()).items())
    assert {before: convert(before) for before in words} == words


def test_no_character_is_converted_twice() -> None:
    every = "\n".join(map(chr, range(0x3400, 0xA000)))
    once = converter()(every)
    assert len(once) == len(every)
    assert to_traditional(to_traditional(every).text).text == to_traditional(every).text


simplified = st.text(
    st.sampled_from("发历制里后台干系只面了余范于云松丰国图书馆灯节为这着说，。\n乾著發歷カな A1"), max_size=60
)
anything = st.one_of(
    simplified,
    st.text(st.characters(codec=None), max_size=60),
    st.lists(st.sampled_from([*(before for before, _ in SENTENCES), *WORDS, "\n", "，", "。"]), max_size=8).map(
        "".join
    ),
)


@given(anything, simplified)
@settings(max_examples=600)
def test_conversion_keeps_the_length_and_repeating_it_changes_nothing(text: str, beside: str) -> None:
    converted = to_traditional(text, beside)
    assert len(converted.text) == len(text)
    assert to_traditional(converted.text, beside).text == converted.text
    assert (converted.text == text) == (not converted.example)


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map("".join))
def test_traditional_news_is_never_touched(text: str) -> None:
    assert not has_simplified(text)
    assert to_traditional(text).text == text
