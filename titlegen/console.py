"""What a person sees of a command: streams that take any text, and one line for every failure or interruption."""

import contextlib
import errno
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from titlegen import __version__, environment
from titlegen.errors import GateError, TitlegenError

EXIT_DONE, EXIT_GATE, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130
# What shells report for a process that a signal ended.
_SIGNAL_EXIT = 128
_MESSAGE_CHARS = 1500
_LOGS_KEPT = 20
_OUT_OF_MEMORY = (
    "out of memory; close other programs, or lower what is held at a time: --train.per-device-train-batch-size, "
    "--train.max-length, --evaluate.batch-size, --data.limit"
)


class Ended(KeyboardInterrupt):
    """A signal asked the process to end; clean-up runs as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__()
        self.number = number


def run(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; whatever it raises becomes one line on standard error.

    Returns:
        0 done, 1 a gate failed, 2 an error, 128 + n ended by signal n: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 141
        when nobody reads the output any more.
    """
    try:
        with _ending_signals():
            code = command()
            # A failed write is noticed here, before the exit code is chosen.
            sys.stdout.flush()
            return code
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Ended) else signal.SIGINT
        word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        say_line(f"{word}; run the same command again to go on from the last checkpoint", prefix="")
        return _SIGNAL_EXIT + number
    except (BrokenPipeError, SystemExit) as error:
        if _is_unread(error):
            return _SIGNAL_EXIT + signal.SIGPIPE
        return EXIT_DONE if isinstance(error, SystemExit) and not error.code else _report(error)
    # A panic of a library in Rust does not derive from Exception.
    except BaseException as error:
        if environment.debugging():
            raise
        return _report(error)


def say_line(text: str, *, prefix: str = "titlegen: ") -> None:
    """Print one line on standard error, whatever the text holds."""
    # Where standard error cannot be written either, the exit code is all that is left to say.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{prefix}{plain_line(text)}\n")
        sys.stderr.flush()


def plain_line(text: str) -> str:
    """Return a text as one line of bounded length, without secrets and terminal control characters."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(redact(text).split()))
    half = _MESSAGE_CHARS // 2
    return line if len(line) <= _MESSAGE_CHARS else f"{line[:half]} [...] {line[-half:]}"


def redact(text: str) -> str:
    """Return a text without tokens, passwords and keys."""
    for secret in sorted(environment.secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"\bhf_[A-Za-z0-9]{6,}", "hf_***", text)
    text = re.sub(
        r"(?i)(authorization['\"]?\s*[:=,]\s*(?:b?['\"])?(?:(?:bearer|basic|token)\s+)?)[\w.~+/=-]+", r"\1***", text
    )
    text = re.sub(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}", r"\1***", text)
    text = re.sub(r"(?i)([?&](?:[\w-]*token|signature|[\w-]*key|x-amz-[\w-]+)=)[^&\s'\"]+", r"\1***", text)
    return re.sub(r"(\w://)[^\s/'\"@]*(?:@[^\s/'\"@]*)*@", r"\1***@", text)


def _has_no_size() -> bool:
    """Return whether the terminal reports no size, as in a container or under `script`."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns == 0
    except (OSError, ValueError):
        return False


def prepare_process() -> None:
    """Make this process ready for any console, locale and failure; only a program of its own may do that."""
    enter_utf8_mode()
    prepare_streams()
    if not sys.stderr.isatty():
        environment.draw_rarely()
    elif _has_no_size():
        environment.assume_size()

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and not isinstance(failed.exc_value, (SystemExit, KeyboardInterrupt)):
            _report(failed.exc_value)

    threading.excepthook = hook
    # A failure while objects are finalised has no consequence, and nobody could act on it.
    sys.unraisablehook = lambda _: None
    # While modules were imported, `__main__` left Ctrl-C to the system.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def prepare_streams() -> None:
    """Make standard output and error take any text, also where they are closed or speak no UTF-8."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The next file that is opened would get the number, and what is printed would be written into it.
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            nothing = Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nothing)
    for stream in (sys.stdout, sys.stderr):
        # A stream of a test or a notebook may be of another kind.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def speaks_unicode() -> bool:
    """Return whether standard output can show every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def enter_utf8_mode() -> None:
    """Start the process anew in Python's UTF-8 mode where the locale has another encoding for files and names.

    Libraries open text files without saying how, and a name in Han cannot be opened in ASCII at all.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or not sys.orig_argv:
        return
    stdout = getattr(sys.stdout, "encoding", None) or "ascii"
    # The console still speaks what it spoke.
    keep = {} if stdout in {"ascii", "ANSI_X3.4-1968"} else {"PYTHONIOENCODING": stdout}
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **keep, "PYTHONUTF8": "1"})  # noqa: S606 - this very command


@contextlib.contextmanager
def _ending_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process like Ctrl-C, unless the caller has decided otherwise (``nohup``)."""

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    replaced = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Only the main thread may ask for signals.
        with contextlib.suppress(ValueError):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _is_unread(error: BrokenPipeError | SystemExit) -> bool:
    """Return whether a program ends because nobody reads what it prints."""
    if isinstance(error, SystemExit):
        # Rich, which writes the help, catches the broken pipe, points the stream at nothing, and exits.
        return isinstance(error.__context__, BrokenPipeError)
    return _reader_has_gone()


def _reader_has_gone() -> bool:
    """Return whether standard output or error is a pipe that nobody reads; it is then pointed at nothing."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                # Else the interpreter would complain once more while it ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                found = True
    return found


def _report(error: BaseException) -> int:
    if isinstance(error, TitlegenError):
        say_line(str(error))
        return EXIT_GATE if isinstance(error, GateError) else EXIT_ERROR
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        say_line(f"{error.filename}: {error.strerror}; give a shorter path or name")
        return EXIT_ERROR
    cause = _describe(error)
    where = _write_log(error)
    say_line(f"{cause}; {where}")
    return EXIT_ERROR


def _describe(error: BaseException) -> str:
    """Return what an unexpected error means to a person, as far as its type tells."""
    # A library that is loaded finds no room in its own way.
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error)):
        return _OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.filename}: " if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"{what}{error.strerror}; free some disk space, or choose another disk with --output and TMPDIR"
        return f"{what}{error.strerror or error}"
    if isinstance(error, RecursionError):
        return "something is nested too deeply to be read; look for a file or value with thousands of brackets"
    return f"unexpected {type(error).__name__}: {error}"


def _write_log(error: BaseException) -> str:
    """Write the traceback to a file; returns where it is and how to report it."""
    text = "".join(traceback.format_exception(error))
    head = f"titlegen {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n{' '.join(sys.argv)}\n\n"
    try:
        folder = environment.cache_directory() / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        path.touch(mode=0o600)
        path.write_text(redact(head + text), encoding="utf-8", errors="backslashreplace")
        _forget_old(folder)
    except (OSError, TitlegenError) as failure:
        return f"its log cannot be written ({failure}); TITLEGEN_DEBUG=1 shows it"
    return f"its log is {path}; if this looks like a fault of titlegen, please report it to the project with that file"


def _forget_old(folder: Path) -> None:
    for path in sorted(folder.glob("*.log"))[:-_LOGS_KEPT]:
        path.unlink(missing_ok=True)
