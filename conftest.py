"""What all suites share: options, defined here so that one run may take several folders, and what they run on."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator
from typing import TextIO

import pytest
from hypothesis import settings

from titlegen.environment import prepare_threads
from titlegen.processor import describe_processor

# Modules whose tests take longest, the longest first: begun last, one would keep a worker while the others have ended.
LONGEST = (
    *("test_acceptance", "test_train_ranks", "test_serve", "test_desk_page", "test_data", "test_desk_api", "test_hub"),
    *("test_stages", "test_verify", "test_standins_ollama", "test_cluster", "test_train", "test_export"),
    *("test_gemma3n", "test_gemma4", "test_verbs", "test_record", "test_generate", "test_generation_decoder"),
)
# Seconds between two signs of life of a long test, on a terminal and in a log.
TICK_S, LOG_TICK_S = 1.0, 30.0
_SAVE, _RESTORE, _CLEAR = "\x1b7", "\x1b8", "\x1b[K"

# A busy machine would break hypothesis's own limit of 200 ms an example. What fails is to fail for everybody, in what
# they changed; `--hypothesis-profile explore` looks at other examples each time.
settings.register_profile("explore", deadline=None)
settings.register_profile("titlegen", settings.get_profile("explore"), derandomize=True)
settings.load_profile("titlegen")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run name the profile, the server, and whether a release depends on it."""
    group = parser.getgroup("titlegen")
    group.addoption("--profile", default="quickstart", help="profile whose outputs are looked at (default: quickstart)")
    group.addoption("--host", metavar="URL", help="model server; default: OLLAMA_HOST, else that of the deployment")
    group.addoption("--release", action="store_true", help="what cannot be checked fails instead of being skipped")
    group.addoption("--spec", action="append", default=[], metavar="ID", help="check this line of docs/spec.md only")


def pytest_configure(config: pytest.Config) -> None:
    """Let the threads of torch wait as they do in a run, share the cores among the workers, and show where a run is."""
    prepare_threads()
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
    config.pluginmanager.register(Heartbeat(config), "titlegen-heartbeat")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; no test depends on what ran before it."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_report_header() -> str:
    """Say on which processor the suite runs: libraries choose their code by its features."""
    return f"processor: {describe_processor()}"


class Heartbeat:
    """Says which test runs, and for how long: behind the dots of a terminal, and now and then in a log."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._over = threading.Event()
        # What a test prints is captured at the file descriptor; here that has not begun yet.
        self._stream = _second_handle(sys.stderr)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Show signs of life until the test is over, with what it sets up and clears away."""
        if self._stream is None:
            return (yield)
        self._over.clear()
        beat = threading.Thread(target=self._beat, args=(item.nodeid, self._stream), daemon=True)
        beat.start()
        try:
            return (yield)
        finally:
            self._over.set()
            beat.join()

    def pytest_unconfigure(self) -> None:
        """Close the stream."""
        if self._stream is not None:
            self._stream.close()

    def _beat(self, name: str, stream: TextIO) -> None:
        started = time.monotonic()
        # Several workers have one terminal, and none of them knows where its cursor is.
        on_terminal = stream.isatty() and not hasattr(self._config, "workerinput")
        # A log's dots stand on a line of their own.
        opening = "\n"
        while not self._over.wait(TICK_S if on_terminal else LOG_TICK_S):
            text = f"{time.monotonic() - started:.0f} s in {name}"
            stream.write(
                f"{_SAVE}  {text[: self._room()]}{_CLEAR}{_RESTORE}" if on_terminal else f"{opening}  {text}\n"
            )
            stream.flush()
            opening = ""
        if on_terminal:
            stream.write(_CLEAR)
            stream.flush()

    def _room(self) -> int:
        """Return the columns that are free behind the dots; a line that wraps could not be taken back."""
        writer = self._config.get_terminal_writer()
        return max(writer.fullwidth - writer.width_of_current_line - 4, 0)


def _second_handle(stream: TextIO) -> TextIO | None:
    """Return the stream under another file descriptor; None where there is none, as in a notebook."""
    with contextlib.suppress(OSError, ValueError):
        return os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8", errors="backslashreplace")
    return None
