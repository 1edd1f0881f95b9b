"""HTTP of the bundled server: time limits of requests, and streamed answers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from titlegen.standins.ollama.generate import line
from titlegen.standins.ollama.requests import ApiError

log = logging.getLogger("titlegen.standins")

_CLIENT_GONE = 499
JSON = "application/json; charset=utf-8"
# Ollama's content type for an answer that it gathered from a stream, also for a failure.
GATHERED_JSON = "application/json"
Part: TypeAlias = dict[str, object]
"""A line of an answer."""
Parts = AsyncGenerator[Part]


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a limit on the time in which the head of a request has to arrive."""

    head_timeout_s = 30.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when the head is complete, start it when the next one begins."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        self._stop_watching()

    def _waits_for_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        if not self._waits_for_head():
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.close()


def timed_protocol(timeout_s: float) -> type[TimedProtocol]:
    """Return the protocol with this limit, as a class, since uvicorn makes the objects."""
    return type("TimedProtocol", (TimedProtocol,), {"head_timeout_s": timeout_s})


class PartStream:
    """The parts of an answer, made by a task of its own, so that a slow reader does not hold up the engine."""

    def __init__(self, source: Parts, on_done: Callable[[], None]) -> None:
        self._queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._pump(source))
        self._task.add_done_callback(lambda _: on_done())

    async def _pump(self, source: Parts) -> None:
        try:
            async with contextlib.aclosing(source):
                async for item in source:
                    self._queue.put_nowait(item)
        except Exception as error:  # noqa: BLE001 - raised again where the part is read
            self._queue.put_nowait(error)
        else:
            self._queue.put_nowait(None)

    async def next(self) -> Part | None:
        """Return the next part, None at the end; raises what the source raised."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        """Make no further part."""
        self._task.cancel()


class _PartsResponse(StreamingResponse):
    """NDJSON, one line a part; a failure after the first line is a line, too, as the status has been sent."""

    def __init__(self, first: Part | None, parts: PartStream, failures: tuple[type[Exception], ...]) -> None:
        self._parts = parts
        super().__init__(self._lines(first, failures), media_type="application/x-ndjson")

    async def _lines(self, part: Part | None, failures: tuple[type[Exception], ...]) -> AsyncIterator[bytes]:
        try:
            while part is not None:
                yield line(part)
                part = await self._parts.next()
        except failures as error:
            yield line({"error": str(error)})
        except Exception as error:
            # The client sees where the answer ends; the error goes to the log.
            log.exception("unexpected")
            yield line({"error": f"internal error: {type(error).__name__}"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The client may be gone long before the last part.
            self._parts.cancel()


async def respond(
    request: Request,
    parts: PartStream,
    *,
    stream: bool,
    gather: Callable[[Sequence[Part]], Part],
    failures: tuple[type[Exception], ...],
    media_type: str = JSON,
) -> Response:
    """Return the answer that parts make: line by line, or gathered into one; nothing is made for a client that left.

    Args:
        request: the request; its body has been read.
        parts: where the parts come from.
        stream: answer line by line.
        gather: makes one answer of all parts.
        failures: what the source raises with a text for the client.
        media_type: of a gathered answer, and of a failure before the first part.

    Raises:
        Exception: what else the source raised before its first part, or at any time when the parts are gathered.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    made: list[Part] = []
    try:
        while (part := await _next_unless(gone, parts)) is not None:
            if stream:
                return _PartsResponse(part, parts, failures)
            made.append(part)
        return json_response(gather(made), media_type=media_type)
    except failures as error:
        parts.cancel()
        return error_response(getattr(error, "status", 500), str(error), media_type)
    except ClientGoneError:
        parts.cancel()
        return Response(status_code=_CLIENT_GONE)
    except BaseException:
        parts.cancel()
        raise
    finally:
        gone.cancel()


class ClientGoneError(Exception):
    """The client closed its connection."""


async def _next_unless(gone: asyncio.Future[None], parts: PartStream) -> Part | None:
    waiting = asyncio.ensure_future(parts.next())
    try:
        both: set[asyncio.Future[Any]] = {gone, waiting}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise ClientGoneError
    finally:
        waiting.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(value: object, status: int = 200, media_type: str = JSON) -> JSONResponse:
    """Return a JSON answer with Ollama's content type."""
    return JSONResponse(value, status, media_type=media_type)


def error_response(status: int, text: str, media_type: str = JSON) -> JSONResponse:
    """Return Ollama's form of an error; a connection with an unread body is closed."""
    headers = {"Connection": "close"} if status in {408, 413} else None
    return JSONResponse({"error": text}, status, headers, media_type=media_type)


def text_response(status: int, text: str) -> Response:
    """Return a plain text as Ollama's router sends it, without a character set."""
    return Response(text, status, {"Content-Type": "text/plain"})


async def body_chunks(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    """Yield the body of a request as it comes.

    Raises:
        ApiError: 408, nothing came for ``timeout_s``.
    """
    chunks = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ApiError(408, f"nothing of the request body arrived for {timeout_s:g} s") from error
        yield chunk
