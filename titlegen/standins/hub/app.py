"""A loopback Hub: the routes of huggingface.co by which the real client creates, pushes to and downloads from it."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from titlegen.errors import TitlegenError
from titlegen.standins import HUB_TOKEN
from titlegen.standins.hub.access import Access
from titlegen.standins.hub.api import HubRoutes
from titlegen.standins.hub.files import FileRoutes
from titlegen.standins.hub.pages import error_page, wants_page
from titlegen.standins.hub.records import RefusedError
from titlegen.standins.hub.store import RepositoryStore
from titlegen.standins.hub.wire import KeepSlashes, fail, refuse


def create_app(store: RepositoryStore, token: str = HUB_TOKEN) -> ASGIApp:
    """Return the Hub of these repositories; ``token`` is what a client has to send."""
    access = Access(store, token)
    api, files = HubRoutes(store, access), FileRoutes(store, access)
    repo = "/{owner:segment}/{name:segment}"
    model, revision = f"/api/models{repo}", "{revision:segment}"
    routes = [
        Route("/", files.describe),
        Route("/api/whoami-v2", api.whoami),
        Route("/api/repos/create", api.create_repo, methods=["POST"]),
        Route("/api/validate-yaml", api.validate_yaml, methods=["POST"]),
        Route(model, api.repo_info),
        Route(f"{model}/auth-check", api.auth_check),
        Route(f"{model}/auth-check/write", api.auth_check),
        Route(f"{model}/refs", api.refs),
        Route(f"{model}/revision/{revision}", api.repo_info),
        Route(f"{model}/commits/{revision}", api.commits),
        Route(f"{model}/tree/{revision}", api.tree),
        Route(f"{model}/tree/{revision}/{{path:segment}}", api.tree),
        Route(f"{model}/paths-info/{revision}", api.paths_info, methods=["POST"]),
        Route(f"{model}/preupload/{revision}", api.preupload, methods=["POST"]),
        Route(f"{model}/commit/{revision}", api.commit, methods=["POST"]),
        Route(f"{model}/branch/{{ref:segment}}", api.create_branch, methods=["POST"]),
        Route(f"{model}/tag/{revision}", api.create_tag, methods=["POST"]),
        Route(f"{repo}.git/info/lfs/objects/batch", files.lfs_batch, methods=["POST"]),
        Route("/lfs/{upload:segment}/{part:int}", files.lfs_part, methods=["PUT"]),
        Route("/lfs/{upload:segment}", files.lfs_complete, methods=["POST"]),
        Route(f"{repo}/resolve/{revision}/{{path:path}}", files.resolve, methods=["GET", "HEAD"]),
        # The page behind the address that a push prints.
        Route(repo, files.page),
        Route(f"{repo}/tree/{revision}", files.page),
        Route(f"{repo}/commit/{revision}", files.page),
        Route(f"{repo}/discussions/{{number:int}}", files.page),
        Route(f"{repo}/raw/{revision}/{{path:path}}", files.raw),
    ]
    app: ASGIApp = Starlette(
        routes=routes,
        exception_handlers={RefusedError: _refuse, TitlegenError: refuse, OSError: fail, HTTPException: _refuse},
    )
    # Otherwise another site's page, opened here, could reach this server under a name that resolves to loopback.
    return TrustedHostMiddleware(KeepSlashes(app), allowed_hosts=["127.0.0.1", "localhost"])


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer an unknown or forbidden request: with a page for a browser, in the Hub's form for a program."""
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
