"""Files that hold no rows of text, known by their first bytes, and what to do about each."""

import re
from pathlib import Path

from titlegen.errors import DataError

_AS_CSV = "save the sheet as CSV UTF-8"
_MARKS = (
    (b"PK\x03\x04", "a workbook or ZIP archive", f"{_AS_CSV}, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word document", _AS_CSV),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `unzstd`"),
    (b"SQLite format 3", "an SQLite database", "export the table with `sqlite3 -header -csv`"),
    (b"%PDF", "a PDF document", "give the texts as JSONL or CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"\x1f\x8b", "compressed twice", "unpack it with `gunzip` once"),
    (b"BZh", "compressed twice", "unpack it with `bunzip2` once"),
    (b"\xfd7zXZ\x00", "compressed twice", "unpack it with `unxz` once"),
    (b"{\\rtf", "an RTF document", "save it as plain text"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or JSONL"),
    (b"ORC", "an ORC file", "write it as Parquet or JSONL"),
    (b"\x93NUMPY", "a NumPy array", "write it as JSONL"),
    # Never loaded: a pickle may run anything.
    (b"\x80\x04\x95", "a Python pickle", "write it as Parquet or JSONL with the program that made it"),
    (b"\x80\x05\x95", "a Python pickle", "write it as Parquet or JSONL with the program that made it"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS in place of the file",
        "fetch it with `git lfs pull`, or `hf download` the data set",
    ),
)
_TAR_MARK, _TAR_PLACE = b"ustar", 257
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,200}(?:<!doctype html|<html|<head|<body|<table|<meta)\b", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,200}<(?:\?xml|rss|feed|urlset)\b", re.IGNORECASE)


def refuse_foreign(head: bytes, path: Path) -> None:
    """Raise when the first bytes of a file, unpacked, say that it holds no rows of text.

    Raises:
        DataError: saying what the file is, and what to do.
    """
    found = next(((what, remedy) for mark, what, remedy in _MARKS if head.startswith(mark)), None)
    if head[_TAR_PLACE:].startswith(_TAR_MARK):
        found = ("a tar archive", "unpack it with `tar -xf`, and give the folder")
    elif _HTML.match(head):
        found = (
            "an HTML page",
            "download the file again if it is an error's, or open the table in a spreadsheet and save it as CSV UTF-8",
        )
    elif _XML.match(head):
        found = ("XML", "write its articles as JSONL or CSV, as an export of WordPress or a feed reader does")
    if found:
        raise DataError(f"{path} holds no rows that can be read: it is {found[0]}; {found[1]}")
