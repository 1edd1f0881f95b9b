"""The routes for uploads of large files, downloads, and pages for a browser."""

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from titlegen.standins import HUB_SERVICE
from titlegen.standins.hub.access import Access, base_url
from titlegen.standins.hub.incoming import PART_BYTES, Incoming
from titlegen.standins.hub.pages import list_page, raw_file, repository_page, wants_page
from titlegen.standins.hub.records import MAIN, RefusedError
from titlegen.standins.hub.store import RepositoryStore
from titlegen.standins.hub.wire import SLASH, LargeObjects, check_name, read_body


class FileRoutes:
    """The routes outside of ``/api``."""

    def __init__(self, store: RepositoryStore, access: Access) -> None:
        self._store, self._access = store, access

    async def describe(self, request: Request) -> Response:
        """Answer the root: the Hub's name, or for a browser the list of repositories."""
        if wants_page(request):
            return await run_in_threadpool(list_page, self._store)
        return JSONResponse({"service": HUB_SERVICE, "directory": str(self._store.directory)})

    async def lfs_batch(self, request: Request) -> Response:
        """Return the upload address of each large object, none for one that is here already."""
        self._access.authenticate(request)
        self._access.open(request)
        objects = []
        for wanted in (await read_body(request, LargeObjects)).objects:
            answer: dict[str, object] = {"oid": wanted.oid, "size": wanted.size}
            if not self._store.has(wanted.oid, wanted.size):
                try:
                    answer["actions"] = {"upload": self._upload_action(request, wanted.oid, wanted.size)}
                except RefusedError as error:
                    answer["error"] = {"code": error.status, "message": str(error)}
            objects.append(answer)
        return JSONResponse({"transfer": "multipart", "objects": objects})

    def _upload_action(self, request: Request, sha256: str, size: int) -> dict[str, object]:
        name = self._store.announce(sha256, size)
        url, parts = f"{base_url(request)}/lfs/{name}", self._store.upload(name).parts
        if parts == 1:
            return {"href": f"{url}/1"}
        header = {str(part): f"{url}/{part}" for part in range(1, parts + 1)}
        return {"href": url, "header": header | {"chunk_size": str(PART_BYTES)}}

    async def lfs_part(self, request: Request) -> Response:
        """Store one part; an object of one part is complete with it."""
        name, part = request.path_params["upload"], request.path_params["part"]
        upload = self._store.upload(name)
        try:
            await _receive(request, upload, part)
        except OSError:
            # Uploads in progress need the room most.
            self._store.drop(name)
            raise
        if upload.parts == 1:
            await run_in_threadpool(self._store.finish, name)
        else:
            # The next part is received meanwhile.
            asyncio.get_running_loop().run_in_executor(None, upload.hash_received)
        return Response(headers={"ETag": f'"{name}-{part}"'})

    async def lfs_complete(self, request: Request) -> Response:
        """Check and keep an object of several parts."""
        await run_in_threadpool(self._store.finish, request.path_params["upload"])
        return JSONResponse({})

    async def resolve(self, request: Request) -> Response:
        """Send a file."""
        _, oid, commit = self._access.at(request)
        path = request.path_params["path"].replace(SLASH, "/")
        file = commit.files.get(path)
        if file is None:
            raise RefusedError(404, f"{path} does not exist", "EntryNotFound")
        etag = f'"{file.sha256 if file.lfs else file.blob_id}"'
        headers = {"ETag": etag, "X-Repo-Commit": oid}
        if file.lfs:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        return FileResponse(
            self._store.object_path(file.sha256), headers=headers, media_type="application/octet-stream"
        )

    async def page(self, request: Request) -> Response:
        """Show a repository, or a pull request, to a browser."""
        parameters = request.path_params
        repo_id = f"{parameters['owner']}/{parameters['name']}"
        check_name(repo_id)
        pull = f"refs/pr/{parameters['number']}" if "number" in parameters else MAIN
        return await run_in_threadpool(repository_page, self._store, repo_id, parameters.get("revision", pull))

    async def raw(self, request: Request) -> Response:
        """Show a small file to a browser."""
        parameters = request.path_params
        repo_id, path = f"{parameters['owner']}/{parameters['name']}", parameters["path"].replace(SLASH, "/")
        check_name(repo_id)
        return await run_in_threadpool(raw_file, self._store, repo_id, parameters["revision"], path)


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
