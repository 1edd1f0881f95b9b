"""Titles for a whole JSONL file: in order, several at a time, and going on where an interrupted run stopped."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from titlegen.errors import DataError, TitlegenError
from titlegen.manifest import writable
from titlegen.serve.client import Answer, Client

_MAX_LINE_BYTES = 8 * 2**20


def generate_file(
    client: Client, source: Path, target: Path, *, concurrency: int = 4, content_column: str = "content"
) -> dict[str, Any]:
    """Write a title, or the reason why there is none, for every line of a JSONL file.

    Line n of ``target`` belongs to line n of ``source``: ``{"id", "title", ...}`` or ``{"id", "error"}``, where the id
    is the row's own or its line number. What an interrupted run wrote is kept and gone on from.

    Returns:
        How many lines there are, how many were done before, and how many have an error.

    Raises:
        DataError: the source cannot be read, or the target is the result of another source.
        TitlegenError: the target cannot be written.
    """
    if not source.is_file():
        raise DataError(f"{source} does not exist; give a JSONL file with a column {content_column!r}")
    done, failed = _resume(source, target)
    total = done
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as output:
            lines, again = itertools.tee(_lines(source, done))
            articles = (_article(line, content_column)[0] for _, line in again)
            answers = client.generate_many(articles, concurrency)
            for (number, line), answer in zip(lines, answers, strict=True):
                record = _record(number, line, content_column, answer)
                output.write(json.dumps(record, ensure_ascii=False) + "\n")
                output.flush()
                total += 1
                failed += "error" in record
            os.fsync(output.fileno())
    return {"lines": total, "resumed": done, "failed": failed}


def _lines(source: Path, skip: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield number and text of each line after the first ``skip``; of an endless one only its beginning."""
    with source.open("rb") as file:
        for number in itertools.count(1):
            line = rest = file.readline(_MAX_LINE_BYTES)
            if not line:
                return
            while not rest.endswith(b"\n") and (rest := file.readline(_MAX_LINE_BYTES)):
                pass
            if number > skip:
                yield number, line


def _article(line: bytes, column: str) -> tuple[str, str]:
    """Return the article of a line and, when there is none, what is wrong with the line."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        return "", f"not JSON: {error}"
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        return "", f"no text in column {column!r}"
    return row[column], ""


def _id(number: int, line: bytes) -> Any:
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        return number
    found = row.get("id", number) if isinstance(row, dict) else number
    return found if isinstance(found, (str, int)) else number


def _record(number: int, line: bytes, column: str, answer: Answer | TitlegenError) -> dict[str, Any]:
    record: dict[str, Any] = {"id": _id(number, line)}
    if problem := _article(line, column)[1]:
        return record | {"error": f"line {number}: {problem}"}
    if isinstance(answer, TitlegenError):
        return record | {"error": f"line {number}: {answer}"}
    return record | {"title": answer.title, "done_reason": answer.done_reason, "trimmed": answer.trimmed}


def _resume(source: Path, target: Path) -> tuple[int, int]:
    """Return how many lines are done and how many of them failed; a line that was cut off is removed.

    Raises:
        DataError: the target does not belong to the source.
    """
    if not target.is_file():
        return 0, 0
    done = failed = kept = 0
    with target.open("rb") as file:
        for (number, line), written in zip(_lines(source), file, strict=False):
            try:
                record = json.loads(written) if written.endswith(b"\n") else None
            except ValueError:
                record = None
            if record is None:
                break
            if not isinstance(record, dict) or record.get("id") != _id(number, line):
                raise DataError(
                    f"{target} is not the result of {source}: line {number} is of another row; choose another file, or "
                    "remove it"
                )
            done, failed, kept = done + 1, failed + ("error" in record), kept + len(written)
    with writable(target), target.open("rb+") as file:
        file.truncate(kept)
    return done, failed
