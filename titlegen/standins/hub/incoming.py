"""Uploads of large objects in parts, in any order, hashed while they arrive."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from titlegen.standins.hub.records import RefusedError

# Parts small enough that a lost connection costs little, few enough that their addresses fit one answer.
PART_BYTES = 64 * 2**20
_READ_BYTES = 2**20


class Incoming:
    """One object while its parts arrive, in any order; it is hashed as far as it is complete."""

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        """Make room for an object of this size, bytes."""
        self.path, self.sha256, self.size = path, sha256, size
        self.parts = max(-(-size // PART_BYTES), 1)
        self.active, self.touched = 0, time.monotonic()
        self._received: set[int] = set()
        self._hashed = 0
        self._hasher = hashlib.sha256()
        self._rewritten = False
        self._lock, self._hashing = threading.Lock(), threading.Lock()

    def span(self, part: int) -> tuple[int, int]:
        """Return offset and length of a part, bytes; the first part is 1."""
        if not 1 <= part <= self.parts:
            raise RefusedError(400, f"part {part} is not one of 1 to {self.parts}")
        offset = (part - 1) * PART_BYTES
        return offset, min(PART_BYTES, self.size - offset)

    @contextlib.contextmanager
    def writer(self, part: int) -> Iterator[IO[bytes]]:
        """Yield the file at a part's place; a part counts as received when the block ends well."""
        offset, _ = self.span(part)
        self.active += 1
        with self._lock:
            self._rewritten |= part in self._received
            self._received.discard(part)
        complete = False
        try:
            with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644), "wb", buffering=0) as file:
                file.seek(offset)
                yield file
            with self._lock:
                self._received.add(part)
            complete = True
        finally:
            if not complete and self.parts == 1:
                # The rest of a broken connection; the next try writes it anew.
                self.path.unlink(missing_ok=True)
            self.active -= 1
            self.touched = time.monotonic()

    def hash_received(self) -> None:
        """Hash the parts that follow each other without a gap; others can be received meanwhile."""
        with self._hashing, self.path.open("rb") as file:
            while self._next_is_here():
                offset, left = self.span(self._hashed + 1)
                file.seek(offset)
                while left:
                    block = file.read(min(_READ_BYTES, left))
                    self._hasher.update(block)
                    left -= len(block)
                self._hashed += 1

    def _next_is_here(self) -> bool:
        with self._lock:
            if self._rewritten:
                self._hashed, self._hasher, self._rewritten = 0, hashlib.sha256(), False
            return self._hashed + 1 in self._received

    def check(self) -> None:
        """Refuse the object unless every part arrived and the whole has the announced digest."""
        self.hash_received()
        if self._hashed != self.parts:
            raise RefusedError(400, f"{self.parts - len(self._received)} of {self.parts} parts did not arrive")
        if self._hasher.hexdigest() != self.sha256:
            raise RefusedError(400, f"the content has sha256 {self._hasher.hexdigest()}, announced was {self.sha256}")
