"""People, places, organisations and foreign words of a title that are not in its article, for a reader to check."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from titlegen.metrics.gazetteer import ABROAD, BODIES, REGION_SHORT, REGIONS, TOWNS
from titlegen.metrics.numerals import fold_width
from titlegen.metrics.tokens import load_jieba, simplify

_PERSON_TAGS = frozenset({"nr", "nrt", "nrfg"})
# jieba tags many a common noun as a place (上路, 藍海), so the word itself has to look like one.
_PLACE_TAGS = frozenset({"ns", "nt"})
_PLACE = re.compile(r".+[國省州市縣區鄉鎮村島港山溪湖灣路街站會局部署院處校館廟寺宮社司黨隊團大]")
# 高二生 is no Mr Gao.
_HAN_NUMERAL = re.compile("[一二三四五六七八九十]")
_COMMON = frozenset(
    {
        "臺灣",
        "台灣",
        "城市",
        "宜居城市",
        "重鎮",
        "社區",
        "山區",
        "市區",
        "社會",
        "大會",
        "機會",
        "專區",
        "園區",
        "上路",
        "城鎮",
        "鄉鎮",
    }
)
# Which side of a city, or a part of a longer name: 原住民族委員會.
_GENERIC_PLACE = re.compile(r"[東西南北中]{1,2}[區部]|.{1,2}地區|.{0,2}(?:委員會|公所|分局|總局)")
# No person is named after a camp, a team or a fair: 夏令營.
_NO_NAME_END = frozenset("營團隊會展節館站場區院校班賽季獎金費稅")
# These stand in headlines for their sound: 一起來FUN電.
_INTERJECTIONS = frozenset(
    {"go", "fun", "in", "on", "up", "ng", "joy", "high", "hi", "ok", "yes", "no", "so", "my", "we"}
)
_INTERJECTIONS |= {
    "me",
    "you",
    "the",
    "a",
    "an",
    "and",
    "or",
    "of",
    "for",
    "to",
    "is",
    "it",
    "new",
    "vs",
    "x",
    "i",
    "love",
}
_INTERJECTIONS |= {"happy", "let", "us", "good", "top", "best", "bye", "show", "easy"}
# Source: the hundred most frequent surnames in Taiwan, Ministry of the Interior, 全國姓名統計分析, 2018.
_SURNAMES = (
    "陳林黃張李王吳劉蔡楊許鄭謝洪郭邱曾廖賴徐周葉蘇莊呂江何蕭羅高潘簡朱鍾游彭詹胡施沈余盧梁趙顏柯翁魏孫戴范方宋"
    "鄧杜傅侯曹薛丁卓馬阮董唐温溫藍蔣石古紀姚連馮歐程湯田康姜汪白鄒尤巫鐘黎涂龔嚴韓袁金童陸夏柳凃邵錢伍倪"
)
_SHORT_NAME, _FULL_NAME = 2, 3
# Who bears a name, before or behind it: 市長陳其邁, 陳其邁市長, 陳其邁：….
_ROLE = (
    "[市縣鄉鎮區里村校院部局處署廳會社館站所隊團組]長|總統|總理|委員長|董事長|執行長|總經理|立委|立法委員|議員|主任|主席|主委"
    "|秘書長|發言人|教授|教練|博士|醫師|律師|導演|歌手|演員|作家|選手|先生|女士|檢察官|法官"
)
_BORNE = re.compile(
    rf"(?<![\u4e00-\u9fff])(?P<before>[{_SURNAMES}][\u4e00-\u9fff]{{2}})(?={_ROLE}|[：:])"
    rf"|(?:{_ROLE})(?P<behind>[{_SURNAMES}][\u4e00-\u9fff]{{2}})(?![縣市區鄉鎮])"
)
_TOWN = re.compile(r"(?=(?P<town>[\u4e00-\u9fff]{2,3})(?P<kind>[區鄉鎮市])(?![域塊間段隔分民場親長]))")
# Longer names first, so that 中華電信 is not read as a part of itself.
_LISTED = re.compile("|".join(sorted({*REGIONS, *REGION_SHORT, *ABROAD, *BODIES}, key=len, reverse=True)))
_ANY_REGION = re.compile("|".join(REGIONS))
# Titles are read clause by clause; what stands word for word in the article needs no reading.
_CLAUSE = re.compile(r"[^\W_]+(?:[-.&'][^\W_]+)*")
# 南市府 is backed by 臺南市政府: the same characters in order, within a few others.
_ABBREVIATION_SPREAD, _MAX_ABBREVIATION = 3, 8
# Further places of a frequent name add nothing.
_MAX_PLACES = 50
_PLACE_NAME = re.compile(r".+[國省州市縣區鄉鎮村里島港山溪湖灣路街站]")
_VARIANTS = str.maketrans("台峯温鐘凃", "臺峰溫鍾涂")


class Name(NamedTuple):
    """A name in a title and where it stands."""

    text: str
    start: int
    end: int


def find_names(title: str) -> list[Name]:
    """Return what looks like a name, in order; a person's name has to begin with a surname."""
    return [name for clause in _CLAUSE.finditer(title) for name in _read_clause(title, clause)]


def unsupported_names(title: str, article: str) -> list[Name]:
    """Return the names of a title that its article has neither in full nor as what they abbreviate.

    A region counts only where the article is about another: a press release often leaves out whose it is.
    """
    plain = _fold(article)
    return [
        name
        for clause in _CLAUSE.finditer(title)
        if _fold(clause[0]) not in plain
        for name in _read_clause(title, clause)
        if not _is_backed(_fold(name.text), plain)
    ]


def locate_name(name: str, article: str) -> list[tuple[int, int]]:
    """Return where an article has a name, in full or else as what it abbreviates; at most ``_MAX_PLACES`` places."""
    plain, folded = _fold(article), _fold(name)
    for form in dict.fromkeys((folded, REGION_SHORT.get(folded, folded), folded.rstrip("0123456789") or folded)):
        if found := [match.span() for match in islice(re.finditer(re.escape(form), plain), _MAX_PLACES)]:
            return found
        pattern = _abbreviation(form)
        if pattern and (found := [match.span() for match in islice(pattern.finditer(plain), _MAX_PLACES)]):
            return found
    return []


def is_person(name: str) -> bool:
    """Return whether a name is a person's in full, by its surname and length."""
    return len(name) == _FULL_NAME and name[0] in _SURNAMES and not is_place(name)


def is_place(name: str) -> bool:
    """Return whether a name is that of a place, as far as its form or the gazetteer says."""
    plain = name.translate(_VARIANTS)
    return plain in REGIONS or plain in ABROAD or _PLACE_NAME.fullmatch(plain) is not None


def _read_clause(title: str, clause: re.Match[str]) -> list[Name]:
    """Return the names of one clause, in order; of two that overlap the one that begins first."""
    found = sorted({*_listed(title, clause), *_borne(title, clause), *_tagged(clause)}, key=lambda n: (n.start, -n.end))
    kept: list[Name] = []
    for name in found:
        if not kept or name.start >= kept[-1].end:
            kept.append(name)
    return kept


def _listed(title: str, clause: re.Match[str]) -> Iterator[Name]:
    """Yield the names of the gazetteer."""
    plain = title.translate(_VARIANTS)
    for match in _LISTED.finditer(plain, *clause.span()):
        yield Name(title[slice(*match.span())], *match.span())
    for match in _TOWN.finditer(plain, *clause.span()):
        if match["town"] in TOWNS:
            yield Name(title[match.start("town") : match.end("kind")], match.start("town"), match.end("kind"))


def _borne(title: str, clause: re.Match[str]) -> Iterator[Name]:
    """Yield the names that a role stands beside, or a colon behind, unless they begin with a common word."""
    frequent = load_jieba().dt.FREQ
    for match in _BORNE.finditer(title, clause.start(), min(clause.end() + 1, len(title))):
        text = match["before"] or match["behind"]
        # Behind a role a given name may be a word: 市長蔡英文.
        pairs = (text[:2], text[1:]) if match["before"] else (text[:2],)
        if text[:2] not in TOWNS and not any(frequent.get(simplify(pair)) for pair in pairs):
            start = match.start("before" if match["before"] else "behind")
            yield Name(text, start, start + len(text))


def _tagged(clause: re.Match[str]) -> Iterator[Name]:
    """Yield what jieba takes for a name; it knows Simplified words, so it reads the clause converted, in place."""
    jieba = load_jieba()
    end = 0
    for word, tag in jieba.posseg.cut(simplify(clause[0])):
        start, end = end, end + len(word)
        text = clause[0][start:end]
        if tag in _PERSON_TAGS:
            # In jieba's dictionary most short "names" are words: 歡慶, 溫馨, 藍圖.
            is_name = text[0] in _SURNAMES and (len(text) == _FULL_NAME or word not in jieba.dt.FREQ)
            is_name = is_name and len(text) <= _FULL_NAME and _HAN_NUMERAL.search(text) is None
            is_name = is_name and text[-1] not in _NO_NAME_END
        elif tag in _PLACE_TAGS:
            is_name = _PLACE.fullmatch(text) is not None and text not in _COMMON
            is_name = is_name and _GENERIC_PLACE.fullmatch(text) is None
        else:
            is_name = tag == "eng" and text.lower().rstrip("0123456789") not in _INTERJECTIONS
        if is_name and len(text) >= _SHORT_NAME:
            yield Name(text, clause.start() + start, clause.start() + end)


def _fold(text: str) -> str:
    return fold_width(text).translate(_VARIANTS)


def _is_backed(name: str, article: str) -> bool:
    name = REGION_SHORT.get(name, name)
    region = name[:2] if name[:2] in REGIONS and name[2:] in {"", "市", "縣", "市府", "縣府"} else None
    if region is not None:
        return region in article or _ANY_REGION.search(article) is None
    return _stands_in(name, article) or (name.isascii() and _stands_in(name.rstrip("0123456789") or name, article))


def _stands_in(name: str, article: str) -> bool:
    if name in article:
        return True
    pattern = _abbreviation(name)
    return pattern is not None and pattern.search(article) is not None


def _abbreviation(name: str) -> re.Pattern[str] | None:
    """Return the pattern of the words that a name abbreviates, None where it can abbreviate nothing."""
    if name.isascii() or len(name) > _MAX_ABBREVIATION:
        return None
    gap = rf".{{0,{_ABBREVIATION_SPREAD}}}?"
    return re.compile(gap.join(map(re.escape, name)))
