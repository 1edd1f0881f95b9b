"""The routes by which the real client makes, describes and changes repositories."""

from pathlib import PurePosixPath

from huggingface_hub import ModelCard
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from titlegen.standins import HUB_ACCOUNT, HUB_SERVICE
from titlegen.standins.hub.access import Access, base_url
from titlegen.standins.hub.records import MAIN, Commit, CommitChange, RefusedError, StoredFile, lfs_file
from titlegen.standins.hub.store import LFS_SUFFIXES, RepositoryStore
from titlegen.standins.hub.wire import (
    REGULAR_BYTES,
    Card,
    CommitHeader,
    CommitLine,
    DeletedPath,
    LargeFile,
    LocalFile,
    LocalFiles,
    NewRef,
    NewRepository,
    RegularFile,
    check_name,
    parse,
    read_body,
    read_lines,
    read_paths,
)


class HubRoutes:
    """The routes below ``/api``."""

    def __init__(self, store: RepositoryStore, access: Access) -> None:
        self._store, self._access = store, access

    async def whoami(self, request: Request) -> Response:
        """Return the owner of the token."""
        self._access.authenticate(request)
        token = {"displayName": "offline", "role": "write"}
        user = {"type": "user", "id": HUB_ACCOUNT, "name": HUB_ACCOUNT, "fullname": HUB_SERVICE, "orgs": []}
        return JSONResponse({**user, "auth": {"type": "access_token", "accessToken": token}})

    async def create_repo(self, request: Request) -> Response:
        """Create a repository."""
        self._access.authenticate(request)
        wanted = await read_body(request, NewRepository)
        if wanted.type != "model":
            raise RefusedError(400, "the offline Hub keeps models only")
        repo_id = f"{wanted.organization or HUB_ACCOUNT}/{wanted.name}"
        check_name(repo_id)
        private = wanted.private or wanted.visibility == "private"
        created = await run_in_threadpool(self._store.create, repo_id, private=private)
        answer = {"url": f"{base_url(request)}/{repo_id}", "name": repo_id}
        if not created:
            return JSONResponse(answer | {"error": "You already created this model repo"}, 409)
        return JSONResponse(answer)

    async def validate_yaml(self, request: Request) -> Response:
        """Check a card's metadata."""
        content = (await read_body(request, Card)).content
        try:
            card = ModelCard(content, ignore_metadata_errors=False)
            for base in _listed(card.data.get("base_model")):
                check_name(base)
        except (ValueError, TypeError, RefusedError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def auth_check(self, request: Request) -> Response:
        """Say whether a repository may be read, or written to."""
        if request.url.path.endswith("/write"):
            self._access.authenticate(request)
        self._access.open(request)
        return JSONResponse({})

    async def repo_info(self, request: Request) -> Response:
        """Describe a repository at a revision."""
        repo_id, oid, commit = self._access.at(request)
        repository = self._store.read(repo_id)
        siblings: list[dict[str, object]] = [{"rfilename": path} for path in sorted(commit.files)]
        if request.query_params.get("blobs"):
            siblings = [_listed_file(file) | {"rfilename": path} for path, file in sorted(commit.files.items())]
        owner = repo_id.split("/")[0]
        return JSONResponse(
            {
                "_id": oid[:24],
                "id": repo_id,
                "modelId": repo_id,
                "author": owner,
                "sha": oid,
                "private": repository.private,
                "gated": False,
                "disabled": False,
                "createdAt": repository.created,
                "lastModified": commit.date,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    async def refs(self, request: Request) -> Response:
        """List branches, tags and pull requests."""
        repository = self._store.read(self._access.open(request))

        def listed(refs: dict[str, str], prefix: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in refs.items()]

        answer = {
            "branches": listed(repository.branches, "refs/heads/"),
            "tags": listed(repository.tags, "refs/tags/"),
            "pullRequests": listed(repository.pulls, "refs/pr/"),
            "converts": [],
        }
        return JSONResponse(answer)

    async def commits(self, request: Request) -> Response:
        """List the commits of a revision, the newest first."""
        repo_id, oid, commit = self._access.at(request)
        listed = []
        while True:
            listed.append(
                {
                    "id": oid,
                    "title": commit.title,
                    "message": commit.message,
                    "date": commit.date,
                    "authors": [{"user": HUB_ACCOUNT}],
                }
            )
            if commit.parent is None:
                return JSONResponse(listed)
            oid, commit = commit.parent, self._store.read_commit(repo_id, commit.parent)

    async def tree(self, request: Request) -> Response:
        """List files and folders below a folder."""
        _, _, commit = self._access.at(request)
        folder = request.path_params.get("path", "").strip("/")
        recursive = request.query_params.get("recursive", "").lower() in {"1", "true"}
        entries = _entries(commit, folder)
        if folder and not entries:
            raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
        depth = len(PurePosixPath(folder).parts) + 1
        return JSONResponse([e for e in entries if recursive or len(PurePosixPath(str(e["path"])).parts) == depth])

    async def paths_info(self, request: Request) -> Response:
        """Describe some files."""
        _, _, commit = self._access.at(request)
        paths = {str(path).strip("/") for path in await read_paths(request)}
        return JSONResponse([entry for entry in _entries(commit, "") if entry["path"] in paths])

    async def preupload(self, request: Request) -> Response:
        """Say which files are kept in git, and which as large objects."""
        self._access.authenticate(request)
        _, _, commit = self._access.at(request)
        answers = []
        for file in (await read_body(request, LocalFiles)).files:
            known = commit.files.get(file.path)
            # A file keeps its kind of storage: the client compares its file with the digest of that kind.
            large = known.lfs if known else _is_large(file)
            answer = {"path": file.path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if known:
                answer["oid"] = known.sha256 if known.lfs else known.blob_id
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def commit(self, request: Request) -> Response:
        """Add a commit."""
        self._access.authenticate(request)
        repo_id, wants_pull = self._access.open(request), bool(request.query_params.get("create_pr"))
        change = CommitChange()
        async for line in read_lines(request):
            await run_in_threadpool(self._apply, line, change)
        if not change.title:
            raise RefusedError(400, "a commit needs a header line with a summary")
        branch = request.path_params["revision"]
        oid, pull = await run_in_threadpool(self._store.commit, repo_id, branch, change, pull_request=wants_pull)
        url = f"{base_url(request)}/{repo_id}"
        answer = {"success": True, "commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
        if wants_pull:
            answer["pullRequestUrl"] = f"{url}/discussions/{pull}"
        return JSONResponse(answer)

    def _apply(self, line: CommitLine, change: CommitChange) -> None:
        """Add one line of a commit's body to the change."""
        if line.key == "header":
            header = parse(CommitHeader, line.value)
            change.title, change.message, change.parent = header.summary, header.description, header.parentCommit
        elif line.key == "file":
            regular = parse(RegularFile, line.value)
            change.files[regular.path] = self._store.put(regular.content)
        elif line.key == "lfsFile":
            large = parse(LargeFile, line.value)
            if not self._store.has(large.oid, large.size):
                raise RefusedError(400, f"the content of {large.path} (sha256 {large.oid}) was not uploaded")
            change.files[large.path] = lfs_file(large.oid, large.size)
        elif line.key == "deletedFile":
            change.deleted.append(parse(DeletedPath, line.value).path)
        elif line.key == "deletedFolder":
            change.deleted.append(f"{parse(DeletedPath, line.value).path}/")
        else:
            raise RefusedError(400, f"the operation {line.key!r} is not supported")

    async def create_branch(self, request: Request) -> Response:
        """Create a branch."""
        start = (await read_body(request, NewRef)).startingPoint or MAIN
        return await self._add_ref(request, "branches", request.path_params["ref"], start)

    async def create_tag(self, request: Request) -> Response:
        """Create a tag."""
        name = (await read_body(request, NewRef)).tag
        return await self._add_ref(request, "tags", name, request.path_params["revision"])

    async def _add_ref(self, request: Request, kind: str, name: str, revision: str) -> Response:
        self._access.authenticate(request)
        await run_in_threadpool(self._store.add_ref, self._access.open(request), kind, name, revision)
        return JSONResponse({})


def _is_large(file: LocalFile) -> bool:
    return file.path.endswith(LFS_SUFFIXES) or file.size > REGULAR_BYTES or b"\0" in file.sample


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def _entries(commit: Commit, folder: str) -> list[dict[str, object]]:
    """Return every file and folder below a folder of a commit, as the tree route lists them."""
    prefix = f"{folder}/" if folder else ""
    files = {path: file for path, file in commit.files.items() if path.startswith(prefix)}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {".", folder}
    folders -= {str(parent) for parent in PurePosixPath(folder).parents} if folder else set()
    listed = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
    listed += [{"type": "file", "path": path, **_listed_file(file)} for path, file in files.items()]
    return sorted(listed, key=lambda entry: str(entry["path"]))


def _listed_file(file: StoredFile) -> dict[str, object]:
    listed: dict[str, object] = {"size": file.size, "oid": file.blob_id, "blobId": file.blob_id}
    if file.lfs:
        listed["lfs"] = {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 0}
    return listed
