import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from titlegen.daemon import Daemon, find_daemon, free_port, start_daemon, stop_daemon
from titlegen.errors import ServeError, TitlegenError


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def web(port: int, directory: Path) -> tuple[str, list[str]]:
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(directory)]
    return f"http://127.0.0.1:{port}/", command


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    url, command = web(free_port(), tmp_path)
    daemon, started = start_daemon("web", command, url, tmp_path / "run", answers)
    assert started
    yield daemon
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
        start_daemon("web", command, "http://127.0.0.1:1/", tmp_path, lambda _: False)


@pytest.mark.fault
def test_a_server_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(ServeError, match="was not ready within 1 s"):
        start_daemon("web", command, "http://127.0.0.1:1/", tmp_path, lambda _: False, timeout_s=1)
    assert find_daemon("web", tmp_path) is None


def start_in_another_process(url: str, folder: Path, command: list[str]) -> "subprocess.Popen[str]":
    code = (
        "import signal, sys, urllib.request\n"
        # A job in the background is started with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from titlegen.daemon import start_daemon\n"
        "def answers(url):\n"
        "    try:\n"
        "        urllib.request.urlopen(url, timeout=1).close()\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "print(start_daemon('web', sys.argv[3:], sys.argv[1], Path(sys.argv[2]), answers)[1])\n"
    )
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, url, str(folder), *command], stdout=subprocess.PIPE, text=True
    )


def test_of_two_commands_at_once_one_starts_the_server(tmp_path: Path) -> None:
    url, command = web(free_port(), tmp_path)
    starters = [start_in_another_process(url, tmp_path / "run", command) for _ in range(2)]
    assert sorted(starter.communicate(timeout=60)[0].strip() for starter in starters) == ["False", "True"]
    assert answers(url)
    assert stop_daemon("web", tmp_path / "run")
    assert not answers(url)


@pytest.mark.fault
@pytest.mark.parametrize(("name", "stays"), [("SIGINT", False), ("SIGKILL", True)])
def test_a_command_that_is_ended_while_it_starts_a_server_leaves_none_that_cannot_be_found(
    tmp_path: Path, name: str, stays: bool
) -> None:
    run = tmp_path / "run"
    # It never answers.
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with start_in_another_process("http://127.0.0.1:1/", run, sleeper) as starter:
        deadline = time.monotonic() + 30
        while find_daemon("web", run) is None and time.monotonic() < deadline:
            time.sleep(0.02)
        found = find_daemon("web", run)
        assert found is not None
        starter.send_signal(getattr(signal, name))
        starter.communicate(timeout=30)
    assert (find_daemon("web", run) == found) == stays
    assert stop_daemon("web", run) == stays
    assert not psutil.pid_exists(found.pid)


@pytest.mark.fault
def test_a_server_whose_place_another_program_has_is_not_recorded(tmp_path: Path, server: Daemon) -> None:
    # It ends at once, and what answers at the address is not it.
    command = [sys.executable, "-c", "raise SystemExit('the address is in use')"]

    def answers_late(url: str) -> bool:
        time.sleep(0.5)
        return answers(url)

    with pytest.raises(ServeError, match="ended with code 1 while starting: the address is in use"):
        start_daemon("web", command, server.url, tmp_path / "other", answers_late)
    assert find_daemon("web", tmp_path / "other") is None


@pytest.mark.fault
def test_a_server_that_no_longer_answers_is_named_with_the_way_to_end_it(tmp_path: Path, server: Daemon) -> None:
    with pytest.raises(ServeError, match=rf"pid {server.pid}.*run `kill {server.pid}`"):
        start_daemon("web", ["true"], server.url, tmp_path / "run", lambda _: False)
    assert find_daemon("web", tmp_path / "run") == server


@pytest.mark.fault
@pytest.mark.parametrize(
    "record",
    ["", "[]", "null", "{}", '{"pid": 1}', "\x00", '{"name": 1, "pid": -5, "started": "x", "url": 2, "log": "c"}'],
)
def test_a_record_that_is_none_counts_as_no_server(record: str, tmp_path: Path) -> None:
    (tmp_path / "web.json").write_text(record, encoding="utf-8")
    assert find_daemon("web", tmp_path) is None
    assert not stop_daemon("web", tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("command", "folder", "said"),
    [
        (["/no/such/program"], "run", r"web cannot be started: /no/such/program: No such file"),
        (["true"], "file/run", r"cannot write .*file/run: Not a directory"),
        (["true"], "/proc/none", r"cannot|No such file"),
    ],
)
def test_what_keeps_a_server_from_being_started_is_named(
    command: list[str], folder: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((TitlegenError, OSError), match=said):
        start_daemon("web", command, "http://127.0.0.1:1/", tmp_path / folder, lambda _: False)


@pytest.mark.fault
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_command_that_a_signal_ends_while_it_starts_the_model_server_leaves_none(
    name: str, code: int, tmp_path: Path
) -> None:
    run = tmp_path / "outputs" / "run"
    host = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "titlegen",
        "serve",
        "--output",
        str(tmp_path / "outputs"),
        "--serve.host",
        host,
    ]
    with subprocess.Popen(  # noqa: S603 - our own command line
        ["/usr/bin/env", "--default-signal=INT,HUP", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as starter:
        deadline = time.monotonic() + 60
        while (found := find_daemon("server", run)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found is not None
        starter.send_signal(getattr(signal, name))
        out, err = starter.communicate(timeout=60)
    assert (starter.returncode, out) == (code, "")
    assert err.endswith("run the same command again to go on from the last checkpoint\n")
    assert len(err.splitlines()) == 1
    assert not psutil.pid_exists(found.pid)
    assert find_daemon("server", run) is None
