"""A newspaper's own style, from a TOML file: checks with corrections that an editor accepts with one click."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from titlegen.encodings import read_at_most
from titlegen.errors import ConfigError
from titlegen.metrics.figures import scan_figures
from titlegen.metrics.numerals import HAN_DIGITS, HAN_UNITS, fold_width, parse_numeral

# A style file is read on every keystroke: a newspaper's list has some hundred words.
_MAX_BYTES, _MAX_WORDS, _MAX_FINDINGS = 256 * 1024, 2000, 50
_MAX_TITLE = 200
_CLOSING = {"“": "”", '"': '"', "＂": "＂", "‘": "’"}
_OPENING = re.compile(r"[“\"＂]|(?<![A-Za-z])‘(?![^’]*[A-Za-z]’[A-Za-z])")
_HAN_NUMERAL = re.compile(rf"[{HAN_DIGITS}{HAN_UNITS}]+")
# 三千 stays readable, 一億五千萬 does not: what is written out is no longer than this.
_LARGEST_WRITTEN_OUT = Decimal(10_000)
_SMALL_FIGURE = re.compile(r"(?<![\d.,:/A-Za-z-])(?:10|[1-9])(?=[人名位個件場屆次家校所座項種大])")

Word = Annotated[str, Field(min_length=1, max_length=40)]
Kind = Literal["numerals", "width", "quotation marks", "usage", "banned"]


class HouseStyle(BaseModel):
    """The rules of a style file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    numerals: Literal["arabic", "han", "any"] = "any"
    """``arabic``: 300 for 三百; ``han``: 三 for 3 before what is counted, up to ten; ``any``: as it comes."""
    half_width: bool = True
    """Digits and Latin letters are half as wide as Han characters."""
    quotation_marks: Literal["corner", "any"] = "corner"
    """``corner``: 「 and 」 for all others."""
    usage: Annotated[dict[Word, Word], Field(max_length=_MAX_WORDS)] = {}
    """Words, and what this newspaper writes for them."""
    banned: Annotated[tuple[Word, ...], Field(max_length=_MAX_WORDS)] = ()
    """Words that it does not print."""


@dataclass(frozen=True, slots=True)
class StyleFinding:
    """A place in a title, from ``start`` to ``end`` (exclusive), that departs from the style."""

    kind: Kind
    text: str
    start: int
    end: int
    replacement: str | None
    """What to write instead; None where a person has to find it."""
    message: str
    message_zh: str


def load_style(path: Path | None = None) -> HouseStyle:
    """Return the style of a file, else that shipped with titlegen.

    Raises:
        ConfigError: the file cannot be read, or holds what is no style; the message names it.
    """
    if path is None:
        return parse_style((resources.files("titlegen") / "metrics" / "house_style.toml").read_bytes(), "the style")
    try:
        raw = read_at_most(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"the style file {str(path)!r} cannot be read: {error.strerror}; correct its path") from error
    return parse_style(raw, f"the style file {str(path)!r}")


def parse_style(raw: bytes, what: str) -> HouseStyle:
    """Return the style that a TOML text holds.

    Raises:
        ConfigError: it holds none.
    """
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{what} has more than {_MAX_BYTES} bytes; keep the words that matter for titles")
    try:
        return HouseStyle.model_validate(tomllib.loads(raw.decode("utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{what}: {key[:80]!r}: {first['msg']}; docs/desk.md lists what a style has") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is not valid TOML in UTF-8: {error}; correct that line") from error


def check_style(title: str, style: HouseStyle) -> tuple[StyleFinding, ...]:
    """Return where a title departs from a style, in order; of findings that overlap the first one stays."""
    title = title[:_MAX_TITLE]
    found = sorted(
        [*_words(title, style), *_numerals(title, style), *_width(title, style), *_marks(title, style)],
        key=lambda finding: (finding.start, -finding.end),
    )
    kept: list[StyleFinding] = []
    for finding in found:
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return tuple(kept[:_MAX_FINDINGS])


def _words(title: str, style: HouseStyle) -> Iterator[StyleFinding]:
    for word, replacement in style.usage.items():
        for match in re.finditer(re.escape(word), title):
            yield StyleFinding(
                "usage",
                word,
                *match.span(),
                replacement,
                f"this style writes {replacement} for {word}",
                f"「{word}」應作「{replacement}」",
            )
    for word in style.banned:
        for match in re.finditer(re.escape(word), title):
            yield StyleFinding(
                "banned", word, *match.span(), None, f"this style does not print {word}", f"不使用「{word}」"
            )


def _numerals(title: str, style: HouseStyle) -> Iterator[StyleFinding]:
    if style.numerals == "arabic":
        for number in scan_figures(fold_width(title)):
            match = _HAN_NUMERAL.match(title, number.start)
            value = parse_numeral(match[0]) if match else None
            if (
                match
                and value is not None
                and match[0] not in {"一", "百", "千", "萬"}
                and value <= _LARGEST_WRITTEN_OUT
            ):
                yield _numeral(match[0], match.span(), f"{value:f}")
    elif style.numerals == "han":
        for match in _SMALL_FIGURE.finditer(title):
            yield _numeral(match[0], match.span(), "一二三四五六七八九十"[int(match[0]) - 1])


def _numeral(text: str, span: tuple[int, int], replacement: str) -> StyleFinding:
    message, message_zh = f"this style writes {replacement} for {text}", f"數字「{text}」應作「{replacement}」"
    return StyleFinding("numerals", text, *span, replacement, message, message_zh)


def _width(title: str, style: HouseStyle) -> Iterator[StyleFinding]:
    if style.half_width:
        for match in re.finditer(r"[０-９Ａ-Ｚａ-ｚ]+", title):
            plain = "".join(chr(ord(char) - 0xFEE0) for char in match[0])
            yield StyleFinding(
                "width",
                match[0],
                *match.span(),
                plain,
                f"this style writes {plain} in half width",
                f"「{match[0]}」應用半形",
            )


def _marks(title: str, style: HouseStyle) -> Iterator[StyleFinding]:
    if style.quotation_marks == "any":
        return
    end = 0
    for opening in _OPENING.finditer(title):
        closing = title.find(_CLOSING[opening[0]], opening.end())
        if opening.start() < end or closing < 0:
            continue
        end = closing + 1
        for place, mark in ((opening.start(), "「"), (closing, "」")):
            yield StyleFinding(
                "quotation marks",
                title[place],
                place,
                place + 1,
                mark,
                f"this style writes {mark} for {title[place]}",
                f"引號「{title[place]}」應作 {mark}",
            )
