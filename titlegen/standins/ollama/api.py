"""The routes of Ollama's REST API."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import psutil
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from titlegen import __version__
from titlegen.standins.ollama.create import CreateError, Creation
from titlegen.standins.ollama.describe import describe_model, list_entry, loaded_entry
from titlegen.standins.ollama.engine import EngineError
from titlegen.standins.ollama.generate import GenerateRequest
from titlegen.standins.ollama.pool import EnginePool
from titlegen.standins.ollama.requests import COPY, CREATE, GENERATE, NAMED, ApiError, Body, parse_body, read_body
from titlegen.standins.ollama.store import BadNameError, ModelName, ModelStore, blob_path, parse_digest
from titlegen.standins.ollama.wire import GATHERED_JSON, Parts, PartStream, body_chunks, json_response, respond

# Ollama's clients read it as a semantic version; what stands after the plus does not count.
VERSION = f"0.0.0+titlegen.{__version__}"


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the server."""

    max_queue: int = 512
    """Requests for text that are under way or wait at a time; one more gets a 503."""
    read_timeout_s: float = 30.0
    """Longest wait for the head of a request, and for its body, seconds."""


class OllamaRoutes:
    """The routes."""

    def __init__(self, store: ModelStore, pool: EnginePool, settings: ServerSettings) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings
        self._pending = 0
        # Requests that change names and blobs run one after another.
        self._changing = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routing table."""
        table: list[tuple[str, Callable[[Request], Awaitable[Response]], list[str]]] = [
            ("/", self.root, ["GET", "HEAD"]),
            ("/api/version", self.version, ["GET", "HEAD"]),
            ("/api/tags", self.tags, ["GET", "HEAD"]),
            ("/api/ps", self.ps, ["GET"]),
            ("/api/show", self.show, ["POST"]),
            ("/api/create", self.create, ["POST"]),
            ("/api/generate", self.generate, ["POST"]),
            ("/api/copy", self.copy, ["POST"]),
            ("/api/delete", self.delete, ["DELETE"]),
            ("/api/blobs/{digest}", self.blob, ["HEAD", "POST"]),
        ]
        found = [Route(path, endpoint, methods=methods) for path, endpoint, methods in table]
        for route, (_, _, methods) in zip(found, table, strict=True):
            # Starlette answers HEAD wherever it answers GET.
            route.methods = set(methods)
        return found

    async def root(self, _: Request) -> Response:
        """Say that the server is there."""
        return PlainTextResponse("Ollama is running")

    async def version(self, _: Request) -> Response:
        """Return the version."""
        return json_response({"version": VERSION})

    async def tags(self, _: Request) -> Response:
        """List the models."""
        return json_response({"models": [list_entry(model) for model in self._store.models()]})

    async def ps(self, _: Request) -> Response:
        """List the loaded models."""
        models = []
        for engine in self._pool.loaded():
            # It may end while it is described.
            with contextlib.suppress(psutil.Error):
                size = psutil.Process(engine.pid).memory_info().rss
                models.append(loaded_entry(engine.model, size, engine.num_ctx, engine.expires))
        return json_response({"models": models})

    async def show(self, request: Request) -> Response:
        """Describe a model."""
        name = _required(await self._body(request, "show", NAMED))
        model = self._store.find(name)
        if model is None:
            raise ApiError(404, f"model '{_parsed(name, 'invalid model name').short}' not found")
        return json_response(await asyncio.to_thread(describe_model, model))

    async def create(self, request: Request) -> Response:
        """Create a model."""
        body = await self._body(request, "create", CREATE)
        creation = Creation(self._store, body)

        async def run() -> Parts:
            async with self._changing:
                async for status in creation.run():
                    yield status

        return await respond(
            request,
            PartStream(run(), lambda: None),
            stream=body.get("stream", True),
            gather=lambda parts: parts[-1],
            failures=(CreateError, ApiError),
            media_type=GATHERED_JSON,
        )

    async def generate(self, request: Request) -> Response:
        """Answer a prompt."""
        body = await self._body(request, "generate", GENERATE)
        answer = GenerateRequest(self._store, self._pool, body)
        # A request that unloads a model takes no time, and helps a busy server.
        unloads = answer.is_empty and body.get("keep_alive") == 0
        if self._pending >= self._settings.max_queue and not unloads:
            raise ApiError(503, "server busy, please try again.  maximum pending requests exceeded")
        self._pending += 1
        alone = answer.is_empty or body.get("_debug_render_only", False)
        return await respond(
            request,
            PartStream(answer.run(), self._one_done),
            stream=body.get("stream", True) and not alone,
            gather=answer.gather,
            failures=(EngineError, ApiError),
        )

    def _one_done(self) -> None:
        self._pending -= 1

    async def copy(self, request: Request) -> Response:
        """Give a model a second name."""
        body = await self._body(request, "copy", COPY)
        names = {
            field: _parsed(body.get(field, ""), f'{field} "{body.get(field, "")}" is invalid')
            for field in ("source", "destination")
        }
        async with self._changing:
            model = self._store.find(names["source"].full)
            if model is None:
                raise ApiError(404, f'model "{body["source"]}" not found')
            self._store.save(names["destination"], list(model.layers), model.config)
        return Response()

    async def delete(self, request: Request) -> Response:
        """Remove a model."""
        name = _required(await self._body(request, "delete", NAMED))
        async with self._changing:
            model = self._store.find(name)
            if model is None:
                _parsed(name, f'name "{name}" is invalid')
                raise ApiError(404, f"model '{name}' not found")
            self._store.delete(model)
        return Response()

    async def blob(self, request: Request) -> Response:
        """Say whether a blob is there, or take one."""
        try:
            digest = parse_digest(request.path_params["digest"])
        except BadNameError as error:
            raise ApiError(400, str(error)) from error
        path = blob_path(self._store.directory, digest)
        if path.is_file():
            return Response()
        if request.method == "HEAD":
            raise ApiError(404, f"blob {digest} not found")
        found = await self._store.put_blob(digest, body_chunks(request, self._settings.read_timeout_s))
        if found != digest:
            raise ApiError(400, f'digest mismatch, expected "{digest}", got "{found}"')
        return Response(status_code=201)

    async def _body(self, request: Request, route: str, fields: Mapping[str, type]) -> Body:
        return parse_body(await read_body(request, self._settings.read_timeout_s), route, fields)


def _required(body: Body) -> str:
    name = str(body.get("model") or body.get("name") or "")
    if not name:
        raise ApiError(400, "model is required")
    return name


def _parsed(name: str, refusal: str) -> ModelName:
    try:
        return ModelName.parse(name)
    except BadNameError as error:
        raise ApiError(400, refusal) from error
