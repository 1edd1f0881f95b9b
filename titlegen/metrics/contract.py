"""The form of a title: a title and nothing else, of the right length, and clean."""

import regex

from titlegen.specification import TITLE_CHARS

MIN_CHARS, MAX_CHARS = TITLE_CHARS
# A longer output is no title, and is not read to its end: outputs are untrusted.
_MAX_READ_CHARS = 1000

_OPEN_CLOSE = {
    "「": "」",
    "『": "』",
    "《": "》",
    "〈": "〉",
    "【": "】",
    "（": "）",
    "(": ")",
    "[": "]",
    "“": "”",
    "‘": "’",
}
_WRAPPING = {**{mark: _OPEN_CLOSE[mark] for mark in "「『《〈【“‘"}, '"': '"', "'": "'", "`": "`", "＂": "＂"}

# Violations of a raw output, in the order in which they are looked for.
_PREFIX = regex.compile(
    r"(?:(?:新聞|新闻|文章|建議|本文|生成的?|精煉的?)?(?:標題|标题|題目|题目|主題)(?:如下|為|是|建議)?"
    r"|答案?|輸出|回覆|摘要|說明|解釋|title|headline|answer|output)\s*[:：]"
    r"|(?:以下|下面)(?:是|為|就是)|這(?:是|為|就是)(?:一?[則個]|.{0,6}標題)"
    r"|(?:[這本此].)?(?:新聞|文章|報導)的?標題(?:為|是)\s*[:：「『]"
    r"|(?:好的?|當然(?:可以)?|沒問題|了解|收到|sure|okay|ok|certainly)\s*[,，。.!！:：]"
    r"|(?:根據|依據)(?:上述|以上|您提供的?|你提供的?|這篇|提供的)"
    r"|here(?:'s| is| are)\b",
    regex.IGNORECASE,
)
_EXPLANATION = regex.compile(
    # Behind other words it is a headline's own: 衛福部說明：…, 全球關注：….
    r"(?:^|[(（【\[。！？])[^\S\n]*(?:說明|解釋|理由|備註|註|注|note)\s*[:：]|希望(?:這個?標題|對[您你])|如(?:有|需)其他"
    r"|(?:此|這個|本|上述)標題|[(（]\s*共?\s*\d{1,3}\s*(?:個?字|字元)\s*[)）]\s*$",
    regex.IGNORECASE | regex.MULTILINE,
)
_MARKDOWN = regex.compile(
    r"```|~~~|^#{1,6}\s|\*\*[^*\s][^*]*\*\*|__[^_\s][^_]*__|^(?:[-*+•]|\d{1,2}[.)])\s|^>\s|`[^`]+`|\[[^\]]+\]\([^)]+\)|^\|.*\|$"
)
_JSON = regex.compile(r"^\s*(?:\{.*\}|\[\s*[\"{\[].*\])\s*$", regex.DOTALL)
_CHAT_TOKEN = regex.compile(
    r"</?(?:bos|eos|pad|unk|mask|s|start_of_turn|end_of_turn|start_of_image|end_of_image|think|unused\d+)>"
    r"|<\|[a-z_0-9\"]+\|?>|<[a-z_]+\|>|\[/?INST\]|<<SYS>>|\[multimodal\]",
    regex.IGNORECASE,
)
_TAG = regex.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?>", regex.IGNORECASE)

# With the dingbats, such as ★ and ✕; without the signs that names carry.
_EMOJI = regex.compile(r"[\p{Extended_Pictographic}\p{Regional_Indicator}\u2600-\u27BF\uFE0F\u20E3--[©®™]]", regex.V1)
_REPEATED = regex.compile(r"([!！?？,，、;；:：~～。])\s*\1|[!！?？]{3,}|\.{3,}|…{3,}|—{3,}|([-_=*#|/])\2+")
_TRAILING = regex.compile(r"[,，、;；:：。.…~～\-—_=|/\\]$")


def title_violations(raw: str) -> tuple[str, ...]:
    """Return the violations of a raw output; empty when it is a title and nothing else.

    White space around the output is no violation. The names: empty, lines, prefix, explanation, markdown,
    json, chat_token, quotes, long.
    """
    text = raw.strip()
    if not text:
        return ("empty",)
    found = ["long"] if len(text) > _MAX_READ_CHARS else []
    text = text[:_MAX_READ_CHARS]
    if len([line for line in text.splitlines() if line.strip()]) > 1:
        found.append("lines")
    if _PREFIX.match(text):
        found.append("prefix")
    if _EXPLANATION.search(text):
        found.append("explanation")
    if any(_MARKDOWN.search(line.strip()) for line in text.splitlines()):
        found.append("markdown")
    if _JSON.match(text):
        found.append("json")
    if _CHAT_TOKEN.search(text) or _TAG.search(text):
        found.append("chat_token")
    if _is_wrapped(text):
        found.append("quotes")
    return tuple(found)


def has_title_length(raw: str) -> bool:
    """Return whether an output has 8 to 30 characters; spaces inside count, they part the clauses of a headline."""
    return MIN_CHARS <= len(raw.strip()) <= MAX_CHARS


def style_violations(raw: str) -> tuple[str, ...]:
    """Return what an editor would take out: empty, emoji, repeated or trailing punctuation, unbalanced brackets.

    ！ and ？ may end a title; …… and —— count as one mark each.
    """
    text = raw.strip()[:_MAX_READ_CHARS]
    if not text:
        return ("empty",)
    found = []
    if _EMOJI.search(text):
        found.append("emoji")
    if _REPEATED.search(text):
        found.append("repeated")
    if _TRAILING.search(text):
        found.append("trailing")
    if not _is_balanced(text):
        found.append("brackets")
    return tuple(found)


def _is_wrapped(text: str) -> bool:
    """Return whether one pair of quotes holds the whole text: 「…」, but not 「甲」與「乙」."""
    closing = _WRAPPING.get(text[0])
    if closing is None or len(text) < 2 or text[-1] != closing:  # noqa: PLR2004 - a pair
        return False
    inner = text[1:-1]
    if closing == text[0]:
        return closing not in inner
    depth = 0
    for char in inner:
        depth += (char == text[0]) - (char == closing)
        if depth < 0:
            return False
    return True


def _is_balanced(text: str) -> bool:
    expected: list[str] = []
    closing = set(_OPEN_CLOSE.values()) - {"’"}
    for char in text:
        # ‘ and ’ also stand for an apostrophe.
        if char in _OPEN_CLOSE and char != "‘":
            expected.append(_OPEN_CLOSE[char])
        elif char in closing and (not expected or expected.pop() != char):
            return False
    return not expected and text.count('"') % 2 == 0
