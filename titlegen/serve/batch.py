"""Titles for a whole file or folder: in order, several at a time, resumed where an interrupted run stopped."""

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from titlegen.data.files import find_files
from titlegen.errors import DataError, TitlegenError
from titlegen.serve.client import CONCURRENCY, Client
from titlegen.serve.endpoint import UnavailableError
from titlegen.serve.lines import Line, as_line, as_record, read_lines
from titlegen.settings import DataSettings

_RECORD_START = b'{"id": '


@dataclass(frozen=True)
class FileTitles:
    """A file of titles: how many lines it has, were done before, have an error, and have a title with a warning."""

    lines: int
    resumed: int
    failed: int
    warned: int
    out: str
    message: str = ""
    """The same for a person."""


def generate_file(
    client: Client,
    articles: DataSettings,
    target: Path,
    *,
    concurrency: int = CONCURRENCY,
    number: int = 1,
    on_line: Callable[[int], None] = lambda _: None,
    on_error: Callable[[str], None] = lambda _: None,
) -> FileTitles:
    """Write a title, or the reason why there is none, for every row of a file or folder.

    Line n of ``target`` belongs to row n of the source: ``{"id", "sha256", "title", "warnings", ...}`` or ``{"id",
    "sha256", "error"}``. The id is the row's own or its number, and ``sha256`` begins the digest of id and article.
    What an earlier run wrote is kept, rows with an error are done again, and another file's result is not touched.

    Args:
        client: asks the model.
        articles: the source, and how it is read, as for ``prepare``; titles are not needed.
        target: is written line by line.
        concurrency: articles that are worked on at a time.
        number: titles for each article, at most; more than one are also written as ``titles``, the best first.
        on_line: is told how many lines are done, after each.
        on_error: is told of each line without a title, with its number and the cause.

    Raises:
        DataError: the source cannot be read or is empty, or the target is the result of another source.
        ServeError: the server or the model went away; what is written stays, and another call goes on from there.
        TitlegenError: the target cannot be written.
    """
    files = find_files(articles.source).paths
    if target.exists() and any(target.samefile(path) for path in files):
        raise DataError(f"{target} is the file of the articles itself; choose another file for the titles")
    # A source without articles is refused before anything is written.
    next(read_lines(articles), None)
    ask = partial(_records, client, concurrency=concurrency, number=number)
    done, failed = _resume(articles, target)
    counts = Counter(lines=done, resumed=done - len(failed), failed=0, warned=0)

    def count(record: dict[str, object]) -> None:
        counts["failed"] += "error" in record
        counts["warned"] += bool(record.get("warnings"))
        if "error" in record:
            on_error(str(record["error"]))

    if failed:
        again = (line for place, line in enumerate(read_lines(articles), 1) if place in failed)
        with contextlib.closing(ask(again)) as records:
            _replace(target, failed, records, count)
    with (
        contextlib.closing(ask(read_lines(articles, done))) as records,
        _writing(target),
        _open(target) as output,
    ):
        for record in records:
            output.write(as_line(record))
            output.flush()
            counts["lines"] += 1
            count(record)
            on_line(counts["lines"])
        # Standard output has no fsync.
        if target.is_file():
            os.fsync(output.fileno())
    return FileTitles(counts["lines"], counts["resumed"], counts["failed"], counts["warned"], str(target))


def _records(client: Client, lines: Iterable[Line], *, concurrency: int, number: int) -> Generator[dict[str, object]]:
    """Yield the record of each line, in order.

    Raises:
        UnavailableError: the server or the model went away.
    """
    lines, again = itertools.tee(lines)
    answers = client.generate_many((line.article for line in again), concurrency, number=number)
    with contextlib.closing(answers):
        for line, answer in zip(lines, answers, strict=True):
            if isinstance(answer, UnavailableError):
                raise answer
            yield as_record(line, answer)


def _replace(
    target: Path,
    failed: Collection[int],
    records: Iterator[dict[str, object]],
    count: Callable[[dict[str, object]], None],
) -> None:
    """Replace the lines that failed with new records; lines that are done when the run is interrupted are kept."""
    target = target.resolve()
    beside = target.with_name(f".{target.name}.partial")
    try:
        with (
            _writing(target),
            beside.open("w", encoding="utf-8", errors="backslashreplace") as output,
            target.open(encoding="utf-8", newline="\n") as kept,
        ):
            lines = enumerate(kept, 1)
            try:
                for number, line in lines:
                    if number not in failed:
                        output.write(line)
                        continue
                    record = None
                    try:
                        record = next(records)
                    finally:
                        # Also when no record came: the file is always whole.
                        output.write(line if record is None else as_line(record))
                    count(record)
            finally:
                output.writelines(line for _, line in lines)
                output.flush()
                os.fsync(output.fileno())
                beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _open(target: Path) -> TextIO:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Half a surrogate pair in an id is written as JSON escapes it.
    return target.open("a", encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TitlegenError(
            f"cannot write {target}: {error.strerror}; make room or choose another file, then run the command again: "
            "it goes on from what is written"
        ) from error


def _resume(articles: DataSettings, target: Path) -> tuple[int, set[int]]:
    """Return how many lines are done and the numbers of those that failed; a last line that was cut off is removed.

    Raises:
        DataError: the target is no result, or the result of another source; it is left as it is.
    """
    if not target.is_file():
        return 0, set()
    failed: set[int] = set()
    done = kept = 0
    with target.open("rb") as file:
        for line, written in itertools.zip_longest(read_lines(articles), file):
            if written is None:
                break
            if not written.endswith(b"\n") and written.startswith(_RECORD_START[: len(written)]):
                break
            record = _json(written)
            if line is None or not isinstance(record, dict) or record.get("sha256") != line.digest:
                raise DataError(
                    f"{target} is not the result of {articles.source}: its line {done + 1} belongs to something else; "
                    "choose another file, or remove it"
                )
            done, kept = done + 1, kept + len(written)
            if "error" in record:
                failed.add(done)
    with _writing(target), target.open("rb+") as file:
        file.truncate(kept)
    return done, failed


def _json(written: bytes) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None
