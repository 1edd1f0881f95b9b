"""The wire format of the offline Hub: reading requests, checking them within bounds, and refusing them."""

import base64
import ipaddress
from collections.abc import AsyncIterator
from typing import Annotated, TypeVar
from urllib.parse import parse_qs, unquote

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from titlegen.errors import ConfigError
from titlegen.standins.hub.records import RefusedError

# Source: huggingface.co keeps text files below 10 MB in git itself and everything else in LFS.
REGULAR_BYTES = 10 * 2**20
MAX_JSON_BYTES = 4 * 2**20
# A regular file in base64, and its path.
MAX_LINE_BYTES = REGULAR_BYTES * 4 // 3 + 2**16
MAX_COMMIT_BYTES = 256 * 2**20
# A slash inside of a revision or path comes as %2F and must not end the segment; no URL can hold this character raw.
SLASH = "\x1f"
B = TypeVar("B", bound="Body")


class _Segment(Convertor[str]):
    """One quoted segment of a path, unquoted."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return value.replace(SLASH, "/")

    def to_string(self, value: str) -> str:
        return value.replace("/", SLASH)


register_url_convertor("segment", _Segment())


class KeepSlashes:
    """Middleware that leaves a quoted slash inside of its segment."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            raw = scope["raw_path"].decode("ascii", "replace")
            scope = {**scope, "path": unquote(raw.replace("%2F", SLASH).replace("%2f", SLASH))}
        await self._app(scope, receive, send)


def _inside(path: str) -> str:
    parts = path.split("/")
    if any(part in {"", ".", "..", ".git"} or "\\" in part or not part.isprintable() for part in parts):
        raise ValueError(f"{path[:200]!r} is not a path inside of a repository")
    return path


def _decode(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("base64 is text")  # noqa: TRY004 - pydantic turns a ValueError into its own
    return base64.b64decode(text, validate=True)


# pydantic's own type skips what is not base64.
Base64 = Annotated[bytes, BeforeValidator(_decode)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Relative, below the repository, and safe to write on any client; a folder's may end in a slash.
FilePath = Annotated[str, AfterValidator(lambda path: _inside(path.removesuffix("/")))]


async def refuse(_: Request, error: Exception) -> Response:
    """Answer a refused request in the form that the client turns into its error."""
    status = error.status if isinstance(error, RefusedError) else 507
    # A header is one line of ASCII.
    headers = {"X-Error-Message": " ".join(str(error).split()).encode("ascii", "replace").decode()}
    if isinstance(error, RefusedError) and error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": str(error)}, status, headers)


async def fail(_: Request, error: Exception) -> Response:
    """Answer a request that the disk had no room for, or no right to."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return JSONResponse({"error": f"the offline Hub cannot write: {reason}"}, 507)


def authenticate(request: Request, token: str) -> None:
    """Refuse a request without the token."""
    given = request.headers.get("authorization")
    if given is None:
        raise RefusedError(401, "this needs a token, and none was sent", "RepoNotFound")
    if given != f"Bearer {token}":
        raise RefusedError(401, "Invalid credentials in Authorization header")


def check_name(repo_id: str) -> None:
    """Refuse a name that huggingface_hub would not accept, or that could leave the folder of the repositories."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RefusedError(400, str(error)) from error


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RefusedError(413, f"the body is longer than {limit} bytes")
    return bytes(body)


class Body(BaseModel):
    """Base of the JSON objects that a client sends; what we do not use is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class NewRepository(Body):
    """What to create."""

    name: str
    organization: str | None = None
    type: str = "model"
    visibility: str = "public"
    private: bool = False


class Card(Body):
    """A README.md whose metadata is to be validated."""

    content: str


class LocalFile(Body):
    """A file that a client is about to upload; ``sample`` is its first 512 bytes in base64."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sample: Base64 = b""


class LocalFiles(Body):
    """Files of a commit to come."""

    files: list[LocalFile]


class LargeObject(Body):
    """A large file by its content."""

    oid: Digest
    size: Annotated[int, Field(ge=0)]


class LargeObjects(Body):
    """Large files of a commit to come."""

    objects: list[LargeObject]


class NewRef(Body):
    """A branch or tag to create."""

    tag: str = ""
    startingPoint: str | None = None  # noqa: N815 - the protocol's name


class CommitHeader(Body):
    """First line of a commit."""

    summary: str
    description: str = ""
    parentCommit: str | None = None  # noqa: N815 - the protocol's name


class RegularFile(Body):
    """A small file with its content."""

    path: FilePath
    content: Base64


class LargeFile(LargeObject):
    """A large file, uploaded before."""

    path: FilePath


class DeletedPath(Body):
    """A file or folder to delete."""

    path: FilePath


class CommitLine(Body):
    """One line of a commit."""

    key: str
    value: dict[str, object]


async def read_body(request: Request, kind: type[B]) -> B:
    """Read a JSON body.

    Raises:
        RefusedError: it is too long, or not an object of this kind.
    """
    return parse(kind, await _read(request, MAX_JSON_BYTES))


async def read_paths(request: Request) -> list[str]:
    """Read the paths of a form."""
    body = await _read(request, MAX_JSON_BYTES)
    return parse_qs(body.decode("utf-8", "replace")).get("paths", [])


async def read_lines(request: Request) -> AsyncIterator[CommitLine]:
    """Yield the lines of a commit, one in memory at a time."""
    total, rest = 0, bytearray()
    async for chunk in request.stream():
        total += len(chunk)
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield parse(CommitLine, line)
        if total > MAX_COMMIT_BYTES or len(rest) > MAX_LINE_BYTES:
            raise RefusedError(413, f"a commit has at most {MAX_COMMIT_BYTES} bytes, a line of it {MAX_LINE_BYTES}")
    if rest:
        yield parse(CommitLine, rest)


def parse(kind: type[B], value: bytes | bytearray | dict[str, object]) -> B:
    """Check a JSON text, or what was read from one.

    Raises:
        RefusedError: naming the first field that is wrong.
    """
    try:
        return kind.model_validate(value) if isinstance(value, dict) else kind.model_validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RefusedError(400, f"{where}: {first['msg']}") from error


def require_loopback(host: str) -> None:
    """Refuse an address that other machines can reach.

    Raises:
        ConfigError: naming the address.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise ConfigError(
            f"{host!r} is not a loopback address; the offline Hub has no users, so it serves 127.0.0.1 only"
        )
