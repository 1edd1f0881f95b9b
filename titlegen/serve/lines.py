"""The articles of files, one after another, and each one's record in a result: the same for every engine."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping

from titlegen.data.cells import describe
from titlegen.data.sources import open_source
from titlegen.errors import TitlegenError
from titlegen.serve.answer import Answer
from titlegen.settings import DataSettings

# Hexadecimal digits of the SHA-256 of a row: enough to tell the rows of one file apart.
_DIGEST_CHARS = 16


@dataclasses.dataclass(frozen=True)
class Line:
    """One row of the source, read once."""

    number: int
    """Line, row or item of its file."""
    digest: str
    id: str | int
    """The row's own id, else its number."""
    article: str
    problem: str
    """Why there is no article, empty when there is one."""
    file: str = ""
    """The file that it stands in, where there are several."""


def read_lines(articles: DataSettings, skip: int = 0) -> Iterator[Line]:
    """Yield each row after the first ``skip``.

    Raises:
        DataError: the source cannot be read, or has no column for the article.
    """
    source = open_source(articles, titled=False, strict=False)
    files = list(source.findings.files)
    for row in itertools.islice(source.rows, skip, None):
        text, problem = row.content, row.problem
        if not problem and not isinstance(text, str):
            problem = f"the article is {describe(text)}"
        text = text if isinstance(text, str) and not problem else ""
        # The digest covers what the title is made of: another column may change.
        digest = hashlib.sha256(json.dumps([row.id, text, problem]).encode()).hexdigest()[:_DIGEST_CHARS]
        file = files[row.part] if len(files) > 1 else ""
        yield Line(row.number, digest, row.number if row.id is None else row.id, text, problem, file)


def as_record(line: Line, answer: list[Answer] | TitlegenError) -> dict[str, object]:
    """Return a row's record in a result: its titles, or why there is none."""
    record: dict[str, object] = {"id": line.id, "sha256": line.digest}
    if line.file:
        # Two files may have the same ids.
        record["file"] = line.file
    if line.problem or isinstance(answer, TitlegenError):
        return record | {"error": f"line {line.number}: {line.problem or answer}"}
    best = answer[0]
    record |= {"title": best.title, "done_reason": best.done_reason, "trimmed": best.trimmed}
    record["warnings"] = [dataclasses.asdict(warning) for warning in best.warnings]
    return record | ({"titles": [other.title for other in answer]} if len(answer) > 1 else {})


def as_line(record: Mapping[str, object]) -> str:
    """Return a record as a line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"
