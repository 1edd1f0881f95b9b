"""Chunks of rows, cleaned on several processes; the output does not depend on their number."""

import itertools
import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from titlegen.data.chunk import Chunk, clean_chunk
from titlegen.data.sources import Row
from titlegen.errors import DataError
from titlegen.settings import DataSettings

CHUNK_ROWS = 500
# Fewer rows than this are cleaned before another process has even started.
_INLINE_ROWS = 4 * CHUNK_ROWS


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


# Not concurrent.futures, nor loky (3.7 was tried): their processes share one pipe for results, and where one is killed
# in the middle of a write (the kernel does so for lack of memory), the reader waits for the rest for ever.
def _start_worker(stack: ExitStack, settings: DataSettings, tokenizer_file: Path | None) -> Connection:
    # spawn, not fork: the parent may have started threads (tokenizers, pyarrow, torch).
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_chunks, args=(theirs, settings, tokenizer_file), daemon=True)
    # The process has its own end by then; reading fails once the last one is closed, so that its death is noticed.
    with theirs, _interrupts_held():
        process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    return stack.enter_context(ours)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C from this process until the block ends, and from the processes that are started in it for good.

    Ctrl-C reaches every process of a terminal; one that is interrupted while it imports or receives its work prints a
    traceback.
    """
    caught: list[int] = []
    handler: Any = None
    # Only the main thread may ask for signals.
    with suppress(ValueError):
        handler = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    # Started first, since starting it removes the mask.
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
    # Each process has a core to itself: tokenizers need not start a thread for every core there is.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
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
