"""Whether a title denies what its article says, or says what its article denies: 電價調漲 over 電價不調漲.

Only plain cases are found, since most words of denial deny nothing (不同, 無線, 未來): the article always says the same
of what follows the denial, in a sentence about the same thing, and the title says the opposite.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from titlegen.text.sentences import sentence_spans

# A word of denial, but for those that are part of another word.
_DENIAL = (
    r"(?:(?<![三四五六七八九十零])不(?![僅只但斷少久過論分同如然料惜妨禁愧朽凡單絕打錯二景時等滿法實明當便幸肖銹鏽鏽])"
    r"|(?<!從)未(?![來婚滿雨爆])|沒有?(?![收落入水])|並?無(?![線障限比數論不疑緣微礙塵照薪鉛糖縫效奈法毒菸患煙所痛臂私國人機])"
    r"|無人(?![機載店車商])|並?非(?![常洲營凡法本典素同得都核屬農政自官正接])|(?<![分個類特級性區差派識辨告離惜])別(?![人墅具出開名處緻館的稱冊有])"
    r"|(?<![避以難豁減])免(?![疫費於稅不除])|勿|尚未|從未|絕不|毫無|否認|拒絕|拒(?![馬酒菸毒絕]))"
)
# What may stand between a denial and what it denies.
_FILLER = (
    r"(?:可能|必須|需要|應該|打算|考慮|準備|計畫|規劃|任何|特別|再度|發生|傳出|進行|造成|獲得|出現|因此|如期|順利|全面|人員?"
    r"|[會能可得予再曾被獲有須必應該要將為是在給需實已]){0,3}"
)
_ADJACENT = re.compile(
    # Looked ahead for, since what is denied may begin with the next denial: 不足未通過.
    rf"{_DENIAL}(?=(?P<filler>{_FILLER})(?P<core>[\u4e00-\u9fff]{{2}})|(?P<single>[\u4e00-\u9fff])(?![\u4e00-\u9fff]))"
)
# Words that may deny or doubt a clause, whether or not they do here: such a clause is left alone.
_DOUBT = re.compile(
    r"[不未沒無非勿免否拒零禁防杜別莫休]|停止|[暫喊]停|停辦|取消|暫緩|延後|駁回|撤|避免|擺脫|告別|遠離|解除|減少|降低|落空|破局|反對|抗議"
    r"|難以|杜絕|喊卡|告吹"
)
_CLAUSE = re.compile(r"[^，。！？!?；;：:\s、「」『』《》（）()]+")
# These begin many words, or say nothing alone: what follows them is no statement that could be denied.
_EMPTY_CORES = re.compile(
    r"[的了在是與及和或也都就之其此該這那一二三四五六七八九十兩百千萬年月日元]|.[的了在是與及和或也都之，]"
)
_MAX_TITLE, _MAX_ARTICLE = 200, 200_000
# No real article repeats a word so often, and each place takes time.
_MAX_PLACES = 200


class Denial(NamedTuple):
    """A word of denial in a text, and what it denies: two characters, or the last one of a clause."""

    start: int
    end: int
    """Behind what is denied."""
    core: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A place in a title whose article says the opposite, and where it does."""

    kind: Literal["dropped", "added"]
    start: int
    end: int
    article_start: int
    article_end: int


def find_denials(text: str) -> Iterator[Denial]:
    """Yield what a text denies in so many words: the denial stands right before it."""
    for match in _ADJACENT.finditer(text):
        core = match["core"] or match["single"]
        if not _EMPTY_CORES.match(core):
            yield Denial(match.start(), match.end("core" if match["core"] else "single"), core)


def find_contradictions(title: str, article: str) -> list[Contradiction]:
    """Return where a title drops or adds a denial, in order."""
    title, article = title[:_MAX_TITLE], article[:_MAX_ARTICLE]
    spans = sentence_spans(article)
    found = [*_dropped(title, article, spans), *_added(title, article, spans)]
    return sorted(found, key=lambda contradiction: contradiction.start)


def _dropped(title: str, article: str, spans: Sequence[tuple[int, int]]) -> Iterator[Contradiction]:
    denials = [denial for denial in find_denials(article) if denial.core in title]
    for core in dict.fromkeys(denial.core for denial in denials):
        denied = {denial.end: denial for denial in denials if denial.core == core}
        ends = [place + len(core) for place in _places(core, article)]
        # Everything that the article says of it has to be a denial, and nothing of the title.
        if not denied.keys() >= set(ends) or any(_is_doubted(title, core, place) for place in _places(core, title)):
            continue
        start = title.find(core)
        for denial in denied.values():
            if _same_subject(title, core, article, _span_at(spans, denial.start)):
                yield Contradiction("dropped", start, start + len(core), denial.start, denial.end)
                break


def _added(title: str, article: str, spans: Sequence[tuple[int, int]]) -> Iterator[Contradiction]:
    for denial in find_denials(title):
        places = list(_places(denial.core, article))
        if (
            len(denial.core) == 1
            or len(places) > _MAX_PLACES
            or any(_is_doubted(article, denial.core, place) for place in places)
        ):
            continue
        for place in places:
            if _same_subject(title, denial.core, article, _span_at(spans, place)):
                yield Contradiction("added", denial.start, denial.end, place, place + len(denial.core))
                break


def _places(core: str, text: str) -> Iterator[int]:
    place = text.find(core)
    while place >= 0:
        yield place
        place = text.find(core, place + 1)


def _is_doubted(text: str, core: str, place: int) -> bool:
    """Return whether the clause around a place denies or doubts anything, but in the words ``core`` themselves."""
    return any(
        _DOUBT.search(text, clause.start(), place) or _DOUBT.search(text, place + len(core), clause.end())
        for clause in _CLAUSE.finditer(text, max(0, place - _MAX_TITLE), place + _MAX_TITLE)
        if clause.start() <= place < clause.end()
    )


def _span_at(spans: Sequence[tuple[int, int]], place: int) -> tuple[int, int]:
    return spans[max(bisect_right(spans, place, key=lambda span: span[0]) - 1, 0)]


def _same_subject(title: str, core: str, article: str, span: tuple[int, int]) -> bool:
    """Return whether a sentence of the article has two more characters in a row that the title has."""
    sentence = article[slice(*span)]
    rest = [part for clause in _CLAUSE.findall(title) for part in clause.split(core)]
    return any(part[index : index + 2] in sentence for part in rest for index in range(len(part) - 1))
