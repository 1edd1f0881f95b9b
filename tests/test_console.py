import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titlegen import console
from titlegen.console import EXIT_ERROR, EXIT_GATE, plain_line, redact, run
from titlegen.errors import ConfigError, GateError

TOKEN = "hf_" + "aB3dE5gH7j"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the logs of a test in its own folder."""
    monkeypatch.setenv("TITLEGEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def raising(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def cli(*arguments: str, shell: str = '"$@"', **options: object) -> "subprocess.CompletedProcess[bytes]":
    """Run the command line in a shell, which may redirect its streams."""
    command = ["bash", "-c", shell, "bash", sys.executable, "-m", "titlegen", *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload] # noqa: S603


@pytest.mark.fault
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("column"), "unexpected KeyError: 'column'"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (MemoryError(), "out of memory; close other programs"),
        (ImportError("libarrow.so: failed to map segment from shared object"), "out of memory; close other programs"),
        (OSError(28, "No space left on device", "/full/x"), "/full/x: No space left on device; free some disk space"),
        (PermissionError(13, "Permission denied", "/root/x"), "/root/x: Permission denied"),
        (SystemExit("a library gave up"), "a library gave up"),
        (BaseExceptionGroup("several", [ValueError("a")]), "several"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "UnicodeDecodeError"),
    ],
)
def test_an_unexpected_error_is_one_line_with_its_log(
    error: BaseException, said: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("titlegen: ")
    assert said in line
    (log,) = (cache / "logs").iterdir()
    assert str(log) in line
    assert "report it" in line
    assert "Traceback (most recent call last)" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o077 == 0, "articles may stand in it"


@pytest.mark.fault
def test_an_expected_error_needs_no_log_and_a_failed_gate_has_its_own_code(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(ConfigError("a = 1 cannot be used\n\x1b[31mred"))) == EXIT_ERROR
    assert capsys.readouterr().err == "titlegen: a = 1 cannot be used \\x1b[31mred\n"
    assert run(raising(GateError("gates failed: rougeL"))) == EXIT_GATE
    assert not cache.exists()


@pytest.mark.fault
def test_where_no_log_can_be_written_the_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TITLEGEN_CACHE", str(tmp_path / "file"))
    assert run(raising(KeyError("x"))) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "its log cannot be written" in line
    assert "TITLEGEN_DEBUG=1 shows it" in line


def test_few_logs_are_kept(cache: Path) -> None:
    (cache / "logs").mkdir(parents=True)
    for number in range(30):
        (cache / "logs" / f"2020{number:02}.log").touch()
    run(raising(KeyError("x")))
    assert len(list((cache / "logs").iterdir())) == console._LOGS_KEPT


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Invalid token {TOKEN}!", TOKEN),
        (f"headers={{'Authorization': 'Bearer {TOKEN}x.y'}}", TOKEN),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("GET https://editor:s3cret@hub.example.com/x", "s3cret"),
        ("proxy http://editor:p@s3cret@h:1 refused", "s3cret"),
        ("https://s3.example.com/x?X-Amz-Signature=abc123&y=1", "abc123"),
        ("https://h/x?token=abc123", "abc123"),
        ("the key is sk-local-1234567890", "sk-local-1234567890"),
    ],
)
def test_secrets_are_neither_shown_nor_logged(
    text: str, secret: str, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-local-1234567890")
    run(raising(RuntimeError(text)))
    (log,) = (cache / "logs").iterdir()
    for written in (capsys.readouterr().err, log.read_text(encoding="utf-8"), redact(text)):
        assert secret not in written
        assert "***" in written


def test_what_is_no_secret_stays() -> None:
    for text in ("http://127.0.0.1:11434/api/tags?x=1", "mail editor@example.com", "basic training of a model"):
        assert redact(text) == text


@given(st.text())
def test_a_line_is_one_line_of_bounded_length_that_steers_no_terminal(text: str) -> None:
    line = plain_line(text * 50)
    assert len(line.splitlines()) <= 1
    assert line.isprintable()
    assert len(line) <= console._MESSAGE_CHARS + 10


@pytest.mark.fault
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_with_a_word_and_its_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = signal.Signals[name]
    # nohup, and a shell's background jobs, hand signals down as ignored.
    own = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    inherited = signal.signal(number, own)

    def wait() -> int:
        os.kill(os.getpid(), number)
        time.sleep(10)
        return 0

    try:
        assert run(wait) == 128 + number
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, inherited)
    assert capsys.readouterr().err.endswith("run the same command again to go on from the last checkpoint\n")


@pytest.mark.fault
def test_ctrl_c_while_modules_are_imported_ends_without_a_traceback() -> None:
    code = (
        "import builtins, os, signal, sys, titlegen.__main__\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "real, sys.argv = builtins.__import__, ['titlegen', 'plan']\n"
        "def interrupted(name, *arguments):\n"
        "    if name == 'cyclopts':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *arguments)\n"
        "builtins.__import__ = interrupted\n"
        "titlegen.__main__.main()\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)  # noqa: S603 - our own code
    assert (found.returncode, found.stdout, found.stderr) == (-signal.SIGINT, b"", b"")


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_runs_in_a_thread_too() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(lambda: 0)))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.fault
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp950"},
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param({"LANG": "C", "PYTHONUTF8": "0"}, marks=pytest.mark.slow),
    ],
)
def test_any_console_shows_any_text_and_any_path(variables: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "新聞 堃 '😀'\n-x"
    folder.mkdir()
    environment = {**os.environ, **variables}
    found = cli("plan", "--output", str(folder), env=environment)
    assert (found.returncode, found.stderr) == (0, b"")
    found = cli("plan", "--json", "--output", str(folder), env=environment)
    assert (found.returncode, found.stderr) == (0, b"")
    assert json.loads(found.stdout.decode(variables.get("PYTHONIOENCODING", "utf-8")))["profile"] == "quickstart"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ('"$@" >&-', 0),
        ('"$@" 2>&-', 0),
        ('"$@" <&- >&- 2>&-', 0),
        ('"$@" >/dev/full', 2),
        ('"$@" 2>/dev/full', 0),
        ('"$@" | true; exit ${PIPESTATUS[0]}', 141),
    ],
)
@pytest.mark.parametrize("command", ["plan", "--help"])
def test_streams_that_are_closed_full_or_not_read(command: str, shell: str, code: int) -> None:
    found = cli(command, shell=shell)
    assert found.returncode == code
    assert b"Traceback" not in found.stderr
    assert len(found.stderr.splitlines()) == (code == 2)


@pytest.mark.fault
def test_a_file_that_is_opened_later_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from titlegen.console import prepare_streams\n"
        "prepare_streams()\n"
        f"file = open({str(tmp_path / 'model')!r}, 'w')\n"
        "import os; os.write(1, b'a line of a library in C')\n"
    )
    subprocess.run(  # noqa: S603 - our own code
        ["/bin/bash", "-c", '"$0" -c "$1" >&-', sys.executable, code], check=True
    )
    assert (tmp_path / "model").read_bytes() == b""
