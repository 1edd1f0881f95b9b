"""A loopback Hub: the routes of huggingface.co by which the real client creates, pushes to and downloads from it."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import ModelCard
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from titlegen.errors import TitlegenError
from titlegen.standins import HUB_ACCOUNT, HUB_SERVICE, HUB_TOKEN
from titlegen.standins.hub.faults import FaultSwitch
from titlegen.standins.hub.pages import error_page, list_page, raw_file, repository_page, wants_page
from titlegen.standins.hub.store import (
    LFS_SUFFIXES,
    MAIN,
    PART_BYTES,
    Change,
    Commit,
    Incoming,
    RefusedError,
    Store,
    StoredFile,
    lfs_file,
)
from titlegen.standins.hub.wire import (
    REGULAR_BYTES,
    SLASH,
    Card,
    CommitHeader,
    CommitLine,
    DeletedPath,
    KeepSlashes,
    LargeFile,
    LargeObjects,
    LocalFile,
    LocalFiles,
    NewRef,
    NewRepository,
    RegularFile,
    authenticate,
    check_name,
    fail,
    parse,
    read_body,
    read_lines,
    read_paths,
    refuse,
)


def create_app(directory: Path, *, token: str = HUB_TOKEN, faults: bool = False) -> ASGIApp:
    """Return the Hub whose repositories are below a directory.

    Args:
        directory: where the repositories are.
        token: what a client has to send.
        faults: add the switch that breaks things for tests.

    Raises:
        HubError: another server uses the directory.
    """
    hub = _Hub(Store(directory), token)
    repo = "/{owner:segment}/{name:segment}"
    api, revision = f"/api/models{repo}", "{revision:segment}"
    routes = [
        Route("/", hub.describe),
        Route("/api/whoami-v2", hub.whoami),
        Route("/api/repos/create", hub.create_repo, methods=["POST"]),
        Route("/api/validate-yaml", hub.validate_yaml, methods=["POST"]),
        Route(api, hub.repo_info),
        Route(f"{api}/auth-check", hub.auth_check),
        Route(f"{api}/auth-check/write", hub.auth_check),
        Route(f"{api}/refs", hub.refs),
        Route(f"{api}/revision/{revision}", hub.repo_info),
        Route(f"{api}/commits/{revision}", hub.commits),
        Route(f"{api}/tree/{revision}", hub.tree),
        Route(f"{api}/tree/{revision}/{{path:segment}}", hub.tree),
        Route(f"{api}/paths-info/{revision}", hub.paths_info, methods=["POST"]),
        Route(f"{api}/preupload/{revision}", hub.preupload, methods=["POST"]),
        Route(f"{api}/commit/{revision}", hub.commit, methods=["POST"]),
        Route(f"{api}/branch/{{ref:segment}}", hub.create_branch, methods=["POST"]),
        Route(f"{api}/tag/{revision}", hub.create_tag, methods=["POST"]),
        Route(f"{repo}.git/info/lfs/objects/batch", hub.lfs_batch, methods=["POST"]),
        Route("/lfs/{upload:segment}/{part:int}", hub.lfs_part, methods=["PUT"]),
        Route("/lfs/{upload:segment}", hub.lfs_complete, methods=["POST"]),
        Route(f"{repo}/resolve/{revision}/{{path:path}}", hub.resolve, methods=["GET", "HEAD"]),
        # What a browser is led to by an address that a push prints.
        Route(repo, hub.page),
        Route(f"{repo}/tree/{revision}", hub.page),
        Route(f"{repo}/commit/{revision}", hub.page),
        Route(f"{repo}/discussions/{{number:int}}", hub.page),
        Route(f"{repo}/raw/{revision}/{{path:path}}", hub.raw),
    ]
    app: ASGIApp = Starlette(
        routes=routes,
        exception_handlers={RefusedError: _refuse, TitlegenError: refuse, OSError: fail, HTTPException: _refuse},
    )
    # Another site's page, opened in a browser here, could otherwise reach us under a name that it points to loopback.
    app = TrustedHostMiddleware(KeepSlashes(app), allowed_hosts=["127.0.0.1", "localhost"])
    if faults:
        switch = FaultSwitch(app)
        hub.store.reached, app = switch.reached, switch
    return app


class _Hub:
    """The routes, over a store."""

    def __init__(self, store: Store, token: str) -> None:
        self.store, self._token = store, token

    async def describe(self, request: Request) -> Response:
        if wants_page(request):
            return await run_in_threadpool(list_page, self.store)
        return JSONResponse({"service": HUB_SERVICE, "directory": str(self.store.directory)})

    async def whoami(self, request: Request) -> Response:
        authenticate(request, self._token)
        token = {"displayName": "offline", "role": "write"}
        user = {"type": "user", "id": HUB_ACCOUNT, "name": HUB_ACCOUNT, "fullname": HUB_SERVICE, "orgs": []}
        return JSONResponse({**user, "auth": {"type": "access_token", "accessToken": token}})

    async def create_repo(self, request: Request) -> Response:
        authenticate(request, self._token)
        wanted = await read_body(request, NewRepository)
        if wanted.type != "model":
            raise RefusedError(400, "the offline Hub keeps models only")
        repo_id = f"{wanted.organization or HUB_ACCOUNT}/{wanted.name}"
        check_name(repo_id)
        private = wanted.private or wanted.visibility == "private"
        created = await run_in_threadpool(self.store.create, repo_id, private=private)
        answer = {"url": f"{_base(request)}/{repo_id}", "name": repo_id}
        if not created:
            return JSONResponse(answer | {"error": "You already created this model repo"}, 409)
        return JSONResponse(answer)

    async def validate_yaml(self, request: Request) -> Response:
        content = (await read_body(request, Card)).content
        try:
            card = ModelCard(content, ignore_metadata_errors=False)
            for base in _listed(card.data.get("base_model")):
                check_name(base)
        except (ValueError, TypeError, RefusedError) as error:
            return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return JSONResponse({"errors": [], "warnings": []})

    async def auth_check(self, request: Request) -> Response:
        if request.url.path.endswith("/write"):
            authenticate(request, self._token)
        self._open(request)
        return JSONResponse({})

    async def repo_info(self, request: Request) -> Response:
        repo_id, oid, commit = self._at(request)
        repository = self.store.read(repo_id)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
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
        repository = self.store.read(self._open(request))

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
        repo_id, oid, commit = self._at(request)
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
            oid, commit = commit.parent, self.store.read_commit(repo_id, commit.parent)

    async def tree(self, request: Request) -> Response:
        _, _, commit = self._at(request)
        folder = request.path_params.get("path", "").strip("/")
        recursive = request.query_params.get("recursive", "").lower() in {"1", "true"}
        entries = _entries(commit, folder)
        if folder and not entries:
            raise RefusedError(404, f"{folder} does not exist", "EntryNotFound")
        depth = len(PurePosixPath(folder).parts) + 1
        return JSONResponse([e for e in entries if recursive or len(PurePosixPath(e["path"]).parts) == depth])

    async def paths_info(self, request: Request) -> Response:
        _, _, commit = self._at(request)
        paths = {str(path).strip("/") for path in await read_paths(request)}
        return JSONResponse([entry for entry in _entries(commit, "") if entry["path"] in paths])

    async def preupload(self, request: Request) -> Response:
        authenticate(request, self._token)
        _, _, commit = self._at(request)
        answers = []
        for file in (await read_body(request, LocalFiles)).files:
            known = commit.files.get(file.path)
            # What is stored one way stays so: the client compares its file with the digest of that kind.
            large = known.lfs if known else _is_large(file)
            answer = {"path": file.path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if known:
                answer["oid"] = known.sha256 if known.lfs else known.blob_id
            answers.append(answer)
        return JSONResponse({"files": answers})

    async def lfs_batch(self, request: Request) -> Response:
        authenticate(request, self._token)
        self._open(request)
        objects = []
        for wanted in (await read_body(request, LargeObjects)).objects:
            answer: dict[str, Any] = {"oid": wanted.oid, "size": wanted.size}
            if not self.store.has(wanted.oid, wanted.size):
                try:
                    answer["actions"] = {"upload": self._upload_action(request, wanted.oid, wanted.size)}
                except RefusedError as error:
                    answer["error"] = {"code": error.status, "message": str(error)}
            objects.append(answer)
        return JSONResponse({"transfer": "multipart", "objects": objects})

    def _upload_action(self, request: Request, sha256: str, size: int) -> dict[str, Any]:
        name = self.store.announce(sha256, size)
        url, parts = f"{_base(request)}/lfs/{name}", self.store.upload(name).parts
        if parts == 1:
            return {"href": f"{url}/1"}
        header = {str(part): f"{url}/{part}" for part in range(1, parts + 1)}
        return {"href": url, "header": header | {"chunk_size": str(PART_BYTES)}}

    async def lfs_part(self, request: Request) -> Response:
        """Store one part; an object of one part is complete with it."""
        name, part = request.path_params["upload"], request.path_params["part"]
        upload = self.store.upload(name)
        try:
            self.store.reached("write", upload.path)
            await _receive(request, upload, part)
        except OSError:
            # Room is needed most by those who go on.
            self.store.drop(name)
            raise
        if upload.parts == 1:
            await run_in_threadpool(self.store.finish, name)
        else:
            # The next part is received meanwhile.
            asyncio.get_running_loop().run_in_executor(None, upload.hash_received)
        return Response(headers={"ETag": f'"{name}-{part}"'})

    async def lfs_complete(self, request: Request) -> Response:
        await run_in_threadpool(self.store.finish, request.path_params["upload"])
        return JSONResponse({})

    async def commit(self, request: Request) -> Response:
        authenticate(request, self._token)
        repo_id, wants_pull = self._open(request), bool(request.query_params.get("create_pr"))
        change = Change()
        async for line in read_lines(request):
            await run_in_threadpool(self._apply, line, change)
        if not change.title:
            raise RefusedError(400, "a commit needs a header line with a summary")
        branch = request.path_params["revision"]
        oid, pull = await run_in_threadpool(self.store.commit, repo_id, branch, change, pull_request=wants_pull)
        url = f"{_base(request)}/{repo_id}"
        answer = {"success": True, "commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
        if wants_pull:
            answer["pullRequestUrl"] = f"{url}/discussions/{pull}"
        return JSONResponse(answer)

    def _apply(self, line: CommitLine, change: Change) -> None:
        """Add one line of a commit's body to the change."""
        if line.key == "header":
            header = parse(CommitHeader, line.value)
            change.title, change.message, change.parent = header.summary, header.description, header.parentCommit
        elif line.key == "file":
            regular = parse(RegularFile, line.value)
            change.files[regular.path] = self.store.put(regular.content)
        elif line.key == "lfsFile":
            large = parse(LargeFile, line.value)
            if not self.store.has(large.oid, large.size):
                raise RefusedError(400, f"the content of {large.path} (sha256 {large.oid}) was not uploaded")
            change.files[large.path] = lfs_file(large.oid, large.size)
        elif line.key == "deletedFile":
            change.deleted.append(parse(DeletedPath, line.value).path)
        elif line.key == "deletedFolder":
            change.deleted.append(f"{parse(DeletedPath, line.value).path}/")
        else:
            raise RefusedError(400, f"the operation {line.key!r} is not supported")

    async def create_branch(self, request: Request) -> Response:
        start = (await read_body(request, NewRef)).startingPoint or MAIN
        return await self._add_ref(request, "branches", request.path_params["ref"], start)

    async def create_tag(self, request: Request) -> Response:
        name = (await read_body(request, NewRef)).tag
        return await self._add_ref(request, "tags", name, request.path_params["revision"])

    async def _add_ref(self, request: Request, kind: str, name: str, revision: str) -> Response:
        authenticate(request, self._token)
        await run_in_threadpool(self.store.add_ref, self._open(request), kind, name, revision)
        return JSONResponse({})

    async def resolve(self, request: Request) -> Response:
        _, oid, commit = self._at(request)
        path = request.path_params["path"].replace(SLASH, "/")
        file = commit.files.get(path)
        if file is None:
            raise RefusedError(404, f"{path} does not exist", "EntryNotFound")
        etag = f'"{file.sha256 if file.lfs else file.blob_id}"'
        headers = {"ETag": etag, "X-Repo-Commit": oid}
        if file.lfs:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        return FileResponse(self.store.object_path(file.sha256), headers=headers, media_type="application/octet-stream")

    async def page(self, request: Request) -> Response:
        parameters = request.path_params
        repo_id = f"{parameters['owner']}/{parameters['name']}"
        check_name(repo_id)
        pull = f"refs/pr/{parameters['number']}" if "number" in parameters else MAIN
        return await run_in_threadpool(repository_page, self.store, repo_id, parameters.get("revision", pull))

    async def raw(self, request: Request) -> Response:
        parameters = request.path_params
        repo_id, path = f"{parameters['owner']}/{parameters['name']}", parameters["path"].replace(SLASH, "/")
        check_name(repo_id)
        return await run_in_threadpool(raw_file, self.store, repo_id, parameters["revision"], path)

    def _open(self, request: Request) -> str:
        """Return the repository that a request names, if it may see it."""
        repo_id = f"{request.path_params['owner']}/{request.path_params['name']}"
        check_name(repo_id)
        if self.store.read(repo_id).private:
            authenticate(request, self._token)
        return repo_id

    def _at(self, request: Request) -> tuple[str, str, Commit]:
        """Return the repository, commit id and commit that a request names; main by default."""
        repo_id = self._open(request)
        oid = self.store.resolve(repo_id, request.path_params.get("revision", MAIN))
        return repo_id, oid, self.store.read_commit(repo_id, oid)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer what is not there, or not allowed: a page for a browser, and for a program what it expects."""
    place = request.url.path.split("/")[1]
    if wants_page(request) and place in {"datasets", "spaces"}:
        return error_page(404, f"This Hub keeps models only, no {place}; a model's card names its data set.")
    if isinstance(error, HTTPException):
        nothing = f"There is nothing at {request.url.path} on this Hub."
        plain = PlainTextResponse(error.detail, error.status_code, error.headers)
        return error_page(error.status_code, nothing) if wants_page(request) else plain
    if wants_page(request) and isinstance(error, RefusedError):
        return error_page(error.status, str(error))
    return await refuse(request, error)


async def _receive(request: Request, upload: Incoming, part: int) -> None:
    """Write a part of an object to disk as it comes in."""
    length, received = upload.span(part)[1], 0
    with upload.writer(part) as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > length:
                raise RefusedError(413, f"part {part} is longer than its {length} bytes")
            file.write(chunk)
        if received != length:
            raise RefusedError(400, f"part {part} has {received} of {length} bytes")


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _is_large(file: LocalFile) -> bool:
    return file.path.endswith(LFS_SUFFIXES) or file.size > REGULAR_BYTES or b"\0" in file.sample


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] if value else []


def _entries(commit: Commit, folder: str) -> list[dict[str, Any]]:
    """Return every file and folder below a folder of a commit, as the tree route lists them."""
    prefix = f"{folder}/" if folder else ""
    files = {path: file for path, file in commit.files.items() if path.startswith(prefix)}
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {".", folder}
    folders -= {str(parent) for parent in PurePosixPath(folder).parents} if folder else set()
    listed = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
    listed += [{"type": "file", "path": path, **_listed_file(file)} for path, file in files.items()]
    return sorted(listed, key=lambda entry: str(entry["path"]))


def _listed_file(file: StoredFile) -> dict[str, Any]:
    listed: dict[str, Any] = {"size": file.size, "oid": file.blob_id, "blobId": file.blob_id}
    if file.lfs:
        listed["lfs"] = {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 0}
    return listed
