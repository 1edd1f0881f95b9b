"""A stand-in for Ollama on loopback: its REST API over llama.cpp, for machines without network, container or root.

Run as ``python -m titlegen.standins.ollama --port N --directory DIR``. Its answers follow those recorded from Ollama;
docs/bundled-server.md lists the intended differences.
"""

import argparse
import contextlib
import ipaddress
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from titlegen.environment import prepare_threads
from titlegen.standins.ollama.api import OllamaRoutes, ServerSettings
from titlegen.standins.ollama.create import CreateError
from titlegen.standins.ollama.engine import EngineError, EngineSettings, can_look_up, find_program
from titlegen.standins.ollama.guard import LoopbackGuard
from titlegen.standins.ollama.pool import EnginePool
from titlegen.standins.ollama.requests import ApiError
from titlegen.standins.ollama.store import ModelStore
from titlegen.standins.ollama.wire import error_response, text_response, timed_protocol

_MAX_CONNECTIONS = 2048
_GRACE_S = 10
_REMOTE_ADVICE = "for other machines run Ollama behind a proxy that asks for a password"


def build_app(store: ModelStore, pool: EnginePool, settings: ServerSettings) -> Starlette:
    """Return the ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await pool.close()

    app = Starlette(
        routes=OllamaRoutes(store, pool, settings).routes(),
        middleware=[Middleware(LoopbackGuard)],
        lifespan=lifespan,
        exception_handlers={
            404: lambda _, __: text_response(404, "404 page not found"),
            405: lambda _, __: text_response(405, "405 method not allowed"),
            ApiError: _on_api_error,
            EngineError: _on_failure,
            CreateError: _on_failure,
            OSError: _on_failure,
            ClientDisconnect: lambda _, __: Response(status_code=499),
            Exception: lambda _, error: error_response(500, f"internal error: {type(error).__name__}"),
        },
    )
    # Starlette would answer 307 to every method.
    app.router.redirect_slashes = False
    return app


async def _on_api_error(_: Request, error: Exception) -> Response:
    return error_response(error.status, error.text) if isinstance(error, ApiError) else error_response(500, str(error))


async def _on_failure(_: Request, error: Exception) -> Response:
    text = f"write {error.filename or 'blob'}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return error_response(getattr(error, "status", 500), text)


def serve(host: str, port: int, directory: Path, engine: EngineSettings, settings: ServerSettings) -> None:
    """Answer on a loopback address until SIGTERM or SIGINT; requests under way are finished first."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        sys.exit(f"another offline server uses {directory}; stop it, or choose another --directory")
    with lock:
        app = build_app(ModelStore(directory), EnginePool(directory, engine), settings)
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
    parser = argparse.ArgumentParser(prog="python -m titlegen.standins.ollama", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to answer on")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="folder of the models")
    parser.add_argument("--engine", default="xllamacpp", help="xllamacpp, or a llama-server program")
    parser.add_argument(
        "--parallel",
        type=int,
        # As in Ollama.
        default=1,
        help="requests that a model works on at a time; with more than 1, the same article may get another title",
    )
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1, help="CPU threads")
    parser.add_argument(
        "--lookup",
        type=int,
        # On a CPU a pass over several tokens costs more than they save: benchmarks/results/lookup_cpu.json.
        default=0,
        choices=range(17),
        metavar="N",
        help="tokens that are looked up in the article and checked in one pass, up to 16; for a GPU",
    )
    parser.add_argument("--max-loaded", type=int, default=2, help="models in memory at a time")
    parser.add_argument("--max-queue", type=int, default=ServerSettings.max_queue, help="requests before a 503")
    parser.add_argument("--read-timeout", type=float, default=ServerSettings.read_timeout_s, help="seconds")
    arguments = parser.parse_args()
    # For the engines, which inherit it.
    prepare_threads()
    host = "127.0.0.1" if arguments.host == "localhost" else arguments.host
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        if not ipaddress.ip_address(host).is_loopback:
            parser.error(f"{host} is not a loopback address; {_REMOTE_ADVICE}")
        program = find_program(arguments.engine)
        if arguments.lookup and not can_look_up(program):
            parser.error(f"{program} knows no --spec-ngram-simple-size-m; install a newer llama.cpp, or leave --lookup")
    except (ValueError, EngineError) as error:
        parser.error(str(error))
    # httpx logs every call to an engine.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    serve(
        host,
        arguments.port,
        arguments.directory,
        EngineSettings(program, arguments.parallel, arguments.threads, arguments.max_loaded, arguments.lookup),
        ServerSettings(arguments.max_queue, arguments.read_timeout),
    )


if __name__ == "__main__":
    main()
