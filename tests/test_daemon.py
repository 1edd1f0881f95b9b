import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from titlegen.daemon import Daemon, find_daemon, start_daemon, stop_daemon
from titlegen.errors import ServeError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    yield start_daemon("web", command, url, tmp_path / "run", lambda: answers(url))
    stop_daemon("web", tmp_path / "run")


def test_a_started_server_answers_is_found_and_stops(server: Daemon, tmp_path: Path) -> None:
    assert answers(server.url)
    assert find_daemon("web", tmp_path / "run") == server
    assert stop_daemon("web", tmp_path / "run")
    assert not answers(server.url)
    assert find_daemon("web", tmp_path / "run") is None
    assert not stop_daemon("web", tmp_path / "run")


@pytest.mark.fault
def test_a_killed_server_leaves_a_stale_record_that_is_removed(server: Daemon, tmp_path: Path) -> None:
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while find_daemon("web", tmp_path / "run") is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert find_daemon("web", tmp_path / "run") is None
    assert not (tmp_path / "run" / "web.json").exists()


@pytest.mark.fault
def test_a_pid_that_now_belongs_to_another_program_is_not_ours(server: Daemon, tmp_path: Path) -> None:
    record = tmp_path / "run" / "web.json"
    text = record.read_text(encoding="utf-8")
    record.write_text(text.replace(str(server.pid), str(os.getpid())), encoding="utf-8")
    assert find_daemon("web", tmp_path / "run") is None, "this very process would have been stopped"
    record.write_text(text, encoding="utf-8")


@pytest.mark.fault
def test_a_server_that_ends_while_starting_shows_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('port 1 is taken')"]
    with pytest.raises(ServeError, match="ended with code 1 while starting: port 1 is taken"):
        start_daemon("web", command, "http://127.0.0.1:1/", tmp_path, lambda: False)


@pytest.mark.fault
def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ServeError, match="was not ready within 1 s"):
        start_daemon("web", command, "http://127.0.0.1:1/", tmp_path, lambda: False, timeout_s=1)
    assert find_daemon("web", tmp_path) is None
