"""Raw articles from the embedded corpus, local files or a Hub data set, as one stream of typed rows."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from titlegen.data import arrow
from titlegen.data.cells import flatten, take_turn
from titlegen.data.columns import find_columns
from titlegen.data.delimited import open_delimited
from titlegen.data.files import (
    ARROW_SUFFIXES,
    SUFFIXES,
    TABLE_SUFFIXES,
    find_files,
    is_local,
    stem_of,
    suffix_of,
)
from titlegen.data.foreign import refuse_foreign
from titlegen.data.hub_sets import open_hub
from titlegen.data.instructions import Instructions, find_instructions, find_quotes, without_quotes
from titlegen.data.json_files import open_json
from titlegen.data.lines import read_head
from titlegen.data.records import Findings, Part, Record, Table, Unreadable, unreadable_row
from titlegen.encodings import find_codec
from titlegen.errors import DataError
from titlegen.files import digest_file, digest_json
from titlegen.settings import EMBEDDED, DataSettings

# Records by which columns and instructions are found.
_HEAD_RECORDS = 500
# A cell that begins so may be a list or a struct as text.
_OPENING = ("[", "{", " ", "\n", '"', "b")
# Written by databases, spreadsheets and pandas where a row has no id.
_NO_ID = frozenset({"", "null", "none", "nan", "n/a", "na", "#n/a", "<na>", "nil", "undefined", "-", "\\n"})


@dataclass(frozen=True, slots=True)
class Row:
    """One raw article and where it stands; anything may be missing or of a wrong type, which the filters count."""

    content: Any
    title: Any
    source: str
    date: Any
    id: str | int | None
    part: int = 0
    """Which file or split of the source: ids are compared within one alone."""
    number: int = 0
    """Line, row or item within its part, from 1."""
    problem: str = ""
    """Why there is no row to read, for readers that go on past it; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened source: where it is, which of its columns are read, and its rows."""

    name: str
    columns: dict[str, str]
    rows: Iterator[Row]
    findings: Findings


def open_source(settings: DataSettings, *, titled: bool = True, strict: bool = True) -> Source:
    """Open the source that the settings name, and find its columns.

    Only the needed columns are read: the image column of a Hub data set is never loaded.

    Args:
        settings: the source, and how it is read.
        titled: whether the articles must have titles.
        strict: stop at a row that cannot be read; else it comes as a row with a problem.

    Raises:
        DataError: the source cannot be reached or read, is empty, or lacks a column (its columns are listed); with
            ``strict`` also while it is read, naming file and row.
    """
    findings = Findings()
    name = settings.source
    if name == EMBEDDED:
        parts = _open_files(embedded_files(), settings, titled=titled, findings=findings)
    elif is_local(name):
        files = find_files(name)
        findings.passed_over = files.passed_over
        parts = _open_files(files.paths, settings, titled=titled, findings=findings)
    else:
        parts = open_hub(settings, titled=titled, findings=findings)
    rows = _all_rows(parts, findings, strict=strict)
    return Source(
        name, parts[0].columns.roles, itertools.islice(rows, settings.limit) if settings.limit else rows, findings
    )


def source_digest(settings: DataSettings) -> str:
    """Return the digest of all bytes of a local source, or of the name of one on the Hub."""
    if settings.source == EMBEDDED:
        return digest_json(sorted(path.read_text(encoding="utf-8") for path in embedded_files()))
    if not is_local(settings.source):
        return digest_json([settings.source, settings.revision])
    paths = find_files(settings.source).paths
    return digest_file(paths[0]) if len(paths) == 1 else digest_json([[str(p), digest_file(p)] for p in paths])


def embedded_files() -> list[Path]:
    """Return the files of the corpus shipped with titlegen."""
    # A package that was unpacked, as pip does.
    folder = Path(str(resources.files("titlegen"))) / "corpus"
    return sorted(folder.glob("*.jsonl"))


def _open_files(paths: Sequence[Path], settings: DataSettings, *, titled: bool, findings: Findings) -> list[Part]:
    parts = [part for path in paths if (part := _open_part(path, settings, titled=titled)) is not None]
    if not parts:
        raise DataError(f"data source {settings.source!r} is empty; give a file with articles")
    findings.files = {part.name: part.form for part in parts}
    return parts


def _open_part(path: Path, settings: DataSettings, *, titled: bool) -> Part | None:
    """Find the columns of a file, by its first records where it does not list them; None for an empty file."""
    table = open_table(path, settings.encoding)
    names = table.names
    if names is None:
        head = list(itertools.islice(table.read(None), _HEAD_RECORDS))
        names = tuple(dict.fromkeys(key for _, record in head if not isinstance(record, Unreadable) for key in record))
        broken = [(number, record.reason) for number, record in head if isinstance(record, Unreadable)]
        if broken and len(broken) == len(head):
            raise unreadable_row(str(path), table.unit, *broken[0])
    if not names:
        return None
    columns = find_columns(str(path), names, settings, titled=titled)
    # Only what is needed: a scan stands beside each article in some tables.
    if next(table.read(columns.names), None) is None:
        return None
    return Part(str(path), table.form, table.unit, stem_of(path), columns, lambda: table.read(columns.names))


def open_table(path: Path, encoding: str | None = None) -> Table:
    """Recognise what a file is, by its first bytes and its name.

    Raises:
        DataError: it is nothing that holds rows, or in an encoding that its bytes do not prove.
    """
    head = read_head(path)
    refuse_foreign(head, path)
    if head.startswith(b"PAR1") or suffix_of(path) == ".parquet":
        return arrow.open_parquet(path)
    if head.startswith(b"ARROW1") or suffix_of(path) in ARROW_SUFFIXES:
        return arrow.open_arrow(path)
    codec = find_codec(head, str(path), encoding)
    if suffix_of(path) not in SUFFIXES and not head.decode(codec, "replace").lstrip("\ufeff \r\n\t").startswith(
        ("{", "[")
    ):
        raise DataError(f"{path} ends in none of {', '.join(SUFFIXES)}; convert it to one of them, or rename it")
    if suffix_of(path) in TABLE_SUFFIXES:
        return open_delimited(path, codec)
    return open_json(path, codec, is_lines=suffix_of(path) != ".json")


def _all_rows(parts: Sequence[Part], findings: Findings, *, strict: bool) -> Iterator[Row]:
    for place, part in enumerate(parts):
        rows = _part_rows(part, place, findings, strict=strict)
        if not part.columns.is_prompt:
            yield from rows
            continue
        head = list(itertools.islice(rows, _HEAD_RECORDS))
        instructions = find_instructions([row.content for row in head if isinstance(row.content, str)])
        quotes = find_quotes([row.title for row in head if isinstance(row.title, str)])
        for row in itertools.chain(head, rows):
            yield _without_quotes(_without_instruction(row, instructions, findings), quotes, findings)


def _part_rows(part: Part, place: int, findings: Findings, *, strict: bool) -> Iterator[Row]:
    for number, record in part.records():
        if not isinstance(record, Unreadable):
            yield _row(record, part, place, number, findings)
        elif strict and not record.is_long:
            raise unreadable_row(part.name, part.unit, number, record.reason)
        else:
            yield Row(None, None, part.origin, None, None, place, number, record.reason)


def _row(record: Record, part: Part, place: int, number: int, findings: Findings) -> Row:
    columns = part.columns
    content, title = record.get(columns.content), record.get(columns.title) if columns.title else None
    if type(content) is not str or content[:1] in _OPENING or columns.content == columns.chat:
        content = _plain_text(content, "content", columns.content == columns.chat, findings)
    if columns.instruction and isinstance(content, str | None):
        # An article stands in the longer of the two: the other is the order, or empty.
        order = record.get(columns.instruction)
        content = max(content or "", order, key=len) if isinstance(order, str) else content
    if type(title) is not str or title[:1] in _OPENING or columns.title == columns.chat:
        title = _plain_text(title, "title", columns.title == columns.chat, findings)
    origin = record.get(columns.source) if columns.source else None
    return Row(
        content=content,
        title=title,
        source=origin if isinstance(origin, str) and origin.strip() else part.origin,
        date=record.get(columns.date) if columns.date else None,
        id=_identity(record.get(columns.id)) if columns.id else None,
        part=place,
        number=number,
    )


def _plain_text(value: Any, role: Literal["content", "title"], is_chat: bool, findings: Findings) -> Any:  # noqa: FBT001
    text, origin = take_turn(value, role) if is_chat else flatten(value, role)
    if origin:
        findings.flattened[f"{role}, {origin}"] += 1
    return text


def _identity(value: Any) -> str | int | None:
    """Return an id as text or whole number; what a table writes for none is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a column of whole numbers with gaps
    if isinstance(value, Mapping) and len(value) == 1:  # {"$oid": ...}, as MongoDB exports ids
        value = next(iter(value.values()))
    if isinstance(value, bytes):
        value = value.hex()
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        return None
    if isinstance(value, int):
        return value
    return None if str(value).strip().casefold() in _NO_ID else str(value)


def _without_instruction(row: Row, instructions: Instructions, findings: Findings) -> Row:
    if not isinstance(row.content, str):
        return row
    article, instruction = instructions.take_off(row.content)
    if not instruction:
        return row
    findings.instructions[instruction] += 1
    return replace(row, content=article)


def _without_quotes(row: Row, quotes: str, findings: Findings) -> Row:
    if not isinstance(row.title, str) or (title := without_quotes(row.title, quotes)) == row.title:
        return row
    findings.flattened["title, quotation marks"] += 1
    return replace(row, title=title)
