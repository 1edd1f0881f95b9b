"""Access control: the repository and revision that a request names, and whether it may read or write them."""

from starlette.requests import Request

from titlegen.standins.hub.records import MAIN, Commit
from titlegen.standins.hub.store import RepositoryStore
from titlegen.standins.hub.wire import authenticate, check_name


class Access:
    """The repository that a request names, when it has the token or needs none."""

    def __init__(self, store: RepositoryStore, token: str) -> None:
        self._store, self._token = store, token

    def authenticate(self, request: Request) -> None:
        """Refuse a request without the token."""
        authenticate(request, self._token)

    def open(self, request: Request) -> str:
        """Return the repository that a request names, if it may see it."""
        repo_id = f"{request.path_params['owner']}/{request.path_params['name']}"
        check_name(repo_id)
        if self._store.read(repo_id).private:
            self.authenticate(request)
        return repo_id

    def at(self, request: Request) -> tuple[str, str, Commit]:
        """Return the repository, commit id and commit that a request names; main by default."""
        repo_id = self.open(request)
        oid = self._store.resolve(repo_id, request.path_params.get("revision", MAIN))
        return repo_id, oid, self._store.read_commit(repo_id, oid)


def base_url(request: Request) -> str:
    """Return this Hub's own address, as the client wrote it."""
    return str(request.base_url).rstrip("/")
