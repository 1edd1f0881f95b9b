"""A title in pieces for the report: what it shares with its reference, and what its article does not back."""

from collections.abc import Sequence
from typing import NamedTuple

import regex
from rapidfuzz.distance import LCSseq

from titlegen.evaluate.report import Mark
from titlegen.metrics.numerals import fold_width

_TOKEN = regex.compile(r"\p{Han}|[a-z]+|\d+(?:\.\d+)?|[^\s\p{P}\p{S}]")
# A report shows the beginning of a broken model's long output.
SHOWN_CHARS = 160


class Piece(NamedTuple):
    """A stretch of text with its marks: ``shared``, ``number`` (unsupported), ``name`` (unsupported)."""

    text: str
    marks: str


def mark_title(prediction: str, reference: str, unsupported: Sequence[Mark] = ()) -> list[Piece]:
    """Return a prediction cut where its marks change."""
    text = visible(prediction)
    marks: list[set[str]] = [set() for _ in text]
    for start, end in _shared_spans(text, visible(reference)):
        for index in range(start, end):
            marks[index].add("shared")
    for mark in unsupported:
        for index in range(mark.start, min(mark.end, len(text))):
            marks[index].add(mark.kind)
    pieces: list[Piece] = []
    for char, names in zip(text, marks, strict=True):
        label = " ".join(sorted(names))
        if pieces and pieces[-1].marks == label:
            pieces[-1] = Piece(pieces[-1].text + char, label)
        else:
            pieces.append(Piece(char, label))
    return pieces


def visible(text: str) -> str:
    """Return the beginning of a text with every control or format character made visible, position by position.

    Direction marks in particular would otherwise reorder the page around them.
    """
    shown = "".join(char if char.isprintable() else "⏎" if char == "\n" else "�" for char in text[:SHOWN_CHARS])
    return shown + "…" if len(text) > SHOWN_CHARS else shown


def _shared_spans(prediction: str, reference: str) -> list[tuple[int, int]]:
    """Return the places of the longest common subsequence, which is what ROUGE-L counts."""
    ours = [(m[0], m.start(), m.end()) for m in _TOKEN.finditer(fold_width(prediction))]
    theirs = [m[0] for m in _TOKEN.finditer(fold_width(reference))]
    blocks = LCSseq.editops([token for token, _, _ in ours], theirs).as_matching_blocks()
    return [ours[index][1:] for block in blocks for index in range(block.a, block.a + block.size)]
