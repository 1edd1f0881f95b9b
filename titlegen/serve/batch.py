"""Titles for a whole JSONL file: in order, several at a time, and going on where an interrupted run stopped."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from titlegen.errors import DataError, TitlegenError
from titlegen.serve.client import CONCURRENCY, Answer, Client, UnavailableError

_MAX_LINE_BYTES = 8 * 2**20
# Hexadecimal digits of the SHA-256 of a line: enough to tell the lines of one file apart.
_DIGEST_CHARS = 16
_RECORD_START = b'{"id": '


@dataclasses.dataclass(frozen=True)
class _Line:
    """One line of the source, read once."""

    number: int
    digest: str
    id: str | int
    """The row's own id, else the line's number."""
    article: str
    problem: str
    """Why there is no article, empty when there is one."""


def generate_file(
    client: Client,
    source: Path,
    target: Path,
    *,
    concurrency: int = CONCURRENCY,
    number: int = 1,
    content_column: str = "content",
    on_line: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Write a title, or the reason why there is none, for every line of a JSONL file.

    Line n of ``target`` belongs to line n of ``source``: ``{"id", "sha256", "title", ...}`` or ``{"id", "sha256",
    "error"}``. The id is the row's own or its line number, and ``sha256`` begins the digest of the line: what an
    interrupted run wrote is kept and gone on from, and another file's result is not touched.

    Args:
        client: asks the model.
        source: one JSON object a line.
        target: is written line by line.
        concurrency: articles that are worked on at a time.
        number: titles for each article, at most; more than one are also written as ``titles``, the best first.
        content_column: where a row has its article.
        on_line: is told how many lines are done, after each.

    Returns:
        How many lines there are, how many were done before, and how many have an error.

    Raises:
        DataError: the source cannot be read, or the target is the result of another source.
        ServeError: the server or the model went away; what is written stays, and another call goes on from there.
        TitlegenError: the target cannot be written.
    """
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a JSONL file with a column {content_column!r}")
    if target.exists() and target.samefile(source):
        raise DataError(f"{target} is the file of the articles itself; choose another file for the titles")
    done, failed = _resume(source, target, content_column)
    total = done
    lines, again = itertools.tee(_lines(source, content_column, done))
    answers = client.generate_many((line.article for line in again), concurrency, number=number)
    with contextlib.closing(answers), _writing(target), _open(target) as output:
        for line, answer in zip(lines, answers, strict=True):
            if isinstance(answer, UnavailableError):
                raise answer
            record = _record(line, answer)
            output.write(json.dumps(record, ensure_ascii=False) + "\n")
            output.flush()
            total += 1
            failed += "error" in record
            on_line(total)
        # Standard output cannot be synchronised.
        if target.is_file():
            os.fsync(output.fileno())
    return {"lines": total, "resumed": done, "failed": failed}


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


def _lines(source: Path, column: str, skip: int = 0) -> Iterator[_Line]:
    """Yield each line after the first ``skip``; of an endless one only its beginning.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with source.open("rb") as file:
            for number in itertools.count(1):
                line = rest = file.readline(_MAX_LINE_BYTES)
                if not line:
                    return
                while not rest.endswith(b"\n") and (rest := file.readline(_MAX_LINE_BYTES)):
                    pass
                if number > skip:
                    yield _parse(number, line, column)
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror}") from error


def _parse(number: int, line: bytes, column: str) -> _Line:
    digest = hashlib.sha256(line.rstrip(b"\r\n")).hexdigest()[:_DIGEST_CHARS]
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        return _Line(number, digest, number, "", f"not JSON: {error}")
    found = row.get("id", number) if isinstance(row, dict) else number
    name = found if isinstance(found, (str, int)) else number
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        return _Line(number, digest, name, "", f"no text in column {column!r}")
    return _Line(number, digest, name, row[column], "")


def _record(line: _Line, answer: list[Answer] | TitlegenError) -> dict[str, Any]:
    record: dict[str, Any] = {"id": line.id, "sha256": line.digest}
    if line.problem or isinstance(answer, TitlegenError):
        return record | {"error": f"line {line.number}: {line.problem or answer}"}
    best = answer[0]
    record |= {"title": best.title, "done_reason": best.done_reason, "trimmed": best.trimmed}
    return record | ({"titles": [other.title for other in answer]} if len(answer) > 1 else {})


def _resume(source: Path, target: Path, column: str) -> tuple[int, int]:
    """Return how many lines are done and how many of them failed; a last line that was cut off is removed.

    Raises:
        DataError: the target is no result, or the result of another source; it is left as it is.
    """
    if not target.is_file():
        return 0, 0
    done = failed = kept = 0
    with target.open("rb") as file:
        for line, written in itertools.zip_longest(_lines(source, column), file):
            if written is None:
                break
            if not written.endswith(b"\n") and written.startswith(_RECORD_START[: len(written)]):
                break
            record = _json(written)
            if line is None or not isinstance(record, dict) or record.get("sha256") != line.digest:
                raise DataError(
                    f"{target} is not the result of {source}: its line {done + 1} belongs to something else; choose "
                    "another file, or remove it"
                )
            done, failed, kept = done + 1, failed + ("error" in record), kept + len(written)
    with _writing(target), target.open("rb+") as file:
        file.truncate(kept)
    return done, failed


def _json(written: bytes) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None
