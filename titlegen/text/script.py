"""Simplified and Traditional Chinese: telling them apart, and converting to the spelling of Taiwan's newsrooms."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from titlegen.text.taiwan import first_words, last_forms

# A single の is an ornament of Chinese names.
_JAPANESE = re.compile("[\u3041-\u3096\u30a1-\u30fa]{2}")
# Paragraphs of a page are lines, too.
_LINES = re.compile(r"(\n|<[^<>\n]{1,200}>)")
_SURROGATES = re.compile("([\ud800-\udfff]+)")
_EXAMPLE_CHARS = 40
# A line with less than this of the other script's characters is of one script: 乾 and 瞭 stand in Simplified text, too.
_MIXED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Converted:
    """A text as Taiwan writes it."""

    text: str
    example: str = ""
    """The beginning of the first line that was changed, before and after; empty when nothing was."""
    mixed: str = ""
    """The beginning of the first line in both scripts; empty when there is none."""

    def or_else(self, later: "Converted") -> "Converted":
        """Return the later conversion with this one's findings, where there are any."""
        return Converted(later.text, self.example or later.example, self.mixed or later.mixed)


def to_traditional(text: str, beside: str = "") -> Converted:
    """Return a text in the characters of Taiwan, with its newsrooms' spelling of words and names.

    Each line is judged by itself: a Traditional one stays, a Simplified one is converted phrase by phrase. One whose
    characters are common to both (后里公布) follows the rest of the text or, when that says nothing either, the text
    ``beside``, such as the article of a headline. In a line of both scripts that is rather Traditional, the characters
    that Traditional text does not have are converted and the others stay; a line with Japanese in it is left.

    The result has as many characters as the text, and converting it again changes nothing. Any string is fine.
    """
    if not (has_simplified(text) or (beside and has_simplified(beside))):
        return Converted(text)
    follows = _balance(text) or _balance(beside)
    lines = _LINES.split(text)
    done = [_convert_line(line, follows > 0) for line in lines]
    pairs = zip(lines, done, strict=True)
    return Converted(
        "".join(done),
        next((_shown(line, after) for line, after in pairs if line != after), ""),
        next((line[:_EXAMPLE_CHARS] for line in lines if _is_mixed(line)), ""),
    )


def convert_article(title: str, content: str) -> tuple[Converted, Converted]:
    """Return title and content as Taiwan writes them, each judged apart; a title that says nothing follows."""
    if not has_simplified(content):
        return to_traditional(title), Converted(content)
    return to_traditional(title, beside=content), to_traditional(content)


def is_simplified(text: str) -> bool:
    """Return whether a text is rather written in Simplified than in Traditional characters."""
    return has_simplified(text) and _balance(text) > 0


def has_simplified(text: str) -> bool:
    """Return whether a text has characters that Traditional text does not have."""
    return _patterns()[0].search(text) is not None


def _balance(text: str) -> int:
    """Return the number of characters that only Simplified text has, minus those that only Traditional text has."""
    simplified, traditional = _patterns()
    return len(simplified.findall(text)) - len(traditional.findall(text))


def _is_mixed(line: str) -> bool:
    simplified, traditional = (len(pattern.findall(line)) for pattern in _patterns())
    return bool(simplified) and traditional >= _MIXED_SHARE * simplified


def _convert_line(line: str, follow: bool) -> str:  # noqa: FBT001 - a fact, not an option
    simplified, traditional = _patterns()
    ones, others = len(simplified.findall(line)), len(traditional.findall(line))
    if _JAPANESE.search(line) or not (ones or (follow and not others)):
        return line
    converted = _convert(line)
    if len(converted) != len(line):
        return line
    if ones > others or not ones:
        return converted
    # Of two readings of a character that both scripts have, Traditional text means what it says: 后, 里, 余.
    return "".join(after if simplified.match(char) else char for char, after in zip(line, converted, strict=True))


def _shown(before: str, after: str) -> str:
    place = max(next(i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]) - 10, 0)
    end = place + _EXAMPLE_CHARS
    return f"{before[place:end]} → {after[place:end]}"


def _convert(text: str) -> str:
    pieces = _SURROGATES.split(text)
    pieces[::2] = [converter()(piece) for piece in pieces[::2]]
    return "".join(pieces)


@cache
def converter() -> Callable[[str], str]:
    """Return OpenCC's conversion s2tw with this project's words in front of its own.

    The choice among OpenCC's, by sentences of our own with their right form: s2t writes 裏 and 爲 as nobody in Taiwan
    does, s2twp replaces words, also where they mean something else (文件 by 檔案, 程序 by 程式), and s2hk is Hong
    Kong's.
    """
    import opencc

    share = Path(opencc.__file__).parent / "clib" / "share" / "opencc"
    config: Any = _absolute(json.loads((share / "s2tw.json").read_bytes()), share)
    # OpenCC reads dictionaries from files alone; it keeps nothing open.
    with tempfile.TemporaryDirectory(prefix="titlegen-opencc-") as folder:
        words = _write_dictionary(Path(folder) / "words.txt", first_words())
        forms = _write_dictionary(Path(folder) / "forms.txt", last_forms())
        steps = config["conversion_chain"]
        # Among the phrases the longest wins, wherever it stands; only where none is, single characters count.
        for group, own in ((config["segmentation"], words), (steps[0]["dict"]["dicts"][0], words), (steps[1], forms)):
            group.get("dict", group)["dicts"].insert(0, own)
        path = Path(folder) / "taiwan.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        convert: Callable[[str], str] = opencc.OpenCC(str(path)).convert
        return convert


def _absolute(config: object, folder: Path) -> object:
    """Return OpenCC's configuration with the full path of each dictionary."""
    if isinstance(config, dict):
        return {
            key: str(folder / value) if key == "file" else _absolute(value, folder) for key, value in config.items()
        }
    return [_absolute(item, folder) for item in config] if isinstance(config, list) else config


def _write_dictionary(path: Path, words: Mapping[str, str]) -> dict[str, str]:
    path.write_text("".join(f"{before}\t{after}\n" for before, after in words.items()), encoding="utf-8")
    return {"type": "text", "file": str(path)}


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns of the characters that only Simplified, and only Traditional text has.

    A character of Big5 as Windows writes it (后, 里, 台, 恒 of names) may stand in Traditional text, whatever OpenCC
    would make of it.
    """
    import opencc

    every = [chr(code) for code in range(0x4E00, 0xA000)]
    traditional = opencc.OpenCC("s2t").convert("\n".join(every)).split("\n")
    simplified = opencc.OpenCC("t2s").convert("\n".join(every)).split("\n")
    only_simplified = [c for c, t in zip(every, traditional, strict=True) if c != t and not _in_big5(c)]
    only_traditional = [c for c, s in zip(every, simplified, strict=True) if c != s and _in_big5(c)]
    return re.compile(f"[{''.join(only_simplified)}]"), re.compile(f"[{''.join(only_traditional)}]")


def _in_big5(character: str) -> bool:
    try:
        character.encode("cp950")
    except UnicodeEncodeError:
        return False
    return True
