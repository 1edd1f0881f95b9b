"""``titlegen desk``: the server of the page, for as long as the command runs."""

import signal
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Any

from titlegen import environment
from titlegen.console import Ended
from titlegen.desk.exports import as_csv, as_jsonl, choice_rows, preference_rows
from titlegen.desk.store import Store
from titlegen.errors import ConfigError, MissingDependencyError
from titlegen.files import write_atomically
from titlegen.metrics.house_style import load_style
from titlegen.plural import count
from titlegen.record import recall
from titlegen.runs import Folder, say
from titlegen.settings import Settings

_STORE = "desk.sqlite3"


def open_store(settings: Settings) -> Store:
    """Return what this profile's desk remembers."""
    return Store(settings.desk.store or settings.directory / _STORE)


def export_choices(settings: Settings, target: Path) -> int:
    """Write every choice as JSONL, or CSV where the name ends so; returns how many there are.

    Raises:
        ConfigError: the name ends in neither.
    """
    choices = open_store(settings).choices()
    rows = choice_rows(choices)
    if target.suffix not in {".csv", ".jsonl"}:
        raise ConfigError(f"{str(target)!r} ends in neither .jsonl nor .csv; name the export so")
    write_atomically(target, "\ufeff" + as_csv(rows) if target.suffix == ".csv" else as_jsonl(rows))
    return len(rows)


def export_preferences(settings: Settings, target: Path) -> int:
    """Write preference pairs as JSONL (:mod:`titlegen.desk.exports` says what a row is); returns how many."""
    rows = preference_rows(open_store(settings).choices())
    write_atomically(target, as_jsonl(rows))
    return len(rows)


def export(settings: Settings, choices: Path | None, pairs: Path | None) -> dict[str, Any]:
    """Write the exports that are asked for, and return how many rows they have, with a ``message``."""
    found = {}
    if choices is not None:
        found["choices"] = export_choices(settings, choices)
    if pairs is not None:
        found["pairs"] = export_preferences(settings, pairs)
    return {**found, "message": ", ".join(count(number, name.removesuffix("s")) for name, number in found.items())}


def serve_desk(settings: Settings) -> None:
    """Answer until the command is interrupted.

    Raises:
        ConfigError: others could reach the desk without a token, or the port is taken.
        MissingDependencyError: the extra is not installed.
    """
    from titlegen.desk.guard import check_exposure

    desk, token = settings.desk, environment.desk_token()
    check_exposure(desk.host, token)
    try:
        import uvicorn

        from titlegen.desk.app import create_app
    except ImportError as error:
        raise MissingDependencyError(
            f"the desk needs {error.name or 'fastapi'}: pip install 'titlegen[desk]'"
        ) from error
    from titlegen.desk.writing import Writer
    from titlegen.metrics.tokens import load_jieba
    from titlegen.serve import Client

    style = load_style(desk.style)
    convert = settings.data.script != "keep"
    taught = recall(settings).train.control_share > 0
    client = Client(settings.serve, settings.directory / Folder.EXPORT, convert=convert, taught=taught, say=say)
    writer = Writer(settings, client, open_store(settings), style)
    listener = _listen(desk.host, desk.port)
    url = _address(desk.host, listener.getsockname()[1])
    # The first title would wait for its dictionary, about a second.
    threading.Thread(target=lambda: load_jieba().initialize(), daemon=True).start()
    say(f"desk: {url} (Ctrl-C ends it); what is chosen is kept in {writer.store.path}")
    if desk.open_browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    config = uvicorn.Config(
        create_app(writer, token=token, host=desk.host),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    try:
        uvicorn.Server(config).run([listener])
    except KeyboardInterrupt as error:
        # Ctrl-C is how a desk is ended; what else ends it is for the command line to say.
        if isinstance(error, Ended) and error.number != signal.SIGINT:
            raise
        say("desk: ended; what was chosen is kept")
    finally:
        client.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the desk cannot listen at {host}:{port}: {error.strerror}; choose another port with --desk.port"
        ) from error
    return listener


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, nothing listens there
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
