"""``titlegen`` and ``python -m titlegen``: from the first moment on, Ctrl-C ends without a traceback."""

import signal
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    # Python's own handler would print where an import was interrupted; what is ignored stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from titlegen.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
