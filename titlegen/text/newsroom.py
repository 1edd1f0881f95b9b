"""Rules for what a newsroom puts around an article: bylines, credits, captions, notes, links to other articles."""

import re

from titlegen.text.outlets import BARS, strip_site_line
from titlegen.text.rule import CLOSE, HAN, INSIDE, AnyRule, LineRule, Rule, any_of, bracketed, listed, words

_AGENCY = words(
    "中央社 路透社? 法新社 美聯社 共同社 新華社 彭博社? 德新社 韓聯社 公視(?:新聞網?)? 華視 中廣 綜合外電 外電 本報 "
    "自由時報 聯合報 中國時報 中時 東森 三立 民視 鏡週刊 新頭殼 今日新聞"
)
_REPORTER = r"(?:(?:實習|特約|駐地|本報)?記者(?!會|[協公工學]會|站|團|室)|特派員)"
_BULLETS = r"[ ●■◆►▶★※◎【〈\[＞>＊*▌|]{0,4}"
_STARS = r"[ ※◎★●◆■＊*（(【\[]{0,3}"
_PICTURE = words("圖片? 照片 影片 畫面 影像 圖文 示意圖 資料照片? 圖說")
_ROLE = words(
    "責任編輯 實習編輯 核稿編輯 編輯 責編 核稿 譯者 編譯 撰文 撰稿 審稿 校對 文字 整理 採訪 攝影 圖文 剪輯 文 圖"
)

_BYLINE_IN_BRACKETS = bracketed(
    # （記者X／台北報導）（中央社記者X台北1日電）（記者X攝）【本報記者X新北報導】
    rf"{INSIDE}{{0,20}}?{_REPORTER}{INSIDE}{{1,40}}?(?:報導|\d日電|編譯|攝影?|整理|專訪)",
    rf"{_REPORTER} ?[{HAN}]{{2,4}}",
    # （中央社）（公視新聞 X 綜合報導）（法新社巴黎3日電）
    rf"{_AGENCY}(?:{INSIDE}{{0,40}}?(?:報導|日電|電|編譯|攝影?))?",
    # （國際中心／綜合報導）（X／台北報導）【國際組X編譯】
    rf"{INSIDE}{{1,20}}[／/]{INSIDE}{{1,12}}(?:報導|編譯)",
    rf"{INSIDE}{{1,6}}(?:中心|組)[{HAN} ]{{0,8}}(?:報導|編譯)",
)
_BYLINE_OF_REPORTER = any_of(
    # 記者X／台北報導, 中華日報 記者X／楠西報導
    rf"^(?:{_AGENCY}|[{HAN}]{{2,6}}報)? ?{_REPORTER} ?[{HAN}A-Za-z、． ]{{2,20}}(?: ?[／/] ?| )"
    rf"[{HAN} ]{{1,8}}報導(?: ?[：:])?",
    # 中央社記者X台北1日電
    rf"^(?:{_AGENCY})? ?{_REPORTER}[{HAN}、 ]{{2,20}}\d{{1,2}}日電(?: ?[：:])?",
)
_BYLINE_LINE = any_of(
    # 國際中心／綜合報導
    rf"^[{HAN}A-Za-z、 ]{{2,16}} ?[／/] ?[{HAN} ]{{2,12}}報導(?: ?[：:]|(?=$| ))",
    # X X 台北報導, a line of its own
    rf"^(?:[{HAN}]{{2,4}} ){{1,4}}(?:[／/] )?(?:綜合|[{HAN}]{{2,3}}) ?報導$",
)
_BYLINE_WORDS = listed("報導 日電 電） 電) 電〕 電】 記者 特派員 編譯 社） 社) 社】 視） 報）")

BYLINE = Rule(
    name="byline",
    pattern=re.compile(any_of(_BYLINE_IN_BRACKETS, _BYLINE_OF_REPORTER, _BYLINE_LINE), re.MULTILINE),
    triggers=_BYLINE_WORDS,
)
TITLE_BYLINE = Rule(
    name="byline",
    # 民眾恐慌／媒體不實報導 is a headline.
    pattern=re.compile(
        any_of(_BYLINE_IN_BRACKETS, _BYLINE_OF_REPORTER, rf"^[{HAN}]{{2,6}}(?:中心|組) ?[／/] ?[{HAN}]{{2,8}}報導 ?")
    ),
    triggers=_BYLINE_WORDS,
)

# （責任編輯：X）（編輯：X）1130501
_CREDIT_IN_BRACKETS = rf"{bracketed(rf'{_ROLE} ?[：:／/]{INSIDE}{{1,60}}')}(?: ?\d{{7}}$)?"
_CREDIT_WORDS = (
    *listed("編輯 責編 核稿 譯者 編譯 撰文 撰稿 審稿 校對 文字 採訪 圖文 攝影 剪輯"),
    *(f"{word}{mark}" for word in ("文", "圖", "整理") for mark in "／/：:｜|"),
)

CREDIT = Rule(
    name="credit",
    pattern=re.compile(any_of(_CREDIT_IN_BRACKETS, rf"^{_ROLE} ?[／/：:｜|][^\n。！？]{{1,40}}$"), re.MULTILINE),
    triggers=_CREDIT_WORDS,
)
# 攝影｜春日櫻花展 is a headline.
CREDIT_IN_BRACKETS = Rule(name="credit", pattern=re.compile(_CREDIT_IN_BRACKETS, re.MULTILINE), triggers=_CREDIT_WORDS)

CAPTION = Rule(
    name="caption",
    pattern=re.compile(
        any_of(
            # Triangles are bullets, too: a caption names its picture, or is a few words without a number.
            r"^ ?[▲▼△▽]+(?:[^\n]{0,200}?(?:[（(][^\n（）()]{0,40}(?:圖|照|攝|提供|畫面)[^\n（）()]{0,40}[）)]|"
            r"(?:圖|照片|影片|畫面|攝影?) ?[／/：:]|(?:攝|提供)[）)。]?$|翻攝|資料照)[^\n]*|[^\n\d０-９]{0,24})$",
            # As are arrows.
            r"^ ?[◀▶►◄↑↓][^\n]{0,200}?(?:圖|攝|提供|畫面)[^\n]{0,40}$",
            r"^(?:照片|圖片?|影片|影音|畫面|資料照|示意圖|圖說) ?(?:[一二三四五六七八九十]|\d{1,2})? ?[：:／/][^\n]*$",
            bracketed(
                # （圖／X提供）（資料照）（翻攝自X）（民眾提供）
                rf"{_PICTURE}(?:來源)? ?[：:／/]{INSIDE}{{0,60}}",
                rf"(?:資料照片?|示意圖|翻攝|取自|截自)(?:，?{INSIDE}{{0,30}})?",
                rf"{INSIDE}{{0,6}}(?:圖|照|影|畫面|民眾|讀者|業者|警方){INSIDE}{{0,24}}(?:提供|翻攝|攝影?)",
            ),
        ),
        re.MULTILINE,
    ),
    triggers=(
        *"▲▼△▽◀▶►◄↑↓",
        *(f"{word}{mark}" for word in "圖照片影音像面說文" for mark in "／/：: "),
        *(f"{word}{mark}" for word in ("提供", "攝", "攝影") for mark in "）)〕］]】〉"),
        *(f"圖{number}" for number in "一二三四五六七八九十123456789"),
        *listed("照片 圖片 資料照 示意圖 來源 翻攝 取自 截自"),
    ),
)

EDITOR_NOTE = Rule(
    name="editor_note",
    pattern=re.compile(
        any_of(
            bracketed(rf"(?:編按|編者按|編註|按語|更新時間|更新|本文) ?[：:]{INSIDE}{{0,200}}"),
            rf"^{_STARS}(?:編按|編者按|編輯部?按|編註)[：:][^\n]*$",
            # Advice that a site adds below every article on suicide, alcohol or tobacco.
            rf"^{_STARS}(?:[^\n。：，]{{0,12}}提醒您 ?[：:]|請撥打?1925|"
            # News begins with these words, too; advice tells what to do.
            r"(?=[^\n]{0,160}(?:請撥|18歲(?:者|人士)?[，,]?(?:請勿|禁止|不得)|有害健康|"
            r"不能解決|並非弱者|禁止飲酒|專線 ?[：:]? ?\d{4}))"
            r"(?:珍惜生命|自殺防治|自殺不能|飲酒過量|吸菸有害|未滿18歲|勇敢求救))[^\n]{0,160}$",
        ),
        re.MULTILINE,
    ),
    triggers=listed(
        "編按 者按 輯按 部按 按語 編註 更新 本文： 本文: 提醒您 珍惜生命 自殺防治 自殺不能 飲酒過量 吸菸有害 "
        "未滿18歲 勇敢求救 1925"
    ),
)

RELATED_LINKS = Rule(
    name="related_links",
    pattern=re.compile(
        rf"^{_BULLETS}"
        + words(
            r"延伸閱讀 更多(?:\w{0,6})?(?:新聞|報導|文章|影音) 相關(?:新聞|報導|文章|連結) 推薦閱讀 看更多 "
            r"看了這篇 其他人也在看 你可能(?:也|還)?(?:想看|喜歡|感興趣) "
            r"熱門(?:新聞|文章) 人氣(?:新聞|文章) 點我加入 加入好友 追蹤我們 按讚"
        )
        + r"(?:[】〉\]]|[ ：:／/!！]|$)[^\n]*"
        # The headlines below such a heading: lines that no sentence ends.
        + r"(?:\n[^\n]*[^\n。！？」』）)](?=\n|\Z)){0,12}"
        # An app or newsletter may be in the news: only where the line calls for it.
        + rf"|^{_BULLETS}(?:下載[^\n]{{0,8}}APP|訂閱[^\n]{{0,8}}電子報)"
        + r"(?:[】〉\]：:／/!！][^\n]*| [^\n。，\d]{0,14})?$",
        re.MULTILINE,
    ),
    triggers=listed(
        "延伸閱讀 更多 相關新聞 相關報導 相關文章 相關連結 推薦閱讀 看了這篇 也在看 你可能 熱門 人氣 點我 "
        "加入好友 追蹤我們 下載 訂閱 按讚"
    ),
)

SOURCE_NOTE = Rule(
    name="source_note",
    pattern=re.compile(
        any_of(
            rf"^{_STARS}(?:資料|新聞|圖片|文章|內容|原文|訊息|消息)(?:來源|出處|提供|網址|連結)[{CLOSE}]? ?[：:／/]"
            r"[^\n]{0,100}$",
            rf"^{_STARS}(?:本文|本篇|本報導|原文)[^\n。]{{0,12}}(?:轉載|授權|刊登|刊載|出自|同步)[^\n]{{0,80}}$",
            bracketed(rf"(?:資料|新聞|文章|原文)(?:來源|出處) ?[：:／/]?{INSIDE}{{0,60}}"),
            r"^(?:轉載自|原文刊於|點此看原文|閱讀原文)[^\n]{0,80}$",
        ),
        re.MULTILINE,
    ),
    triggers=listed("來源 出處 料提供 聞提供 片提供 息提供 章提供 容提供 網址 連結 轉載 本文 本篇 本報導 原文"),
)

SITE_NAME = LineRule(name="site_name", function=strip_site_line, triggers=tuple(BARS))

FILLER = Rule(
    name="filler",
    pattern=re.compile(
        bracketed(
            words(
                "更新 獨家 快訊 即時 影音? 影片 有影 有影片 有片 圖輯? 組圖 動圖 有圖 多圖 直播 專題 懶人包 全文 內文 "
                "圖文 示意 下同 圖表 見圖 如圖 附圖 詳見附[圖表件]"
            )
            + rf"(?:[：:／/]{INSIDE}{{0,12}})?"
        )
    ),
)

NEWSROOM_RULES: tuple[AnyRule, ...] = (
    BYLINE,
    CAPTION,
    CREDIT,
    EDITOR_NOTE,
    RELATED_LINKS,
    SOURCE_NOTE,
    SITE_NAME,
    FILLER,
)
