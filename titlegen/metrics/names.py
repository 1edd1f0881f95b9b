"""Which people, places, organisations and foreign words of a title are not in its article: candidates for a reader."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from titlegen.metrics.numerals import fold_width
from titlegen.metrics.tokens import load_jieba, simplify

_PERSON_TAGS = frozenset({"nr", "nrt", "nrfg"})
# jieba tags many a common noun as a place (上路, 藍海), so the word itself has to look like one.
_PLACE_TAGS = frozenset({"ns", "nt"})
_PLACE = re.compile(
    r".+[國省州市縣區鄉鎮村島港山溪湖灣路街站會局部署院處校館廟寺宮社司黨隊團大]"
    r"|[台臺][灣北中南東]|高雄|基隆|桃園|新竹|苗栗|彰化|南投|雲林|嘉義|屏東|宜蘭|花蓮|澎湖|金門|馬祖"
    r"|日本|印度|越南|歐洲|亞洲|非洲|東京|大阪|香港|上海|北京|紐約|倫敦|巴黎|烏克蘭|俄羅斯|以色列"
)
# 高二生 is no Mr Gao.
_HAN_NUMERAL = re.compile("[一二三四五六七八九十]")
_COMMON = frozenset(
    {"城市", "宜居城市", "重鎮", "社區", "山區", "市區", "社會", "大會", "機會", "專區", "園區", "上路", "上街"}
)
# Source: the hundred most frequent surnames in Taiwan, Ministry of the Interior, 全國姓名統計分析, 2018.
_SURNAMES = frozenset(
    "陳林黃張李王吳劉蔡楊許鄭謝洪郭邱曾廖賴徐周葉蘇莊呂江何蕭羅高潘簡朱鍾游彭詹胡施沈余盧梁趙顏柯翁魏孫戴范方宋"
    "鄧杜傅侯曹薛丁卓馬阮董唐温溫藍蔣石古紀姚連馮歐程湯田康姜汪白鄒尤巫鐘黎涂龔嚴韓袁金童陸夏柳凃邵錢伍倪"
)
_SHORT_NAME, _FULL_NAME = 2, 3
# Titles are read clause by clause; what stands word for word in the article needs no reading.
_CLAUSE = re.compile(r"[^\W_]+(?:[-.&'][^\W_]+)*")
# 南市府 is backed by 臺南市政府: the same characters in order, within a few others.
_ABBREVIATION_SPREAD, _MAX_ABBREVIATION = 3, 8
_VARIANTS = str.maketrans("台峯温鐘凃", "臺峰溫鍾涂")


class Name(NamedTuple):
    """A name in a title and where it stands."""

    text: str
    start: int
    end: int


def find_names(title: str) -> list[Name]:
    """Return what jieba takes for a name, in order; a person's name has to begin with a surname.

    jieba knows Simplified words, so it reads the title converted, position by position.
    """
    return [name for clause in _CLAUSE.finditer(title) for name in _read_clause(clause[0], clause.start())]


def unsupported_names(title: str, article: str) -> list[Name]:
    """Return the names of a title that its article has neither in full nor as what they abbreviate."""
    plain = _fold(article)
    return [
        name
        for clause in _CLAUSE.finditer(title)
        if _fold(clause[0]) not in plain
        for name in _read_clause(clause[0], clause.start())
        if not _stands_in(_fold(name.text), plain)
    ]


def _read_clause(clause: str, offset: int) -> Iterator[Name]:
    jieba = load_jieba()
    end = 0
    for word, tag in jieba.posseg.cut(simplify(clause)):
        start, end = end, end + len(word)
        text = clause[start:end]
        if tag in _PERSON_TAGS:
            # In jieba's dictionary most short "names" are words: 歡慶, 溫馨, 藍圖.
            is_name = text[0] in _SURNAMES and (len(text) == _FULL_NAME or word not in jieba.dt.FREQ)
            is_name = is_name and len(text) <= _FULL_NAME and _HAN_NUMERAL.search(text) is None
        elif tag in _PLACE_TAGS:
            is_name = _PLACE.fullmatch(text) is not None and text not in _COMMON
        else:
            is_name = tag == "eng"
        if is_name and len(text) >= _SHORT_NAME:
            yield Name(text, offset + start, offset + end)


def _fold(text: str) -> str:
    return fold_width(text).translate(_VARIANTS)


def _stands_in(name: str, article: str) -> bool:
    if name in article:
        return True
    if name.isascii() or len(name) > _MAX_ABBREVIATION:
        return False
    gap = rf".{{0,{_ABBREVIATION_SPREAD}}}?"
    return re.search(gap.join(map(re.escape, name)), article) is not None
