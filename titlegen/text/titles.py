"""Rules for headlines."""

import re

from titlegen.text.characters import REMNANT_RULES
from titlegen.text.newsroom import BYLINE, CREDIT, FILLER, SITE_NAME
from titlegen.text.rule import AnyRule, FunctionRule, Rule

_LABEL = r"快訊|獨家|更新|即時|最新|影音?|影片|有影|有片|圖輯|多圖|直播|懶人包|專題|不斷更新|持續更新"

TITLE_RULES: tuple[AnyRule, ...] = (
    Rule(name="title_line_break", pattern=re.compile(r"\n+"), replacement=" ", triggers=("\n",)),
    BYLINE,
    CREDIT,
    SITE_NAME,
    FILLER,
    REMNANT_RULES[0],
    Rule(
        name="title_site_suffix",
        pattern=re.compile(
            r"(?: ?[-–—_－＿] ?(?:自由時報|聯合|中時|蘋果|公視|華視|民視|三立|東森|中央|今日|上報|鏡)\w{0,6}"
            r"(?:新聞網?|電子報|時報|日報)|(?: ?[-–—_－＿] ?| )(?:"
            # Behind a space alone only a whole name: 今日 and 中央 begin clauses of headlines, too.
            r"自由時報(?:電子報)?|聯合新聞網|中時(?:新聞網|電子報)|蘋果(?:日報|新聞網)|(?:公視|華視|民視|三立|東森)新聞網|"
            r"今日新聞網|(?:ETtoday|TVBS|NOWnews|Yahoo奇摩)\w{0,8}|中央社 ?CNA|風傳媒|信傳媒|鏡週刊))$"
        ),
    ),
    Rule(
        name="title_label",
        pattern=re.compile(rf"^(?:{_LABEL}) ?[／/：:｜|] ?|^[【\[〈《（(] ?(?:{_LABEL}) ?[】\]〉》）)] ?"),
    ),
    FunctionRule(name="title_edge", function=lambda title: (title.strip("，、；：。:,;|｜／/ "), [])),
)
