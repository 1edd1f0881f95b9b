"""Rules for what a press office puts around its release: datelines, issuing units, contacts."""

import re

from titlegen.text.rule import HAN, AnyRule, FunctionRule, Rule, any_of, words

# (06)299-1111, 06-2991111#123, 0912-345-678, 2991111轉100; digits may be masked with 0. Free hotlines such as
# 0800-000-321 are part of the news.
_EXTENSION = r"(?: ?(?:[#＃*轉]|分機|轉分機) ?\d{1,6}(?:[、,，和及/~-] ?\d{2,6})*)"
_NUMBER = any_of(
    r"[（(]0\d{1,2}[）)] ?\d{3,4}[-－]?\d{3,4}",
    r"(?<!\d)0(?!800)\d{1,3}[-－](?:\d{6,8}|\d{3,4}[-－]\d{3,4})",
)
_BARE = r"(?<!\d)\d{7,8}(?!\d)"
_PHONE = any_of(
    rf"{_NUMBER}{_EXTENSION}?",
    rf"{_BARE}{_EXTENSION}",
    rf"(?:電話|專線|洽詢?|撥打|傳真|手機) ?[：:]? ?{_BARE}",
)
_POST = words("科長 股長 課長 組長 主任 技正 技士 專員 科員 辦事員 秘書 館長 所長 老師 小姐 先生 女士 承辦 分析師")
_DATE = any_of(r"(?:\d{2,4} ?年 ?)?\d{1,2} ?月 ?\d{1,2} ?日?", r"\d{2,4}[/.\-]\d{1,2}[/.\-]\d{1,2}")
_TIME = r"(?: ?(?:上午|下午)? ?\d{1,2} ?[：:] ?\d{2})?"
_LEAD = r"(?:(?:新聞稿?|業務|活動|媒體|本案|承辦) ?)?"
_FIELD = _LEAD + any_of(
    r"發 ?稿 ?(?:單 ?位|人 ?員?|日 ?期|時 ?間)",
    r"[聯連] ?[絡繫] ?(?:人 ?員?|電 ?話|方 ?式|單 ?位|窗 ?口)",
    r"承 ?辦 ?(?:人 ?員?|單 ?位|科 ?長|股 ?長|課 ?長)",
    r"供稿單位|撰稿人?|電子信箱|[Ee]-?[Mm]ail",
    # These may open a sentence, too: only with a number behind them.
    r"(?:電 ?話|傳 ?真|手 ?機|行動電話|發言人|[Tt][Ee][Ll]|[Ff][Aa][Xx])(?= ?[：:][^\n。]{0,30}\d{3})",
)
_PHONE_LIKE = re.compile(r"[0-9](?:[-－）)] ?[0-9]{3}|[0-9]{6})")
_PHONE_NUMBER = re.compile(_PHONE)
# A sentence with a number is about whom to call when it says so, or is hardly more than a name and the number.
_CALLS = re.compile(
    r"電 ?話|專線|洽|撥|[聯連][絡繫]|分機|轉|[#＃]|傳 ?真|手 ?機|報名|查詢|諮詢|詢問|預約|訂[位購票]|服務|窗口|請|"
    r"[Tt][Ee][Ll]|" + _POST
)
_SHORT_CHARS = 30
_SENTENCE = re.compile(r"[^。！？]*[。！？」』）]*")


def _drop_contact_sentences(text: str) -> tuple[str, list[str]]:
    """Drop each sentence that gives a telephone number to call."""
    # The cheap pattern first: most texts have no run of digits like a telephone's.
    if not (_PHONE_LIKE.search(text) and _PHONE_NUMBER.search(text)):
        return text, []
    kept: list[str] = []
    pieces: list[str] = []
    for line in text.split("\n"):
        if not _PHONE_NUMBER.search(line):
            kept.append(line)
            continue
        stays: list[str] = []
        for sentence in _SENTENCE.findall(line):
            (pieces if _gives_contact(sentence) else stays).append(sentence)
        if any(stays):
            kept.append("".join(stays))
    return "\n".join(kept), pieces


def _gives_contact(sentence: str) -> bool:
    if not _PHONE_NUMBER.search(sentence):
        return False
    is_short = len(sentence) <= _SHORT_CHARS and not sentence.endswith("。")
    return is_short or _CALLS.search(sentence) is not None


PRESS_RULES: tuple[AnyRule, ...] = (
    Rule(
        name="press_dateline",
        pattern=re.compile(
            rf"(?:^[^\n。，]{{2,16}}新聞稿)? ?發 ?稿 ?(?:日 ?期|時 ?間) ?[：:] ?{_DATE}{_TIME}"
            r"(?: ?[（(][^）)\n]{0,12}更新[）)])?",
            re.MULTILINE,
        ),
        triggers=("發稿", "發 稿"),
    ),
    Rule(
        name="press_unit",
        pattern=re.compile(
            any_of(
                # The unit up to the end of its line, or to the next field.
                r"^發 ?稿 ?單 ?位 ?[：:] ?[^\n：:，。]{0,40}$",
                r"^發 ?稿 ?單 ?位 ?[：:] ?[^\n：:，。]{0,24}?(?=發稿|新聞[聯連]|[聯連][絡繫]|承辦)",
                # Glued to the article: up to the end of the unit's name.
                rf"^發 ?稿 ?單 ?位 ?[：:] ?[{HAN}○、]{{1,16}}?(?:及國際關係處|委員會|辦公室|[局處會科室館課所府])",
                rf"^發 ?稿 ?人 ?員? ?[：:] ?[{HAN}○、/ ]{{0,16}}(?:{_PHONE}|{_BARE})?(?=$|[聯連][絡繫]|電話)",
            ),
            re.MULTILINE,
        ),
        triggers=("發稿", "發 稿"),
    ),
    Rule(
        name="contact_block",
        pattern=re.compile(
            rf"^[ ※◎★●■◆＊*]{{0,2}}{_FIELD} ?[：:][^\n。]{{0,200}}。?$"
            # The office, people and numbers on the lines below.
            rf"(?:(?<=[：:])\n[{HAN} ]{{2,24}}$)?"
            rf"(?:\n(?:{_FIELD} ?[：:])?[^\n。！？：]{{0,60}}(?:{_PHONE}|{_BARE}|{_POST})[^\n。！？]{{0,60}}$)*",
            re.MULTILINE,
        ),
        triggers=("：", ":"),
    ),
    FunctionRule(name="contact_sentence", function=_drop_contact_sentences),
)
