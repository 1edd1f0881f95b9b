"""Rules for headlines; none of them takes a title's last letter."""

import re

from titlegen.text.characters import REMNANT_RULES
from titlegen.text.newsroom import CREDIT_IN_BRACKETS, FILLER, TITLE_BYLINE
from titlegen.text.outlets import BARS, TRIGGERS, strip_sites
from titlegen.text.rule import AnyRule, FunctionRule, Rule, keeping

_LABEL = (
    r"(?:快訊|快新聞|獨家(?:報導|專訪)?|更新(?:中)?|即時(?:新聞|快訊)?|最新(?:消息|快訊)?|突發|影音?|影片|有影片?|有片|圖輯?|組圖|多圖|有圖|"
    r"(?:新聞)?直播(?:中)?|LIVE|懶人包|專題(?:報導)?|(?:不斷|持續)更新中?)"
)
# In pointed brackets 影, 圖 and 專題 may be the name of a film or a series.
_POINTED = r"快訊|獨家|更新|即時|最新|有影|影片|直播"

TITLE_RULES: tuple[AnyRule, ...] = (
    Rule(name="title_line_break", pattern=re.compile(r"\n+"), replacement=" ", triggers=("\n",)),
    *map(
        keeping,
        (
            TITLE_BYLINE,
            CREDIT_IN_BRACKETS,
            FILLER,
            REMNANT_RULES[0],
            FunctionRule(name="title_site_suffix", function=strip_sites, triggers=TRIGGERS),
            Rule(
                name="title_label",
                pattern=re.compile(
                    rf"^(?:{_LABEL} ?[／/：:{BARS}》＞>】★☆!！] ?|[【\[（(〔［] ?{_LABEL} ?[】\]）)〕］] ?|"
                    rf"[〈《](?:{_POINTED})[〉》] ?|(?:快訊|快新聞) |(?:新聞|主)?標題[：:] ?)+"
                ),
            ),
            FunctionRule(name="title_edge", function=lambda title: (title.strip(f"，、；：。:,;／/ {BARS}"), [])),
        ),
    ),
)
