"""A stand-in for Ollama on loopback: its REST API over llama.cpp, for machines without network, container or root.

Run as ``python -m titlegen.offline.ollama --port N --directory DIR``. It keeps to what was recorded of a real Ollama.
"""

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from titlegen import __version__
from titlegen.gguf_reader import read_header
from titlegen.offline.answer import Answer, timestamp
from titlegen.offline.create import CreateError, Creation
from titlegen.offline.engine import EngineError, EnginePool, EngineSettings, find_program
from titlegen.offline.requests import CHAT, COPY, CREATE, GENERATE, NAMED, ApiError, parse_body, read_body
from titlegen.offline.store import BadNameError, ModelName, Store, StoredModel, blob_path, parse_digest
from titlegen.offline.wire import (
    LoopbackGuard,
    Parts,
    PartStream,
    body_chunks,
    error_response,
    json_response,
    respond,
    timed_protocol,
)

# Ollama's clients read it as a semantic version; what stands after the plus does not count.
VERSION = f"0.0.0+titlegen.{__version__}"
_DEFAULT_TEMPLATE = "{{ .Prompt }}"
_MAX_CONNECTIONS = 2048
_GRACE_S = 10
_REMOTE_ADVICE = "for other machines run Ollama behind a proxy that asks for a password"


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the server."""

    max_queue: int = 512
    """Requests for text that are under way or wait at a time; one more gets a 503."""
    read_timeout_s: float = 30.0
    """Longest wait for the head of a request, and for its body, seconds."""


class Api:
    """The routes."""

    def __init__(self, store: Store, pool: EnginePool, settings: ServerSettings) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings
        self._pending = 0
        # What changes names and blobs runs one after the other.
        self._changing = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routing table."""
        table: list[tuple[str, Callable[[Request], Awaitable[Response]], list[str]]] = [
            ("/", self.root, ["GET"]),
            ("/api/version", self.version, ["GET"]),
            ("/api/tags", self.tags, ["GET"]),
            ("/api/ps", self.ps, ["GET"]),
            ("/api/show", self.show, ["POST"]),
            ("/api/create", self.create, ["POST"]),
            ("/api/generate", self.generate, ["POST"]),
            ("/api/chat", self.chat, ["POST"]),
            ("/api/copy", self.copy, ["POST"]),
            ("/api/delete", self.delete, ["DELETE"]),
            ("/api/pull", self.pull, ["POST"]),
            ("/api/blobs/{digest}", self.blob, ["HEAD", "POST"]),
        ]
        return [Route(path, endpoint, methods=methods) for path, endpoint, methods in table]

    async def root(self, _: Request) -> Response:
        """Say that the server is there."""
        return PlainTextResponse("Ollama is running")

    async def version(self, _: Request) -> Response:
        """Return the version."""
        return json_response({"version": VERSION})

    async def tags(self, _: Request) -> Response:
        """List the models."""
        return json_response({"models": [_listed(model) for model in self._store.models()]})

    async def ps(self, _: Request) -> Response:
        """List the loaded models."""
        models = []
        for engine in self._pool.loaded():
            with contextlib.suppress(psutil.Error):
                described = {key: _listed(engine.model)[key] for key in ("name", "model", "digest")}
                described |= {"size": psutil.Process(engine.pid).memory_info().rss, "size_vram": 0}
                described |= {"details": engine.model.details(), "context_length": engine.num_ctx}
                models.append({**described, "expires_at": timestamp(engine.expires)})
        return json_response({"models": models})

    async def show(self, request: Request) -> Response:
        """Describe a model."""
        body = await self._body(request, "ShowRequest", NAMED)
        name = _required(body)
        model = self._store.find(name)
        if model is None:
            raise ApiError(404, f"model '{_short(name)}' not found")
        header = await asyncio.to_thread(read_header, model.weights)
        answer = {
            "modelfile": _modelfile(model),
            "parameters": "\n".join(f"{key:<30} {value}" for key, value in _parameter_lines(model, quoted=True)),
            "template": model.text("template") or _DEFAULT_TEMPLATE,
            "details": model.details(),
            "model_info": header.fields | {"general.parameter_count": header.parameter_count},
            "tensors": header.tensors,
            "capabilities": ["completion"],
            "modified_at": timestamp(model.modified),
        }
        return json_response(answer | ({"system": system} if (system := model.text("system")) else {}))

    async def create(self, request: Request) -> Response:
        """Create a model."""
        body = await self._body(request, "CreateRequest", CREATE)
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
            failures=(CreateError,),
        )

    async def generate(self, request: Request) -> Response:
        """Answer a prompt."""
        body = await self._body(request, "GenerateRequest", GENERATE)
        return await self._answer(request, body, Answer("generate", self._store, self._pool, body))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        body = await self._body(request, "ChatRequest", CHAT)
        return await self._answer(request, body, Answer("chat", self._store, self._pool, body))

    async def _answer(self, request: Request, body: Mapping[str, Any], answer: Answer) -> Response:
        # What unloads a model takes no time, and helps a busy server.
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
        body = await self._body(request, "CopyRequest", COPY)
        names = {}
        for field in ("source", "destination"):
            try:
                names[field] = ModelName.parse(body.get(field, ""))
            except BadNameError as error:
                raise ApiError(400, f'{field} "{body.get(field, "")}" is invalid') from error
        async with self._changing:
            model = self._store.find(names["source"].full)
            if model is None:
                raise ApiError(404, f'model "{body["source"]}" not found')
            self._store.save(names["destination"], list(model.layers), model.config)
        return Response()

    async def delete(self, request: Request) -> Response:
        """Remove a model."""
        name = _required(await self._body(request, "DeleteRequest", NAMED))
        async with self._changing:
            model = self._store.find(name)
            if model is None:
                raise ApiError(404, f"model '{name}' not found")
            self._store.delete(model)
        return Response()

    async def pull(self, request: Request) -> Response:
        """Refuse: this server has no network."""
        name = _required(await self._body(request, "PullRequest", NAMED))
        raise ApiError(500, f"pull model manifest: {name!r} cannot be fetched, this server has no network")

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

    async def _body(self, request: Request, kind: str, fields: Mapping[str, type]) -> dict[str, Any]:
        return parse_body(await read_body(request, self._settings.read_timeout_s), kind, fields)


def build_app(store: Store, pool: EnginePool, settings: ServerSettings) -> Starlette:
    """Return the ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await pool.close()

    return Starlette(
        routes=Api(store, pool, settings).routes(),
        middleware=[Middleware(LoopbackGuard)],
        lifespan=lifespan,
        exception_handlers={
            404: lambda _, __: PlainTextResponse("404 page not found", 404),
            405: lambda _, __: PlainTextResponse("405 method not allowed", 405),
            ApiError: _on_api_error,
            EngineError: _on_failure,
            CreateError: _on_failure,
            OSError: _on_failure,
            ClientDisconnect: lambda _, __: Response(status_code=499),
            Exception: lambda _, error: error_response(500, f"internal error: {type(error).__name__}"),
        },
    )


async def _on_api_error(_: Request, error: Exception) -> Response:
    return error_response(error.status, error.text) if isinstance(error, ApiError) else error_response(500, str(error))


async def _on_failure(_: Request, error: Exception) -> Response:
    text = f"write {error.filename or 'blob'}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return error_response(getattr(error, "status", 500), text)


def _required(body: Mapping[str, Any]) -> str:
    name = str(body.get("model") or body.get("name") or "")
    if not name:
        raise ApiError(400, "model is required")
    return name


def _short(name: str) -> str:
    try:
        return ModelName.parse(name).short
    except BadNameError:
        return name


def _listed(model: StoredModel) -> dict[str, Any]:
    lengths = {key: model.config[key] for key in ("context_length", "embedding_length")}
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": timestamp(model.modified),
        "size": model.size,
        "digest": model.digest,
        "details": model.details() | lengths,
        "capabilities": ["completion"],
    }


def _parameter_lines(model: StoredModel, *, quoted: bool) -> list[tuple[str, str]]:
    return [
        (key, f'"{item}"' if quoted and isinstance(item, str) else str(item))
        for key, value in sorted(model.parameters.items())
        for item in (value if isinstance(value, list) else [value])
    ]


def _modelfile(model: StoredModel) -> str:
    lines = ['# Modelfile generated by "ollama show"', "# To build a new Modelfile based on this, replace FROM with:"]
    lines += [f"# FROM {model.name}", "", f"FROM {model.weights}"]
    lines.append(f"TEMPLATE {_quoted(model.text('template') or _DEFAULT_TEMPLATE)}")
    if system := model.text("system"):
        lines.append(f"SYSTEM {_quoted(system)}")
    lines += [f"PARAMETER {key} {value}" for key, value in _parameter_lines(model, quoted=False)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if '"' in text:
        return f'"""{text}"""'
    return f'"{text}"' if "\n" in text or text != text.strip() else text


def serve(host: str, port: int, directory: Path, engine: EngineSettings, settings: ServerSettings) -> None:
    """Answer on a loopback address until SIGTERM or SIGINT; requests under way are finished first."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another offline server uses {directory}; stop it, or choose another --directory")
        app = build_app(Store(directory), EnginePool(directory, engine), settings)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=timed_protocol(settings.read_timeout_s),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn.Server(config).run()


def main() -> None:
    """Run the server from the command line."""
    parser = argparse.ArgumentParser(prog="python -m titlegen.offline.ollama", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to answer on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="folder of the models")
    parser.add_argument("--engine", default="xllamacpp", help="xllamacpp, or a llama-server program")
    parser.add_argument("--parallel", type=int, default=4, help="requests that a model works on at a time")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="CPU threads")
    parser.add_argument("--max-loaded", type=int, default=2, help="models in memory at a time")
    parser.add_argument("--max-queue", type=int, default=ServerSettings.max_queue, help="requests before a 503")
    parser.add_argument("--read-timeout", type=float, default=ServerSettings.read_timeout_s, help="seconds")
    arguments = parser.parse_args()
    host = "127.0.0.1" if arguments.host == "localhost" else arguments.host
    try:
        if not ipaddress.ip_address(host).is_loopback:
            parser.error(f"{host} is not a loopback address; {_REMOTE_ADVICE}")
        program = find_program(arguments.engine)
    except (ValueError, EngineError) as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # It logs every call to an engine.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(
        host,
        arguments.port,
        arguments.directory,
        EngineSettings(program, arguments.parallel, arguments.threads, arguments.max_loaded),
        ServerSettings(arguments.max_queue, arguments.read_timeout),
    )


if __name__ == "__main__":
    main()
