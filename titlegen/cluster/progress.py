"""The progress of a run over many articles: number of titles, speed, time left, and failures."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from titlegen.cluster.job import Receipt
from titlegen.cluster.parts import Place
from titlegen.plural import count

# Lines by whose length a file's number of lines is estimated.
_SAMPLED_BYTES = 2**20
# Seconds between two lines where there is no terminal to redraw a bar on.
_LINE_S = 30.0
_COMPRESSED = frozenset({".gz", ".bz2", ".xz"})


class Progress:
    """Counts the articles of a run; a bar on a terminal, else a line now and then."""

    def __init__(self, files: tuple[str, ...], say: Callable[[str], None]) -> None:
        """Estimate how many articles there are.

        Args:
            files: of the source.
            say: is told of each line.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.done = self.kept = self.failed = 0
        self._say = say
        self._total = estimate_rows(files)
        self._started = self._last = time.monotonic()
        columns = ("{task.fields[rate]:.1f} titles/s", "{task.fields[failed]} failed")
        self._bar = Bar(
            TextColumn("generating titles"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            *map(TextColumn, columns),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("generate", total=self._total, rate=0.0, failed=0)

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._bar.console.is_terminal:
            self._bar.start()
        self._started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the first block could be written."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Titles a second of this run."""
        return (self.done - self.kept) / max(self.seconds, 1e-9)

    def keep(self, parts: Mapping[Place, int]) -> None:
        """Count what an earlier run has done."""
        self.done = self.kept = sum(parts.values())
        if self.kept:
            self._say(f"generate: {count(self.kept, 'article')} had been done before")
        self._bar.update(self._task, completed=self.done)

    def add(self, receipt: Receipt) -> None:
        """Count a block."""
        self.done += receipt.rows
        self.failed += receipt.failed
        if self._total is not None:
            # It was an estimate.
            self._total = max(self._total, self.done)
        self._bar.update(self._task, completed=self.done, total=self._total, rate=self.rate, failed=self.failed)
        now = time.monotonic()
        if not self._bar.console.is_terminal and now - self._last >= _LINE_S:
            self._last = now
            self._say(f"generate: {self.line()}")

    def line(self) -> str:
        """Return how far it is, as one line."""
        text = f"{count(self.done, 'article')} done, {self.rate:.1f} titles/s, {self.failed} failed"
        if self._total is None or self._total <= self.done or not self.rate:
            return text
        return f"{text}, about {(self._total - self.done) / self.rate / 60:.0f} min left"


def estimate_rows(files: tuple[str, ...]) -> int | None:
    """Return about how many articles files hold; None where a file must be read to tell."""
    total = 0
    for name in files:
        found = _estimate(Path(name))
        if found is None:
            return None
        total += found
    return total


def _estimate(path: Path) -> int | None:
    import pyarrow.parquet as pq

    if path.suffix in _COMPRESSED or path.suffix == ".json":
        return None
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
    lines = head.count(b"\n")
    return round(path.stat().st_size * lines / len(head)) if lines else None
