"""The rules for a title, one by one and in words, as an editor sees them while typing."""

from dataclasses import dataclass
from typing import Literal

from titlegen.metrics.contract import MAX_CHARS, MIN_CHARS, style_violations, title_violations
from titlegen.metrics.novelty import simplified_only

Rule = Literal["title only", "length", "punctuation", "emoji", "script"]
RULES: tuple[Rule, ...] = ("title only", "length", "punctuation", "emoji", "script")

# In the words of :mod:`titlegen.metrics.contract`.
_VIOLATIONS: dict[str, tuple[str, str]] = {
    "empty": ("it is empty", "沒有內容"),
    "lines": ("it has several lines", "不只一行"),
    "prefix": ("it begins with words such as 標題：", "開頭有「標題：」之類的字"),
    "explanation": ("it explains itself", "夾帶說明"),
    "markdown": ("it has Markdown", "有 Markdown 記號"),
    "json": ("it is JSON", "是 JSON"),
    "chat_token": ("it has a control token or tag", "有控制記號或標籤"),
    "quotes": ("quotation marks are around all of it", "整個標題被引號包住"),
    "long": ("it is far too long", "過長"),
    "repeated": ("a mark is repeated", "標點重複"),
    "trailing": ("it ends in a mark that goes on", "結尾是未完的標點"),
    "brackets": ("a bracket or quotation mark has no partner", "括號或引號不成對"),
}


@dataclass(frozen=True, slots=True)
class RuleCheck:
    """One rule, whether a title keeps it, and the detail."""

    rule: Rule
    passed: bool
    message: str
    message_zh: str


def check_rules(title: str, *, min_chars: int = MIN_CHARS, max_chars: int | None = MAX_CHARS) -> tuple[RuleCheck, ...]:
    """Return each rule for a title, in the order of ``RULES``.

    Args:
        title: as it would be printed.
        min_chars: shortest title; a space inside counts, and a full-width character is one.
        max_chars: longest title; None: any.
    """
    length = len(title.strip())
    style = style_violations(title)
    simplified = "".join(dict.fromkeys(char for char in title if char in simplified_only()))
    allowed = f"{min_chars} to {max_chars}" if max_chars else f"at least {min_chars}"
    allowed_zh = f"{min_chars} 到 {max_chars}" if max_chars else f"至少 {min_chars}"
    return (
        _named("title only", title_violations(title), ("a title and nothing else", "只有標題")),
        RuleCheck(
            "length",
            min_chars <= length <= (max_chars or length),
            f"{length} characters ({allowed})",
            f"{length} 字（{allowed_zh}）",
        ),
        _named("punctuation", tuple(name for name in style if name != "emoji"), ("clean punctuation", "標點乾淨")),
        RuleCheck("emoji", False, "it has an emoji", "有表情符號")  # noqa: FBT003
        if "emoji" in style
        else RuleCheck("emoji", True, "no emoji", "沒有表情符號"),  # noqa: FBT003
        RuleCheck(
            "script",
            not simplified,
            f"Simplified characters: {simplified}" if simplified else "Traditional characters",
            f"有簡體字：{simplified}" if simplified else "都是正體字",
        ),
    )


def _named(rule: Rule, violations: tuple[str, ...], passed: tuple[str, str]) -> RuleCheck:
    if not violations:
        return RuleCheck(rule, True, *passed)  # noqa: FBT003
    words = [_VIOLATIONS[name] for name in violations]
    return RuleCheck(rule, False, "; ".join(en for en, _ in words), "；".join(zh for _, zh in words))  # noqa: FBT003
