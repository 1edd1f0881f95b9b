"""Rules for what an HTML page leaves in its text: entities, tags, links, chat control tokens."""

import html
import re

from titlegen.families import neutralise_control_tokens
from titlegen.text.rule import AnyRule, FunctionRule, Rule

# Only names that HTML knows: <Avengers> in an article is a title, not a tag.
_BLOCK = r"br|hr|p|div|li|ul|ol|dl|dt|dd|tr|table|tbody|thead|tfoot|section|article|blockquote|figure|h[1-6]"
_INLINE = (
    r"a|abbr|acronym|address|aside|audio|b|big|body|button|canvas|center|cite|code|col|colgroup|del|em|embed|"
    r"figcaption|font|footer|form|frame|frameset|head|header|html|i|iframe|img|input|ins|kbd|label|link|main|map|"
    r"mark|meta|nav|noscript|object|option|param|path|pre|q|s|script|select|small|source|span|strike|strong|style|"
    r"sub|sup|svg|template|textarea|time|title|u|var|video|wbr|o:p|st1:\w{1,20}"
)
_HIDDEN = (
    *(
        (rf"<{name}\b", re.compile(rf"</{name}\s{{0,3}}>", re.IGNORECASE))
        for name in ("script", "style", "noscript", "iframe", "svg", "figcaption")
    ),
    ("<!--", re.compile("-->")),
)
_URL = r"(?:https?://|(?<![\w.])www\.)[A-Za-z0-9\-._~:/?#@!$&'*+,;=%]*"
_URL_LABEL = r"(?:(?:[\u4e00-\u9fff]{0,4}(?:網址|連結|網站|網頁|表單|官網))? ?[：:] ?)?"


# What JSON inside JSON, or the dump of a database, leaves of line breaks and other characters. In a path (C:\new) small
# letters follow, and in an article about programming the two characters stand in quotes.
_ESCAPE = re.compile(
    r"(?<![:\\「『“‘'\"（(`])(?:(?:\\{1,3}r)?\\{1,3}n|\\{1,3}[rt])(?![a-z」』”`])|"
    r"\\(?=[\"'/“”])|(?:\\u[0-9a-fA-F]{4})+|\\x[aA]0"
)


def _unescape_literal(match: re.Match[str]) -> str:
    escape = match[0]
    if escape.startswith("\\u"):
        units = bytes.fromhex(escape.replace("\\u", ""))
        return units.decode("utf-16-be", "replace")
    if escape == "\\":
        return ""
    return "\n" if escape[-1] in "nr" else " "


def _unescape(match: re.Match[str]) -> str:
    plain = html.unescape(f"&{match[1] or match[2]};")
    return plain if len(plain) <= len(match[0]) else match[0]


def _drop_hidden(text: str) -> tuple[str, list[str]]:
    pieces: list[str] = []
    for opening, closing in _HIDDEN:
        # Behind the last closing tag no opening one has a partner, and looking for it each time is quadratic.
        end = max((match.end() for match in closing.finditer(text)), default=0)
        if end:
            pattern = re.compile(f"{opening}.*?{closing.pattern}", re.IGNORECASE | re.DOTALL)
            pieces += [match[0] for match in pattern.finditer(text, 0, end)]
            text = pattern.sub("", text[:end]) + text[end:]
    return text, pieces


def _neutralise(text: str) -> tuple[str, list[str]]:
    neutral = neutralise_control_tokens(text)
    changed = [place for place, pair in enumerate(zip(text, neutral, strict=True)) if pair[0] != pair[1]]
    return neutral, [text[place] for place in changed]


MARKUP_RULES: tuple[AnyRule, ...] = (
    Rule(name="literal_escape", pattern=_ESCAPE, replacement=_unescape_literal, triggers=("\\",)),
    # &amp;amp;lt; is unescaped at once, whatever its depth: one level a pass would be quadratic.
    Rule(
        name="html_entity",
        pattern=re.compile(
            r"&(?:amp;)*(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&(?:amp;)*(nbsp|ensp|emsp)(?![A-Za-z0-9;])"
        ),
        replacement=_unescape,
        triggers=("&",),
    ),
    Rule(
        name="front_matter",
        pattern=re.compile(r"\A---\r?\n(?:(?:[\w-]{1,40}:|[ -])[^\n]{0,500}\n){1,60}---\r?\n"),
        triggers=("---\n", "---\r\n"),
    ),
    # A picture inside the page: longer than any tag may be.
    Rule(
        name="data_uri",
        pattern=re.compile(r"data:[a-z]{1,20}/[a-z0-9.+-]{1,40}(?:;[a-z0-9=-]{1,40}){0,4};base64,[A-Za-z0-9+/=%]*"),
        triggers=(";base64,",),
    ),
    Rule(
        name="shortcode",
        pattern=re.compile(
            r"\[caption\b[^\[\]]{0,500}\][^\[\]]{0,2000}\[/caption\]|"
            r"\[/?(?:caption|gallery|embed|video|audio|playlist|(?:vc|et_pb|fusion)_\w{1,40})\b[^\[\]\n]{0,2000}\]"
        ),
        triggers=(
            "[caption",
            "[gallery",
            "[embed",
            "[video",
            "[audio",
            "[playlist",
            "[vc_",
            "[et_pb_",
            "[fusion_",
            "[/",
        ),
    ),
    # A closing tag tells BBCode from other things in brackets.
    Rule(
        name="bbcode",
        pattern=re.compile(
            r"\[img\b[^\[\]\n]{0,100}\][^\[\]\n]{0,1000}\[/img\]|"
            r"\[/?(?:b|i|u|s|url|img|size|color|font|quote|center|left|right|align|list|code|table|tr|td|indent|backcolor)"
            r"(?:=[^\[\]\n]{0,300})?\]",
            re.IGNORECASE,
        ),
        triggers=("[/",),
    ),
    FunctionRule(name="html_hidden", function=_drop_hidden, triggers=("</", "-->")),
    Rule(
        name="html_block_tag",
        pattern=re.compile(rf"</?(?:{_BLOCK})\b[^<>]{{0,2000}}>", re.IGNORECASE),
        replacement="\n",
        triggers=("<",),
    ),
    Rule(
        name="html_cell",
        pattern=re.compile(r"</?(?:td|th)\b[^<>]{0,2000}>", re.IGNORECASE),
        replacement=" ",
        triggers=("<",),
    ),
    Rule(
        name="html_tag",
        pattern=re.compile(
            rf"</?(?:{_INLINE})\b[^<>]{{0,2000}}>|<!DOCTYPE[^<>]{{0,200}}>|<!\[CDATA\[|\]\]>|<\?xml[^<>]{{0,200}}>",
            re.IGNORECASE,
        ),
        triggers=("<",),
    ),
    # Emphasis only where it does not stand behind a word: 林** is a name that a court has masked.
    Rule(
        name="markdown",
        pattern=re.compile(
            r"^(?:#{1,6}|>) +(?=[^ #>])|(?<![\w*])\*\*([^*\s][^*\n]{0,200})\*\*(?!\*)|"
            r"!\[[^\]\n]{0,200}\]\([^()\s]{0,500}\)|\[([^\[\]\n]{1,200})\]\(https?://[^()\s]{0,500}\)",
            re.MULTILINE,
        ),
        replacement=lambda match: match[1] or match[2] or "",
        triggers=("# ", "> ", "**", "]("),
    ),
    Rule(
        name="link",
        pattern=re.compile(
            r"[（(【\[][^（()）\[\]【】\n]{0,60}(?:https?://|www\.)[^（()）\[\]【】\n]{0,500}[)）】\]]|"
            rf"{_URL_LABEL}{_URL}(?: ?\))?"
        ),
        triggers=("http", "www."),
    ),
    Rule(
        name="email",
        pattern=re.compile(
            r"(?:(?:[Ee]-?[Mm]ail|電子信箱|電子郵件|信箱) ?[：:]? ?)?"
            r"(?<![A-Za-z0-9.+_-])[A-Za-z0-9.+_-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
        ),
        triggers=("@",),
    ),
    FunctionRule(name="control_token", function=_neutralise, triggers=("<", "[")),
)
