"""The bundled Hub's records of a repository: its commits, and how they refer to files."""

import datetime as dt
import hashlib
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from titlegen.errors import HubError

MAIN = "main"


class RefusedError(HubError):
    """A request that the Hub turns down: HTTP status, and the code by which huggingface_hub knows the reason."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        """Say what was wrong with the request."""
        super().__init__(message)
        self.status, self.code = status, code


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(_Record):
    """One file of a commit; ``blob_id`` is the SHA-1 by which git knows it."""

    size: int
    sha256: str
    blob_id: str
    lfs: bool


class Commit(_Record):
    """One revision: all of its files by path."""

    parent: str | None
    title: str
    message: str
    date: str
    files: dict[str, StoredFile]


class Repository(_Record):
    """A repository: name of each branch, tag and pull request, with the commit it points to."""

    private: bool
    created: str
    branches: dict[str, str]
    tags: dict[str, str]
    pulls: dict[str, str]


@dataclass
class CommitChange:
    """What a commit adds and deletes; a deleted path that ends in a slash is a folder."""

    title: str = ""
    message: str = ""
    parent: str | None = None
    files: dict[str, StoredFile] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)


def now() -> str:
    """Return the time as the Hub writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def blob_id(content: bytes) -> str:
    """Return git's SHA-1 of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def lfs_file(sha256: str, size: int) -> StoredFile:
    """Return how a commit refers to a large file: git sees a pointer to it."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return StoredFile(size=size, sha256=sha256, blob_id=blob_id(pointer.encode()), lfs=True)
