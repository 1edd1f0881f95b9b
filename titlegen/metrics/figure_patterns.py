"""Patterns of numbers in a text of folded width, and of the words around them that say what they count."""

import re
from decimal import Decimal

from titlegen.metrics.numerals import ARABIC, HAN_DIGITS, HAN_UNITS

NUMERAL = (
    rf"(?:(?:{ARABIC} ?|[{HAN_DIGITS}]{{1,18}})?(?:[{HAN_UNITS}](?:{ARABIC}|[{HAN_DIGITS}]{{1,18}})?){{1,12}}"
    rf"|{ARABIC}|[{HAN_DIGITS}]{{1,18}})"
)
SIDE = rf"(?:\d{{1,3}}|[{HAN_DIGITS}十]{{1,3}})"
# The first alternative that matches wins: a telephone number is no range, a date no fraction.
SCAN = re.compile(
    # Most characters start no number: one test of the next one spares nine alternatives.
    rf"(?=[\d(a-z半{HAN_DIGITS}{HAN_UNITS}])(?:"
    r"(?P<phone>(?<![\d.])\(?0\d{1,3}\)?[- ]?\d{3,4}[- ]?\d{3,4}(?!\d))"
    r"|(?P<date>(?<![\d.])\d{2,4}(?P<mark>[/.-])\d{1,2}(?P=mark)\d{1,2}(?!\d))"
    rf"|(?P<code>(?<![a-z])[a-z]{{1,12}}-?\d{{1,8}}(?:-?[a-z]{{1,4}}\d{{1,8}})?(?:\.\d{{1,3}})?(?![\d,{HAN_UNITS}]))"
    r"|(?P<clock>(?<![\d:.])\d{1,3}:\d{1,3}(?::\d{2})?(?![\d:]))"
    rf"|(?P<versus>(?<![\d第{HAN_DIGITS}{HAN_UNITS}]){SIDE}比{SIDE}(?![\d{HAN_DIGITS}{HAN_UNITS}]))"
    rf"|(?P<fraction>{NUMERAL}分之{NUMERAL})"
    r"|(?P<slash>(?<![\d/])\d{1,4}/\d{1,4}(?![\d/]))"
    r"|(?P<half>(?<![過近逾超])(?:半數|一半)|(?<=[減砍])半)"
    rf"|(?P<number>{NUMERAL}))"
)

# What follows a numeral and says what it counts; the first that matches wins.
SUFFIX = re.compile(
    r"(?P<percent> ?(?:%|﹪|個?百分點|趴))"
    r"|(?P<tenths>成(?![立為功長果員績本就交人分語都衣家軍熟型形效份因了屆年])(?P<more>[1-9一二三四五六七八九半])?)"
    r"|(?P<discount>折(?![騰返磨射合疊損衷服起彎斷舊讓]))"
    r"|(?P<duration> ?(?:[週周]年|年(?:[級齡資輕紀代薪來間前後內以期]|多)|個月|[日天](?:[遊內間後前]|以[內上來])))"
    r"|(?P<year>\)? ?(?:學年|年))"
    r"|(?P<month> ?月)"
    r"|(?P<day>\)? ?(?:日(?![本系式商圓])|號(?![線碼誌召])))"
    r"|(?P<hour> ?(?:點|時(?![代間候尚常機事]))(?P<half>半)?)"
)
CALENDAR = frozenset({"year", "month", "day", "hour"})
LARGEST = {"month": 12, "day": 31, "hour": 24, "tenths": 10}
JOINT = re.compile(r"[年月日號點時%成折)]{0,2} ?[、,，~至到和及與或-]{1,2} ?")
ROC_BEFORE = re.compile(r"(?:民國|[今明去前昨後]\(?)\Z")
LARGEST_PERCENT = Decimal(10) ** 9
ROC_OFFSET = 1911
# Where 年 may also count years: 民國60 to 150 are calendar years, and from 100 on nothing else.
LIKELY_ROC = (60, 150)
CERTAIN_ROC = 100
LAST_ROC = 199
LIKELY_WESTERN = (1900, 2199)
CURRENCY = frozenset({"nt", "ntd", "us", "usd", "twd", "rmb", "hk", "no"})

# A lone Han numeral is a number only before what can be counted: 三重, 七股, 統一 and 十分 are none.
COUNTED = re.compile(
    r"[人名位個件案例歲天週周次場間家所校座棟戶元塊張支隻頭匹輛架艘部組隊項款種屆階層樓條倍坪噸顆粒枚床席桌班梯連大餘多]"
    r"|[台臺](?![灣南北中東])|公[里尺斤頃噸分克升]|小時|分鐘"
)
HAS_ARABIC = re.compile("[0-9]")
# The 三 of 三到五歲.
RANGE = re.compile(rf"[至到~-]{NUMERAL}(?:{COUNTED.pattern})")
UNIT_ONLY = re.compile(rf"[{HAN_UNITS}]+")
DIGITS_ONLY = re.compile(rf"[{HAN_DIGITS}]+")
# 第一 is a rank in 第一名 and 第一屆, and praise or haste in 市占第一, 第一線, 第一時間.
RANKED = re.compile(r"[名屆次場個座批期波階季位處度回]")
# 兩三天 is no figure, and so is 數百; 初九 counts the days of the moon.
VAGUE = frozenset("一二三四五六七八九"[i : i + 2] for i in range(8)) | {"兩三", "三兩"}
VAGUE_BEFORE = frozenset("數幾初每")
# 陸, 伍 and 參 are words; as figures they stand in amounts only.
NEVER_ALONE = frozenset("零〇○壹貳參肆伍陸柒捌玖贰叁陆")
LARGE_ALONE = frozenset(HAN_UNITS) - {"十"}
NAMED_DIGITS = 3

# 逾三月 counts months, and 三月 names one.
SPAN_BEFORE = re.compile(r"(?:連|逾|近|達|滿|超過|約|隔|歷時)\Z")
AT_LEAST_BEFORE = re.compile(r"(?:逾|超過|超|破|突破|上|至少|起碼|不止|衝上|多達|高達)\Z")
AT_MOST_BEFORE = re.compile(r"(?:近|將近|逼近|不到|未滿|未達|低於)\Z")
ABOUT_BEFORE = re.compile(r"(?:約|大約|約莫)\Z")
AT_LEAST_AFTER = re.compile(r"(?:餘|多(?![元樣功媒久少])|以上|起)")
ABOUT_AFTER = re.compile(r"\w{0,2}左右")
