"""A process of the cluster: takes blocks of articles, writes a file for each, and reports it."""

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from titlegen.cluster.job import Job, Receipt, Titler, as_columns, read_blocks, unpack_lines
from titlegen.cluster.parts import Place, part_path, write_part
from titlegen.cluster.titlers import make_titler
from titlegen.errors import TitlegenError
from titlegen.serve.lines import as_record

Batch = Mapping[str, Any]


def read_file(batch: Batch, job: Job, done: Mapping[int, frozenset[int]]) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a file as batches of one row; an error of reading it comes as such a row, too.

    Args:
        batch: number of the file, in a batch of one row.
        job: the run.
        done: for each file the blocks that are done.
    """
    file = int(batch["file"][0])
    try:
        for place, content in read_blocks(job, file, done.get(file, frozenset())):
            yield {"file": [place.file], "block": [place.block], "content": [content], "error": [""]}
    except TitlegenError as error:
        yield {"file": [file], "block": [-1], "content": [b""], "error": [str(error)]}


class BlockWriter:
    """Writes blocks; Ray makes a pool of these, and calls each from a few threads.

    While one block waits for its titles, the next is cleaned and the last one's titles are checked.
    """

    def __init__(self, job: Job) -> None:
        """Take the run; the model is loaded with the first block, so that its errors are reported like others."""
        self._job = job
        self._titler: Titler | None = None
        self._lock = threading.Lock()

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Write a block and return its receipt; both are batches of one row."""
        place = Place(int(batch["file"][0]), int(batch["block"][0]))
        content, error = bytes(batch["content"][0]), str(batch["error"][0])
        if error:
            return as_columns(Receipt(place.file, place.block, 0, error=error))
        if place.block < 0:
            return as_columns(Receipt(place.file, place.block, int(content)))
        try:
            return as_columns(self._write(place, content))
        except TitlegenError as failure:
            return as_columns(Receipt(place.file, place.block, 0, error=str(failure)))
        except OSError as failure:
            advice = "make room, or choose another folder with --out"
            text = f"cannot write to {self._job.directory}: {failure.strerror or failure}; {advice}"
            return as_columns(Receipt(place.file, place.block, 0, error=text))

    def _write(self, place: Place, content: bytes) -> Receipt:
        with self._lock:
            titler = self._titler = self._titler or make_titler(self._job)
        lines = unpack_lines(content)
        answers = iter(titler([line.article for line in lines if not line.problem]))
        records = [as_record(line, [] if line.problem else next(answers)) for line in lines]
        write_part(part_path(self._job.directory, place, self._job.ray.format), records)
        return Receipt(
            *place,
            rows=len(records),
            failed=sum("error" in record for record in records),
            warned=sum(bool(record.get("warnings")) for record in records),
            worker=f"{platform.node()}:{os.getpid()}",
            ended=time.time(),
        )
