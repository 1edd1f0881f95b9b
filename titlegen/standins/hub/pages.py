"""The offline Hub in a browser: the models, a model's card with its files, and error pages; read only."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from titlegen.standins.hub.records import MAIN, RefusedError, StoredFile
from titlegen.standins.hub.store import RepositoryStore

if TYPE_CHECKING:
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token
    from markdown_it.utils import OptionsDict

if TYPE_CHECKING:
    from jinja2 import Template
    from markdown_it import MarkdownIt

# A card that titlegen writes has some 6,000 characters.
_MAX_CARD_BYTES = 2**16
_MAX_LISTED = 1000
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# A browser hands a link with another scheme than the web's to some program.
_LINK = re.compile(r"https?://|[^:/?#]*(?:[/?#]|\Z)", re.IGNORECASE)
_ELSEWHERE = re.compile(r"[a-z]+:|[/#?]", re.IGNORECASE)
_NOTHING_ELSE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SECURE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Entry:
    """One file of a model's page."""

    path: str
    size: int
    sha256: str
    address: str


def wants_page(request: Request) -> bool:
    """Return whether a browser asks: its Accept header names HTML, a program's never does."""
    return request.method in {"GET", "HEAD"} and "text/html" in request.headers.get("accept", "")


def list_page(store: RepositoryStore) -> Response:
    """Return the page of all models."""
    return _page(heading="Models", repositories=[(name, quote(f"/{name}")) for name in store.names()])


def repository_page(store: RepositoryStore, repo_id: str, revision: str = MAIN) -> Response:
    """Return a model's page at a revision: its card, and its files with their sizes.

    A private repository is shown, too: a browser cannot send the token, which is no secret on this machine.
    """
    repository, oid = store.read(repo_id), store.resolve(repo_id, revision)
    commit = store.read_commit(repo_id, oid)
    base = quote(f"/{repo_id}/raw/{oid}/")
    files = [Entry(path, file.size, file.sha256, base + quote(path)) for path, file in sorted(commit.files.items())]
    metadata, card = _read_card(store, commit.files.get("README.md"), base)
    return _page(
        heading=repo_id,
        repo_id=repo_id,
        private=repository.private,
        revision=revision,
        oid=oid,
        commit=commit,
        metadata=metadata,
        card=card,
        files=files[:_MAX_LISTED],
        number=len(files),
        total=sum(file.size for file in files),
    )


def raw_file(store: RepositoryStore, repo_id: str, revision: str, path: str) -> Response:
    """Return a file's bytes in a form that a browser shows as text or saves, and never runs."""
    file = store.read_commit(repo_id, store.resolve(repo_id, revision)).files.get(path)
    if file is None:
        raise RefusedError(404, f"{repo_id} has no file {path}", "EntryNotFound")
    return FileResponse(
        store.object_path(file.sha256),
        headers=_SECURE | {"Content-Security-Policy": "sandbox; default-src 'none'"},
        media_type="application/octet-stream" if file.lfs else "text/plain; charset=utf-8",
        filename=path.rpartition("/")[2],
        content_disposition_type="attachment" if file.lfs else "inline",
    )


def error_page(status: int, message: str) -> Response:
    """Return the page for a request that was turned down."""
    return _page(status=status, heading="Not found" if status == 404 else f"Error {status}", message=message)  # noqa: PLR2004 - HTTP's own


def _page(*, status: int = 200, **facts: object) -> Response:
    style = (resources.files("titlegen") / "hub_page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; {_NOTHING_ELSE}"
    html = _template().render(style=style, **facts)
    return HTMLResponse(html, status, _SECURE | {"Content-Security-Policy": policy})


@cache
def _template() -> Template:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((resources.files("titlegen") / "hub_page.html.j2").read_text(encoding="utf-8"))


def _read_card(store: RepositoryStore, file: StoredFile | None, base: str) -> tuple[str, str | None]:
    """Return a card's metadata as text, and its body as HTML that holds no markup but Markdown's own."""
    if file is None or file.size > _MAX_CARD_BYTES:
        return "", None
    text = store.object_path(file.sha256).read_bytes().decode("utf-8", "replace")
    found = _FRONT_MATTER.match(text)
    body = text[found.end() :] if found else text
    # HTML is off in the parser, so that all text of the card comes out escaped.
    return found[1] if found else "", _parser().render(body, {"base": base})


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.validateLink = lambda url: _LINK.match(url) is not None  # type: ignore[method-assign]

    def link_open(
        renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: dict[str, str]
    ) -> str:
        href = str(tokens[index].attrs.get("href", ""))
        # As on huggingface.co, a relative link is one to a file of the repository.
        if not _ELSEWHERE.match(href):
            tokens[index].attrSet("href", env["base"] + href)
        return str(renderer.renderToken(tokens, index, options, env))

    parser.add_render_rule("link_open", link_open)
    return parser
