"""Verification of a push: every remote file against what was sent, and a clean download that writes the same title."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from titlegen.errors import HubError
from titlegen.files import digest_file
from titlegen.generation import greedy_title
from titlegen.hub.assembly import Artefacts, assemble_files
from titlegen.hub.target import HubTarget, connect, with_retries
from titlegen.manifest import MANIFEST, FileRecord, Manifest
from titlegen.plural import listed
from titlegen.results import Pushed
from titlegen.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

_SHOWN = 3
_MAX_MANIFEST_BYTES = 2**24
# The Hub itself adds this one when a repository is made.
_HUB_FILES = frozenset({".gitattributes"})


@dataclass(frozen=True)
class Difference:
    """How a revision differs from what was staged, by path in the repository."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    """Files of others, which are left alone."""

    def describe(self) -> str:
        """Return what is missing or changed in one line; empty when nothing is."""
        wrong = [f"{name} is missing" for name in self.missing] + [f"{name} is different" for name in self.changed]
        return listed(wrong, _SHOWN, "; ")


def verify_remote(target: HubTarget, repo_id: str, artefacts: Artefacts, settings: Settings) -> Pushed:
    """Compare size and SHA-256 of every file of a repository with the local export; nothing is uploaded.

    Raises:
        HubError: a file is missing or different.
    """
    target = replace(target, repo_id=repo_id)
    allowed = settings.hub.model_copy(update={"allow_failed_gates": True})
    with assemble_files(artefacts, settings.model_copy(update={"hub": allowed}), repo_id) as staged:
        with connect(target) as api:
            revision = settings.hub.revision or "main"
            commit = str(with_retries(lambda: api.repo_info(repo_id, revision=revision)).sha)
            difference = compare(api, repo_id, commit, staged.files, read_all=target.offline)
        if difference.describe():
            raise HubError(
                f"{target.url} at {commit[:12]} differs from the export: {difference.describe()}; push again"
            )
        return Pushed(
            url=target.url,
            repo_id=repo_id,
            commit=commit,
            verified_files=len(staged.files),
            bytes=staged.total_bytes,
            extra_files=list(difference.extra),
        )


def compare(
    api: "HfApi", repo_id: str, revision: str, files: Mapping[str, FileRecord], *, read_all: bool
) -> Difference:
    """Compare a revision with what was sent.

    The Hub tells the SHA-256 of large files; small ones are downloaded and hashed here.

    Args:
        api: client.
        repo_id: repository.
        revision: commit to look at.
        files: size and SHA-256 of each file that must be there.
        read_all: download and hash large files too, instead of trusting what the Hub says of them.
    """
    remote = {entry.path: entry for entry in list_files(api, repo_id, revision)}
    changed = [
        name
        for name, record in sorted(files.items())
        if name in remote and not _is_equal(api, repo_id, revision, remote[name], record, read_all=read_all)
    ]
    return Difference(
        missing=tuple(name for name in sorted(files) if name not in remote),
        changed=tuple(changed),
        extra=tuple(name for name in sorted(remote) if name not in files and name not in _HUB_FILES),
    )


def list_files(api: "HfApi", repo_id: str, revision: str) -> list["RepoFile"]:
    """Return every file of a revision."""
    from huggingface_hub.hf_api import RepoFile

    tree = with_retries(lambda: list(api.list_repo_tree(repo_id, revision=revision, recursive=True)))
    return [entry for entry in tree if isinstance(entry, RepoFile)]


def _is_equal(
    api: "HfApi", repo_id: str, revision: str, entry: "RepoFile", record: FileRecord, *, read_all: bool
) -> bool:
    if entry.size != record.size or (entry.lfs is not None and entry.lfs.sha256 != record.sha256):
        return False
    if entry.lfs is not None and not read_all:
        return True
    hasher = hashlib.sha256()
    for block in _stream(api, repo_id, revision, entry.path):
        hasher.update(block)
    return hasher.hexdigest() == record.sha256


def read_remote_manifest(api: "HfApi", repo_id: str, revision: str) -> Manifest | None:
    """Return the manifest that an earlier push left; None when there is none that we can read."""
    from huggingface_hub.errors import EntryNotFoundError

    content = bytearray()
    try:
        for block in _stream(api, repo_id, revision, MANIFEST):
            content += block
            if len(content) > _MAX_MANIFEST_BYTES:
                return None
        return Manifest.model_validate_json(bytes(content))
    except (EntryNotFoundError, ValueError):
        return None


def _stream(api: "HfApi", repo_id: str, revision: str, path: str) -> Iterator[bytes]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
    )

    url = hf_hub_url(repo_id, path, revision=revision, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token) | {"Accept-Encoding": "identity"}
    with http_stream_backoff("GET", url, headers=headers) as response:
        hf_raise_for_status(response)
        yield from response.iter_bytes()


class Download(NamedTuple):
    """A downloaded model: its greedy title, its verified files, and whether the title is one that had to come out."""

    title: str
    verified_files: int
    same_title: bool


def check_download(
    target: HubTarget,
    article: str,
    *,
    revision: str | None = None,
    expected: str | None = None,
    export: Path | None = None,
) -> Download:
    """Download a revision into an empty cache, load it with transformers, and return its greedy title of an article.

    Every downloaded file is hashed and compared with the repository's own manifest. The GGUF files are left out.

    Args:
        target: Hub and repository.
        article: article to write a title for.
        revision: branch, tag or commit; main by default.
        expected: the title that must come out.
        export: local export whose title must come out instead, when ``expected`` is None.

    Raises:
        HubError: a file is not what the manifest says, or the title is another one.
    """
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory(prefix="titlegen-check-") as cache:
        with connect(target):
            path = snapshot_download(
                target.repo_id,
                revision=revision,
                cache_dir=cache,
                endpoint=target.endpoint,
                token=target.token,
                ignore_patterns=["*.gguf", "adapter/*"],
            )
        snapshot = Path(path)
        checked = _check_snapshot(snapshot)
        title = greedy_title(snapshot, article)
    if expected is None and export is not None:
        expected = greedy_title(export, article)
    if expected is not None and title != expected:
        raise HubError(f"the downloaded model titles an article {title!r}, the local one {expected!r}; push again")
    return Download(title, checked, expected is not None)


def _check_snapshot(snapshot: Path) -> int:
    manifest = Manifest.model_validate_json((snapshot / MANIFEST).read_bytes())
    found = [name for name in manifest.files if (snapshot / name).is_file()]
    wrong = [name for name in found if digest_file(snapshot / name) != manifest.files[name].sha256]
    if wrong:
        raise HubError(f"the download differs from its manifest: {', '.join(wrong[:_SHOWN])}; push again")
    return len(found)
