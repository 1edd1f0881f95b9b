"""All clean rows of a source: lines and texts on disk, small arrays in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from titlegen.data.chunk import Chunk, RowArrays
from titlegen.data.counts import Counts
from titlegen.data.date_order import PACKED
from titlegen.data.dedup import U64, Rows


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


@dataclass(slots=True, kw_only=True)
class Collected(RowArrays):
    """All clean rows: the lines and texts on disk, small arrays in memory. Rows and texts are numbered from 0."""

    counts: Counts
    lines: Spool
    texts: Spool
    views: Rows
    date_choices: Rows
    """The dates that are ambiguous, packed, ``(dates, PACKED)``."""
    band_keys: list[U64]
    """One array ``(texts in the chunk, bands)`` for each chunk."""


def collect(chunks: Iterable[Chunk], lines: Spool, texts: Spool) -> Collected:
    """Write the chunks to disk as they come, and return what is kept in memory of them."""
    counts = Counts()
    arrays: dict[str, list[npt.NDArray[np.generic]]] = {field.name: [] for field in fields(RowArrays)}
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
