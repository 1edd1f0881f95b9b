"""From a stream of raw rows to clean ones on disk, chunk by chunk, on as many cores as wanted, in constant memory."""

import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
import reprlib
import signal
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from titlegen.data.date_order import PACKED, OrderCounts, pack_choices
from titlegen.data.dates import ABSENT, AMBIGUOUS, FORMS, UNDATED, Reading
from titlegen.data.dedup import U8, U64, Rows, sign
from titlegen.data.filters import Clean, clean_row, describe_unreadable, digest_hex, printable
from titlegen.data.shorten import CountTokens, fits, load_counter, shorten
from titlegen.data.sources import Row
from titlegen.errors import DataError
from titlegen.settings import DataSettings
from titlegen.text import Removals

CHUNK_ROWS = 500
# Fewer rows than this are cleaned before another process has even started.
_INLINE_ROWS = 4 * CHUNK_ROWS
_EXAMPLES = 3
_EXAMPLE_CHARS = 120
_DATE_CHARS = 60
_REPR = reprlib.Repr()
_REPR.maxother = _DATE_CHARS


@dataclass(slots=True)
class RuleCount:
    """How often one cleaning rule applied, with a few of the pieces that it removed."""

    articles: int = 0
    pieces: int = 0
    chars: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Digest and text of a few pieces, sorted."""

    def add(self, other: "RuleCount") -> None:
        """Add another chunk's counts."""
        self.articles += other.articles
        self.pieces += other.pieces
        self.chars += other.chars
        self.examples = sorted({*self.examples, *other.examples})[:_EXAMPLES]


@dataclass(slots=True)
class Counts:
    """Everything that is counted while rows are cleaned."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unread: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Part and number of the first rows that hold no article, by what they hold instead."""
    unread_rows: Counter[str] = field(default_factory=Counter)
    """How many rows these are."""
    converted: int = 0
    shortened: int = 0
    whole_chars: int = 0
    """Of all cleaned articles."""
    left_out_chars: int = 0
    """Of these, what did not fit the token budget."""
    content_rules: dict[str, RuleCount] = field(default_factory=dict)
    title_rules: dict[str, RuleCount] = field(default_factory=dict)
    scripts: dict[str, RuleCount] = field(default_factory=dict)
    """Titles and contents that were converted, or hold both scripts."""
    orders: OrderCounts = field(default_factory=OrderCounts)
    date_examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """For each form, and each shape of ambiguous dates, a few values with their digests, sorted."""
    raw_content_chars: Counter[int] = field(default_factory=Counter)
    raw_title_chars: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Add another chunk's counts."""
        self.rows += other.rows
        self.converted += other.converted
        self.shortened += other.shortened
        self.whole_chars += other.whole_chars
        self.left_out_chars += other.left_out_chars
        self.dropped.update(other.dropped)
        self.orders.add(other.orders)
        for form, examples in other.date_examples.items():
            self.date_examples[form] = sorted({*self.date_examples.get(form, ()), *examples})[:_EXAMPLES]
        self.unread_rows.update(other.unread_rows)
        for reason, places in other.unread.items():
            self.unread[reason] = sorted([*self.unread.get(reason, ()), *places])[:_EXAMPLES]
        self.raw_content_chars.update(other.raw_content_chars)
        self.raw_title_chars.update(other.raw_title_chars)
        for mine, theirs in (
            (self.content_rules, other.content_rules),
            (self.title_rules, other.title_rules),
            (self.scripts, other.scripts),
        ):
            for name, count in theirs.items():
                mine.setdefault(name, RuleCount()).add(count)

    def drop(self, reason: str, row: Row) -> None:
        """Count a row that is left out, with its place when it could not even be cleaned."""
        self.dropped[reason] += 1
        if what := describe_unreadable(row):
            self.unread_rows[what] += 1
            places = self.unread.setdefault(what, [])
            if len(places) < _EXAMPLES:
                places.append((row.part, row.number))


@dataclass(slots=True)
class Chunk:
    """Clean rows of one chunk, ready to be written, and the arrays that deduplication and splitting need."""

    counts: Counts
    lines: list[bytes]
    """One JSON line for each row, as the split files hold it."""
    texts: list[bytes]
    """UTF-8 of each text that is compared: every row's content, and the full article behind a shortened one."""
    views: npt.NDArray[np.int32]
    """Row within the chunk of each text."""
    digests: U64
    ids: U64
    """Digest of the id that the source gave, 0 for none."""
    parts: npt.NDArray[np.int32]
    """File or split of each row."""
    titles: U64
    days: npt.NDArray[np.int32]
    date_forms: npt.NDArray[np.int8]
    """Place of each date's form in ``FORMS``."""
    date_choices: Rows
    """The dates that are ambiguous, packed, ``(dates, PACKED)``."""
    content_chars: npt.NDArray[np.int32]
    title_chars: npt.NDArray[np.int32]
    band_keys: U64
    signatures: U8


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
        _count_date(counts, row.date, clean.date)
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
    _count_rules(counts.content_rules, content_removals)
    _count_rules(counts.title_rules, title_removals)
    if isinstance(clean, str):
        return clean
    _count_scripts(counts, clean)
    if count_tokens and not fits(clean.title, settings.max_title_tokens, count_tokens):
        return "title_over_token_budget"
    return clean


def _count_date(counts: Counts, value: Any, reading: Reading) -> None:
    counts.orders.note(reading)
    if reading.form == ABSENT:
        return
    text = printable((value if isinstance(value, str) else _REPR.repr(value))[:_DATE_CHARS])
    key = f"{AMBIGUOUS} {reading.shape}" if reading.form == AMBIGUOUS else reading.form
    counts.date_examples[key] = _add_example(counts.date_examples.get(key, []), text)


def _count_scripts(counts: Counts, clean: Clean) -> None:
    counts.converted += any(script.example for script in clean.scripts.values())
    for part, script in clean.scripts.items():
        if script.example:
            _count_script(counts, f"{part} converted", script.example)
        if script.mixed:
            _count_script(counts, f"{part} in both scripts", script.mixed)


def _count_script(counts: Counts, what: str, example: str) -> None:
    count = counts.scripts.setdefault(what, RuleCount())
    count.articles += 1
    count.examples = _add_example(count.examples, printable(example))


def _count_rules(rules: dict[str, RuleCount], removals: Removals) -> None:
    for name, pieces in removals.pieces.items():
        count = rules.setdefault(name, RuleCount())
        count.articles += 1
        count.pieces += len(pieces)
        count.chars += sum(map(len, pieces))
        # One piece of an article is enough.
        if pieces and pieces[0]:
            count.examples = _add_example(count.examples, pieces[0][:_EXAMPLE_CHARS])


def _add_example(examples: list[tuple[str, str]], text: str) -> list[tuple[str, str]]:
    """Return the examples with the lowest digests: they do not depend on any order."""
    example = (digest_hex(text), text)
    if len(examples) < _EXAMPLES or example < examples[-1]:
        return sorted({*examples, example})[:_EXAMPLES]
    return examples


def _digests(values: list[bytes]) -> U64:
    joined = b"".join(hashlib.blake2b(value, digest_size=8).digest() for value in values)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def clean_chunks(rows: Iterable[Row], settings: DataSettings, tokenizer_file: Path | None) -> Iterator[Chunk]:
    """Yield the chunks in the order of the rows, cleaned on ``settings.workers`` processes (0: one a core).

    Raises:
        DataError: a process died.
    """
    stream = iter(rows)
    head = list(itertools.islice(stream, _INLINE_ROWS))
    chunks = itertools.chain(_batches(iter(head)), _batches(stream))
    workers = settings.workers or os.cpu_count() or 1
    if workers == 1 or len(head) < _INLINE_ROWS:
        for chunk in chunks:
            yield clean_chunk(chunk, settings, tokenizer_file)
        return
    with ExitStack() as stack:
        first = list(itertools.islice(chunks, workers))
        busy = deque(_start_worker(stack, settings, tokenizer_file) for _ in first)
        for pipe, chunk in zip(busy, first, strict=True):
            _send(pipe, chunk)
        # Each process has one chunk at a time, in turn: so neither side ever writes while the other does, too.
        for chunk in chunks:
            pipe = busy.popleft()
            result = _receive(pipe)
            _send(pipe, chunk)
            busy.append(pipe)
            yield result
        for pipe in busy:
            yield _receive(pipe)


# Not concurrent.futures: its processes share one pipe for results, and where one is killed in the middle of a
# write (the kernel does so for lack of memory), the reader waits for the rest for ever.
def _start_worker(stack: ExitStack, settings: DataSettings, tokenizer_file: Path | None) -> Connection:
    # spawn, not fork: the parent may have started threads (tokenizers, pyarrow, torch).
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_chunks, args=(theirs, settings, tokenizer_file), daemon=True)
    with theirs, _interrupts_held():  # The process has its own pipe by then: the last one closed tells us that it died.
        process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    return stack.enter_context(ours)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from this process until the block ends, and from the processes that are started in it for good.

    It reaches every process of a terminal; one that is interrupted while it imports, or while it reads what it has to
    do, prints where.
    """
    caught: list[int] = []
    handler: Any = None
    # Only the main thread may ask for signals.
    with suppress(ValueError):
        handler = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    # Started first, since that takes the mask away.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if caught:
            signal.raise_signal(signal.SIGINT)


def _serve_chunks(pipe: Connection, settings: DataSettings, tokenizer_file: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one.
    with suppress(EOFError, OSError):  # The parent has gone.
        while True:
            rows = pipe.recv()
            try:
                result: Chunk | Exception = clean_chunk(rows, settings, tokenizer_file)
            except Exception as error:  # noqa: BLE001 - raised again by the parent
                result = _portable(error)
            pipe.send(result)


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read, with where it was raised."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - a class may raise anything there
        return DataError(f"articles cannot be cleaned: {error!r}")
    return error


def _send(pipe: Connection, rows: list[Row]) -> None:
    try:
        pipe.send(rows)
    except OSError as error:
        raise _died() from error


def _receive(pipe: Connection) -> Chunk:
    try:
        result: Chunk | Exception = pipe.recv()
    except (EOFError, OSError) as error:
        raise _died() from error
    if isinstance(result, Exception):
        raise result
    return result


def _died() -> DataError:
    return DataError(
        "a process that cleans articles died: for lack of memory, or because the calling script has no "
        'if __name__ == "__main__"; try again with --data.workers 1'
    )


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(rows, CHUNK_ROWS)):
        yield batch


class Spool:
    """Byte strings written one after another to a file and read back by number."""

    def __init__(self, path: Path) -> None:
        """Create the file."""
        self._path = path
        self._file: BinaryIO = path.open("w+b")
        self._sizes: list[Rows] = []
        self._ends: Rows | None = None

    def extend(self, values: list[bytes]) -> None:
        """Append byte strings."""
        self._file.write(b"".join(values))
        self._sizes.append(np.array([len(value) for value in values], dtype=np.int64))
        self._ends = None

    def __getitem__(self, number: int) -> bytes:
        """Return the byte string of that number."""
        if self._ends is None:
            self._file.flush()
            self._ends = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *self._sizes]))
        start, end = int(self._ends[number]), int(self._ends[number + 1])
        self._file.seek(start)
        return self._file.read(end - start)

    def close(self) -> None:
        """Close and delete the file."""
        self._file.close()
        self._path.unlink()


@dataclass(slots=True)
class Collected:
    """All clean rows: the lines and texts on disk, small arrays in memory. Rows and texts are numbered from 0."""

    counts: Counts
    lines: Spool
    texts: Spool
    views: Rows
    digests: U64
    ids: U64
    parts: npt.NDArray[np.int32]
    titles: U64
    days: npt.NDArray[np.int32]
    date_forms: npt.NDArray[np.int8]
    """Place of each date's form in ``FORMS``."""
    date_choices: Rows
    """The dates that are ambiguous, packed, ``(dates, PACKED)``."""
    content_chars: npt.NDArray[np.int32]
    title_chars: npt.NDArray[np.int32]
    band_keys: list[U64]
    """One array ``(texts in the chunk, bands)`` for each chunk."""
    signatures: U8


def collect(chunks: Iterable[Chunk], lines: Spool, texts: Spool) -> Collected:
    """Write the chunks to disk as they come, and return what is kept in memory of them."""
    counts = Counts()
    arrays: dict[str, list[npt.NDArray[np.generic]]] = {
        name: []
        for name in (
            "digests",
            "ids",
            "parts",
            "titles",
            "days",
            "date_forms",
            "content_chars",
            "title_chars",
            "signatures",
        )
    }
    views: list[Rows] = []
    choices: list[Rows] = []
    band_keys: list[U64] = []
    rows = 0
    for chunk in chunks:
        counts.add(chunk.counts)
        lines.extend(chunk.lines)
        texts.extend(chunk.texts)
        views.append(chunk.views.astype(np.int64) + rows)
        chunk.date_choices[:, 0] += rows
        choices.append(chunk.date_choices)
        band_keys.append(chunk.band_keys)
        for name, parts in arrays.items():
            parts.append(getattr(chunk, name))
        rows += len(chunk.lines)
    joined = {name: np.concatenate(parts) if parts else np.array([]) for name, parts in arrays.items()}
    return Collected(
        counts=counts,
        lines=lines,
        texts=texts,
        views=np.concatenate(views) if views else np.array([], dtype=np.int64),
        date_choices=np.concatenate(choices) if choices else np.zeros((0, PACKED), dtype=np.int64),
        band_keys=band_keys,
        **joined,
    )
