"""Which Hub a push goes to: the real one when a token is configured, else the bundled one on loopback."""

import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from titlegen.daemon import find_daemon, free_port, start_daemon
from titlegen.environment import check_remote
from titlegen.errors import HubError
from titlegen.proxies import normalise_proxies, proxy_hint
from titlegen.retries import retry
from titlegen.settings import HubSettings
from titlegen.standins import HUB_ACCOUNT, HUB_SERVICE, HUB_TOKEN, hub_command

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
_DAEMON = "hub"
_PROBE_TIMEOUT_S = 2.0
_TRANSIENT = frozenset({408, 409, 429, 500, 502, 503, 504})
# Source: huggingface_hub waits 1, 2, 4 ... seconds where it retries itself; it does not for every request.
_FIRST_WAIT_S, _RETRIES = 1.0, 3
_LONGEST_WAIT_S = 300
_MESSAGE_CHARS = 300
_REMEDIES = {
    401: "the token is not valid; run `hf auth login`, or set HF_TOKEN to a token with write access",
    402: "the account's storage or plan does not allow this; see its billing page",
    403: "the token may not write there; use one with write access to this namespace",
    404: "the repository does not exist or the token may not see it; check hub.repo_id and the token",
    409: "another operation on the repository was in progress; push again",
    412: "somebody else pushed at the same time; push again",
    413: "it is larger than this Hub accepts; leave files out (--hub.no-include-gguf) or use smaller shards",
    416: "the Hub no longer has that part of the file; push again",
    429: "the Hub limits the rate of requests; wait a few minutes and push again",
    507: "the Hub's disk is full; free space there and push again",
}
_AGAIN = "push again: what arrived whole is not sent twice"


@dataclass(frozen=True)
class HubTarget:
    """A Hub, and the repository there."""

    endpoint: str
    token: str = field(repr=False)
    repo_id: str
    offline: bool
    directory: Path | None = None
    """Where the offline Hub keeps its files; None for another Hub."""

    @property
    def url(self) -> str:
        """Return the repository's address."""
        return f"{self.endpoint}/{self.repo_id}"

    def describe(self) -> str:
        """Return one line for a person; it never holds the token."""
        kind = "bundled offline Hub (no Hub token is configured)" if self.offline else "Hugging Face Hub"
        return f"{kind} at {self.endpoint}, repository {self.repo_id}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which other programs read this Hub; none are needed for the real one."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token} if self.offline else {}


def ensure_hub(settings: HubSettings, state: Path, profile: str) -> HubTarget:
    """Return the real Hub when huggingface_hub finds a token, else the bundled one, started unless it runs.

    Args:
        settings: repository name and the offline Hub's port.
        state: folder of the offline Hub's files, log and process record.
        profile: name or path of the profile, after which a repository on the offline Hub is named.

    Raises:
        HubError: a repository name is needed, or the offline Hub cannot be started.
    """
    from huggingface_hub import constants, get_token

    token = get_token()
    if token is None:
        name = settings.repo_id or f"{HUB_ACCOUNT}/titlegen-{Path(profile).stem}"
        directory = (state / "hub").resolve()
        endpoint = _serve(settings.offline_port, state, directory)
        return HubTarget(endpoint, HUB_TOKEN, name, offline=True, directory=directory)
    if settings.repo_id is None:
        raise HubError(
            "a Hub token is configured, but not where to push to; set --hub.repo-id ORG/NAME, or HF_ORG and HF_REPO"
        )
    check_remote(constants.ENDPOINT)
    return HubTarget(constants.ENDPOINT, token, settings.repo_id, offline=False)


def _serve(port: int, state: Path, directory: Path) -> str:
    normalise_proxies()
    running = find_daemon(_DAEMON, state)
    if running is not None and _served_directory(running.url) == str(directory):
        return running.url
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    if _is_taken(port):
        other = _served_directory(url)
        who = f"an offline Hub for {other}" if other else "another program"
        raise HubError(
            f"port {port} is in use by {who}; end it, or choose another port with --hub.offline-port (0: a free one)"
        )
    daemon, _ = start_daemon(
        _DAEMON, hub_command(port, directory), url, state, lambda at: _served_directory(at) == str(directory)
    )
    return daemon.url


def _served_directory(url: str) -> str | None:
    """Return the directory that the offline Hub at an address serves; None when there is no such server."""
    import httpx

    try:
        answer = httpx.get(url, timeout=_PROBE_TIMEOUT_S, trust_env=False).json()
        return str(answer["directory"]) if answer["service"] == HUB_SERVICE else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def connect(target: HubTarget) -> Iterator["HfApi"]:
    """Yield the client for a Hub; its errors become one line that says what to do and never holds the token.

    Raises:
        HubError: whatever the client raised.
    """
    import httpx
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    xet = constants.HF_HUB_DISABLE_XET
    if target.offline:
        # The client takes Xet for large files whenever it is installed, without asking; the offline Hub speaks LFS.
        constants.HF_HUB_DISABLE_XET = True
    try:
        yield HfApi(endpoint=target.endpoint, token=target.token, library_name="titlegen")
    # The client also raises RuntimeError and ValueError around a refused request, and OSError for a short file.
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise HubError(_explain(error, target)) from _without_token(error, target)
    finally:
        constants.HF_HUB_DISABLE_XET = xet


def with_retries(action: Callable[[], T]) -> T:
    """Return what a request returns, retried after a temporary failure, with the pause that the Hub asks for."""
    return retry(action, _is_temporary, _RETRIES, first_wait_s=_FIRST_WAIT_S)


def _is_temporary(error: Exception) -> bool | float:
    """Return whether a failure is temporary, or the pause in seconds that the Hub asks for."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    cause = _cause(error)
    if not isinstance(error, (HfHubHTTPError, httpx.TransportError, RuntimeError)):
        return False
    if _status(cause) not in _TRANSIENT and not isinstance(cause, httpx.TransportError):
        return False
    asked = cause.response.headers.get("Retry-After", "") if isinstance(cause, HfHubHTTPError) else ""
    seconds = int(asked) if asked.isdigit() else 0
    return seconds <= _LONGEST_WAIT_S and (float(seconds) if seconds > _FIRST_WAIT_S else True)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error of the client, if there is one."""
    return _status(_cause(error))


def _cause(error: BaseException) -> BaseException:
    """Return the HTTP error that an error was raised for, or the error itself."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    found: BaseException | None = error
    while found is not None and not isinstance(found, (HfHubHTTPError, httpx.HTTPError)):
        found = found.__cause__ or found.__context__
    return found or error


def _status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _explain(error: Exception, target: HubTarget) -> str:
    import httpx
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    cause, status = _cause(error), status_of(error)
    lines = [line.strip() for line in str(cause).replace(target.token, "***").splitlines() if line.strip()]
    said = " ".join(lines)[:_MESSAGE_CHARS] or type(cause).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing can be pushed; unset it"
    if isinstance(error, HFValidationError):
        return f"hub.repo_id {target.repo_id!r} is not a valid name ({said}); set --hub.repo-id ORG/NAME"
    if status is not None:
        return f"{target.url}: status {status} ({said}); {_REMEDIES.get(status, _AGAIN)}"
    if isinstance(cause, httpx.HTTPError):
        return (
            f"{target.endpoint} does not answer{proxy_hint(target.endpoint)} ({type(cause).__name__}: {said}); "
            f"check the network, HF_ENDPOINT and the proxy, then {_AGAIN}"
        )
    return f"{target.url}: {said}; {_AGAIN}"


def _without_token(error: Exception, target: HubTarget) -> Exception | None:
    """Return the error as cause of ours, unless a traceback would print the token with it."""
    return None if target.token in "".join(traceback.format_exception(error)) else error
