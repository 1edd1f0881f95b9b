"""The desk's addresses: the page, and ``/api`` for it and for other programs."""

import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from titlegen import __version__
from titlegen.desk.apart import read_apart
from titlegen.desk.exports import as_csv, as_jsonl, choice_rows, preference_rows
from titlegen.desk.fetch import fetch_article
from titlegen.desk.guard import DeskGuard, TooLargeError, is_loopback, login_cookie, pause_guess
from titlegen.desk.schema import (
    Candidate,
    CheckRequest,
    ChoiceRequest,
    Done,
    EnoughRequest,
    ErrorEvent,
    Event,
    Kept,
    LoginRequest,
    Notice,
    ResultEvent,
    Status,
    Text,
    TitleAnswer,
    TitleRequest,
    UrlRequest,
    WithdrawalRequest,
)
from titlegen.desk.statistics import Statistics, summarise
from titlegen.desk.writing import Writer, describe_error
from titlegen.errors import ConfigError, DataError, TitlegenError

PAGE = Path(__file__).parent / "page"
_NDJSON = "application/x-ndjson"
# Each request that is streamed holds one while it waits for the model.
_THREADS = 200
_UNAVAILABLE, _UNUSABLE, _BROKEN, _FORBIDDEN, _WRONG_TOKEN = 503, 422, 502, 403, 401


class AnswerError(Exception):
    """The model wrote no titles; the event says why."""

    def __init__(self, event: ErrorEvent) -> None:
        """Take the event."""
        super().__init__(event.notice.message)
        self.event = event


def create_app(writer: Writer, *, token: str = "", host: str = "127.0.0.1") -> FastAPI:
    """Return the desk.

    Args:
        writer: what does its work.
        token: that everybody has to show; empty on this machine alone.
        host: the address that it listens at.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    app = FastAPI(
        title="titlegen desk",
        version=__version__,
        description="Titles for an article, with the sentences that back them.",
        # Their pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
    )
    _add_titles(app, writer)
    _add_records(app, writer)
    ancestors = writer.settings.desk.frame_ancestors
    _add_pages(app, token, ancestors)
    _add_errors(app)
    app.add_middleware(DeskGuard, host=host, token=token, frame_ancestors=ancestors)
    return app


def _add_titles(app: FastAPI, writer: Writer) -> None:
    @app.post("/api/titles", summary="Write titles for an article", response_model=TitleAnswer)
    def titles(
        request: TitleRequest, accept: Annotated[str, Header(include_in_schema=False)] = ""
    ) -> TitleAnswer | StreamingResponse:
        """Titles, the best first; with ``Accept: application/x-ndjson`` one event a line, as they are written."""
        if _NDJSON in accept:
            lines = (event.model_dump_json() + "\n" for event in writer.write(request))
            return StreamingResponse(lines, media_type=_NDJSON)
        return _last(writer.write(request))

    @app.post("/api/enough", summary="End a round of titles with those that are written")
    def enough(request: EnoughRequest) -> Done:
        writer.end_round(request.generation)
        return Done()

    @app.post("/api/check", summary="Check a title against its article, the rules and the house style")
    def check(request: CheckRequest) -> Candidate:
        return writer.check(request)

    @app.post("/api/document", summary="Read an article out of a .txt, .docx or .html file")
    async def document(request: Request, name: Annotated[str, Query(max_length=300)] = "") -> Text:
        from starlette.concurrency import run_in_threadpool

        raw = await request.body()
        return Text(text=await run_in_threadpool(read_apart, raw, name))

    @app.post("/api/url", summary="Read the article at a public address, where that is switched on")
    def url(request: UrlRequest) -> Text:
        if not writer.settings.desk.fetch_urls:
            raise ConfigError("this desk reads no addresses (desk.fetch_urls is off); paste the article")
        return Text(text=fetch_article(request.url))


def _last(events: Iterator[Event]) -> TitleAnswer:
    for event in events:
        if isinstance(event, ResultEvent):
            return event.result
        if isinstance(event, ErrorEvent):
            raise AnswerError(event)
    raise AssertionError("the last event is a result or an error")


def _add_records(app: FastAPI, writer: Writer) -> None:
    @app.post("/api/choices", summary="Keep the title that an editor chose")
    def choose(request: ChoiceRequest) -> Kept:
        title = request.title.strip()
        return Kept(choice=writer.store.add_choice(request.generation, request.place, title, request.slot))

    @app.post("/api/withdrawals", summary="Take a choice back: it stays in the log, and counts no longer")
    def withdraw(request: WithdrawalRequest) -> Done:
        writer.store.withdraw_choice(request.choice)
        return Done()

    @app.get("/api/statistics", summary="How often the first title was taken, and what editors changed")
    def statistics() -> Statistics:
        return summarise(writer.store.choices(), writer.store.count_made())

    @app.get("/api/choices.jsonl", summary="Every choice", response_class=PlainTextResponse)
    def choices_jsonl() -> Response:
        return _file(as_jsonl(choice_rows(writer.store.choices())), "choices.jsonl", _NDJSON)

    @app.get("/api/choices.csv", summary="Every choice, for a spreadsheet", response_class=PlainTextResponse)
    def choices_csv() -> Response:
        # Spreadsheets take what has no byte order mark for another encoding.
        return _file("\ufeff" + as_csv(choice_rows(writer.store.choices())), "choices.csv", "text/csv")

    @app.get("/api/preferences.jsonl", summary="Preference pairs for training", response_class=PlainTextResponse)
    def preferences() -> Response:
        return _file(as_jsonl(preference_rows(writer.store.choices())), "preferences.jsonl", _NDJSON)

    @app.get("/api/status", summary="Whether titles can be written now")
    def status() -> Status:
        return writer.status()


def _file(text: str, name: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _add_pages(app: FastAPI, token: str, frame_ancestors: Sequence[str]) -> None:
    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/login", include_in_schema=False)
    def login_page() -> FileResponse:
        return FileResponse(PAGE / "login.html")

    @app.post("/api/login", include_in_schema=False)
    async def login(request: Request, given: LoginRequest) -> Response:
        if not token or not hmac.compare_digest(given.token.strip().encode(), token.encode()):
            await pause_guess()
            notice = Notice(message="that is not the token", message_zh="權杖不正確")
            return JSONResponse(notice.model_dump(), _WRONG_TOKEN)
        response = JSONResponse(Done().model_dump())
        response.headers["Set-Cookie"] = login_cookie(
            token,
            secure=request.url.scheme == "https",
            framed=bool(frame_ancestors) and (request.url.scheme == "https" or is_loopback(request.url.hostname or "")),
        )
        return response

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(TitlegenError)
    async def failed(_: Request, error: TitlegenError) -> JSONResponse:
        status = {DataError: _UNUSABLE, ConfigError: _FORBIDDEN}.get(type(error), _BROKEN)
        return JSONResponse(describe_error(error).model_dump(), status)

    @app.exception_handler(AnswerError)
    async def no_answer(_: Request, error: AnswerError) -> JSONResponse:
        status = _UNAVAILABLE if error.event.passing else _UNUSABLE
        return JSONResponse(error.event.notice.model_dump(), status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Without the value: it may be a whole article.
        said = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        notice = Notice(message=said[:500], message_zh=f"無法接受：{said[:500]}")
        return JSONResponse(notice.model_dump(), _UNUSABLE)

    @app.exception_handler(TooLargeError)
    async def too_large(_: Request, __: TooLargeError) -> JSONResponse:
        notice = Notice(message="the request is too large", message_zh="內容過大")
        return JSONResponse(notice.model_dump(), 413, {"Connection": "close"})
