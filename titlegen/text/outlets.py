"""Site names around headlines: known outlets' names are removed, with the site's section beside them.

An unknown 某某新聞網 stays: the headline may be about it. So does what stands before a bar: 返鄉記｜小鎮青年募資辦日報.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache

_NAMES = """
自由時報 自由財經 自由娛樂 自由體育 自由健康網 自由評論網 自由藝文網 聯合新聞網 聯合報 聯合報系 聯合晚報 聯合財經網
經濟日報 世界日報 世界新聞網 民生報 中時 中時新聞網 中國時報 工商時報 旺報 旺得富理財網 蘋果日報 蘋果新聞網
台灣蘋果日報 壹蘋新聞網 壹電視 壹週刊 中央社 中央通訊社 中央廣播電臺 央廣 東森 東森新聞 東森新聞雲 東森財經新聞
東森電視 三立 三立新聞 三立新聞網 三立財經台 三立iNEWS 民視 民視新聞 民視新聞網 民視財經網 公視 公視新聞 公視新聞網
公視新聞實驗室 華視 華視新聞 華視新聞網 台視 台視新聞 台視新聞網 中視 中視新聞 中天新聞 中天新聞網 年代新聞 非凡新聞
寰宇新聞 原視 原視新聞 原視新聞網 客家電視 客家新聞 鏡新聞 鏡週刊 鏡報 鏡傳媒 鏡電視 上報 風傳媒 信傳媒 菱傳媒 芋傳媒
太報 放言 放言科技 新頭殼 今日新聞 今日新聞網 匯流新聞網 關鍵評論網 報導者 天下雜誌 親子天下 康健雜誌 商業周刊
商業週刊 商周 商周財富網 遠見 遠見雜誌 今周刊 財訊 財訊雙週刊 鉅亨網 數位時代 科技新報 財經新報 科技報橘 電腦王阿達
癮科技 中廣 中廣新聞網 警廣 警察廣播電臺 台灣好新聞 台灣時報 台灣新生報 中華日報 中華日報新聞網 更生日報 更生新聞網
人間福報 青年日報 國語日報 金門日報 馬祖日報 澎湖時報 民眾日報 民眾新聞網 太平洋日報 自立晚報 大成報 台灣導報 臺灣導報
民報 大紀元 大紀元時報 新唐人 新唐人亞太台 看中國 公民新聞 環境資訊中心 上下游新聞 上下游新聞市集 農傳媒 焦點事件
苦勞網 沃草 鳴人堂 轉角國際 新新聞 周刊王 時報周刊 網路溫度計 卡優新聞網 理財周刊 知新聞 噓星聞 元氣網 運動視界
華人健康網 早安健康 優活健康網 良醫健康網 女人我最大 妞新聞 品觀點 桃園電子報 蕃新聞 雅虎奇摩 奇摩新聞 奇摩股市
台灣醒報 台灣英文新聞 痞客邦 方格子 香港01 明報 明報新聞網 星島日報 星島頭條 東方日報 東網 頭條日報 信報 信報財經新聞
經濟一週 香港經濟日報 香港電台 香港電台新聞網 商業電台 無綫新聞 有線新聞 文匯報 大公報 大公文匯 大公文匯網 巴士的報
橙新聞 點新聞 立場新聞 眾新聞 獨立媒體 獨媒 端傳媒 集誌社 法庭線 中通社 中評網 澳門日報 力報 星洲日報 星洲網 聯合早報
南洋商報 新浪 新浪網 新浪新聞 新浪財經 新浪娛樂 搜狐 搜狐網 搜狐新聞 網易 網易新聞 騰訊網 騰訊新聞 鳳凰網 人民網
新華網 新華社 央視網 央視新聞 澎湃新聞 環球網 觀察者網 參考消息 參考消息網 中國新聞網 中新網 界面新聞 財新網 第一財經
紐約時報中文網 華爾街日報中文網 日經中文網 路透中文網 德國之聲 美國之音 自由亞洲電台 法廣 BBC中文 BBC中文網
BBCNews中文 ETtoday ETToday ETtoday新聞雲 ETtoday財經雲 ETtoday星光雲 ETtoday運動雲 ETtoday健康雲 ETtoday寵物雲
ETtoday旅遊雲 ETtoday遊戲雲 ETtoday房產雲 ETtoday車雲 ETtoday法律新聞 ETtoday時尚雲 ETtoday國際新聞 EBC SETN TVBS
TVBS新聞網 NOWnews Newtalk Newtalk新聞 CTWANT CNEWS CNA FTV FTVnews PTS PNN CTS TTV CTV CTi CTiNews USTV RTHK TVB HK01
HKET Yahoo Yahoo奇摩 Yahoo奇摩新聞 Yahoo奇摩股市 Yahoo奇摩運動 Yahoo新聞 Yahoo股市 Yahoo運動 Yahoo!奇摩 Yahoo!奇摩新聞
Yahoo奇摩時尚美妝 Yahoo財經 MSN MSN新聞 LINETODAY UDN LTN LibertyTimes LibertyTimesNet CommonWealthMagazine
TheNewsLens TNL TheReporter Storm UpMedia MirrorMedia MirrorDaily MirrorNews MirrorWeekly Anue MoneyDJ MoneyDJ理財網
TechNews iThome INSIDE T客邦 TechOrange BusinessWeekly BusinessToday DailyView Mobile01 PChomeOnline PChome新聞 PeoPo
READr TaiSounds Rti TaiwanNews TaipeiTimes FocusTaiwan Heho健康 VOA RFA RFI DW Reuters Bloomberg CNN NHK am730 on.cc
Now新聞 MingPao unwire.hk Vocus vocus Dcard PTT 聯合新聞網：最懂你的新聞網站 UpMedia上報 新頭殼Newtalk
東森新聞：新聞在哪東森就在哪裡 NOWnews今日新聞 風傳媒Storm 太報TaiSounds 數位時代BusinessNext 端傳媒InitiumMedia
報導者TheReporter 方格子vocus 客新聞 Match生活網 噓！星聞 姊妹淘 姊妹淘babyou 上下游News&Market
"""
_TAILS = "新聞網 電子報 即時新聞 即時 新聞 新聞台 網站 官網 網路版 粉絲團 粉絲專頁 APP .com .COM .tw .hk .mg .net .org"
# A headline may end with such a word, too: one goes only behind a bar, or in front of an outlet that went.
_SECTIONS = """
要聞 頭條 焦點 熱門 政治 政治快訊 政壇 政壇焦點 社會 社會萬象 生活 地方 國際 全球 國際財經 兩岸 大陸 中國 港澳 財經
產經 產業 股市 理財 證券 房產 房市 地產 科技 3C 數位 娛樂 娛樂追星 影劇 星聞 藝文 文教 文化 體育 運動 棒球 籃球 健康
醫藥 醫療 保健 養生 旅遊 美食 時尚 消費 汽車 遊戲 動漫 寵物 親子 教育 環境 氣象 軍事 國防 司法 論壇 評論 社論 社評
專欄 觀點 言論 投書 影音 影片 圖輯 副刊 讀書人 蒐奇 趣聞 奇聞 網搜 港聞 經濟 即時 最新 最新消息 焦點話題 加值內容 首頁
即時報導 即時國際 即時財經 即時娛樂 娛樂頻道 財經頻道 政治頻道 新聞頻道 東森旅遊 頻道 TopNews 新聞
"""
_MOST_CHARS, _WINDOW_CHARS, _NAME_WORDS = 40, 48, 3
BARS, _DASHES = "|｜│┃∣❘丨︱", "\\-–—―－_＿»›"
# These stand in headlines, too, and separate only with a space on both sides.
_SPACED = "/·•‧・∙⋅@~～〜∼"
_MARK = rf" (?:[{_SPACED}]|::) "
_BEHIND = re.compile(
    rf"[ ]*(?:(?P<bar>[{BARS}])|(?P<dash>[{_DASHES}]|{_MARK})) ?(?P<segment>(?:(?!{_MARK})[^{BARS}{_DASHES}])+)$"
)
_BRACKETS = re.compile(r" ?[（(【〔\[](?P<segment>[^（()）【】〔〕\[\]]+)[）)】〕\]]$")
_IN_FRONT = re.compile(
    rf"(?:(?P<name>[^{BARS}【】〔〕\[\]]{{1,20}}?) ?[{BARS}]|[【〔\[](?P<bracketed>[^【】〔〕\[\]]{{1,20}})[】〕\]]) ?"
)
# Words that no headline ends with, so that a space before them is enough.
_SURE = re.compile(r"(?:新聞網|電子報|新聞雲)$|^ETtoday|^NOWnews|^Yahoo奇摩|^Yahoo!奇摩")
TRIGGERS = (
    *BARS,
    *"-–—―－_＿»›",
    *_SPACED[1:],
    " / ",
    " :: ",
    *"）)】〕]",
    "新聞網",
    "電子報",
    "新聞雲",
    "ETtoday",
    "NOWnews",
    "Yahoo",
)
"""A title without any of these has no site around it."""
_LETTER = re.compile(r"[^\W_]")


def _key(text: str) -> str:
    return text.replace(" ", "")


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(re.escape(_key(name)) for name in sorted(set(names), key=len, reverse=True))


@cache
def _sites() -> re.Pattern[str]:
    # Compiled when the first title needs it, not whenever the program starts.
    beside = (*_NAMES.split(), *_TAILS.split(), *_SECTIONS.split())
    return re.compile(rf"(?:{_alternatives(_NAMES.split())})(?:{_alternatives(beside)}){{0,4}}")


_SECTION = re.compile(rf"(?:{_alternatives(_SECTIONS.split())})(?:新聞|快訊|焦點|頻道)?")


def is_site(text: str) -> bool:
    """Return whether a text is an outlet's name, maybe written twice, with its section or its domain."""
    return len(text) <= _MOST_CHARS and _sites().fullmatch(_key(text)) is not None


def strip_sites(title: str) -> tuple[str, list[str]]:
    """Return the title without the outlets and sections around it, and what was removed; at least one letter stays."""
    start, end = 0, _end_of_text(title, _behind_title)
    while (match := _IN_FRONT.match(title, start, end)) and is_site(match["name"] or match["bracketed"]):
        if not _LETTER.search(title, match.end(), end):
            break
        start = match.end()
    pieces = [piece for piece in (title[:start], title[end:]) if piece.strip()]
    return title[start:end].strip() if pieces else title, pieces


def strip_site_line(line: str) -> str:
    """Return a line of an article without the outlet and sections behind a bar at its end."""
    return line[: _end_of_text(line, _behind_bar)]


Ending = tuple[int, bool] | None
"""The start of a part that may be removed, and whether it is an outlet."""


def _end_of_text(text: str, find_ending: Callable[[str, bool], Ending]) -> int:
    """Return where the text ends and the sites behind it begin; at least one letter stays in front of them.

    Only the last few characters are looked at each time, so that the time is linear.
    """
    letter = _LETTER.search(text)
    end, outlet_went = len(text), False
    while letter is not None:
        window = text[max(0, end - _WINDOW_CHARS) : end]
        ending = find_ending(window, outlet_went)
        if ending is None or (left := end - len(window) + ending[0]) <= letter.start():
            break
        end, outlet_went = left, outlet_went or ending[1]
    return end


def _behind_bar(window: str, outlet_went: bool) -> Ending:  # noqa: FBT001 - as any other finder
    match = _BEHIND.search(window)
    return None if match is None or match["dash"] else _judge(match, outlet_went)


def _behind_title(window: str, outlet_went: bool) -> Ending:  # noqa: FBT001
    match = _BEHIND.search(window)
    if match and (ending := _judge(match, outlet_went)):
        return ending
    if (match := _BRACKETS.search(window)) and is_site(match["segment"]):
        return match.start(), True
    # Two words of one name may have a space between them: the longest counts.
    spaces = [match.start() for match in re.finditer(" (?=[^ ])", window)][-_NAME_WORDS:]
    return next(((at, True) for at in spaces if is_site(window[at:]) and _SURE.search(_key(window[at:]))), None)


def _judge(match: re.Match[str], outlet_went: bool) -> Ending:  # noqa: FBT001
    segment = match["segment"]
    if is_site(segment):
        return match.start(), True
    is_section = (match["bar"] or outlet_went) and _SECTION.fullmatch(_key(segment))
    return (match.start(), False) if is_section else None
