"""The results of a push and of a deployment."""

from collections.abc import Sequence

from titlegen.results.base import Result
from titlegen.results.exported import Check


class Pushed(Result):
    """A model on the Hub, and its verified files."""

    url: str
    repo_id: str = ""
    offline: bool = False
    revision: str = ""
    commit: str
    committed: bool = True
    """Whether there is a new commit."""
    pull_request: str | None = None
    tag: str | None = None
    files: int = 0
    """Of the whole repository, as ``bytes``."""
    bytes: int = 0
    verified_files: int
    extra_files: Sequence[str] = ()
    failed_gates: Sequence[str] = ()


class Deployed(Result):
    """The model that a server has now."""

    host: str
    server: str = ""
    model: str
    digest: str = ""
    curl: str = ""
    """A command to try it."""
    previous: str | None = None
    changed: bool = True
    source: str = ""
    titles: Sequence[str] = ()
    """Of the smoke test."""
    parity: Check | None = None
    """The comparison with the merged model's titles; None where nothing changed."""
