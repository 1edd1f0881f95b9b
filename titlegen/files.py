"""Files written beside their name, then renamed; digests; and one clear error where nothing can be written."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from titlegen.errors import TitlegenError


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256 of a JSON value in its canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file beside its final name, then rename it there.

    Raises:
        TitlegenError: the folder cannot be written to, or the disk is full.
    """
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory that takes the place of ``directory`` only when the block ends well.

    Raises:
        TitlegenError: the parent folder cannot be written to, or the disk is full.
    """
    with writable(directory):
        temporary = directory.with_name(f".{directory.name}.new")
        old = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            shutil.rmtree(old, ignore_errors=True)
            if directory.exists():
                directory.rename(old)
            temporary.rename(directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writable(path: Path, place: str = "--output") -> Iterator[None]:
    """Turn "no permission" and "no space" in a block into one clear error.

    Args:
        path: what is written.
        place: the option or variable that names another place.

    Raises:
        TitlegenError: naming the path, the reason and the remedy.
    """
    remedies = {
        errno.EACCES: "choose a folder you may write to",
        errno.EPERM: "choose a folder you may write to",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOSPC: "free some disk space or choose another disk",
        errno.EDQUOT: "your disk quota is used up; choose another disk",
        errno.EFBIG: "this disk or account takes no files so large; choose another disk",
        errno.EIO: "the disk fails; choose another disk",
        errno.ENAMETOOLONG: "choose a shorter path",
        errno.ELOOP: "a link in the path leads back to itself; choose another folder",
        errno.ENOTDIR: "a part of the path is a file; choose another folder",
        errno.EEXIST: "a file stands where a folder is needed; choose another folder",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in remedies:
            raise
        reason = os.strerror(error.errno)
        raise TitlegenError(
            f"cannot write {error.filename or path}: {reason}; {remedies[error.errno]} with {place}"
        ) from error
