"""Loopback servers that outlive the command that started them: process, log and record under the output folder."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from titlegen.environment import describe_exit
from titlegen.errors import ServeError
from titlegen.files import writable, write_atomically
from titlegen.locks import locked

_POLL_S = 0.1
_LOG_TAIL_CHARS = 600


@dataclass(frozen=True)
class Daemon:
    """A server process that titlegen started.

    ``started`` is the process' creation time in seconds since the epoch: with the pid it identifies the process,
    so that a pid which the system gave to another program is never taken for ours.
    """

    name: str
    pid: int
    started: float
    url: str
    log: Path


def free_port() -> int:
    """Return a port of loopback that no program listens on now; another may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_daemon(
    name: str,
    command: Sequence[str],
    url: str,
    directory: Path,
    is_ready: Callable[[str], bool],
    timeout_s: float = 60.0,
    *,
    stop: str = "kill {pid}",
) -> tuple[Daemon, bool]:
    """Start a server in its own session and wait until it is ready.

    The record is written to ``directory/NAME.json`` and the output to ``directory/NAME.log``.

    Args:
        name: of the server, and of its files.
        command: program and arguments.
        url: where it will answer.
        directory: folder of its files.
        is_ready: asks whether it answers at an address.
        timeout_s: longest wait.
        stop: the command that ends one that does not answer, for the message; ``{pid}`` is its process.

    Returns:
        The server, and whether it was started now; not when another command did so meanwhile.

    Raises:
        ServeError: the process ended or was not ready in time, with the end of its log; or one of that name runs
            already, and does not answer.
    """
    # A second process waits here: it would overwrite the record of the first.
    with locked(directory / f".{name}.lock"):
        running = find_daemon(name, directory)
        if running is not None:
            if is_ready(running.url):
                return running, False
            raise ServeError(
                f"a {name} that titlegen started (pid {running.pid}) should answer at {running.url}, and none answers "
                f"at {url}; run `{stop.format(pid=running.pid)}`, then try again (its log: {running.log})"
            )
        return _start(name, command, url, directory, is_ready, timeout_s), True


def _start(
    name: str, command: Sequence[str], url: str, directory: Path, is_ready: Callable[[str], bool], timeout_s: float
) -> Daemon:
    log = directory / f"{name}.log"
    with writable(log):
        output = log.open("wb")
    try:
        with output:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise ServeError(f"{name} cannot be started: {command[0]}: {error.strerror}; see that it can be run") from error
    try:
        daemon = Daemon(name, process.pid, psutil.Process(process.pid).create_time(), url, log)
        # Recorded before it is ready, so that it can be found and stopped if this process is killed while it waits.
        write_atomically(_record(directory, name), json.dumps({**asdict(daemon), "log": str(log)}) + "\n")
        _wait(process, daemon, is_ready, timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        _record(directory, name).unlink(missing_ok=True)
        raise
    # The server outlives this process: without this, Popen warns about a running child when it is collected.
    process.returncode = 0
    return daemon


def _wait(
    process: "subprocess.Popen[bytes]", daemon: Daemon, is_ready: Callable[[str], bool], timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        ready = is_ready(daemon.url)
        # Checked last: another server may answer there, and ours may have ended because of it.
        if process.poll() is not None:
            raise ServeError(
                f"{daemon.name} {describe_exit(process.returncode)} while starting: {_tail(daemon.log)}; "
                "its whole log is "
                f"{daemon.log}"
            )
        if ready:
            return
        if time.monotonic() > deadline:
            raise ServeError(
                f"{daemon.name} at {daemon.url} was not ready within {timeout_s:.0f} s: {_tail(daemon.log)}; "
                "try again when "
                f"the machine has less to do (its whole log: {daemon.log})"
            )
        time.sleep(_POLL_S)


def find_daemon(name: str, directory: Path) -> Daemon | None:
    """Return the running server of that name; a record whose process is gone is removed."""
    record = _record(directory, name)
    try:
        fields = json.loads(record.read_text(encoding="utf-8"))
        daemon = Daemon(**{**fields, "log": Path(fields["log"])})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise ServeError(
            f"{record} cannot be read: {error.strerror}; use the account that started the {name}, or another --output"
        ) from error
    if _process(daemon) is None:
        # Where this process cannot write, a later one removes it.
        with contextlib.suppress(OSError):
            record.unlink(missing_ok=True)
        return None
    return daemon


def stop_daemon(name: str, directory: Path, timeout_s: float = 15.0) -> bool:
    """Stop the server of that name with SIGTERM, and with SIGKILL if it does not end.

    Returns False when none was running.

    Raises:
        ServeError: it belongs to another user.
    """
    daemon = find_daemon(name, directory)
    process = _process(daemon) if daemon else None
    if process is None:
        return False
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, alive = psutil.wait_procs(family, timeout=timeout_s)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=timeout_s)
    except psutil.NoSuchProcess:
        # It ended by itself meanwhile.
        pass
    except psutil.AccessDenied as error:
        owner = process.username()
        raise ServeError(f"the {name} (pid {process.pid}) belongs to {owner}; stop it as {owner}") from error
    with writable(_record(directory, name)):
        _record(directory, name).unlink(missing_ok=True)
    return True


def _process(daemon: Daemon) -> psutil.Process | None:
    try:
        process = psutil.Process(daemon.pid)
        alive = process.create_time() == daemon.started and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, OverflowError, TypeError, ValueError):
        # The last three are raised for a record that another program has written.
        return None
    return process if alive else None


def _record(directory: Path, name: str) -> Path:
    return directory / f"{name}.json"


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-_LOG_TAIL_CHARS:] or "(no output)"
