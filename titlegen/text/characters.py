"""Rules for single characters: broken encodings, invisible ones, emoji, white space and repeated punctuation."""

import re
import unicodedata
from functools import cache

from titlegen.text.rule import CLOSE, OPEN, AnyRule, FunctionRule, LineRule, Rule

# What news text commonly holds: ASCII, CJK punctuation, full-width forms, Han, bopomofo and some signs.
_ODD = re.compile("[^\n -~\u3000-\u303f！-～\u3400-\u4dbf\u4e00-\u9fffㄅ-ㄩ①-⑳·×÷±°—–‘’“”…‧•※→℃○●◆■─・㎡ˊˇˋ˙é]")


def is_plain(text: str) -> bool:
    """Return whether a text needs none of the rules marked ``odd_only``: it holds common characters alone."""
    return _ODD.search(text) is None


_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
# Pictographs, without what news text uses as signs: circled numbers, © ® ™ and arrows in running text.
_EMOJI = (
    "\u231a\u231b\u23e9-\u23f3\u23f8-\u23fa\u2600-\u2775\u2794-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u20e3"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f1ff\U0001f300-\U0001faff"
)
# Control characters, lone surrogates, noncharacters, the mark of lost text, and private use, where icon fonts live.
_UNUSABLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffc-\uffff\ue000-\uf8ff\U000f0000-\U0010ffff"
)
# Signs that also stand inside words, as plain text: 五★攤商, 我♥台灣. A variation selector makes pictures of them.
_SIGN_IN_WORD = re.compile(
    r"(?<=[^\W_])[★☆♥♡❤♀♂♪♫♨☯✓✔✕✖✗✘](?=[^\W_])|(?<=[0-9０-９一二三四五六七八九十])[★☆](?!\ufe0f)"
)
_SPACES = (
    "\t\v\f\x1c\x1d\x1e\x1f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
    "\u3000"
)
_SEPARATORS = " -=_*~＊＝－—─━＿#•·.…"
_SEPARATOR_CHARS = 3
_DOT, _MARK = "[.。．…‧・]", "[，、；：。！？!?~～,;—]"
_SAME_DOTS = re.compile(r"([.。．‧・])\1\1+|(…)…{2,}")
_SAME_MARKS = re.compile(r"([，、；：。！？!?~～,;])\1+|([!！][?？]|[?？][!！])[!?！？]+|(——)—+")
# Characters of Latin-1 and Windows-1252, into which UTF-8 falls when it is read with the wrong encoding.
_SUSPICIOUS = re.compile(
    "[\x80-\x9f]|[À-ÿ\u0152-\u0178\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122][\x80-\xff\u0152-\u2122]"
)


def _fix_encoding(text: str) -> tuple[str, list[str]]:
    if not _SUSPICIOUS.search(text):
        return text, []
    import ftfy

    pieces, lines = [], text.split("\n")
    for number, line in enumerate(lines):
        fixed = ftfy.fix_text_segment(line, _ftfy_config()) if _SUSPICIOUS.search(line) else line
        if fixed != line and len(fixed) <= len(line):
            pieces.append(line)
            lines[number] = fixed
    return "\n".join(lines), pieces


@cache
def _ftfy_config() -> object:
    import ftfy

    # Full-width forms, ligatures and quotes are the article's own; only wrong decoding is repaired here.
    return ftfy.TextFixerConfig(
        unescape_html=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )


def _unify(match: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", match[0])
    return plain if len(plain) == 1 else match[0]


def _drop_emoji(match: re.Match[str]) -> str:
    sign = _SIGN_IN_WORD.match(match.string, match.start())
    return match[0] if sign and sign.end() == match.end() else ""


def _drop_separator(line: str) -> str:
    return "" if len(line) >= _SEPARATOR_CHARS and not line.strip(_SEPARATORS) else line


def _shorten_dots(match: re.Match[str]) -> str:
    return _SAME_DOTS.sub(lambda run: "……" if run[2] else "…", match[0])


def _shorten_marks(match: re.Match[str]) -> str:
    return _SAME_MARKS.sub(lambda run: run[1] or run[2] or run[3], match[0])


CHARACTER_RULES: tuple[AnyRule, ...] = (
    FunctionRule(name="mojibake", function=_fix_encoding, odd_only=True),
    Rule(name="line_break", pattern=re.compile("\r\n?|[\x85\u2028\u2029]"), replacement="\n", odd_only=True),
    # Before what is invisible goes: that makes one picture of several, or of a sign.
    Rule(
        name="emoji",
        pattern=re.compile(f"[{_EMOJI}][{_EMOJI}\u200d\ufe0e\ufe0f]*"),
        replacement=_drop_emoji,
        odd_only=True,
    ),
    Rule(name="invisible", pattern=re.compile(f"[{_INVISIBLE}]"), odd_only=True),
    Rule(name="unusable_character", pattern=re.compile(f"[{_UNUSABLE}]"), odd_only=True),
    # Kangxi radicals and compatibility forms look like the plain character but are other tokens.
    Rule(
        name="han_variant",
        pattern=re.compile("[\u2e80-\u2fdf\uf900-\ufaff\U0002f800-\U0002fa1f]"),
        replacement=_unify,
        odd_only=True,
    ),
    Rule(
        name="space",
        pattern=re.compile(f"[ {_SPACES}]{{2,}}|[{_SPACES}]"),
        replacement=" ",
        triggers=("  ", *_SPACES),
    ),
    Rule(
        name="blank_line",
        pattern=re.compile(r" \n[ \n]*|\n[ \n]+"),
        replacement="\n",
        triggers=(" \n", "\n ", "\n\n"),
    ),
    FunctionRule(name="outer_space", function=lambda text: (text.strip(), [])),
    LineRule(name="separator_line", function=_drop_separator),
    # Written out, because re looks for a first character quickly, but not for one that a count follows.
    Rule(name="ellipsis", pattern=re.compile(f"{_DOT}{_DOT}{_DOT}+"), replacement=_shorten_dots),
    Rule(name="repeated_punctuation", pattern=re.compile(f"{_MARK}{_MARK}+"), replacement=_shorten_marks),
)

_EMPTY = re.compile(rf"[{OPEN}「『《][ ，、：:；]{{0,4}}[{CLOSE}」』》]")
_OPENED, _CLOSED = "（(〔［[【〈「『《", "）)〕］]】〉」』》"
_BLANK, _MOST_BLANKS = " ，、：:；", 4


def _drop_empty_brackets(text: str) -> tuple[str, list[str]]:
    """Drop brackets around nothing, and those around them, in one walk."""
    if not _EMPTY.search(text):
        return text, []
    kept: list[str] = []
    opened: list[int] = []
    pieces: list[str] = []
    for char in text:
        if char in _OPENED:
            opened.append(len(kept))
        elif char in _CLOSED and opened and len(kept) - opened[-1] <= _MOST_BLANKS + 1:
            place = opened.pop()
            if all(blank in _BLANK for blank in kept[place + 1 :]):
                pieces.append("".join([*kept[place:], char]))
                del kept[place:]
                continue
        elif char not in _BLANK:
            opened.clear()
        kept.append(char)
    return "".join(kept), pieces


_DANGLING = "，、；：。:,;|｜／/"
_OPENING = "（(【〔「『"

# What other rules leave behind; they come last.
REMNANT_RULES: tuple[AnyRule, ...] = (
    FunctionRule(name="empty_brackets", function=_drop_empty_brackets),
    LineRule(name="dangling_mark", function=lambda line: line.lstrip(_DANGLING).rstrip(_OPENING).strip()),
    FunctionRule(name="dangling_end", function=lambda text: (text.rstrip(_DANGLING.replace("。", "")), [])),
)
