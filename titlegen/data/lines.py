"""Lines of files in any encoding, with any end of line; JSON with one value a line."""

import codecs
import itertools
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from titlegen.data.files import open_bytes
from titlegen.data.records import MAX_RECORD_BYTES, PADDING, TOO_LONG, Numbered, Record, Unreadable
from titlegen.encodings import HEAD_BYTES, lenient_errors
from titlegen.errors import DataError

CHUNK_CHARS = 2**20
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""Errors of reading a compressed file that is cut off or damaged."""
_TWO_VALUES = ": more than one value in the line, give each a line of its own"


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file, unpacked.

    Raises:
        DataError: the file cannot be read.
    """
    with open_bytes(path) as file:
        try:
            return file.read(HEAD_BYTES)
        except DAMAGED as error:
            raise cut_off(path, error) from error


def raw_lines(path: Path, codec: str) -> Iterator[tuple[int, bytes]]:
    """Yield number, from 1, and bytes of each line in UTF-8; of a line over the limit only its beginning.

    Raises:
        DataError: the file cannot be read to its end, or is not what its beginning says.
    """
    try:
        with open_bytes(path) as file:
            lines = _utf8_lines(file) if codec.startswith("utf-8") else _converted_lines(file, codec)
            yield from enumerate(lines, start=1)
    except UnicodeError as error:
        raise DataError(f"{path} is not {codec.upper()} to its end ({error}); save it as UTF-8") from error
    except DAMAGED as error:
        raise cut_off(path, error) from error


def _utf8_lines(file: IO[bytes]) -> Iterator[bytes]:
    first = file.readline(MAX_RECORD_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    # Ends of lines as an old Macintosh writes them: JSON and our readers hold no other bare carriage return.
    if b"\r" in first.rstrip(b"\r\n"):
        rest = iter(lambda: file.read(CHUNK_CHARS), b"")
        yield from _split_lines(itertools.chain([first], rest))
        return
    line = first
    while line:
        rest_of_line = line
        while not rest_of_line.endswith(b"\n") and (rest_of_line := file.readline(MAX_RECORD_BYTES)):
            pass
        yield line
        line = file.readline(MAX_RECORD_BYTES + 1)


def _converted_lines(file: IO[bytes], codec: str) -> Iterator[bytes]:
    errors = lenient_errors(codec)
    decode = codecs.getincrementaldecoder(codec)(errors).decode
    # Bytes that the codec does not know come out as they were.
    back = "surrogatepass" if errors == "strict" else errors
    chunks = iter(lambda: file.read(CHUNK_CHARS), b"")
    yield from _split_lines(decode(chunk).encode("utf-8", back) for chunk in chunks)
    decode(b"", final=True)


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines that end in any of the three ways."""
    rest = b""
    for chunk in chunks:
        # A carriage return at the end may be half of an end of line.
        *lines, rest = (rest + chunk).splitlines(keepends=True) or [b""]
        for line in lines:
            yield line[: MAX_RECORD_BYTES + 1]
        if len(rest) > MAX_RECORD_BYTES:
            rest = rest[: MAX_RECORD_BYTES + 1]
    yield from (line[: MAX_RECORD_BYTES + 1] for line in rest.splitlines(keepends=True))


def parse_line(line: bytes, codec: str = "utf-8") -> Record | Unreadable | None:
    """Return the object in a line, why there is none, or None for a blank line; ``codec`` is the file's own."""
    if len(line) > MAX_RECORD_BYTES:
        return Unreadable(f"line {TOO_LONG}", is_long=True)
    try:
        value = json.loads(line.decode("utf-8").lstrip("\ufeff"))  # files that were joined have marks inside
    except UnicodeDecodeError as error:
        name = codec.removesuffix("-sig").upper()
        return Unreadable(f"not {name} (byte 0x{line[error.start]:02x} at position {error.start})")
    except ValueError as error:
        reason = f"not JSON ({error}{_TWO_VALUES if 'Extra data' in str(error) else ''})"
        return Unreadable(reason) if line.strip().strip(PADDING.encode()) else None
    except RecursionError:
        return Unreadable("nested too deeply")
    if not isinstance(value, dict):
        return Unreadable(f"{type(value).__name__} instead of an object {{...}}")
    return value


def numbered_lines(path: Path, codec: str) -> Iterator[Numbered]:
    """Yield line number and object of each line that is not blank."""
    for number, line in raw_lines(path, codec):
        if (record := parse_line(line, codec)) is not None:
            yield number, record


def cut_off(path: Path, error: Exception) -> DataError:
    """Return the error of a file that ends too early."""
    return DataError(f"{path} cannot be read to its end: {error}; it may be cut off, copy it again")
