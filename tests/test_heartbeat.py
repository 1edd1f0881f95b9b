"""The output of one long test, on a terminal and in a log."""

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The suites' own conftest as a plugin, with shorter pauses.
RUN = """
import sys
import conftest, pytest
conftest.TICK_S = conftest.LOG_TICK_S = 0.2
sys.exit(pytest.main([sys.argv[1], "-p", "conftest", "-p", "no:cacheprovider", "-c", "/dev/null", *sys.argv[2:]]))
"""
LONG = """
import time
def test_that_is_short():
    print("not shown")
def test_that_is_long():
    print("not shown")
    time.sleep(1.5)
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_long.py").write_text(LONG)
    return [sys.executable, "-c", RUN, str(tmp_path / "test_long.py"), f"--rootdir={tmp_path}"]


@pytest.mark.fault
def test_a_log_names_the_test_that_takes_long_and_its_seconds(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)  # noqa: S603 - our own
    lines = result.stderr.splitlines()
    assert "  1 s in test_long.py::test_that_is_long" in lines
    # One line opens the list, below the dots.
    assert lines.count("") == 1
    assert "short" not in result.stderr
    assert "not shown" not in result.stderr + result.stdout
    # What a program reads is as it was.
    assert "test_long.py .." in result.stdout


@pytest.mark.fault
def test_a_terminal_shows_it_behind_the_dots_and_takes_it_back(command: list[str]) -> None:
    text = on_terminal(command)
    assert "\x1b7  1 s in test_long.py::test_that_is_long\x1b[K\x1b8" in text
    # Each in the other's place, and nothing is left behind the second dot.
    assert text.count(" s in test_long.py::test_that_is_long") >= 4
    rest = text.rpartition("\x1b8")[2]
    assert rest.index("\x1b[K") < rest.index("2 passed")


def test_a_long_name_does_not_wrap(command: list[str], tmp_path: Path) -> None:
    name = "test_" + "x" * 200
    (tmp_path / "test_long.py").write_text(f"import time\ndef {name}():\n    time.sleep(0.9)\n")
    beats = [part.partition("\x1b[K")[0] for part in on_terminal(command).split("\x1b7")[1:]]
    assert beats
    assert all(len("test_long.py " + beat) < 80 for beat in beats)


def on_terminal(command: list[str]) -> str:
    """Return what a command that ends well writes on a terminal."""
    ours, theirs = pty.openpty()
    shown = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:  # noqa: S603 - our own
        os.close(theirs)
        # Linux says that the other side is gone by an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 4096):
                shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


@pytest.mark.fault
def test_a_bar_is_drawn_on_a_terminal_that_has_no_size(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, or under `script`: that of these tests has none either."""
    monkeypatch.delenv("COLUMNS")
    code = (
        "from titlegen import console; console.prepare_process()\nfrom tqdm import tqdm\nfor _ in tqdm(range(3)): pass"
    )
    assert "3/3" in on_terminal([command[0], "-c", code])
