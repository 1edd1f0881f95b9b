"""The files of a source: one file, the tables of a folder, or the matches of a pattern."""

import bz2
import glob
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from titlegen.errors import DataError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
TABLE_SUFFIXES = (".csv", ".tsv")
ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
SUFFIXES = (*JSON_SUFFIXES, *TABLE_SUFFIXES, *ARROW_SUFFIXES)
_OPENERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\x00", lzma.open),
}
# Records of a data set beside its rows, as datasets and the Hub write them.
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json"})
# Hidden files, and those that Excel and Emacs write beside an open one.
_HIDDEN = (".", "_", "~", "#")
_MAX_FILES = 100_000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source, in the order of their names."""

    paths: tuple[Path, ...]
    passed_over: tuple[str, ...] = ()
    """Names of the files of a folder that are no tables."""


def suffix_of(path: Path) -> str:
    """Return what the name says a file is, in small letters and without the suffix of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes[-2:]) if suffix not in _OPENERS), "")


def is_table(name: str) -> bool:
    """Return whether a name stands for many articles: a table, a folder or a pattern."""
    path = Path(name).expanduser()
    return suffix_of(path) in SUFFIXES or path.is_dir() or (not path.exists() and glob.has_magic(name))


def stem_of(path: Path) -> str:
    """Return the name of a file without the suffixes that say what it is."""
    name = path.name
    while (suffix := Path(name).suffix) and suffix.lower() in {*_OPENERS, *SUFFIXES}:
        name = name.removesuffix(suffix)
    return name


def is_local(name: str) -> bool:
    """Return whether a source is meant as files of this machine, existing or not, rather than a name on the Hub."""
    path = Path(name).expanduser()
    has_suffix = suffix_of(path) in {*SUFFIXES, ".txt", ".xlsx", ".xls", ".zip"}
    return (
        has_suffix or path.exists() or glob.has_magic(name) or name.startswith((".", "/", "~")) or name.count("/") > 1
    )


def find_files(name: str) -> SourceFiles:
    """Return the files that a path, a folder or a pattern stands for.

    Raises:
        DataError: there are none, or what is there is no regular file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return SourceFiles((path,))
    if path.is_dir():
        return _tables(name, list(_walk(path)))
    if path.exists():
        raise DataError(f"data source {name!r} is no regular file; write its rows to a file first")
    if glob.has_magic(name):
        matched = [Path(found) for found in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - absolute patterns, too
        if matched:
            return _tables(name, [file for found in matched for file in (_walk(found) if found.is_dir() else [found])])
    if "://" in name:
        # Its user and password, if it has any, are nobody else's.
        shown = name if "@" not in name else f"{name.partition('://')[0]}://..."
        raise DataError(
            f"data source {shown!r} is an address, and titlegen reads files: download them, or mount the bucket (with "
            "mountpoint-s3, gcsfuse or rclone) and give its path; on a cluster, the same one on every machine"
        )
    raise DataError(f"data source {name!r} does not exist; check the path")


def _tables(name: str, paths: list[Path]) -> SourceFiles:
    # Links may lead to one file in many ways, and its articles count once.
    paths = list({path.resolve(): path for path in reversed(paths) if path.is_file()}.values())[::-1]
    tables = tuple(path for path in paths if suffix_of(path) in SUFFIXES)
    others = tuple(path.name for path in paths if suffix_of(path) not in SUFFIXES)
    if not tables:
        there = f"it has {', '.join(others[:_SHOWN])}" if others else "it has no files"
        raise DataError(f"data source {name!r} has no file that ends in {', '.join(SUFFIXES)}; {there}")
    return SourceFiles(tables, others)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder; a linked folder is entered once."""
    seen: set[str] = set()
    count = 0
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(child for child in folders if not child.startswith(_HIDDEN))
        for name in sorted(names):
            if not name.startswith(_HIDDEN) and name not in _METADATA:
                count += 1
                if count > _MAX_FILES:
                    raise DataError(f"data source {str(folder)!r} has more than {_MAX_FILES} files; join them first")
                yield Path(parent, name)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked where its first bytes say that it is compressed.

    Raises:
        DataError: it cannot be read; the message says what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        for mark, opener in _OPENERS.values():
            if start.startswith(mark):
                unpacked: IO[bytes] = opener(path)
                return unpacked
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; see that it is there and may be read"
        ) from error
