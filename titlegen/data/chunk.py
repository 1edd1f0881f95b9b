"""One chunk of raw rows, cleaned, filtered, shortened and signed: a pure function, for any process."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from titlegen.data.counts import Counts, count_date, count_rules, count_scripts
from titlegen.data.date_order import PACKED, pack_choices
from titlegen.data.date_reading import AMBIGUOUS, FORMS, UNDATED
from titlegen.data.dedup import U8, U64, Rows, sign
from titlegen.data.filters import Clean, clean_row, digest_hex
from titlegen.data.shorten import CountTokens, fits, load_counter, shorten
from titlegen.data.sources import Row
from titlegen.settings import DataSettings
from titlegen.text import Removals


@dataclass(slots=True, kw_only=True)
class RowArrays:
    """Arrays over clean rows, which deduplication and splitting need; chunks are joined one behind the other."""

    digests: U64
    ids: U64
    """Digest of the id that the source gave, 0 for none."""
    parts: npt.NDArray[np.int32]
    """File or split of each row."""
    titles: U64
    days: npt.NDArray[np.int32]
    date_forms: npt.NDArray[np.int8]
    """Place of each date's form in ``FORMS``."""
    content_chars: npt.NDArray[np.int32]
    title_chars: npt.NDArray[np.int32]
    signatures: U8
    """Of each text, ``(texts, 128)``."""


@dataclass(slots=True, kw_only=True)
class Chunk(RowArrays):
    """Clean rows of one chunk, ready to be written."""

    counts: Counts
    lines: list[bytes]
    """One JSON line for each row, as the split files hold it."""
    texts: list[bytes]
    """UTF-8 of each text that is compared: every row's content, and the full article behind a shortened one."""
    views: npt.NDArray[np.int32]
    """Row within the chunk of each text."""
    date_choices: Rows
    """The dates that are ambiguous, packed, ``(dates, PACKED)``."""
    band_keys: U64


def clean_chunk(rows: list[Row], settings: DataSettings, tokenizer_file: Path | None) -> Chunk:
    """Return one chunk cleaned, filtered, shortened and signed; a pure function of its arguments."""
    count_tokens = load_counter(tokenizer_file) if tokenizer_file else None
    counts = Counts(rows=len(rows))
    lines: list[bytes] = []
    texts: list[str] = []
    views: list[int] = []
    kept: list[Clean] = []
    contents: list[str] = []
    choices: list[tuple[int, ...]] = []
    parts: list[int] = []
    for row in rows:
        clean = _clean_one(row, settings, counts, count_tokens)
        if isinstance(clean, str):
            counts.drop(clean, row)
            continue
        parts.append(row.part)
        full = clean.content
        content = shorten(full, settings.max_content_tokens, settings.shorten, count_tokens) if count_tokens else full
        identity = clean.id or digest_hex(f"{clean.title}\n{full}")
        record = {
            "id": identity,
            "content": content,
            "title": clean.title,
            "source": clean.source,
            "date": clean.date.iso,
        }
        lines.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        number = len(kept)
        texts.append(content)
        views.append(number)
        counts.whole_chars += len(full)
        if content != full:
            counts.shortened += 1
            counts.left_out_chars += len(full) - len(content)
            texts.append(full)
            views.append(number)
        contents.append(content)
        count_date(counts, row.date, clean.date)
        if clean.date.form == AMBIGUOUS:
            choices.append(pack_choices(number, clean.date))
        kept.append(clean)
    band_keys, signatures = sign(texts, settings.near_duplicate)
    return Chunk(
        counts=counts,
        lines=lines,
        texts=[text.encode() for text in texts],
        views=np.array(views, dtype=np.int32),
        digests=_digests(lines),
        ids=_digests([(clean.id or "").encode() for clean in kept])
        * np.array([bool(clean.id) for clean in kept], np.uint64),
        parts=np.array(parts, dtype=np.int32),
        titles=_digests([clean.title.encode() for clean in kept]),
        days=np.array([clean.date.day.toordinal() if clean.date.day else UNDATED for clean in kept], dtype=np.int32),
        date_forms=np.array([FORMS.index(clean.date.form) for clean in kept], dtype=np.int8),
        date_choices=np.array(choices, dtype=np.int64).reshape(-1, PACKED),
        content_chars=np.array([len(content) for content in contents], dtype=np.int32),
        title_chars=np.array([len(clean.title) for clean in kept], dtype=np.int32),
        band_keys=band_keys,
        signatures=signatures,
    )


def _clean_one(row: Row, settings: DataSettings, counts: Counts, count_tokens: CountTokens | None) -> Clean | str:
    if isinstance(row.content, str) and isinstance(row.title, str):
        counts.raw_content_chars[len(row.content)] += 1
        counts.raw_title_chars[len(row.title)] += 1
    content_removals, title_removals = Removals(), Removals()
    clean = clean_row(row, settings, content_removals, title_removals)
    count_rules(counts.content_rules, content_removals)
    count_rules(counts.title_rules, title_removals)
    if isinstance(clean, str):
        return clean
    count_scripts(counts, clean)
    if count_tokens and not fits(clean.title, settings.max_title_tokens, count_tokens):
        return "title_over_token_budget"
    return clean


def _digests(values: list[bytes]) -> U64:
    joined = b"".join(hashlib.blake2b(value, digest_size=8).digest() for value in values)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)
