"""The bundled Hub's repositories on disk: content by its digest, and every change of a repository one rename."""

import hashlib
import re
import secrets
import shutil
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from titlegen.errors import HubError
from titlegen.files import write_atomically
from titlegen.standins.hub.incoming import Incoming
from titlegen.standins.hub.records import MAIN, Commit, CommitChange, RefusedError, Repository, StoredFile, blob_id, now

# An upload that nobody continued for this long is given up, and its disk space freed.
ABANDONED_S = 600
_OID = re.compile(r"[0-9a-f]{40}")
_SHORT_OID = re.compile(r"[0-9a-f]{5,40}")
_REF_NAME = re.compile(r"(?!refs/)[A-Za-z0-9][\w./-]{0,99}", re.ASCII)
# Source: the .gitattributes of a new repository on huggingface.co, shortened.
LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".model", ".pt", ".pth", ".onnx", ".parquet", ".arrow", ".zip", ".gz")
_GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


class RepositoryStore:
    """All repositories below one directory; one process at a time."""

    def __init__(self, directory: Path) -> None:
        """Open or create the directory.

        Raises:
            HubError: another server uses it.
        """
        self.directory = directory.resolve()
        self._incoming = self.directory / "incoming"
        self.directory.mkdir(parents=True, exist_ok=True)
        # Kept, and so locked, as long as the process lives.
        self._held = FileLock(self.directory / "lock")
        try:
            self._held.acquire(timeout=0)
        except Timeout as error:
            raise HubError(f"another offline Hub already serves {self.directory}; stop it or choose another") from error
        # Uploads in here cannot be continued: their addresses were lost with the process that issued them.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()
        self.uploads: dict[str, Incoming] = {}
        self._lock = threading.RLock()

    def create(self, repo_id: str, *, private: bool) -> bool:
        """Create a repository with its first commit; returns False when there is one of that name."""
        with self._lock:
            if self._record(repo_id).is_file():
                return False
            change = CommitChange("initial commit", files={".gitattributes": self.put(_GITATTRIBUTES.encode())})
            oid = self._write_commit(repo_id, None, {}, change)
            created = Repository(private=private, created=now(), branches={MAIN: oid}, tags={}, pulls={})
            self._write_repository(repo_id, created)
            return True

    def names(self) -> list[str]:
        """Return the names of all repositories."""
        records = (self.directory / "repositories").glob("*/*/repository.json")
        return sorted("/".join(path.parts[-3:-1]) for path in records)

    def read(self, repo_id: str) -> Repository:
        """Return a repository's record."""
        try:
            return Repository.model_validate_json(self._record(repo_id).read_bytes())
        except FileNotFoundError:
            raise RefusedError(404, f"repository {repo_id} does not exist", "RepoNotFound") from None

    def resolve(self, repo_id: str, revision: str) -> str:
        """Return the commit of a branch, tag, pull request (``refs/pr/1``) or commit, which may be shortened."""
        repository = self.read(repo_id)
        kind, _, number = revision.rpartition("/")
        found = (
            repository.branches.get(revision.removeprefix("refs/heads/"))
            or repository.tags.get(revision.removeprefix("refs/tags/"))
            or (repository.pulls.get(number) if kind == "refs/pr" else None)
        )
        if found is None and _SHORT_OID.fullmatch(revision):
            commits = [path.stem for path in self._commits(repo_id).glob(f"{revision}*.json")]
            found = commits[0] if len(commits) == 1 else None
        if found is None:
            raise RefusedError(404, f"{repo_id} has no revision {revision}", "RevisionNotFound")
        return found

    def read_commit(self, repo_id: str, oid: str) -> Commit:
        """Return a commit by its full id."""
        if not _OID.fullmatch(oid):
            raise RefusedError(404, f"{oid} is not a commit", "RevisionNotFound")
        return Commit.model_validate_json((self._commits(repo_id) / f"{oid}.json").read_bytes())

    def commit(self, repo_id: str, branch: str, change: CommitChange, *, pull_request: bool = False) -> tuple[str, int]:
        """Add a commit on top of a branch or of ``refs/pr/N``, or as a new pull request; returns its id and N (or 0).

        Until the record is renamed into place, at the very end, every reader sees the old revision.
        """
        with self._lock:
            repository = self.read(repo_id)
            kind, _, number = branch.rpartition("/")
            is_pull = kind == "refs/pr" and number in repository.pulls
            if not is_pull and branch not in repository.branches:
                raise RefusedError(404, f"{repo_id} has no branch {branch}", "RevisionNotFound")
            head = repository.pulls[number] if is_pull else repository.branches[branch]
            if change.parent is not None and not head.startswith(change.parent):
                raise RefusedError(
                    412, f"a commit has happened on {branch} since {change.parent}; refresh and try again"
                )
            oid = self._write_commit(repo_id, head, self.read_commit(repo_id, head).files, change)
            if pull_request:
                number = str(len(repository.pulls) + 1)
            target = {"pulls": repository.pulls | {number: oid}}
            if not (is_pull or pull_request):
                number, target = "0", {"branches": repository.branches | {branch: oid}}
            self._write_repository(repo_id, repository.model_copy(update=target))
            return oid, int(number)

    def add_ref(self, repo_id: str, kind: str, name: str, revision: str) -> None:
        """Create a branch (``kind`` is ``branches``) or a tag (``tags``)."""
        if not _REF_NAME.fullmatch(name) or ".." in name:
            raise RefusedError(400, f"{name!r} is not a name for a branch or tag")
        with self._lock:
            repository = self.read(repo_id)
            refs: dict[str, str] = getattr(repository, kind)
            if name in refs:
                raise RefusedError(409, f"reference {name} already exists")
            oid = self.resolve(repo_id, revision)
            self._write_repository(repo_id, repository.model_copy(update={kind: refs | {name: oid}}))

    def object_path(self, sha256: str) -> Path:
        """Return where the content of this digest is, or would be."""
        return self.directory / "objects" / sha256[:2] / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Return whether the content of this digest and size, bytes, is here."""
        path = self.object_path(sha256)
        return path.is_file() and path.stat().st_size == size

    def put(self, content: bytes) -> StoredFile:
        """Keep a small file, and return how a commit refers to it."""
        sha256 = hashlib.sha256(content).hexdigest()
        temporary = self._incoming / secrets.token_hex(8)
        try:
            temporary.write_bytes(content)
            self._keep(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)
        return StoredFile(size=len(content), sha256=sha256, blob_id=blob_id(content), lfs=False)

    def announce(self, sha256: str, size: int) -> str:
        """Return the name under which an object can now be uploaded; nobody can guess it."""
        for name, upload in list(self.uploads.items()):
            if not upload.active and time.monotonic() - upload.touched > ABANDONED_S:
                self.drop(name)
        if size > shutil.disk_usage(self.directory).free:
            raise RefusedError(507, f"no space for an object of {size} bytes in {self.directory}")
        name = secrets.token_hex(16)
        self.uploads[name] = Incoming(self._incoming / name, sha256, size)
        return name

    def upload(self, name: str) -> Incoming:
        """Return an announced upload."""
        if name not in self.uploads:
            raise RefusedError(404, "this upload is not, or no longer, expected; push again")
        return self.uploads[name]

    def finish(self, name: str) -> None:
        """Check a complete upload and keep it; a wrong one is dropped."""
        upload = self.upload(name)
        try:
            upload.check()
            self._keep(upload.path, upload.sha256)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Forget an upload and free its space."""
        upload = self.uploads.pop(name, None)
        if upload:
            upload.path.unlink(missing_ok=True)

    def _keep(self, temporary: Path, sha256: str) -> None:
        target = self.object_path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)

    def _write_commit(
        self, repo_id: str, parent: str | None, files: dict[str, StoredFile], change: CommitChange
    ) -> str:
        kept = {path: file for path, file in files.items() if not _is_deleted(path, change.deleted)}
        commit = Commit(
            parent=parent, title=change.title, message=change.message, date=now(), files=kept | change.files
        )
        text = commit.model_dump_json()
        oid = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        path = self._commits(repo_id) / f"{oid}.json"
        write_atomically(path, text)
        return oid

    def _write_repository(self, repo_id: str, repository: Repository) -> None:
        path = self._record(repo_id)
        write_atomically(path, repository.model_dump_json(indent=1))

    def _record(self, repo_id: str) -> Path:
        return self.directory / "repositories" / repo_id / "repository.json"

    def _commits(self, repo_id: str) -> Path:
        return self._record(repo_id).with_name("commits")


def _is_deleted(path: str, deleted: list[str]) -> bool:
    return any(path == name or (name.endswith("/") and path.startswith(name)) for name in deleted)
