"""The job that every process of a run gets, and the articles as they travel between processes."""

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from titlegen.cluster.parts import Place
from titlegen.errors import TitlegenError
from titlegen.serve.answer import Answer
from titlegen.serve.lines import Line, read_lines
from titlegen.settings import DataSettings, RaySettings, ServeSettings

Titler = Callable[[Sequence[str]], list[list[Answer] | TitlegenError]]
"""Writes the titles of articles, in order; raises errors that every other article would meet, too."""


@dataclass(frozen=True)
class Job:
    """A run: what is read and written, and how."""

    directory: Path
    """Of the output, which every machine sees."""
    key: str
    """Of the run's manifest: what its output depends on."""
    data: DataSettings
    serve: ServeSettings
    ray: RaySettings
    export: Path
    """The merged model: for its tokenizer, and for the titles where it writes them itself."""
    files: tuple[str, ...]
    """The files of the source, in order: whole paths."""
    names: tuple[str, ...] = ()
    """Their names in the records, where there are several."""
    number: int = 1
    """Titles for each article, at most."""
    concurrency: int = 4
    """Requests to one server at a time."""
    make_titler: Callable[["Job"], Titler] | None = None
    """Replaces the back end that the settings name."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The model servers, each once."""
        return tuple(dict.fromkeys((self.serve.host, *self.ray.hosts)))

    @property
    def convert(self) -> bool:
        """Whether Simplified Chinese becomes Traditional."""
        return self.data.script != "keep"


@dataclass(frozen=True)
class Receipt:
    """A process' report of a block that it has written, or of the end of a file."""

    file: int
    block: int
    """-1 at the end of a file."""
    rows: int
    """Of the block; of the whole file at its end."""
    failed: int = 0
    warned: int = 0
    worker: str = ""
    """The process that wrote it: machine and number."""
    ended: float = 0.0
    """When, seconds since 1970."""
    error: str = ""
    """The error that ends the run, one line."""


def pack_lines(lines: Sequence[Line]) -> bytes:
    """Return articles as one value of a data set."""
    return json.dumps([list(asdict(line).values()) for line in lines]).encode()


def unpack_lines(packed: bytes) -> list[Line]:
    """Return the articles of :func:`pack_lines`."""
    return [Line(*values) for values in json.loads(packed)]


def read_blocks(job: Job, file: int, done: Collection[int]) -> Iterator[tuple[Place, bytes]]:
    """Yield the blocks of a file that are not done yet, and at its end a block -1 whose content is its number of rows.

    Raises:
        DataError: the file cannot be read.
    """
    lines = _named(job, file)
    rows = 0
    for block in itertools.count():
        read = list(itertools.islice(lines, job.ray.block_rows))
        if not read:
            break
        rows += len(read)
        if block not in done:
            yield Place(file, block), pack_lines(read)
    yield Place(file, -1), str(rows).encode()


def _named(job: Job, file: int) -> Iterator[Line]:
    """Yield the lines of a file, which know its name where there are several."""
    for line in read_lines(job.data.model_copy(update={"source": job.files[file], "limit": 0})):
        yield line if len(job.files) == 1 else replace(line, file=job.names[file])


def as_columns(receipt: Receipt) -> dict[str, list[object]]:
    """Return a receipt as a batch of one row."""
    return {name: [value] for name, value in asdict(receipt).items()}
